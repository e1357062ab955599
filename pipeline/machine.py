"""What this machine has left: memory in bytes, how many pieces of work of so many bytes it carries at once; and pieces
of work begun ahead.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import suppress
from typing import TypeVar

import psutil

Piece = TypeVar("Piece")
Made = TypeVar("Made")


def free_memory() -> int:
    """Bytes that workers may take: of the machine, of the container this runs in, of a limit set on it.

    What workers that are kept for the next mosaic hold already is theirs to take.
    """
    from distributed.system import MEMORY_LIMIT  # all of Dask, which whoever starts nothing does not need

    held = 0
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has ended meanwhile
            used = child.memory_info()
            held += used.rss - used.shared
    return int(min(psutil.virtual_memory().available + held, MEMORY_LIMIT))


def side_by_side(piece_bytes: int) -> int:
    """Pieces of work of so many bytes: one a core, as far as half of the free memory carries them; one at least."""
    return max(1, min(len(os.sched_getaffinity(0)), free_memory() // 2 // piece_bytes))


def ahead(pool: Executor, act: Callable[[Piece], Made], pieces: Iterable[Piece], most: int) -> Iterator[Made]:
    """What `act` makes of each piece, in their order; up to `most` are begun ahead of the one that is waited for."""
    running = deque[Future[Made]]()
    for piece in pieces:
        running.append(pool.submit(act, piece))
        if len(running) > most:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()
