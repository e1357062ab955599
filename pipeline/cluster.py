"""Where work runs: a pool of worker processes on this machine, pinned to its GPUs, or a Dask scheduler that stands.

In: a device request; out: a connected Dask client whose workers hold the network, and `run`, which keeps a bounded
number of tasks in flight, tries a failing task three times and reports each result as it comes.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.resource_tracker import ensure_running
from pathlib import Path
from threading import Lock, current_thread, main_thread
from typing import TYPE_CHECKING, Any

import dask
from distributed import (
    Client,
    KilledWorker,
    Nanny,
    Scheduler,
    SpecCluster,
    WorkerPlugin,
    as_completed,
    get_worker,
)

from .errors import ArgumentError, ModelError, OutputError, RsupError

if TYPE_CHECKING:
    from rsup.models.upscaler import Upscaler

    from .upscale import TileCache

VERSION = version("rsup")
"""What workers must have as well."""

ATTEMPTS = 3
"""Times a task is tried before it counts as failed."""

DRIVER_NODES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""One of these is there where torch could see a GPU: NVIDIA's driver, Windows' subsystem for Linux, AMD's driver."""

CACHE_BYTES = 512 << 20
"""Tiles a worker keeps for neighbouring chunks: the lower edges of a row of chunks 90 km long at x8."""

THREADS = 3
"""Threads a worker has: one in the network, one that reads ahead, one that writes behind."""


@dataclass(frozen=True)
class Pool:
    """The worker processes of this machine."""

    device: str
    """The torch device of every worker: "cpu", or "cuda", of which a worker sees only its own card."""
    pins: tuple[str | None, ...]
    """CUDA_VISIBLE_DEVICES of each worker, None on the CPU."""
    cores: int
    """CPU cores a worker's network may use."""

    @classmethod
    def plan(cls, device: str, workers: int | None) -> Pool:
        """`device` is auto, cpu, cuda (every visible card) or cuda:N; `workers` None means one a card, or one CPU
        worker that has all cores. Raises ArgumentError where the machine lacks what is asked for.
        """
        if workers is not None and workers < 1:
            raise ArgumentError(f"--workers {workers}: at least one worker is needed")
        cores = len(os.sched_getaffinity(0))
        cards = [] if device == "cpu" else visible_cards()
        if device == "cpu" or (device == "auto" and not cards):
            count = workers or 1
            return cls("cpu", (None,) * count, max(1, cores // count))
        if device.startswith("cuda:"):
            index = device.removeprefix("cuda:")
            if not index.isdecimal() or int(index) >= len(cards):
                raise ArgumentError(f"--device {device}: this machine shows {len(cards)} CUDA devices")
            cards = [cards[int(index)]]
        elif device not in ("auto", "cuda"):
            raise ArgumentError(f"--device {device}: choose auto, cpu, cuda or cuda:N")
        elif not cards:
            raise ArgumentError("--device cuda: torch sees no CUDA device here; use --device cpu")
        count = workers or len(cards)
        if count > len(cards):
            raise ArgumentError(f"--workers {count}: there are {len(cards)} CUDA devices and one worker a device")
        return cls("cuda", tuple(cards[:count]), max(1, cores // count))


def visible_cards() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may name here, one entry a card: indices, or the entries of the variable itself."""
    if not any(Path(node).exists() for node in DRIVER_NODES):
        return []  # and torch need not be imported, which takes seconds
    import torch

    count = torch.cuda.device_count()
    named = [entry.strip() for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry.strip()]
    return named[:count] if named else [str(index) for index in range(count)]


class ModelPlugin(WorkerPlugin):
    """Holds one network a worker process, the lock that lets one chunk at a time into it, and the tiles chunks share.

    The network is loaded by the first task, not by `setup`: an exception there is a task's exception and reaches the
    user, while a worker whose `setup` fails is restarted for ever.
    """

    name = "rsup-model"

    def __init__(self, model: str, scale: int, pool: Pool | None) -> None:
        """`pool` None: a cluster that stands already, where each worker takes a card if it sees one."""
        self.model, self.scale = model, scale
        self.device = pool.device if pool else "auto"
        self.cores = pool.cores if pool else None

    def setup(self, worker: Any) -> None:
        """Called by Dask in each worker process, also when it is started anew."""
        self.lock, self._load_lock = Lock(), Lock()
        self.cache: TileCache | None = None
        # On a cluster that stands already, a worker is given as many cores as Dask was told it has.
        self.entitled: int = worker.state.nthreads
        self._upscaler: Upscaler | None = None

    def upscaler(self) -> Upscaler:
        """The network, loaded on the first call."""
        with self._load_lock:
            if self._upscaler is None:
                import torch

                from rsup.models.upscaler import load

                from .upscale import TileCache

                device = self.device
                if device == "auto":
                    device = "cuda" if torch.cuda.is_available() else "cpu"
                self._upscaler = load(self.model, self.scale, device, self.cores or self.entitled)
                if self._upscaler.descriptor.metadata["kind"] == "student":
                    # An interpolator runs a tile again faster than the memory for it is worth.
                    self.cache = TileCache(CACHE_BYTES)
            return self._upscaler

    def __getstate__(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("model", "scale", "device", "cores")}


def give_back_memory() -> None:
    """Return what malloc has free to the system, once a chunk.

    Chunks differ in what they leave between the blocks that live on; without this a worker's memory grows from chunk to
    chunk, by a fifth from 9 to 81. Dask's own setting does it at every free, for a third more of a network's time.
    """
    with suppress(AttributeError):  # the C library is not GNU's
        ctypes.CDLL(None).malloc_trim(0)


def worker_model() -> ModelPlugin:
    """The plugin of the worker this task runs on."""
    plugin = get_worker().plugins[ModelPlugin.name]
    assert isinstance(plugin, ModelPlugin)
    return plugin


@contextmanager
def local_client(pool: Pool, threads: int) -> Iterator[Client]:
    """Start the pool's workers and a scheduler on loopback; stop them on leaving.

    Workers are not given a memory limit: tasks in flight are bounded by the caller, and Dask's own limit would kill a
    worker in the middle of a chunk instead of waiting.
    """
    specs = {
        index: {
            "cls": Nanny,
            "options": {
                "nthreads": threads,
                "memory_limit": None,
                "silence_logs": logging.CRITICAL,
                "host": "127.0.0.1",
                "dashboard": False,
                "dashboard_address": "127.0.0.1:0",
                "env": {} if pin is None else {"CUDA_VISIBLE_DEVICES": pin},
            },
        }
        for index, pin in enumerate(pool.pins)
    }
    scheduler = {
        "cls": Scheduler,
        "options": {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"},
    }
    config = {
        # A worker that dies takes its tasks with it; a task that kills three workers is at fault itself.
        "distributed.scheduler.allowed-failures": ATTEMPTS - 1,
        "distributed.worker.daemon": True,
        # In the place of Dask's setting for malloc, which returns each freed array to the system (a third more of a
        # network's time on a CPU). One heap for all threads: with one each, memory grew by a fifth from 9 chunks to 81.
        "distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    }
    with ExitStack() as running:
        with _signals_held():
            running.enter_context(dask.config.set(config))
            client = running.enter_context(Client(running.enter_context(_start(specs, scheduler))))
        yield client


def _start(workers: dict[int, dict[str, Any]], scheduler: dict[str, Any]) -> SpecCluster:
    """The processes themselves. A nanny restarts a worker that dies, but not one that dies while it starts."""
    attempts = 0
    while True:
        try:
            return SpecCluster(workers, scheduler, asynchronous=False, silence_logs=logging.CRITICAL)
        except RuntimeError as error:  # the cluster has closed itself
            attempts += 1
            if attempts == ATTEMPTS:
                raise RsupError(
                    f"{len(workers)} worker processes could not be started in {ATTEMPTS} attempts ({error}); "
                    "look for what kills them (memory, limits), or ask for fewer --workers"
                ) from error


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


@contextmanager
def remote_client(address: str) -> Iterator[Client]:
    """Connect to a scheduler that stands already.

    Raises ArgumentError where none answers, where it has no worker within a minute, and where a worker lacks this
    version of rsup: Dask would lose such a worker with its first task, and wait for ever for another.
    """
    try:
        client = Client(address, timeout=10)
    except (OSError, TimeoutError, ValueError) as error:
        raise ArgumentError(f"--scheduler {address}: no Dask scheduler answers there ({error})") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=60)
        except TimeoutError as error:
            raise ArgumentError(f"--scheduler {address}: no worker has joined it within a minute") from error
        found = client.run(version, "rsup", on_error="return")
        others = sorted({each if isinstance(each, str) else "(none)" for each in found.values()} - {VERSION})
        if others:
            raise ArgumentError(
                f"--scheduler {address}: workers have rsup {', '.join(others)}; install {VERSION} there"
            )
        yield client


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
    raises is tried three times. An error that would meet every task alike (no space, bad weights) is raised at once.
    """
    waiting = iter(keys)
    attempts: dict[Any, int] = {}
    owners: dict[Any, Any] = {}
    completed = as_completed()

    def submit(key: Any) -> None:
        attempts[key] = attempts.get(key, 0) + 1
        future = client.submit(function, key, pure=False)
        owners[future] = key
        completed.add(future)

    def submit_next() -> None:
        for key in waiting:
            submit(key)
            return

    for _ in range(in_flight):
        submit_next()
    try:
        for future in completed:
            key = owners.pop(future)
            error = future.exception()
            if error is None:
                on_done(key, future.result())
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
            client.cancel(list(owners))


def _reason(error: BaseException) -> str:
    if isinstance(error, KilledWorker):
        return f"the worker process died {ATTEMPTS} times, most likely out of memory; try a smaller --chunk"
    text = str(error).strip() or type(error).__name__
    return text if isinstance(error, RsupError) else f"{type(error).__name__}: {text.splitlines()[0]}"
