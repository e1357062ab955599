"""What a machine carries: workers, cards, memory; refused with the figure before anything is started."""

import os
import resource

import pytest

from rsup.models.base.errors import ArgumentError
from rsup.pipeline.workers import pool
from rsup.pipeline.workers.pool import CACHE_BYTES, WORKER_BYTES, Pool


def test_pool_on_the_cpu_shares_the_cores() -> None:
    cores = len(os.sched_getaffinity(0))
    assert Pool.plan("cpu", None) == Pool("cpu", (None,), cores)
    assert Pool.plan("cpu", 2) == Pool("cpu", (None,) * 2, max(1, cores // 2))


@pytest.mark.parametrize(
    ("device", "workers", "sentence"),
    [
        ("cpu", 0, "at least one"),
        ("cpu", 10**23, rf"this machine has {len(os.sched_getaffinity(0))} cores, which carry \d+ at most"),
        ("cpu", 2 * len(os.sched_getaffinity(0)) + 1, "cores, which carry"),
        ("tpu", None, "choose auto"),
        ("CPU", None, "choose auto"),
        ("", None, "choose auto"),
        ("cuda:99", None, "CUDA devices"),
        ("cuda:-1", None, "CUDA devices"),
        ("cuda:\uff11", None, "CUDA devices"),
        ("cuda:" + "9" * 30, None, "CUDA devices"),
    ],
)
def test_a_pool_that_cannot_be_is_a_sentence(device: str, workers: int | None, sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        Pool.plan(device, workers)


@pytest.mark.gpu
def test_one_worker_a_card() -> None:
    pool = Pool.plan("auto", None)
    assert pool.device == "cuda" and len(set(pool.pins)) == len(pool.pins) >= 1


def test_threads_fit_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half holds the workers, the tiles they keep, and as many chunks as then fit; one must fit into all of it."""
    two, chunk = Pool("cpu", (None, None), 1), 100 << 20
    held = WORKER_BYTES + CACHE_BYTES

    def with_free(half: int) -> int:
        monkeypatch.setattr(pool, "free_memory", lambda: 2 * half)
        return two.threads(chunk, cached=True)

    assert with_free(2 * (held + 3 * chunk)) == with_free(10**15) == pool.THREADS
    assert with_free(2 * (held + 3 * chunk) - 2) == 2
    assert with_free(2 * (held + chunk)) == with_free(held + chunk) == 1
    with pytest.raises(ArgumentError, match=r"2 workers need 2\.6 GB .* 2\.6 GB are free: .* or --workers 1"):
        with_free(held + chunk - 1)
    monkeypatch.setattr(pool, "free_memory", lambda: 2 * chunk + 2 * WORKER_BYTES)
    assert two.threads(chunk, cached=False) == 1


@pytest.mark.parametrize(
    ("limit", "allowed", "says"),
    [
        (
            resource.RLIMIT_NOFILE,
            256,
            r"20 workers need 340 open files, and 256 are allowed here: raise it with ulimit -n",
        ),
        (
            resource.RLIMIT_AS,
            2 << 30,
            r"a worker needs 3\.8 GB of address space, and ulimit -v allows 2\.1 GB: raise it",
        ),
    ],
)
def test_limits_of_the_process_are_heeded(limit: int, allowed: int, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrlimit
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (allowed, allowed) if kind == limit else before(kind))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    with pytest.raises(ArgumentError, match=says):
        Pool.plan("cpu", 20).threads(1 << 20, cached=False)
