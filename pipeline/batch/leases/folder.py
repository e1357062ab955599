"""Who works on a unit: a file that one runner alone can create, refreshes while it lives, and loses when it does not.

A lease says on which machine and by which process it is held. On this machine a process that is gone holds nothing; of
another machine's, a lease counts as left behind when it has not been refreshed for a while. Its age is told by the
clock that stamps the files, for those of the machines may differ.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rsup.models.base.errors import OutputError
from rsup.models.base.files import writing
from rsup.pipeline.places.place import names

from .holder import is_gone, this_process

FOLDER = ".leases"
CLOCK = "clock"
"""A file that is written to read the time of day off it."""
BEAT = 10.0
"""Seconds between two refreshments."""
STALE = 120.0
"""Seconds without one after which another machine's lease is taken over."""


class Lease:
    """A unit that is held, while the block runs; `acquire` gives it."""

    def __init__(self, output: Path, path: Path, content: bytes) -> None:
        self.output, self.path, self._content = output, path, content
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name=f"lease {path.name}", daemon=True)

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with suppress(OSError):
                if self.held():
                    os.utime(self.path)

    def held(self) -> bool:
        """Whether it is still this process's: one that slept for long may have lost it."""
        return _content(self.path) == self._content

    def __enter__(self) -> Lease:
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._heart.join()
        with suppress(OSError), alone(self.output):
            if self.held():
                self.path.unlink()
            self.path.parent.rmdir()  # where it was the last one


def acquire(output: Path, name: str) -> Lease | None:
    """The lease of the unit `name`, or None where another runner has it. Raises OutputError where the disk refuses."""
    path = output / FOLDER / f"{name}.json"
    content = json.dumps(this_process() | {"token": secrets.token_hex(8)}).encode()
    with writing(path, OutputError), alone(output):
        path.parent.mkdir(exist_ok=True)
        if path.exists():
            if is_alive(path, _now(path.parent)):
                return None
            path.unlink()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    return Lease(output, path, content)


@contextmanager
def alone(output: Path) -> Iterator[None]:
    """While the block runs, no other process of this machine is in one of the same output. A kill lets go as well."""
    descriptor = os.open(output, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def leased(output: Path) -> set[str]:
    """Names of the units that some runner works on, by this machine's clock: nothing is written."""
    folder, now = output / FOLDER, time.time()
    found = (folder / name for name in names(folder))  # which bears with it that the last to let go takes it away
    return {path.stem for path in found if path.suffix == ".json" and is_alive(path, now)}


def sweep(output: Path) -> None:
    """Remove the leases of the dead, whose units need nothing any more. Raises OutputError where the disk refuses."""
    folder = output / FOLDER
    with writing(folder, OutputError), alone(output):
        if not folder.is_dir():
            return
        now = _now(folder)
        for path in folder.glob("*.json"):
            if not is_alive(path, now):
                path.unlink(missing_ok=True)
        with suppress(OSError):
            folder.rmdir()  # where none is left


def is_alive(path: Path, now: float) -> bool:
    """Whether somebody still holds the lease at `path`; `now`: by the clock that its age is told by."""
    try:
        said = json.loads(_content(path) or b"")
        gone = is_gone(said)
        # No holder refreshes into the future: such a time is of a clock that has been set back since.
        return not gone if gone is not None else abs(now - path.stat().st_mtime) < STALE
    except (OSError, ValueError, RecursionError):  # gone, or torn: who wrote it was killed
        return False


def _now(folder: Path) -> float:
    """The time of day by the clock that stamps the folder's files, which may be a server's. Raises OSError."""
    path = folder / CLOCK
    with open(path, "wb") as file:
        os.utime(file.fileno())
        now = os.fstat(file.fileno()).st_mtime
    path.unlink(missing_ok=True)
    return now


def _content(path: Path) -> bytes | None:
    with suppress(OSError):
        return path.read_bytes()
    return None
