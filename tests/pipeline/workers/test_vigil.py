"""A cluster that is lost in the middle of the work, frozen or killed."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cloudpickle
import pytest
from distributed import Client

from rsup.models.base.errors import ChunkError
from rsup.pipeline.workers import tasks, vigil
from rsup.pipeline.workers.standing import remote_client

# Workers cannot import this file: they get copies of its functions, whole, instead of their names.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Standing:
    """A scheduler and workers as somebody may have started them, each a process."""

    def __init__(self, folder: Path, workers: int) -> None:
        self._folder = folder
        self.address = ""
        code = "import sys; from distributed.cli.dask_scheduler import main; main()"
        file = folder / "scheduler.json"
        self.scheduler = self._start(code, "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file",
                                     str(file), "--dashboard-address", "127.0.0.1:0")  # fmt: skip
        while not file.exists():
            time.sleep(0.05)
        code = "import sys; from distributed.cli.dask_worker import main; main()"
        options = ("--scheduler-file", str(file), "--host", "127.0.0.1", "--nthreads", "1", "--no-nanny")
        self.workers = [self._start(code, *options) for _ in range(workers)]
        with Client(scheduler_file=str(file), timeout=60) as client:
            client.wait_for_workers(workers, timeout=120)
            self.address = client.scheduler.address

    def _start(self, code: str, *options: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-c", code, *options],
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def end(self) -> None:
        for each in (self.scheduler, *self.workers):
            each.kill()
            each.wait()


@pytest.fixture
def standing(tmp_path: Path) -> Iterator[Standing]:
    started = Standing(tmp_path, 1)
    yield started
    started.end()


def slowly(key: int) -> int:
    time.sleep(0.1)
    return key


@pytest.mark.parametrize(
    ("blow", "says"),
    [
        # Whether the client has closed itself before it is asked is the operating system's to say.
        (lambda it: it.scheduler.kill(), "the .*Dask scheduler (was lost|has not been heard of)"),
        (lambda it: it.scheduler.send_signal(signal.SIGSTOP), "the Dask scheduler has not been heard of for 2 s"),
        (lambda it: it.workers[0].kill(), "no worker of the cluster has been heard of for 2 s"),
        (lambda it: it.workers[0].send_signal(signal.SIGSTOP), "no worker of the cluster has been heard of for 2 s"),
    ],
    ids=["scheduler killed", "scheduler frozen", "workers killed", "workers frozen"],
)
def test_a_lost_cluster_is_a_sentence(
    standing: Standing,
    blow: Callable[[Standing], None],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(vigil, "PATIENCE", 2.0)
    monkeypatch.setattr(vigil, "LOOK", 0.5)
    monkeypatch.setattr(vigil, "CLOSING", 1.0)
    done = []

    def on_done(key: int, _: object) -> None:
        done.append(key)
        if len(done) == 3:
            blow(standing)

    task = cloudpickle.loads(cloudpickle.dumps(slowly))
    with pytest.raises(ChunkError, match=says), remote_client(standing.address) as client:
        tasks.run(client, task, range(100), 2, on_done, lambda key, reason: None)
    assert 3 <= len(done) < 20
    assert "Traceback" not in capfd.readouterr().err
