"""The ledger survives what a disk and a killed process do to it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rsup.models.base.errors import OutputError
from rsup.pipeline.ledger import Ledger

FINGERPRINT = {"scene": "abc", "scale": 8, "bands": ("red", "green")}


@contextmanager
def begun(path: Path, fingerprint: dict[str, Any] = FINGERPRINT, *, overwrite: bool = False) -> Iterator[Ledger]:
    """A ledger as a run begins or goes on with it."""
    with Ledger.open(path) as ledger:
        ledger.begin(fingerprint, overwrite=overwrite)
        yield ledger


def test_a_rerun_knows_what_was_done(tmp_path: Path) -> None:
    with begun(tmp_path / "ledger.jsonl") as ledger:
        ledger.record("0.0", "done")
        ledger.record("0.1", "failed", reason="out of memory")
        ledger.record("0.2", "failed", reason="once")
        ledger.record("0.2", "done")
    with begun(tmp_path / "ledger.jsonl") as ledger:
        assert ledger.done() == {"0.0", "0.2"}
        assert {key: record.reason for key, record in ledger.failed().items()} == {"0.1": "out of memory"}


def test_another_fingerprint_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with begun(path) as ledger:
        ledger.record("0.0", "done")
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"scale differ.*--overwrite"):
        with begun(path, FINGERPRINT | {"scale": 4}):
            pass
    assert path.read_bytes() == before
    with begun(path, FINGERPRINT | {"scale": 4}, overwrite=True) as ledger:
        assert ledger.done() == set()


def test_half_a_line_never_counts(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with begun(path) as ledger:
        ledger.record("0.0", "done")
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"key": "0.1", "status": "do')
    with begun(path) as ledger:
        assert ledger.done() == {"0.0"}
        ledger.record("0.2", "done")
    assert path.read_bytes().startswith(whole)
    with begun(path) as ledger:
        assert ledger.done() == {"0.0", "0.2"}


def test_a_second_writer_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    code = (
        "import sys, time; from pathlib import Path; from rsup.pipeline.ledger import Ledger\n"
        "ledger = Ledger.open(Path(sys.argv[1])); ledger.begin({'a': 1}); ledger.record('0.0', 'done')\n"
        "sys.stdout.write('ready\\n'); sys.stdout.flush(); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
        with pytest.raises(OutputError, match="another rsup process"):
            Ledger.open(path)
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    for _ in range(50):  # the kernel releases the lock with the dead process's last descriptor
        try:
            with begun(path, {"a": 1}) as ledger:
                assert ledger.done() == {"0.0"}
            return
        except OutputError:
            time.sleep(0.1)
    pytest.fail("the lock outlived its process")


def test_no_permission_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        Ledger.open(tmp_path / "file" / "ledger.jsonl")


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "folder"])
def test_what_stands_in_the_ledger_s_place_is_neither_followed_nor_emptied(tmp_path: Path, kind: str) -> None:
    target, path = tmp_path / "precious", tmp_path / "ledger.jsonl"
    target.write_text("precious")
    {
        "link": lambda: path.symlink_to(target),
        "second name": lambda: path.hardlink_to(target),
        "pipe": lambda: os.mkfifo(path),
        "folder": path.mkdir,
    }[kind]()
    with pytest.raises(OutputError, match=r"ledger\.jsonl"):
        Ledger.open(path)
    assert target.read_text() == "precious"


@pytest.mark.parametrize(
    "line", [b"[" * 100_000 + b"]" * 100_000, b"7", b'{"key": 1}', b"\xff", b'{"key": "a"}', b"9" * 5000]
)
def test_a_damaged_ledger_is_said_and_stays(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "ledger.jsonl"
    with begun(path) as ledger:
        ledger.record("0.0", "done")
    path.write_bytes(path.read_bytes() + line + b"\n")
    before = path.read_bytes()
    with pytest.raises(OutputError, match="is damaged .*--overwrite"), begun(path):
        pass
    assert path.read_bytes() == before


def test_a_lock_on_a_file_that_was_removed_is_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with begun(path) as first:
        first.record("0.0", "done")
        path.unlink()  # as a run that finishes does
        with begun(path) as second:
            second.record("0.1", "done")
            with pytest.raises(OutputError, match="another rsup process"):
                Ledger.open(path)
    with begun(path) as ledger:
        assert ledger.done() == {"0.1"}


def test_folders_made_for_a_ledger_without_a_record_go_with_it(tmp_path: Path) -> None:
    """What was refused before anything was done leaves nothing; what others put there, or had there, stays."""
    (tmp_path / "theirs").mkdir()
    Ledger.open(tmp_path / "theirs" / "a" / "b" / "ledger").close()
    assert list(tmp_path.rglob("*")) == [tmp_path / "theirs"]
    ledger = Ledger.open(tmp_path / "a" / "b" / "ledger")
    (tmp_path / "a" / "scene").touch()
    ledger.close()
    with begun(tmp_path / "done" / "ledger") as ledger:
        ledger.record("chunk", "done")
    assert sorted(tmp_path.rglob("*")) == sorted(
        tmp_path / name for name in ("theirs", "a", "a/scene", "done", "done/ledger")
    )
