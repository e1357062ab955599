"""Zips that are read in place, and those that are not: what leads out of them, what is there twice, bombs."""

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rsup.models.base.errors import SceneError
from rsup.pipeline.sources.products import archive
from rsup.pipeline.sources.products.archive import Archive
from rsup.pipeline.sources.products.recognise import read_product


def written(path: Path, *entries: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as sink:
        for name, content in entries:
            sink.writestr(name, content)
    return path


def test_a_tree_is_listed_and_read_in_bounds(tmp_path: Path) -> None:
    path = written(tmp_path / "a.zip", ("a/b/c.xml", b"<c/>"), ("a/d.xml", b"<d/>"), ("e", b"e"))
    found = Archive(path)
    assert found.folders() == ["", "a", "a/b"]
    assert found.children("") == (["e"], ["a"])
    assert found.children("a") == (["d.xml"], ["b"])
    assert found.children("nowhere") == ([], [])
    assert found.read("a/b/c.xml", 4) == b"<c/>"
    with pytest.raises(SceneError, match="has more than 0 MiB"):
        found.read("a/b/c.xml", 3)
    with pytest.raises(SceneError, match="has no a/x.xml"):
        found.read("a/x.xml", 3)
    assert found.href("e") == f"/vsizip/{{{path}}}/e" and found.public("e") == "a.zip/e"


def link() -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo("a/MTD_MSIL2A.xml")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, b"/etc/passwd"


def encrypted(path: Path) -> None:
    written(path, ("a", b"a"))
    raw = bytearray(path.read_bytes())
    for signature, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        raw[raw.index(signature) + at] |= 1
    path.write_bytes(raw)


def doubled(path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        written(path, ("a", b"1"), ("a", b"2"))


def overlapping(path: Path) -> None:
    """Every entry of the list leads to the one and only content."""
    content = bytes(range(256)) * 64
    written(path, ("aa", content))
    raw = path.read_bytes()
    at, end = raw.index(b"PK\1\2"), raw.index(b"PK\5\6")
    entry, tail = raw[at:end], bytearray(raw[end:])
    rows = b"".join(entry.replace(b"aa", f"{number:02}".encode()) for number in range(50))
    tail[8:10] = tail[10:12] = (50).to_bytes(2, "little")
    tail[12:16] = len(rows).to_bytes(4, "little")
    path.write_bytes(raw[:at] + rows + tail)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: written(path, ("../evil.xml", b"x")), "its entry '../evil.xml' leads out of it"),
        (lambda path: written(path, ("a/../../evil.xml", b"x")), "leads out of it"),
        (lambda path: written(path, ("/etc/evil.xml", b"x")), "leads out of it"),
        (lambda path: written(path, ("a\\..\\evil.xml", b"x")), "leads out of it"),
        (lambda path: written(path, ("C:/evil.xml", b"x")), "leads out of it"),
        (lambda path: written(path, link()), "is a link"),
        (lambda path: written(path, ("a.jp2", bytes(64 << 20))), "would come to 67 MB: a bomb"),
        (encrypted, "is encrypted"),
        (doubled, "is there twice"),
        (overlapping, "over one another"),
        (lambda path: path.write_bytes(b"PK\3\4 and nothing more"), "cannot be read as a zip"),
        (lambda path: path.write_bytes(b"PK\5\6" + bytes(18)), "holds no product"),
        (lambda path: written(path, ("readme.txt", b"x")), "holds no product"),
    ],
)
def test_what_is_not_trusted_is_refused_in_one_sentence(
    tmp_path: Path, make: Callable[[Path], object], sentence: str
) -> None:
    make(tmp_path / "a.zip")
    with pytest.raises(SceneError, match=sentence) as refused:
        read_product(str(tmp_path / "a.zip"), ("red",))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 400
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_a_zip_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.zip", ("a/MTD_MSIL2A.xml", bytes(range(256)) * 400))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(SceneError, match="cannot be read as a zip .*: it is cut off or damaged"):
        Archive(path)


def test_damaged_contents_are_told(tmp_path: Path) -> None:
    path = written(tmp_path / "a.zip", ("MTD_MSIL2A.xml", bytes(range(256)) * 40))
    raw = bytearray(path.read_bytes())
    raw[60:70] = bytes(10)
    path.write_bytes(raw)
    with pytest.raises(SceneError, match=r"MTD_MSIL2A.xml is damaged \("):
        read_product(str(path), ("red",))


def test_too_many_entries_are_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.zip", *((f"{number}", b"") for number in range(20)))
    monkeypatch.setattr(archive, "LARGEST_DIRECTORY", 100)
    with pytest.raises(SceneError, match="lists more entries than a product has"):
        Archive(path)
    monkeypatch.setattr(archive, "LARGEST_DIRECTORY", 1 << 20)
    monkeypatch.setattr(archive, "MOST_ENTRIES", 10)
    with pytest.raises(SceneError, match="has 20 entries"):
        Archive(path)
