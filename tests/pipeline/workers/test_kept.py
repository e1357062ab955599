"""Workers that are kept: the same for one mosaic after another, whole whenever they are handed out, gone in the end."""

from __future__ import annotations

import os
import signal

import psutil
import pytest
from clusters import collect, square

from rsup.models.base.errors import OutputError
from rsup.pipeline.workers import pool
from rsup.pipeline.workers.kept import Kept
from rsup.pipeline.workers.pool import Pool

ONE = Pool("cpu", (None,), 1)


def test_one_mosaic_after_another() -> None:
    with Kept() as workers:
        with workers(ONE, 2) as client:
            (first,) = client.run(os.getpid).values()
            assert pool.free_memory() > psutil.virtual_memory().available  # the worker's own counts as free
        with workers(ONE, 3) as client:
            assert list(client.run(os.getpid).values()) == [first]
        os.kill(first, signal.SIGKILL)
        with workers(ONE, 2) as client:  # which waits until it has been started again
            (second,) = client.run(os.getpid).values()
            assert second != first and collect(client, square, [2, 3])[0] == {2: 4, 3: 9}
        with pytest.raises(OutputError), workers(ONE, 1) as client:  # for two threads there is no memory any more
            (third,) = client.run(os.getpid).values()
            assert third != second and list(client.nthreads().values()) == [1]
            raise OutputError("no space left")
        assert not psutil.pid_exists(second) and not psutil.pid_exists(third)
