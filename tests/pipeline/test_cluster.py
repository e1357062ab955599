"""Real worker processes: pinning, retries, bounded flight, a worker killed in the middle of its work."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cloudpickle
import pytest
from distributed import Client

from rsup.pipeline import cluster
from rsup.pipeline.cluster import Pool
from rsup.pipeline.errors import ArgumentError, OutputError

# Workers cannot import this file: they get copies of its functions, whole, instead of their names.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with cluster.local_client(Pool("cpu", (None, "7"), 1), threads=2) as connected:
        yield connected


def collect(client: Client, function: object, keys: list[int], in_flight: int = 4) -> tuple[dict, dict]:
    done: dict[int, object] = {}
    failed: dict[int, str] = {}
    copy = cloudpickle.loads(cloudpickle.dumps(function))
    cluster.run(client, copy, keys, in_flight, done.__setitem__, failed.__setitem__)
    return done, failed


def square(key: int) -> int:
    return key * key


def fail_on_odd(marks: Path, key: int) -> int:
    mark = marks / str(key)
    tries = len(mark.read_text()) if mark.exists() else 0
    mark.write_text("x" * (tries + 1))
    if key % 2:
        raise ValueError(f"odd {key}")
    if tries < 2:
        raise OSError("not yet")
    return tries


def no_space(key: int) -> int:
    if key == 3:
        raise OutputError("no space left in /full")
    return key


def die_once(marks: Path, key: int) -> int:
    mark = marks / f"died-{key}"
    if key == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return key


def always_die(key: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return key


def pin(key: int) -> str:
    time.sleep(0.2)  # long enough that both workers get some
    return os.environ.get("CUDA_VISIBLE_DEVICES", "none")


def busy(folder: Path, key: int) -> int:
    """How many tasks are running at this moment."""
    mark = folder / f"{os.getpid()}-{threading.get_ident()}-{key}"
    mark.touch()
    time.sleep(0.05)
    running = len(list(folder.iterdir()))
    mark.unlink()
    return running


def test_every_key_is_done_once(client: Client) -> None:
    done, failed = collect(client, square, list(range(20)))
    assert done == {key: key * key for key in range(20)} and not failed
    assert collect(client, square, []) == ({}, {})


def test_a_task_is_tried_three_times_and_the_rest_goes_on(client: Client, tmp_path: Path) -> None:
    done, failed = collect(client, partial(fail_on_odd, tmp_path), list(range(6)))
    assert done == {0: 2, 2: 2, 4: 2}
    assert failed == {1: "ValueError: odd 1", 3: "ValueError: odd 3", 5: "ValueError: odd 5"}
    assert {(tmp_path / str(key)).read_text() for key in range(6)} == {"xxx"}


def test_an_error_that_meets_every_task_stops_the_run(client: Client) -> None:
    with pytest.raises(OutputError, match="no space left in /full"):
        collect(client, no_space, list(range(100)))
    assert collect(client, square, [3]) == ({3: 9}, {})


def test_flight_is_bounded(client: Client, tmp_path: Path) -> None:
    done, _ = collect(client, partial(busy, tmp_path), list(range(12)), in_flight=2)
    assert 1 <= max(done.values()) <= 2  # type: ignore[type-var]


def test_a_cuda_worker_sees_its_own_card_only(client: Client) -> None:
    done, _ = collect(client, pin, list(range(8)))
    assert set(done.values()) == {os.environ.get("CUDA_VISIBLE_DEVICES", "none"), "7"}


def test_a_killed_worker_costs_nothing_but_its_tasks(client: Client, tmp_path: Path) -> None:
    done, failed = collect(client, partial(die_once, tmp_path), list(range(8)))
    assert done == {key: key for key in range(8)} and not failed
    # The pin and the plugin's environment survive, because the nanny starts the worker anew.
    client.wait_for_workers(2, timeout=60)
    done, _ = collect(client, pin, list(range(8)))
    assert set(done.values()) == {os.environ.get("CUDA_VISIBLE_DEVICES", "none"), "7"}


def test_a_task_that_kills_its_workers_fails_alone() -> None:
    with cluster.local_client(Pool("cpu", (None,), 1), threads=1) as alone:
        done, failed = collect(alone, always_die, [1], in_flight=1)
        assert not done and "died 3 times" in failed[1]
        assert collect(alone, square, [3]) == ({3: 9}, {})


def test_pool_on_the_cpu_shares_the_cores() -> None:
    cores = len(os.sched_getaffinity(0))
    assert Pool.plan("cpu", None) == Pool("cpu", (None,), cores)
    assert Pool.plan("cpu", 4) == Pool("cpu", (None,) * 4, max(1, cores // 4))


@pytest.mark.parametrize(
    ("device", "workers", "sentence"),
    [("cpu", 0, "at least one"), ("tpu", None, "choose auto"), ("cuda:99", None, "CUDA devices")],
)
def test_a_pool_that_cannot_be_is_a_sentence(device: str, workers: int | None, sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        Pool.plan(device, workers)


@pytest.mark.gpu
def test_one_worker_a_card() -> None:
    pool = Pool.plan("auto", None)
    assert pool.device == "cuda" and len(set(pool.pins)) == len(pool.pins) >= 1


def test_workers_of_another_version_are_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    address = client.scheduler.address
    with cluster.remote_client(address) as connected:
        assert len(connected.nthreads()) == 2
    monkeypatch.setattr(cluster, "VERSION", "99.0")
    with pytest.raises(ArgumentError, match=r"workers have rsup 0\..*install 99\.0"), cluster.remote_client(address):
        pass


def test_no_scheduler_there_is_a_sentence() -> None:
    with (
        pytest.raises(ArgumentError, match="no Dask scheduler answers"),
        cluster.remote_client("tcp://127.0.0.1:1"),
    ):
        pass
