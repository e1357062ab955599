"""Tasks on a cluster: a bounded number in flight, each tried three times, each result reported as it comes.

A cluster that is lost or silent is one ChunkError, not a library's tracebacks, and never a run that waits for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Client, Future, KilledWorker

from rsup.models.base.errors import ModelError, OutputError, RsupError
from rsup.models.upscaler import FLOAT32

from . import vigil
from .model import ModelPlugin, worker_arithmetic
from .vigil import ATTEMPTS, CLOSING, LOST, Vigil, answer, lost
from .weights import offered

LOADING = 300.0
"""Seconds in which every worker must have imported torch, perhaps for the first time and from a slow disk."""


@contextmanager
def holding(client: Client, plugin: ModelPlugin) -> Iterator[None]:
    """Every worker, also one that joins later, has the plugin and can have its weights; at the end none has.

    Raises ChunkError where the cluster is lost meanwhile, ModelError where the weights are not the planned ones.
    """
    with offered(client, plugin.weights, plugin.model) if plugin.elsewhere else nullcontext():
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
    """Tasks worth handing over: one more than threads a worker, so that no thread waits for the next to arrive.

    Workers of a cluster that was started for the run count before they have come out of a queue.
    """
    try:
        threads: dict[str, int] = answer(client, client.nthreads)
    except LOST as error:
        raise lost(client) from error
    to_come = 0 if client.cluster is None else max(0, len(client.cluster.worker_spec) - len(threads))
    # None is there while the only worker is started again.
    return max(1, sum(threads.values()) + len(threads) + to_come * (max(threads.values(), default=0) + 1))


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
