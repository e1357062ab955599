"""Is anybody there? What a scheduler says of itself and its workers, within a bounded time, or one ChunkError.

Dask's own calls wait for an answer as long as the connection stands, which it does to a process that is stopped, and
its client waits as long for workers that are gone.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client
from distributed.client import ClosedClientError

from rsup.models.base.errors import ChunkError

PATIENCE = 30.0
"""Seconds without a sign of life before a cluster is given up."""

RESTARTING = 120.0
"""The same for workers of this machine, which are started again where they die: that takes long on a busy one."""

LOOK = 3.0
"""Seconds without a result before it is asked for a sign of life; what one such question may take."""

LOST = (OSError, TimeoutError, ClosedClientError)
"""What Dask raises where a scheduler is gone or does not answer: its CommClosedError is an OSError."""

ATTEMPTS = 3
"""Times a task is tried before it counts as failed."""

CLOSING = 5.0
"""Seconds a scheduler is given to take its leave."""


def answer(client: Client, call: Callable[[], Any], limit: float | None = None) -> Any:
    """What `call`, a method of the client, returns; raises one of LOST after `limit` seconds (default: PATIENCE)."""

    async def awaited() -> Any:
        return await call()  # asked from inside its loop, a client hands out something to wait for

    return client.sync(awaited, callback_timeout=PATIENCE if limit is None else limit)


def lost(client: Client, what: str = "the connection to the Dask scheduler was lost") -> ChunkError:
    """The end of a run whose cluster is gone, in words."""
    address = f" ({client.scheduler.address})" if client.scheduler else ""
    return ChunkError(
        f"{what}{address}; the chunks that are done stay done: run the same command again to go on with the others"
    )


class Vigil:
    """Looks after a cluster that is silent."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._patience = PATIENCE if client.cluster is None else RESTARTING
        self._beats: dict[str, float] = {}
        self.heard()

    def heard(self) -> None:
        """Something came: a result, a heartbeat."""
        self._last = time.monotonic()

    def look(self) -> None:
        """Ask when workers were last heard of; raise ChunkError where nothing of that is new for long.

        Heartbeats are compared with those of the last look, not with a clock: a laptop that slept is not a lost
        cluster.
        """
        silent = "no worker of the cluster has"
        try:
            if self._client.scheduler is None:  # the client has closed itself
                raise lost(self._client)
            workers = answer(self._client, self._client.scheduler.identity, LOOK)["workers"]
            beats = {address: worker["last_seen"] for address, worker in workers.items()}
            if beats.items() - self._beats.items():
                self.heard()
            self._beats = beats
        except LOST:
            silent = "the Dask scheduler has not"
        if time.monotonic() - self._last > self._patience:
            raise lost(self._client, f"{silent} been heard of for {self._patience:.0f} s")


@contextmanager
def hushed() -> Iterator[None]:
    """Standard error is kept for sentences: what the libraries log of a failure is said in one of them."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
