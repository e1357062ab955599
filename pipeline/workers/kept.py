"""Workers of this machine that serve one mosaic after another: a pool and threads in, the same client out each time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from distributed import Client

from . import vigil
from .local import STARTING, local_client
from .pool import Pool
from .vigil import LOST, answer

Workers = Callable[[Pool, int], AbstractContextManager[Client]]
"""What gives the workers of a pool with so many threads each: `local_client`, or a `Kept`."""


class Kept:
    """Starts workers when they are first asked for, and stops them when its own block is left.

    After a failure they are stopped at once, whatever state they are in: the next who asks gets new ones.
    """

    def __init__(self) -> None:
        self._running = ExitStack()
        self._client: Client | None = None
        self._pool: Pool | None = None
        self._threads = 0

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    @contextmanager
    def __call__(self, pool: Pool, threads: int) -> Iterator[Client]:
        """All of the pool's workers, with as many threads or fewer: those for which there was memory at first."""
        if self._client is None or self._pool != pool or self._threads > threads or not self._all_there():
            self._stop()
            self._client = self._running.enter_context(local_client(pool, threads))
            self._pool, self._threads = pool, threads
        try:
            yield self._client
        except BaseException:
            self._stop()
            raise

    def _all_there(self) -> bool:
        """Whether every worker is, and answers: one that was killed meanwhile is being started again."""
        client, pool = self._client, self._pool
        assert client is not None and pool is not None
        try:
            answer(client, lambda: client.wait_for_workers(len(pool.pins), timeout=STARTING), STARTING + vigil.LOOK)
            return len(answer(client, lambda: client.run(os.getpid))) == len(pool.pins)
        except LOST:  # killed just now, perhaps, and not missed yet
            return False

    def _stop(self) -> None:
        self._client = None
        self._running.close()
