"""The process that workers are forked from: one at a time, with what the C library reads, gone with its block."""

import gc
import os
import subprocess
import sys
from multiprocessing import forkserver, get_context

import psutil
import pytest

from rsup.pipeline.memory import WORKER_ENVIRONMENT
from rsup.pipeline.workers.forks.forking import forking


@pytest.fixture(autouse=True)
def none_is_left_of_earlier_tests() -> None:
    forkserver._forkserver._stop()  # type: ignore[attr-defined]


def servers() -> list[psutil.Process]:
    return [each for each in psutil.Process().children() if "forkserver" in " ".join(each.cmdline())]


def test_one_process_while_the_block_runs() -> None:
    before = dict(os.environ)
    with forking():
        (server,) = servers()
        assert WORKER_ENVIRONMENT.items() <= server.environ().items()
        assert dict(os.environ) == before
        with forking():
            assert servers() == [server]
        assert servers() == [server]  # the inner block's end is not its
    assert not server.is_running()
    assert not servers()


def test_what_is_forked_has_torch_already_and_collects_garbage_but_of_its_own() -> None:
    with forking():
        (server,) = servers()
        child = get_context("forkserver").Process(target=_check, args=(server.pid,))
        child.start()
        child.join(120)
        assert child.exitcode == 0


def _check(server: int) -> None:
    assert os.getppid() == server
    assert "torch" in sys.modules
    assert gc.isenabled() and gc.get_freeze_count() > 10 * len(gc.get_objects())


def test_it_can_be_started_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys, rsup.pipeline.workers.forks.forking; print({'dask', 'numpy', 'torch', 'zarr'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
