"""What malloc and Python's collector are told: memory does not grow from chunk to chunk, nor is searched in vain."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
"""Options of glibc's mallopt."""
LARGEST, NEVER = 32 << 20, (1 << 31) - 1
"""Bytes: the most that an array may have to be kept, before glibc 2.35; and what is never reached."""

WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(LARGEST),
    "MALLOC_TRIM_THRESHOLD_": str(NEVER),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""What workers are started with. Dask sets malloc to return each freed array to the system, for a third more of a
network's time on a CPU. One heap for all threads: with one each, memory grew by a fifth from 9 chunks to 81.

What a tile has freed is kept for the next one, until `give_back_memory`: by itself glibc returns what is free at
its heap's end beyond 64 MB, and a twentieth of a compact network's time went into clearing that again. 32 MB is the
largest array that is kept so: more would be refused before glibc 2.35, and then none would be.

In pages of 2 MB, which most systems grant on request: with pages of 4 kB new memory took half of the time of what is
around the network, and a tenth of a compact network's.
"""


def give_back_memory() -> None:
    """Return what malloc has free to the system, once a chunk.

    Chunks differ in what they leave between the blocks that live on; without this a worker's memory grows from chunk to
    chunk, by a fifth from 9 to 81. Dask's own setting does it at every free, for a third more of a network's time.
    """
    with suppress(AttributeError):  # the C library is not GNU's
        ctypes.CDLL(None).malloc_trim(0)


def return_at_once() -> None:
    """Have the C library return freed arrays to the system at once.

    glibc keeps what it once gave out, in an arena a thread: over a large scene that grows by a quarter.
    """
    _tell(MMAP_THRESHOLD, 256 << 10)


def keep_for_the_next() -> None:
    """Have the C library keep freed arrays, in one heap for all threads that begin later, until `give_back_memory`.

    Who reads a mosaic back has arrays of a chunk's size one after the other. To have each from the system, which clears
    it page by page, took a quarter of the time of overviews and COG; heaps of each thread hold a third more memory.
    """
    if _tell(MMAP_THRESHOLD, 128 << 20) or _tell(MMAP_THRESHOLD, LARGEST):
        _tell(TRIM_THRESHOLD, NEVER)
        _tell(ARENA_MAX, 1)


def _tell(option: int, value: int) -> bool:
    """Tell malloc; whether it listens, which that of another C library than GNU's does not."""
    library = ctypes.CDLL(None)
    return hasattr(library, "mallopt") and bool(library.mallopt(option, value))


def in_large_pages() -> None:
    """Have PyTorch, which is imported later, ask for large tensors in pages of 2 MB, where the system grants these on
    request: of an evaluation, whose tensors are new for each image, a quarter of the time went into pages of 4 kB.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


@contextmanager
def importing() -> Iterator[None]:
    """Import libraries without collecting garbage, of which they leave little: to look for it again and again among
    all that they make takes a fifth of the time that PyTorch and Dask take. Nor is it looked for there later, or when
    the process ends.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()
