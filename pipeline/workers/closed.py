"""A scheduler and workers without pages: Dask's own show data and code to whoever asks."""

from __future__ import annotations

from distributed import Scheduler, Worker


class _NoPages:
    """Does not listen for HTTP."""

    def start_http_server(self, *_: object, **__: object) -> None:
        """In the place of the one that listens."""


class ClosedScheduler(_NoPages, Scheduler):
    """A scheduler that speaks with its workers and clients alone."""


class ClosedWorker(_NoPages, Worker):
    """A worker that speaks with its scheduler and other workers alone."""
