"""Tasks on real worker processes: retries, bounded flight, a worker killed in the middle of its work."""

import os
import signal
import sys
import threading
import time
from functools import partial
from pathlib import Path

import cloudpickle
import pytest
from clusters import collect, pin, square
from distributed import Client

from rsup.models.base.errors import OutputError
from rsup.models.upscaler import descriptor_of
from rsup.pipeline.workers import tasks
from rsup.pipeline.workers.local import local_client
from rsup.pipeline.workers.model import ModelPlugin
from rsup.pipeline.workers.pool import Pool

# Workers cannot import this file: they get copies of its functions, whole, instead of their names.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


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


def test_a_killed_worker_costs_nothing_but_its_tasks(client: Client, tmp_path: Path) -> None:
    done, failed = collect(client, partial(die_once, tmp_path), list(range(8)))
    assert done == {key: key for key in range(8)} and not failed
    # The pin and the plugin's environment survive, because the nanny starts the worker anew.
    client.wait_for_workers(2, timeout=60)
    done, _ = collect(client, pin, list(range(8)))
    assert set(done.values()) == {os.environ.get("CUDA_VISIBLE_DEVICES", "none"), "7"}


def test_a_task_that_kills_its_workers_fails_alone() -> None:
    with local_client(Pool("cpu", (None,), 1), threads=1) as alone:
        done, failed = collect(alone, always_die, [1], in_flight=1)
        assert not done and "died 3 times" in failed[1]
        assert collect(alone, square, [3]) == ({3: 9}, {})


class Unequal(ModelPlugin):
    """Workers of which one would compute otherwise than the other."""

    def arithmetic(self) -> str:
        return "bfloat16 on cpu" if os.environ.get("CUDA_VISIBLE_DEVICES") == "7" else "float32"


class Equal(ModelPlugin):
    def arithmetic(self) -> str:
        return "bfloat16 on cpu"


@pytest.mark.parametrize(("kind", "common"), [(Unequal, "float32"), (Equal, "bfloat16 on cpu")])
def test_workers_are_brought_to_one_arithmetic(client: Client, kind: type[ModelPlugin], common: str) -> None:
    client.wait_for_workers(2, timeout=60)
    plugin = kind("made", descriptor_of("bicubic", 4), None)
    with tasks.holding(client, plugin):
        assert tasks.common_arithmetic(client, plugin) == common
