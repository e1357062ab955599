"""Where work runs: worker processes on this machine, pinned to its GPUs, or a Dask scheduler that stands.

In: a plan of workers, or an address; out: a connected Dask client, and `run`, which keeps a bounded number of tasks in
flight, tries a failing task three times and reports each result as it comes. A cluster that is lost or silent is one
ChunkError, not a library's tracebacks, and never a run that waits for ever.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import tempfile
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from multiprocessing import forkserver
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import current_thread, main_thread
from typing import Any
from urllib.parse import urlsplit

import dask
from distributed import Client, Future, KilledWorker, Nanny, Scheduler, Security, SpecCluster, Worker
from distributed.comm.core import connect
from distributed.exceptions import WorkerStartTimeoutError
from distributed.utils import get_mp_context

from rsup.models.upscaler import FLOAT32
from rsup.pipeline.errors import ArgumentError, ModelError, OutputError, RsupError

from . import vigil
from .model import ModelPlugin, worker_arithmetic
from .pool import Pool
from .vigil import LOST, Vigil, answer, lost

VERSION = version("rsup")
"""What workers must have as well."""

ATTEMPTS = 3
"""Times a task is tried before it counts as failed."""

STARTING = 120.0
"""Seconds a worker process may take to start."""

CONNECTING = 10.0
"""Seconds in which a scheduler that stands must answer."""

JOINING = 55.0
"""Seconds in which a first worker must have joined a scheduler that stands."""

LOADING = 300.0
"""Seconds in which every worker must have imported torch, perhaps for the first time and from a slow disk."""

CLOSING = 5.0
"""Seconds a scheduler is given to take its leave."""

PRELOAD = ["rsup.pipeline.workers.model", "rsup.pipeline.mosaics.chunk"]
"""What workers are going to import, torch with it."""


class _NoPages:
    """Neither scheduler nor workers listen for HTTP: Dask's pages show data and code to whoever asks."""

    def start_http_server(self, *_: object, **__: object) -> None:
        """In the place of the one that listens."""


class _Scheduler(_NoPages, Scheduler):
    pass


class _Worker(_NoPages, Worker):
    pass


@contextmanager
def local_client(pool: Pool, threads: int) -> Iterator[Client]:
    """Start the pool's workers and a scheduler on loopback; stop them on leaving.

    They speak TLS, with a key that never leaves their memory: whoever else is on this machine cannot join in, and what
    is unpickled was pickled by one of them. Workers are not given a memory limit: tasks in flight are bounded by the
    caller, and Dask's own limit would kill a worker in the middle of a chunk instead of waiting.
    """
    with ExitStack() as running:
        with _signals_held():
            running.enter_context(_hushed())
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
                        "worker_class": _Worker,
                        "death_timeout": STARTING,
                        "env": {} if pin is None else {"CUDA_VISIBLE_DEVICES": pin},
                    },
                }
                for index, pin in enumerate(pool.pins)
            }
            config = {
                "temporary-directory": folder,
                # Workers fork from one process that has imported PRELOAD: many start as fast as one, and share it.
                "distributed.worker.multiprocessing-method": "forkserver",
                # A worker that dies takes its tasks with it; a task that kills three workers is at fault itself.
                "distributed.scheduler.allowed-failures": ATTEMPTS - 1,
                "distributed.worker.daemon": True,
                # In the place of Dask's setting for malloc, which returns each freed array to the system (a third more
                # of a network's time on a CPU). One heap for all threads: with one each, memory grew by a fifth from 9
                # chunks to 81.
                "distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
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
            if _forking() is None:  # else it is somebody else's as well
                running.callback(_stop_forking)
            cluster = _start(specs, {"cls": _Scheduler, "options": options | {"port": 0}}, security)
            client = running.enter_context(Client(running.enter_context(cluster)))
        yield client


def _forking() -> int | None:
    """ID of the process that multiprocessing forks from, if there is one; of this, it says nothing in public."""
    found: int | None = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return found


def _stop_forking() -> None:
    """End the process that workers were forked from, which would outlive this one by a second."""
    if (pid := _forking()) is not None:
        os.kill(pid, signal.SIGKILL)
        forkserver._forkserver._stop()  # type: ignore[attr-defined]


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


@contextmanager
def _hushed() -> Iterator[None]:
    """Standard error is kept for sentences: what the libraries log of a failure is said in one of them."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


@contextmanager
def _signals_held() -> Iterator[None]:
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


def credentials(address: str, ca: Path | None, cert: Path | None, key: Path | None) -> Security:
    """What a client shows the scheduler at `address`: files in PEM, or, where none is named, Dask's own configuration.

    A `key` may stand in the file of its certificate. Raises ArgumentError for an address that is none, for tls://
    without credentials, and for files that are none.
    """
    secure = address.startswith("tls://")
    if not _is_address(address):
        raise ArgumentError(
            f"--scheduler {address}: no Dask scheduler answers to that; give tcp://HOST:PORT or tls://HOST:PORT"
        )
    if not secure and (ca or cert or key):
        raise ArgumentError(f"--scheduler {address}: --tls-ca, --tls-cert and --tls-key are for tls://HOST:PORT")
    files = {"tls_ca_file": ca, "tls_client_cert": cert, "tls_client_key": key}
    security = Security(require_encryption=secure or None, **{name: str(file) for name, file in files.items() if file})
    if not secure:
        return security
    shown = security.get_tls_config_for_role("client")
    try:
        if not (shown["ca_file"] and shown["cert"]):
            raise ValueError("name an authority and a certificate")
        private = str(shown["key"] or shown["cert"])
        if "ENCRYPTED" in (private if "\n" in private else Path(private).read_text(errors="replace")):
            raise ValueError("the key is locked with a password")
        security.get_connection_args("client")  # reads them
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ArgumentError(
            f"--scheduler {address}: --tls-ca, --tls-cert and --tls-key, or Dask's configuration, must name what it "
            f"asks for, in PEM ({error})"
        ) from error
    return security


def _is_address(text: str) -> bool:
    scheme, _, rest = text.rpartition("://")
    try:
        parts = urlsplit(f"//{rest}")
        whole = parts.netloc == rest and "@" not in rest
        return scheme in ("", "tcp", "tls") and whole and bool(parts.hostname) and bool(parts.port)
    except ValueError:  # a port beyond 65535, a bracket that is never closed
        return False


@contextmanager
def remote_client(address: str, security: Security | None = None) -> Iterator[Client]:
    """Connect to a scheduler that stands already, with what `credentials` gave for it.

    Raises ArgumentError where none answers, where it has no worker within a minute, and where a worker lacks this
    version of rsup: Dask would lose such a worker with its first task, and wait for ever for another.
    """
    with _hushed():
        security = security or credentials(address, None, None, None)
        try:
            asyncio.run(_greet(address, security))
            client = Client(address, timeout=CONNECTING, security=security)
        except Exception as error:  # whatever listens there may answer whatever it likes
            raise ArgumentError(f"--scheduler {address}: no Dask scheduler answers there ({error})") from error
        try:
            _check_workers(client, address)
            yield client
        finally:
            with suppress(Exception):  # the scheduler may be gone; what matters is already being raised
                client.close(timeout=CLOSING)


async def _greet(address: str, security: Security) -> None:
    """Shake hands with a scheduler within CONNECTING seconds: a client waits for ever for a server that is silent."""

    async def greeted() -> None:
        comm = await connect(address, timeout=CONNECTING, **security.get_connection_args("client"))
        await comm.close()

    try:
        await asyncio.wait_for(greeted(), CONNECTING)
    except TimeoutError as error:
        raise TimeoutError(f"nothing is said for {CONNECTING:.0f} s") from error


def _check_workers(client: Client, address: str) -> None:
    try:
        answer(client, lambda: client.wait_for_workers(1, timeout=JOINING), JOINING + vigil.LOOK)
        found = answer(client, lambda: client.run(version, "rsup", on_error="return"))
    except WorkerStartTimeoutError as error:
        raise ArgumentError(f"--scheduler {address}: no worker has joined it within a minute") from error
    except LOST as error:
        raise ArgumentError(
            f"--scheduler {address}: it or one of its workers does not answer; start it anew"
        ) from error
    others = sorted({each if isinstance(each, str) else "(none)" for each in found.values()} - {VERSION})
    if others:
        raise ArgumentError(f"--scheduler {address}: workers have rsup {', '.join(others)}; install {VERSION} there")


@contextmanager
def holding(client: Client, plugin: ModelPlugin) -> Iterator[None]:
    """Every worker, also one that joins later, has the plugin; at the end none has. Raises ChunkError where the cluster
    is lost meanwhile.
    """
    try:
        answer(client, lambda: client.register_plugin(plugin))
    except LOST as error:
        raise lost(client) from error
    try:
        yield
    finally:
        with suppress(Exception):
            answer(client, lambda: client.unregister_worker_plugin(plugin.name), CLOSING)


def common_arithmetic(client: Client, plugin: ModelPlugin) -> str:
    """What all workers can compute in: their own arithmetic where it is one, else float32, so that chunks fit together.

    Raises ChunkError where a worker does not say.
    """
    try:
        found = answer(client, lambda: client.run(worker_arithmetic, plugin.name), LOADING)
    except LOST as error:
        raise lost(client) from error
    return str(found.popitem()[1]) if len(set(found.values())) == 1 else FLOAT32


def in_flight(client: Client) -> int:
    """Tasks worth handing over: one more than threads a worker, so that no thread waits for the next to arrive."""
    try:
        threads: dict[str, int] = answer(client, client.nthreads)
    except LOST as error:
        raise lost(client) from error
    return sum(threads.values()) + len(threads)


def run(
    client: Client,
    function: Callable[..., Any],
    keys: Iterable[Hashable],
    in_flight: int,
    on_done: Callable[[Any, Any], None],
    on_failed: Callable[[Any, str], None],
) -> None:
    """Call `function(key)` on the workers for every key, at most `in_flight` at a time.

    `on_done(key, result)` or `on_failed(key, reason)` is called here, in the caller's thread, once a key. A task that
    raises is tried three times. An error that would meet every task alike (no space, bad weights) is raised at once;
    ChunkError where the cluster is lost, or silent for too long.
    """
    waiting = iter(keys)
    attempts: dict[Any, int] = {}
    owners: dict[Future[Any], Any] = {}
    ended: SimpleQueue[Future[Any]] = SimpleQueue()
    watch = Vigil(client)

    def submit(key: Any) -> None:
        attempts[key] = attempts.get(key, 0) + 1
        try:
            future = client.submit(function, key, pure=False)
        except LOST as error:
            raise lost(client) from error
        owners[future] = key
        future.add_done_callback(ended.put)

    def submit_next() -> None:
        for key in waiting:
            submit(key)
            return

    for _ in range(in_flight):
        submit_next()
    try:
        while owners:
            try:
                future = ended.get(timeout=vigil.LOOK)
            except Empty:
                watch.look()
                continue
            error, result = _outcome(future)
            if future.cancelled():
                raise lost(client)
            if isinstance(error, LOST) and future.status != "error":
                watch.look()  # its worker was lost after it had ended: it is computed again
                future.add_done_callback(ended.put)
                continue
            watch.heard()
            key = owners.pop(future)
            if error is None:
                on_done(key, result)
            elif isinstance(error, (OutputError, ModelError)):
                raise error
            elif attempts[key] < ATTEMPTS and not isinstance(error, KilledWorker):
                submit(key)
                continue
            else:
                on_failed(key, _reason(error))
            submit_next()
    finally:
        with suppress(Exception):  # the cluster may be gone; what matters is already being raised
            answer(client, lambda: client.cancel(list(owners)), CLOSING)


def _outcome(future: Future[Any]) -> tuple[BaseException | None, Any]:
    """The error of a task that has ended, or None and its result."""
    try:
        if future.status == "error":
            return future.exception(), None
        return None, future.result(timeout=vigil.PATIENCE)
    except Exception as error:
        return error, None


def _reason(error: BaseException) -> str:
    if isinstance(error, KilledWorker):
        return f"the worker process died {ATTEMPTS} times, most likely out of memory; try a smaller --chunk"
    text = str(error).strip() or type(error).__name__
    return text if isinstance(error, RsupError) else f"{type(error).__name__}: {text.splitlines()[0]}"
