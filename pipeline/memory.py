"""What malloc is told, in workers and in the process that fetches, so that memory does not grow from chunk to chunk."""

from __future__ import annotations

import ctypes
from contextlib import suppress

WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""What workers are started with. Dask sets malloc to return each freed array to the system, for a third more of a
network's time on a CPU. One heap for all threads: with one each, memory grew by a fifth from 9 chunks to 81.

In pages of 2 MB, which most systems grant on request: a tile's arrays are new memory each time, and with pages of 4 kB
that took half of the time of what is around the network, and a tenth of a compact network's.
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
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc
        mmap_threshold = -3
        library.mallopt(mmap_threshold, 256 * 1024)
