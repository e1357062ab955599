"""kill -9 of workers and of the command, at several moments: the bytes are those of an undisturbed run."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from forks import Rsup
from scenes import write_scene

from rsup.pipeline.lattice import Window
from rsup.pipeline.scenes.scene import Scene

MOMENTS = ["start", 6, "finish"]
"""Before the first chunk; after so many; while the outputs are made."""


CHUNKS = 32
PROGRAM = [sys.executable, "-m", "rsup.pipeline.cli"]


def command(scene: Scene, output: Path) -> list[str]:
    return [
        "upscale", str(scene.path), "--scale", "4", "--model", "bicubic", "--bands", "red,nir", "--chunk", "64",
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
def scene(real_scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A part of it, of CHUNKS chunks."""
    window = Window(real_scene.window.row + 100, real_scene.window.col + 100, 512, 256)
    path = tmp_path_factory.mktemp("part") / "mol.zarr"
    return write_scene(path, real_scene.read(("red", "nir"), window), ("red", "nir"), window, "EPSG:32631")


@pytest.fixture(scope="module")
def undisturbed(scene: Scene, rsup: Rsup, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("undisturbed")
    rsup(*command(scene, output)).check_returncode()
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
            "finish": any(work.glob(".mol_x4.tif.*")) or chunks > CHUNKS,
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


@pytest.mark.slow
def test_killing_the_command_again_and_again(
    scene: Scene, undisturbed: dict[str, str], rsup: Rsup, tmp_path: Path
) -> None:
    for moment in MOMENTS:
        before = done(tmp_path)
        with subprocess.Popen(
            [*PROGRAM, *command(scene, tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            wait_for(moment, tmp_path, process)
            children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            os.kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, f"the run was over before it could be killed at {moment}"
        assert done(tmp_path)[: len(before)] == before, "what was done was done again"
        assert not list(tmp_path.glob("mol_x4.*")), "a half-written output has its final name"
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive, "workers outlived the command"
    before = done(tmp_path)
    again = rsup(*command(scene, tmp_path))
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["already_done"] is False
    assert done(tmp_path)[: len(before)] == before, "what was done was done again"
    assert bytes_of(tmp_path) == undisturbed


@pytest.mark.slow
def test_killing_workers_all_along(scene: Scene, undisturbed: dict[str, str], tmp_path: Path) -> None:
    """One at each moment, both at once, and, when a new one has done something, what they are forked from."""
    seen = set()
    with subprocess.Popen(
        [*PROGRAM, *command(scene, tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        for moment, count in (("start", 1), (1, 1), (6, 2), (20, 0)):
            wait_for(moment, tmp_path, process)
            workers = workers_of(process)
            while process.poll() is None and len(workers) < max(1, count):  # they must be up to be killed
                time.sleep(0.01)
                workers = workers_of(process)
            seen.update(workers)
            server = server_of(process)
            assert server is not None
            for each in workers[:count] or [server]:
                with suppress(psutil.NoSuchProcess):  # it may have ended with the one before
                    each.kill()
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    assert bytes_of(tmp_path) == undisturbed
    _, alive = psutil.wait_procs(seen, timeout=30)
    assert not alive, "workers outlived the command"
