"""Real servers for the integration tests (a made archive, its STAC API, its files, faulty ones), and a small disk."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path

import pytest

from rsup.pipeline.demo.archive import Archive, make_archive
from rsup.pipeline.demo.servers import published, serve, serve_assets, serve_stac
from rsup.pipeline.lattice import Window


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """The products of 640 m squared of made landscape (see acquisitions.ACQUISITIONS), and its truth.

    One for all processes of a session, which each have a folder beside the others'. Nobody writes in it.
    """
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with open(folder / "archive.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / "archive.json"
        if not made.exists():
            made.write_text(json.dumps(asdict(make_archive(folder / "archive", seed=3, size=64)), default=str))
    found = json.loads(made.read_text())
    return Archive(
        Path(found["root"]),
        Path(found["truth"]),
        Window(**found["window"]),
        tuple(found["bbox"]),
        tuple(found["items"]),
    )


@pytest.fixture(scope="session")
def asset_server(archive: Archive) -> Iterator[str]:
    """Address of the archive's files; catalog.json below it is the root of a static catalogue."""
    with serve_assets(archive.root) as address:
        yield address


@pytest.fixture(scope="session")
def stac_server(archive: Archive, asset_server: str) -> Iterator[str]:
    """Address of the archive's STAC API."""
    with serve_stac(*published(archive.root, asset_server)) as address:
        yield address


@pytest.fixture(scope="session")
def faulty_server(archive: Archive, stac_server: str) -> Iterator[str]:
    """Address of the server of faults.py, in front of `stac_server` and the archive's files."""
    script = str(Path(__file__).with_name("faults.py"))

    def command(port: int) -> list[str]:
        return [sys.executable, script, stac_server, str(archive.root), str(port)]

    with serve(command, "the faulty server") as address:
        yield address


_tokens = count()


@pytest.fixture
def faulty(faulty_server: str) -> Callable[..., str]:
    """`faulty("throttled")`: root of a catalogue with that fault and fresh counters; `faulty("slow", 2)`: seconds."""

    def root(fault: str, token: object = None) -> str:
        return f"{faulty_server}/{fault}/{next(_tokens) if token is None else token}"

    return root


class SmallDisk:
    """A disk of its own, mounted at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def remount(self, options: str) -> None:
        """`size=600k` makes it larger, or smaller than what it holds; `ro` read-only."""
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A disk of 64 KiB that can be made to grow."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "rsup-test", path]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {tried.stderr.strip()}")
    yield SmallDisk(path)
    subprocess.run(["umount", "--lazy", path], check=True)
