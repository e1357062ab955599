"""The process that workers are forked from: it imports what they need, torch with it, and waits.

Without Dask and NumPy, so that a command can start it before it has imported anything itself: on two cores both are
then done in the time of one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.resource_tracker import ensure_running
from threading import current_thread, main_thread

from rsup.pipeline.memory import WORKER_ENVIRONMENT

PRELOAD = ["rsup.pipeline.workers.forks.preload"]
"""What it imports."""


@contextmanager
def forking() -> Iterator[None]:
    """Such a process while the block runs, which does not wait for it; that of an outer block where there is one."""
    if _running() is not None:
        yield
        return
    with signals_held(), _environment():
        forkserver.set_forkserver_preload(PRELOAD)
        forkserver.ensure_running()
    try:
        yield
    finally:
        if (pid := _running()) is not None:  # it would outlive this one by a second
            os.kill(pid, signal.SIGKILL)
            forkserver._forkserver._stop()  # type: ignore[attr-defined]


def _running() -> int | None:
    """ID of the process that multiprocessing forks from, if there is one; of this, it says nothing in public."""
    found: int | None = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return found


@contextmanager
def _environment() -> Iterator[None]:
    """What the C library reads once, when a process starts: workers have it from the one that they are forked from."""
    before = {name: os.environ.get(name) for name in WORKER_ENVIRONMENT}
    os.environ |= WORKER_ENVIRONMENT
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def signals_held() -> Iterator[None]:
    """Ctrl-C and SIGTERM wait until the block ends: workers that are half started cannot be stopped.

    Processes started inside never see Ctrl-C, which a terminal sends to all of them: the command stops its workers.
    """
    ensure_running()  # else the first process starts multiprocessing's tracker, which unblocks Ctrl-C
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    # The mask is for children alone: BLAS may have threads without it, and handlers run whoever got the signal.
    came: list[int] = []
    here = (signal.SIGINT, signal.SIGTERM) if current_thread() is main_thread() else ()
    handlers = {each: signal.signal(each, lambda number, _: came.append(number)) for each in here}
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if came:
        signal.raise_signal(came[0])
