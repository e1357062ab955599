"""kill -9 of a worker and of the command, at five moments each: a rerun gives the undisturbed run's bytes."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from rsup.pipeline.scene import Scene

MOMENTS = ["start", 1, 6, "last", "finish"]
"""Before the first chunk; after so many; after the last; while the outputs are made."""


Rsup = Callable[..., "subprocess.CompletedProcess[str]"]
PROGRAM = [sys.executable, "-m", "rsup.pipeline.cli"]


def command(scene: Scene, output: Path) -> list[str]:
    return [
        "upscale", str(scene.path), "--scale", "4", "--model", "bicubic", "--bands", "red,nir", "--chunk", "128",
        "--workers", "2", "--device", "cpu", "-o", str(output), "--json",
    ]  # fmt: skip


def bytes_of(output: Path) -> dict[str, str]:
    """Every published file and its hash."""
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file() and ".rsup" not in path.parts
    }


@pytest.fixture(scope="module")
def undisturbed(real_scene: Scene, rsup: Rsup, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("undisturbed")
    rsup(*command(real_scene, output)).check_returncode()
    files = bytes_of(output)
    assert len(files) > 30 and {"mol_x4.tif", "mol_x4.json", "mol_x4.html"} <= files.keys()
    return files


def done(output: Path) -> list[str]:
    """The ledger's lines of finished chunks and outputs, in their order."""
    ledger = output / ".rsup" / "mol_x4" / "ledger.jsonl"
    return [line for line in ledger.read_text().splitlines() if '"status": "done"' in line] if ledger.exists() else []


def wait_for(moment: str | int, output: Path, process: "subprocess.Popen[bytes]") -> None:
    """Return at the moment, or when the process is over already."""
    work = output / ".rsup" / "mol_x4"
    for _ in range(6000):
        chunks = len([line for line in done(output) if '"key": "finished"' not in line])
        here = {
            "start": bool(psutil.Process(process.pid).children(recursive=True)) if process.poll() is None else True,
            "last": chunks >= 32,
            "finish": any(work.glob(".mol_x4.tif.*")) or chunks > 32,
        }
        if process.poll() is not None or (chunks >= moment if isinstance(moment, int) else here[moment]):
            return
        time.sleep(0.01)
    pytest.fail(f"{moment} never came")


def server_of(process: "subprocess.Popen[bytes]") -> psutil.Process | None:
    """The process that workers are forked from, once it is there."""
    servers = [child for child in psutil.Process(process.pid).children() if "forkserver" in " ".join(child.cmdline())]
    return servers[0] if servers else None


def workers_of(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """The Dask worker processes."""
    server = server_of(process)
    return server.children() if server else []


@pytest.mark.parametrize("moment", MOMENTS)
def test_killing_the_command(
    moment: str | int, real_scene: Scene, undisturbed: dict[str, str], rsup: Rsup, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [*PROGRAM, *command(real_scene, tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait_for(moment, tmp_path, process)
        children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL, "the run was over before it could be killed"
    before = done(tmp_path)
    assert not list(tmp_path.glob("mol_x4.*")), "a half-written output has its final name"
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive, "workers outlived the command"
    again = rsup(*command(real_scene, tmp_path))
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["already_done"] is False
    assert done(tmp_path)[: len(before)] == before, "what was done was done again"
    assert bytes_of(tmp_path) == undisturbed


@pytest.mark.parametrize("moment", MOMENTS[:-1])
def test_killing_a_worker(moment: str | int, real_scene: Scene, undisturbed: dict[str, str], tmp_path: Path) -> None:
    with subprocess.Popen(
        [*PROGRAM, *command(real_scene, tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        wait_for(moment, tmp_path, process)
        if moment == "start":  # the worker must be up, or there is nothing to kill
            while not workers_of(process):
                time.sleep(0.01)
        for worker in workers_of(process)[:1]:
            worker.kill()
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    assert bytes_of(tmp_path) == undisturbed


def test_killing_both_workers_at_once(real_scene: Scene, undisturbed: dict[str, str], tmp_path: Path) -> None:
    with subprocess.Popen(
        [*PROGRAM, *command(real_scene, tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        wait_for(3, tmp_path, process)
        for worker in workers_of(process):
            worker.kill()
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    assert bytes_of(tmp_path) == undisturbed


def test_killing_what_workers_are_forked_from(real_scene: Scene, undisturbed: dict[str, str], tmp_path: Path) -> None:
    with subprocess.Popen(
        [*PROGRAM, *command(real_scene, tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        wait_for(3, tmp_path, process)
        server, workers = server_of(process), workers_of(process)
        assert server is not None and len(workers) == 2
        server.kill()
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    assert bytes_of(tmp_path) == undisturbed
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive, "workers outlived the command"
