"""Uploads: what says that all is there comes last; and a kill in the middle, after which nothing is to be seen."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from buckets import Bucket

from rsup.models.base.errors import OutputError
from rsup.pipeline.places import objects
from rsup.pipeline.places.address import ObjectPath
from rsup.pipeline.places.refusals import answering
from rsup.pipeline.places.upload import upload

LARGE = """
import sys
from pathlib import Path
from rsup.pipeline.places.address import ObjectPath
from rsup.pipeline.places.objects import put
put(ObjectPath(sys.argv[1], "large.tif"), Path(sys.argv[2]))
"""


def write_store(path: Path, chunks: int) -> Path:
    (path / "red" / "c").mkdir(parents=True)
    for name, said in (("zarr.json", "root"), ("red/zarr.json", "red"), *((f"red/c/{n}", "1") for n in range(chunks))):
        (path / name).write_text(said)
    return path


def test_what_says_that_all_is_there_goes_first_and_comes_last(bucket: Bucket, tmp_path: Path) -> None:
    target = ObjectPath(bucket.name, "out")
    moves = {}
    for name in ("page.html", "item.json", "cog.tif", "unit.json"):
        (tmp_path / name).write_text(name)
        moves[tmp_path / name] = target / name
    (tmp_path / "unit.json").rename(tmp_path / "last.json")
    moves = {fresh: final for fresh, final in moves.items() if fresh.name != "unit.json"}
    moves[write_store(tmp_path / "m.zarr", 3)] = target / "m.zarr"
    moves[tmp_path / "last.json"] = target / "unit.json"
    bucket.put("out/m.zarr/red/c/7", b"of a larger mosaic")
    bucket.put("out/m.zarrs", b"a neighbour's")
    for _ in range(2):
        before = len(bucket.seen())
        upload(moves)
        asked = [(method, path.partition("/out/")[2]) for method, path, _ in bucket.seen()[before:]]
        heads = ["m.zarr/zarr.json", "item.json", "unit.json"]
        written = [path for method, path in asked if method == "PUT"]
        assert written[-3:] == heads and not set(heads) & set(written[:-3]) and len(written) == 10
        assert [path for method, path in asked if method == "DELETE"][:3] == heads[::-1]
        first = min(asked.index(("PUT", path)) for path in written if not path.endswith(".uploading"))
        assert max(asked.index(("DELETE", path)) for path in heads) < first
    assert set(bucket.objects("out/")) == {
        "page.html", "item.json", "cog.tif", "unit.json", "m.zarrs",
        *(f"m.zarr/{name}" for name in ("zarr.json", "red/zarr.json", "red/c/0", "red/c/1", "red/c/2")),
    }  # fmt: skip


def test_a_kill_in_the_middle_of_an_upload_leaves_nothing_to_be_seen(bucket: Bucket, tmp_path: Path) -> None:
    large = tmp_path / "large.tif"
    large.write_bytes(b"0123456789abcdef" * (2 << 20))
    assert large.stat().st_size > 3 * objects.PART
    with bucket.stalled():
        process = subprocess.Popen([sys.executable, "-c", LARGE, bucket.name, str(large)])
        until = time.monotonic() + 60
        while not bucket.uploads() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(0.5)
        assert process.poll() is None and bucket.uploads() == ["large.tif"]
        process.kill()
        process.wait()
    assert bucket.objects() == {} and objects.look(ObjectPath(bucket.name, "large.tif")) is None
    objects.put(ObjectPath(bucket.name, "large.tif"), large)
    assert bucket.get("large.tif") == large.read_bytes()


def test_what_a_store_does_not_allow_is_said_with_its_code_alone(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers of S3 to wrong and expired credentials hold the key and what was signed."""
    for code, words in (
        ("InvalidAccessKeyId", "credentials are refused"),
        ("SignatureDoesNotMatch", "credentials are refused"),
        ("AccessDenied", "access is denied"),
        ("InternalError", "try again later"),
    ):
        said = (
            "Generic S3 error: status code: 403 Forbidden: <Error><Code>" + code + "</Code>"
            "<AWSAccessKeyId>AKIDSECRET</AWSAccessKeyId><StringToSign>signed</StringToSign></Error>"
        )
        with pytest.raises(OutputError, match=words) as caught:
            with answering(ObjectPath("b", "k"), OutputError):
                raise objects_error(said)
        assert "AKIDSECRET" not in str(caught.value) and "signed" not in str(caught.value)


def objects_error(said: str) -> Exception:
    from obstore.exceptions import GenericError

    return GenericError(said)
