"""Real worker processes: pinning, retries, bounded flight, a worker killed in the middle of its work."""

import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import cloudpickle
import dask
import psutil
import pytest
from distributed import Client, Security
from safetensors.torch import load_file

from rsup.models.base.errors import ArgumentError, ChunkError, ModelError, OutputError
from rsup.models.upscaler import descriptor_of
from rsup.models.weights_file import read_header, save_weights
from rsup.pipeline.workers import local, tasks, vigil
from rsup.pipeline.workers import standing as standing_clusters
from rsup.pipeline.workers.model import ModelPlugin, worker_model
from rsup.pipeline.workers.pool import Pool

# Workers cannot import this file: they get copies of its functions, whole, instead of their names.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local.local_client(Pool("cpu", (None, "7"), 1), threads=2) as connected:
        yield connected


def collect(client: Client, function: object, keys: list[int], in_flight: int = 4) -> tuple[dict, dict]:
    done: dict[int, object] = {}
    failed: dict[int, str] = {}
    copy = cloudpickle.loads(cloudpickle.dumps(function))
    tasks.run(client, copy, keys, in_flight, done.__setitem__, failed.__setitem__)
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
    with local.local_client(Pool("cpu", (None,), 1), threads=1) as alone:
        done, failed = collect(alone, always_die, [1], in_flight=1)
        assert not done and "died 3 times" in failed[1]
        assert collect(alone, square, [3]) == ({3: 9}, {})


def test_workers_of_another_version_are_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    address = client.scheduler.address
    with standing_clusters.remote_client(address) as connected:
        assert len(connected.nthreads()) == 2
    monkeypatch.setattr(standing_clusters, "VERSION", "99.0")
    with (
        pytest.raises(ArgumentError, match=r"workers have rsup 0\..*install 99\.0"),
        standing_clusters.remote_client(address),
    ):
        pass


def test_no_scheduler_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing_clusters, "CONNECTING", 1.0)
    with (
        pytest.raises(ArgumentError, match="no Dask scheduler answers"),
        standing_clusters.remote_client("tcp://127.0.0.1:1"),
    ):
        pass


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 400 Bad Request\r\n\r\n"], ids=["silent", "http"])
def test_a_server_that_is_no_scheduler_is_a_sentence(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing_clusters, "CONNECTING", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"

        def serve() -> None:
            with suppress(OSError), server.accept()[0] as caller:
                caller.sendall(answer)
                caller.recv(1000)
                time.sleep(2)

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            pytest.raises(ArgumentError, match="no Dask scheduler answers there"),
            standing_clusters.remote_client(address),
        ):
            pass
        thread.join()


NO_ADDRESSES = ["", "x", "tcp://", "tcp://127.0.0.1", "tcp://[::1", "tcp://h:99999", "inproc://x:1", "http://127.0.0.1:1",
                "tcp://u:p@127.0.0.1:1", "tcp://127.0.0.1:1/x", "\n"]  # fmt: skip


@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_what_is_no_address_is_a_sentence(address: str) -> None:
    with pytest.raises(ArgumentError, match="give tcp://HOST:PORT or tls://HOST:PORT"):
        standing_clusters.credentials(address, None, None, None)


def test_a_stranger_on_this_machine_gets_nothing(client: Client) -> None:
    """Neither pages nor a connection: whoever is let in runs code in the workers and in the command."""
    ours = [psutil.Process(), *map(psutil.Process, client.run(os.getpid).values())]
    ports = {each.laddr.port for process in ours for each in process.net_connections("tcp") if each.status == "LISTEN"}
    assert len(ports) >= 5  # a scheduler, two workers and their nannies
    anybody = Security.temporary().get_connection_args("client")["ssl_context"]
    anybody.verify_mode = ssl.CERT_NONE
    question = b"GET /info/main/workers.html HTTP/1.0\r\n\r\n"
    for port in ports:
        assert heard(port, question) == heard(port, question, anybody) == b""
        assert heard(port, b"", client.security.get_connection_args("client")["ssl_context"])


def heard(port: int, question: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """What a server of this machine answers; nothing where it hangs up."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            with context.wrap_socket(plain) if context else plain as talk:
                talk.sendall(question)
                return talk.recv(100)
    except (ConnectionError, ssl.SSLError):
        return b""


def test_credentials_may_lie_in_files(client: Client, tmp_path: Path) -> None:
    shown = client.security.get_tls_config_for_role("client")
    files = {name: tmp_path / f"{name}.pem" for name in ("ca_file", "cert", "key", "both")}
    for name in ("ca_file", "cert", "key"):
        files[name].write_text(shown[name])
    files["both"].write_text(shown["cert"] + shown["key"])
    address = client.scheduler.address
    for cert, key in ((files["cert"], files["key"]), (files["both"], None)):
        security = standing_clusters.credentials(address, files["ca_file"], cert, key)
        with standing_clusters.remote_client(address, security) as connected:
            assert len(connected.nthreads()) == 2
    with pytest.raises(ArgumentError, match="are for tls://"):
        standing_clusters.credentials("tcp://127.0.0.1:1", files["ca_file"], None, None)
    for wrong in (tmp_path / "nothing", tmp_path, files["ca_file"].with_suffix(".txt")):
        (tmp_path / "ca_file.txt").write_text("no PEM")
        with pytest.raises(ArgumentError, match="in PEM"):
            standing_clusters.credentials(address, wrong, files["cert"], files["key"])


def test_tls_without_credentials_is_a_sentence() -> None:
    nothing = dask.config.set({"distributed.comm.tls.ca-file": None, "distributed.comm.tls.client.cert": None})
    with nothing, pytest.raises(ArgumentError, match="--tls-ca, --tls-cert and --tls-key, or Dask's configuration"):
        standing_clusters.credentials("tls://127.0.0.1:1", None, None, None)


def test_temporary_files_lie_where_nobody_waits_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "dask-scratch-space").symlink_to(victim)
    with local.local_client(Pool("cpu", (None,), 1), threads=1):
        (ours,) = tmp_path.glob("rsup-*")
        assert ours.stat().st_mode & 0o777 == 0o700
    assert not ours.exists() and not list(victim.iterdir())


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
        (lambda it: it.scheduler.kill(), "the connection to the Dask scheduler was lost"),
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
    with pytest.raises(ChunkError, match=says), standing_clusters.remote_client(standing.address) as client:
        tasks.run(client, task, range(100), 2, on_done, lambda key, reason: None)
    assert 3 <= len(done) < 20
    assert "Traceback" not in capfd.readouterr().err


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


def load_model(name: str, key: int) -> str:
    return worker_model(name).upscaler("float32").descriptor.sha256


def test_a_worker_loads_the_planned_weights_and_no_others(client: Client, quick_student: Path) -> None:
    """A file that is replaced while the run goes on, or another one on another machine."""
    planned = descriptor_of(str(quick_student), 4)
    plugins = [ModelPlugin(name, planned, Pool("cpu", (None,), 1)) for name in ("same", "other")]
    with tasks.holding(client, plugins[0]):
        assert collect(client, partial(load_model, plugins[0].name), [0]) == ({0: planned.sha256}, {})
    state = {name: tensor + 1e-3 for name, tensor in load_file(quick_student).items()}
    save_weights(quick_student, state, read_header(quick_student)[0])
    with (
        tasks.holding(client, plugins[1]),
        pytest.raises(ModelError, match="not the model this run was planned with"),
    ):
        collect(client, partial(load_model, plugins[1].name), [0])
