"""Holders of leases: who is still there, by psutil and by processes that are ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from rsup.pipeline.batch.leases import holder
from rsup.pipeline.batch.leases.holder import is_gone, this_process


def test_a_process_is_there_from_its_beginning_to_its_end() -> None:
    said = this_process()
    assert said == this_process() and is_gone(said) is False
    since_boot = said["started"] / os.sysconf("SC_CLK_TCK")
    assert psutil.Process().create_time() - psutil.boot_time() == pytest.approx(since_boot, abs=1.5)
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    theirs = said | {"pid": child.pid, "started": holder._started(child.pid)}
    assert is_gone(theirs) is False and is_gone(theirs | {"started": said["started"] - 1}) is True  # its number again
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE and is_gone(theirs) is True
    child.wait()
    assert is_gone(theirs) is True


def test_the_time_of_day_may_be_set_while_a_process_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As psutil would have it, the process would then have begun at another time."""
    said = this_process()
    monkeypatch.setattr("time.time", lambda: 0.0)
    monkeypatch.setattr("psutil.boot_time", lambda: 1e9)
    assert is_gone(said) is False


@pytest.mark.parametrize("words", [None, [], 7, {}, {"machine": "elsewhere", "pid": 1, "started": 1}])
def test_of_others_nobody_knows(words: object) -> None:
    assert is_gone(words) is None


@pytest.mark.parametrize("change", [{"pid": "1"}, {"pid": None}, {"started": None}])
def test_of_odd_words_neither(change: dict[str, object]) -> None:
    assert is_gone(this_process() | change) is None


def test_a_container_s_processes_are_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Process 1 of two containers of one host and of one name is not one process."""
    said = this_process()
    monkeypatch.setattr("os.readlink", lambda _: "pid:[1]")
    assert is_gone(said) is None and this_process()["machine"] != said["machine"]
