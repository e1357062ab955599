"""Files that appear whole or not at all: what a refusal at any step leaves, and what is never followed or emptied."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rsup.models.base import files as atomic
from rsup.models.base.errors import remedy, unwritable


def seen(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def moves_in(folder: Path, names: str, *, old: bool) -> dict[Path, Path]:
    """A finished file for each name, and an old one under it."""
    made = {}
    for name in names:
        (folder / f"fresh-{name}").write_text(f"new {name}")
        if old:
            (folder / name).write_text(f"old {name}")
        made[folder / f"fresh-{name}"] = folder / name
    return made


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("step", range(7))
def test_a_refused_rename_puts_everything_back(
    old: bool, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moves, count, rename = moves_in(tmp_path, "abc", old=old), 0, os.rename
    before = seen(tmp_path)

    def refusing(source: Path, target: Path) -> None:
        nonlocal count
        count += 1
        if count - 1 == step:
            raise OSError(errno.EACCES, "no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refusing)
    steps = 6 if old else 3
    if step < steps:
        with pytest.raises(OSError, match="no"):
            atomic.publish(moves)
        assert seen(tmp_path) == before
    atomic.publish(moves)  # again, and nothing is in the way
    assert seen(tmp_path) == {name: f"new {name}" for name in "abc"} | (
        {f".{name}.old": f"old {name}" for name in "abc"} if old else {}
    )


def test_a_link_in_an_output_s_place_is_moved_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    moves = moves_in(tmp_path, "a", old=False)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "a").symlink_to(victim)
    atomic.publish(moves)
    assert (tmp_path / "a").read_text() == "new a" and victim.read_text() == "mine"
    atomic.remove(atomic.aside(tmp_path / "a"))
    assert victim.read_text() == "mine" and not (tmp_path / ".a.old").is_symlink()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_failing_block_leaves(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(ValueError, match="half way"), atomic.replacing(path) as fresh:
        fresh.write_text("new") if kind == "file" else fresh.mkdir()
        raise ValueError("half way")
    assert seen(tmp_path) == {"x": "old"}


def test_a_whole_file_takes_the_old_one_s_place_or_leaves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    atomic.write_whole(path, b"old\n\x00\r\n")
    assert path.read_bytes() == b"old\n\x00\r\n"
    atomic.write_whole(path, b"new")

    def refusing(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", refusing)
    with pytest.raises(OSError, match="full"):
        atomic.write_whole(path, b"newer")
    assert seen(tmp_path) == {"x": "new"}


@pytest.mark.parametrize("kind", ["link", "link to nothing", "link to a folder", "pipe"])
def test_nothing_foreign_is_written_through_or_removed(kind: str, tmp_path: Path) -> None:
    victim, stranger = tmp_path / "victim", tmp_path / ".x.new"
    if kind == "pipe":
        os.mkfifo(stranger)
    else:
        stranger.symlink_to(victim)
    if kind == "link":
        victim.write_text("mine")
    if kind == "link to a folder":
        victim.mkdir()
        (victim / "note").write_text("mine")
    with pytest.raises(OSError, match="a link, pipe or device stands there"), atomic.replacing(tmp_path / "x"):
        raise AssertionError("the block was entered")
    assert os.path.lexists(stranger) and not (tmp_path / "x").exists()
    assert kind != "link" or victim.read_text() == "mine"
    assert kind != "link to a folder" or (victim / "note").read_text() == "mine"
    with pytest.raises(OSError, match="stands there"):
        atomic.refuse_links(tmp_path)
    atomic.refuse_links(tmp_path, inside=False)
    atomic.refuse_links(tmp_path / "nothing")


ADVICE = {
    "free some space": {errno.ENOSPC, errno.EDQUOT},
    "get permission": {errno.EACCES, errno.EPERM},
    "shorter name": {errno.ENAMETOOLONG},
    "remove it": {errno.ELOOP},
    "move away": {errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR},
    "ulimit -n": {errno.EMFILE, errno.ENFILE},
    "ulimit -f": {errno.EFBIG},
}


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_advice_follows_from_the_cause_alone(number: int) -> None:
    error = OSError(number, os.strerror(number), "/out")
    said = remedy(error)
    wanted = [words for words, causes in ADVICE.items() if number in causes]
    assert (said is None) == (not wanted)
    assert all(words in str(said) for words in wanted)
    sentence = unwritable("/out", error)
    assert sentence.startswith(f"/out cannot be written ({os.strerror(number)}): ") and "\n" not in sentence
    # Libraries pass a cause on in words.
    assert number == errno.ENOTSUP or remedy(RuntimeError(f"write failed: {os.strerror(number)}")) == said
