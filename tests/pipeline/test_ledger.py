"""The ledger survives what a disk and a killed process do to it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rsup.pipeline.errors import OutputError
from rsup.pipeline.ledger import Ledger

FINGERPRINT = {"scene": "abc", "scale": 8, "bands": ("red", "green")}


def test_a_rerun_knows_what_was_done(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.jsonl", FINGERPRINT) as ledger:
        ledger.record("0.0", "done")
        ledger.record("0.1", "failed", reason="out of memory")
        ledger.record("0.2", "failed", reason="once")
        ledger.record("0.2", "done")
    with Ledger.open(tmp_path / "ledger.jsonl", FINGERPRINT) as ledger:
        assert ledger.done() == {"0.0", "0.2"}
        assert {key: record["reason"] for key, record in ledger.failed().items()} == {"0.1": "out of memory"}


def test_another_fingerprint_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger.open(path, FINGERPRINT) as ledger:
        ledger.record("0.0", "done")
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"scale differ.*--overwrite"):
        Ledger.open(path, FINGERPRINT | {"scale": 4})
    assert path.read_bytes() == before
    with Ledger.open(path, FINGERPRINT | {"scale": 4}, overwrite=True) as ledger:
        assert ledger.done() == set()


def test_half_a_line_never_counts(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with Ledger.open(path, FINGERPRINT) as ledger:
        ledger.record("0.0", "done")
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(b'{"key": "0.1", "status": "do')
    with Ledger.open(path, FINGERPRINT) as ledger:
        assert ledger.done() == {"0.0"}
        ledger.record("0.2", "done")
    assert path.read_bytes().startswith(whole)
    with Ledger.open(path, FINGERPRINT) as ledger:
        assert ledger.done() == {"0.0", "0.2"}


def test_a_second_writer_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    code = (
        "import sys, time; from pathlib import Path; from rsup.pipeline.ledger import Ledger\n"
        "ledger = Ledger.open(Path(sys.argv[1]), {'a': 1}); ledger.record('0.0', 'done')\n"
        "sys.stdout.write('ready\\n'); sys.stdout.flush(); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
        with pytest.raises(OutputError, match="another rsup process"):
            Ledger.open(path, {"a": 1})
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    for _ in range(50):  # the kernel releases the lock with the dead process's last descriptor
        try:
            with Ledger.open(path, {"a": 1}) as ledger:
                assert ledger.done() == {"0.0"}
            return
        except OutputError:
            time.sleep(0.1)
    pytest.fail("the lock outlived its process")


def test_no_permission_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        Ledger.open(tmp_path / "file" / "ledger.jsonl", {})
