"""Worker processes on this machine, pinned to its GPUs: a plan of workers in, a connected client and its cluster out.

They end with the command, however it ends, and leave nothing behind.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import dask
from distributed import Client, Nanny, Security, SpecCluster
from distributed.utils import get_mp_context

from rsup.models.base.errors import OutputError, RsupError
from rsup.pipeline.memory import WORKER_ENVIRONMENT
from rsup.pipeline.places.objects import access_of

from .closed import ClosedScheduler, ClosedWorker
from .forks.forking import PRELOAD, forking, signals_held
from .pool import Pool
from .vigil import ATTEMPTS, LOST, hushed

STARTING = 120.0
"""Seconds a worker process may take to start."""


@contextmanager
def local_client(pool: Pool, threads: int) -> Iterator[Client]:
    """Start the pool's workers and a scheduler on loopback; stop them on leaving.

    They speak TLS, with a key that never leaves their memory: whoever else is on this machine cannot join in, and what
    is unpickled was pickled by one of them. Workers are not given a memory limit: tasks in flight are bounded by the
    caller, and Dask's own limit would kill a worker in the middle of a chunk instead of waiting.
    """
    with ExitStack() as running:
        with signals_held():
            running.enter_context(forking())
            running.enter_context(hushed())
            security = Security.temporary()
            options = {"host": "127.0.0.1", "protocol": "tls://", "security": security}
            # A folder of this run alone: in a shared one somebody else's files, or links, may lie in wait.
            folder = running.enter_context(_folder())
            specs = {
                index: {
                    "cls": Nanny,
                    "options": options
                    | {
                        "nthreads": threads,
                        "memory_limit": None,
                        "silence_logs": logging.CRITICAL,
                        "worker_class": ClosedWorker,
                        "death_timeout": STARTING,
                        # What they fork from may have been started before a store's credentials were set.
                        "env": access_of(os.environ) | ({} if pin is None else {"CUDA_VISIBLE_DEVICES": pin}),
                    },
                }
                for index, pin in enumerate(pool.pins)
            }
            config = {
                "temporary-directory": folder,
                # Many start as fast as one, and share what it has imported.
                "distributed.worker.multiprocessing-method": "forkserver",
                # A worker that dies takes its tasks with it; a task that kills three workers is at fault itself.
                "distributed.scheduler.allowed-failures": ATTEMPTS - 1,
                "distributed.worker.daemon": True,
                # Nobody looks at where workers spend their time; to take it down a hundred times a second, in the
                # interpreter that networks run in, is a fiftieth of it.
                "distributed.worker.profile.enabled": False,
                "distributed.admin.tick.interval": "1s",
                "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
            }
            shown = security.get_tls_config_for_role("client")
            # Other clients of this process, and none elsewhere, find what they need in Dask's configuration.
            config |= {
                "distributed.comm.tls.ca-file": shown["ca_file"],
                "distributed.comm.tls.client.cert": shown["cert"],
                "distributed.comm.tls.client.key": shown["key"],
            }
            running.enter_context(dask.config.set(config))
            get_mp_context().set_forkserver_preload(PRELOAD)  # after Dask's own choice, which it makes once
            cluster = _start(specs, {"cls": ClosedScheduler, "options": options | {"port": 0}}, security)
            client = running.enter_context(Client(running.enter_context(cluster)))
        yield client


@contextmanager
def _folder() -> Iterator[str]:
    try:
        with tempfile.TemporaryDirectory(prefix="rsup-", ignore_cleanup_errors=True) as folder:
            yield folder
    except FileNotFoundError as error:  # tempfile has tried every place it knows
        raise OutputError(f"there is no folder for temporary files ({error}): let TMPDIR name one") from error


def _start(workers: dict[int, dict[str, Any]], scheduler: dict[str, Any], security: Any) -> SpecCluster:
    """The processes themselves. A nanny restarts a worker that dies, but not one that dies while it starts."""
    attempts = 0
    while True:
        try:
            return SpecCluster(workers, scheduler, asynchronous=False, security=security, silence_logs=logging.CRITICAL)
        except (RuntimeError, *LOST) as error:  # the cluster has closed itself
            attempts += 1
            if attempts == ATTEMPTS:
                raise RsupError(
                    f"{len(workers)} worker processes could not be started in {ATTEMPTS} attempts ({error}); "
                    "look for what kills them (memory, limits), or ask for fewer --workers"
                ) from error
