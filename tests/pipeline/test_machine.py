"""How many pieces of work go on at once, by cores and memory."""

import os

import psutil
import pytest

from rsup.pipeline import machine


def test_one_a_core_and_no_more_than_half_of_the_memory_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setattr(machine, "free_memory", lambda: 1000)
    assert [machine.side_by_side(size) for size in (1, 100, 125, 200, 500, 501, 9999)] == [6, 5, 4, 2, 1, 1, 1]


def test_free_memory_is_a_part_of_what_there_is() -> None:
    assert 1 << 20 < machine.free_memory() <= psutil.virtual_memory().total
