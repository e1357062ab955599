"""How many pieces of work go on at once, by cores and memory; and pieces begun ahead."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from rsup.pipeline import machine


def test_one_a_core_and_no_more_than_half_of_the_memory_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setattr(machine, "free_memory", lambda: 1000)
    assert [machine.side_by_side(size) for size in (1, 100, 125, 200, 500, 501, 9999)] == [6, 5, 4, 2, 1, 1, 1]


def test_free_memory_is_a_part_of_what_there_is() -> None:
    assert 1 << 20 < machine.free_memory() <= psutil.virtual_memory().total


def test_pieces_come_in_their_order_and_no_more_than_asked_are_begun_ahead() -> None:
    begun: list[int] = []

    def pieces() -> Iterator[int]:
        for piece in range(10):
            begun.append(piece)
            yield piece

    with ThreadPoolExecutor(3) as pool:
        made = machine.ahead(pool, lambda piece: piece**2, pieces(), 4)
        assert next(made) == 0 and begun == [0, 1, 2, 3, 4]
        assert list(made) == [piece**2 for piece in range(1, 10)]
        assert list(machine.ahead(pool, str, (), 4)) == []


def test_a_piece_that_fails_says_so_when_its_turn_comes() -> None:
    with ThreadPoolExecutor(2) as pool:
        made = machine.ahead(pool, lambda piece: 1 // piece, (1, 0, 1), 2)
        assert next(made) == 1
        with pytest.raises(ZeroDivisionError):
            next(made)
