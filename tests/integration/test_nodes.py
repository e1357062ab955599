"""Two nodes, each a network of its own, with a scheduler and workers behind TLS that somebody has started by hand.

The nodes share the disk of scene and mosaic. The second one does not see the weights file.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import zarr
from distributed import Security
from forks import Rsup

from rsup.pipeline.demo import servers
from rsup.pipeline.scenes.scene import Scene

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ADDRESSES = ("198.51.100.1", "198.51.100.2")
SCHEDULER = f"tls://{ADDRESSES[0]}:8786"
PATIENCE = 120.0
"""Seconds in which a process must have begun its work."""

CHUNKS = 16


def ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"networks cannot be made here: ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Nodes:
    """Two networks with a cable between them, and what runs in them."""

    def __init__(self, folder: Path, hidden: Path, running: ExitStack) -> None:
        """`hidden`: a folder that the second node does not see."""
        self.folder, self.hidden, self._running = folder, hidden, running
        self.names = [f"rsup-{os.getpid()}-{number}" for number in (1, 2)]
        for name in self.names:
            ip("netns", "add", name)
            running.callback(ip, "netns", "delete", name)
        first, second = self.names
        ip("-netns", first, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", second)
        for name, address in zip(self.names, ADDRESSES, strict=True):
            ip("-netns", name, "address", "add", f"{address}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-netns", name, "link", "set", device, "up")
        shown = Security.temporary().get_tls_config_for_role("client")
        self.files = {name: folder / f"{name}.pem" for name in ("ca_file", "cert", "key")}
        for name, file in self.files.items():
            file.touch(0o600)
            file.write_text(shown[name])

    def start(self, node: int, *command: object) -> None:
        """Run a command of Dask on a node until the test is over."""
        tls = [f"--tls-{name.replace('_', '-')}={file}" for name, file in self.files.items()]
        line = shlex.join([str(Path(sys.executable).with_name("dask")), *map(str, command), *tls])
        hide = f"mount -t tmpfs none {shlex.quote(str(self.hidden))} && " if node == 1 else ""
        inside = ["ip", "netns", "exec", self.names[node], "sh", "-c", f"{hide}exec {line}"]
        log = self._running.enter_context(open(self.folder / f"{command[0]}-{node}.log", "ab"))
        environment = os.environ | {"XDG_CACHE_HOME": str(self.cache(node))}
        process = servers.start(inside, cwd=self.folder, stdout=log, stderr=log, env=environment)
        self._running.callback(servers.stop, process)

    def start_cluster(self) -> None:
        """A scheduler on the first node, a worker on each."""
        self.start(0, "scheduler", "--host", ADDRESSES[0], "--port", 8786, "--protocol", "tls", "--no-dashboard")
        for node, address in enumerate(ADDRESSES):
            options = ("--nworkers", 1, "--nthreads", 1, "--no-dashboard", "--death-timeout", 300)
            self.start(node, "worker", SCHEDULER, "--host", address, *options)

    def have_weights(self) -> bool:
        """Whether each node's worker has them in its cache."""
        return all(any(self.cache(node).glob("rsup/weights/*.safetensors")) for node in (0, 1))

    def cache(self, node: int) -> Path:
        """Of the worker on a node."""
        return self.folder / f"cache-{node}"

    def begin(self, *arguments: object) -> subprocess.Popen[str]:
        """`rsup upscale` on the first node."""
        named = zip(("--tls-ca", "--tls-cert", "--tls-key"), self.files.values(), strict=True)
        tls = [str(part) for pair in named for part in pair]
        program = [sys.executable, "-m", "rsup.pipeline.cli", "upscale", *map(str, arguments)]
        line = ["ip", "netns", "exec", self.names[0], *program, "--scheduler", SCHEDULER, *tls]
        return subprocess.Popen(line, cwd=self.folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    def kill(self, node: int, word: str | None = None) -> None:
        """kill -9 of everything on a node, or of what has that word in its command line."""
        for pid in map(int, ip("netns", "pids", self.names[node]).split()):
            if word is None or word in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def nodes(tmp_path: Path, quick_student: Path) -> Iterator[Nodes]:
    weights = tmp_path / "weights"
    weights.mkdir()
    quick_student.rename(weights / "quick.safetensors")
    with ExitStack() as running:
        started = Nodes(tmp_path, weights, running)
        running.callback(started.kill, 1)
        running.callback(started.kill, 0)
        started.start_cluster()
        yield started


def wait_for_chunks(nodes: Nodes, process: subprocess.Popen[str], output: Path, count: int) -> None:
    """Until a run has that many chunks done, and not all, and both workers have the weights."""
    ledger, until = output / ".rsup/scene_x4/ledger.jsonl", time.monotonic() + PATIENCE
    while not ledger.exists() or ledger.read_text().count('"done"') < count or not nodes.have_weights():
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            raise AssertionError(process.communicate()[1])
        time.sleep(0.01)
    assert ledger.read_text().count('"done"') < CHUNKS


def test_two_nodes_one_of_which_dies_and_a_scheduler_that_does(
    nodes: Nodes, make_scene: Callable[..., Scene], rsup: Rsup, tmp_path: Path
) -> None:
    scene = make_scene(np.random.default_rng(1).integers(1200, 4000, (3, 256, 256)).astype(np.uint16)).path
    asked = (scene, "--scale", 4, "--chunk", 64, "--model", nodes.hidden / "quick.safetensors")
    assert rsup("upscale", *asked, "-o", tmp_path / "here").returncode == 0

    process = nodes.begin(*asked, "-o", "far")
    wait_for_chunks(nodes, process, tmp_path / "far", 2)
    nodes.kill(1)
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said

    process = nodes.begin(*asked, "-o", "again")
    wait_for_chunks(nodes, process, tmp_path / "again", 2)
    nodes.kill(0, "scheduler")
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 7 and "run the same command again to go on" in said and "Traceback" not in said, said
    nodes.kill(0)
    nodes.start_cluster()
    process = nodes.begin(*asked, "-o", "again")
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said

    for band in ("red", "green", "blue"):
        here = np.asarray(zarr.open(tmp_path / "here/scene_x4.zarr")[band]).astype(int)
        for where in ("far", "again"):
            there = np.asarray(zarr.open(tmp_path / where / "scene_x4.zarr")[band])
            assert np.abs(here - there).max() <= 1
