"""Leases: one holder at a time, whoever asks; those of the dead are taken over."""

from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rsup.pipeline.batch.leases import folder as leases
from rsup.pipeline.batch.leases.folder import CLOCK, FOLDER, acquire, leased, sweep
from rsup.pipeline.places.place import folders, names


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    held = acquire(tmp_path, "unit")
    assert held is not None and acquire(tmp_path, "unit") is None
    with held:
        assert acquire(tmp_path, "unit") is None and leased(tmp_path) == {"unit"}
        other = acquire(tmp_path, "other")
        assert other is not None
        with other:
            pass
        assert held.held()
    assert leased(tmp_path) == set() and not (tmp_path / FOLDER).exists()


def test_of_many_that_ask_at_once_one_gets_it(tmp_path: Path) -> None:
    """Time after time, over a lease that a dead process has left."""
    for turn in range(10):
        name = f"unit-{turn}"
        dead = os.fork()
        if dead == 0:
            acquire(tmp_path, name)
            os._exit(0)
        os.waitpid(dead, 0)
        assert leased(tmp_path) == set()
        ready, go = os.pipe()
        children = []
        for _ in range(4):
            child = os.fork()
            if child == 0:
                os.close(go)
                os.read(ready, 1)  # all at once, when the last writer closes
                mine = acquire(tmp_path, name)
                if mine is not None:
                    time.sleep(0.3)
                os._exit(mine is not None)
            children.append(child)
        os.close(ready)
        os.close(go)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        assert sorted(codes) == [0, 0, 0, 1]


def test_leases_are_listed_while_others_come_and_go(tmp_path: Path) -> None:
    """Whoever lets the last one go takes the folder away, between any two looks at it."""
    over = threading.Event()

    def come_and_go() -> None:
        while not over.is_set():
            with acquire(tmp_path, "unit") or pytest.fail("nobody else wants it"):
                pass

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(come_and_go)
        until, seen = time.monotonic() + 2, set()
        try:
            while time.monotonic() < until and not other.done():
                seen.add(frozenset(leased(tmp_path)))
                folders(tmp_path), names(tmp_path / FOLDER)
        finally:
            over.set()
        other.result()
    assert seen == {frozenset(), frozenset({"unit"})}


def test_another_machine_s_lease_is_taken_over_when_it_is_not_refreshed(tmp_path: Path) -> None:
    path = tmp_path / FOLDER / "unit.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "started": 0.0, "token": ""}))
    assert acquire(tmp_path, "unit") is None
    long_ago = time.time() - leases.STALE - 1
    os.utime(path, (long_ago, long_ago))
    assert acquire(tmp_path, "unit") is not None
    assert [each.name for each in path.parent.iterdir()] == ["unit.json"]


@pytest.mark.parametrize("apart", [-3600, 3600])
def test_ages_are_told_by_the_clock_that_stamps_the_files(
    apart: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine's is an hour fast, or slow."""
    path = tmp_path / FOLDER / "unit.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"machine": "elsewhere", "pid": 1, "started": 1, "token": ""}))
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + apart)
    assert acquire(tmp_path, "unit") is None
    sweep(tmp_path)
    assert path.exists()
    os.utime(path, (now + 2 * leases.STALE, now + 2 * leases.STALE))  # by a clock that has been set back since
    assert acquire(tmp_path, "unit") is not None


def test_a_heart_beats_and_stops_for_a_lease_that_is_lost(tmp_path: Path, monkeypatch: object) -> None:
    leases.BEAT, before = 0.05, leases.BEAT
    try:
        held = acquire(tmp_path, "unit")
        assert held is not None
        with held:
            os.utime(held.path, (1.0, 1.0))
            until = time.monotonic() + 10
            while held.path.stat().st_mtime < 2 and time.monotonic() < until:
                time.sleep(0.01)
            assert held.path.stat().st_mtime > 2
            held.path.write_text("another's")
            os.utime(held.path, (1.0, 1.0))
            time.sleep(0.3)
            assert held.path.stat().st_mtime == 1.0 and not held.held()
        assert held.path.read_text() == "another's"
    finally:
        leases.BEAT = before


def test_a_torn_lease_is_nobody_s(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "unit.json").write_text('{"host": ')
    (tmp_path / FOLDER / CLOCK).touch()  # who looked at it was killed as well
    assert leased(tmp_path) == set()
    held = acquire(tmp_path, "unit")
    assert held is not None
    with held:
        sweep(tmp_path)
        assert leased(tmp_path) == {"unit"}
    assert not (tmp_path / FOLDER).exists()
