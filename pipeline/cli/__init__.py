"""The process behind `rsup`: its signals and streams, and the one place where a failure becomes a sentence.

Importing this is starting the command: until `main` hears Ctrl-C it ends the process, with nothing begun and no
traceback from the middle of an import.
"""

# ruff: noqa: E402
from __future__ import annotations

import signal

signal.signal(signal.SIGINT, signal.SIG_DFL)

import io
import os
import resource
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from rsup.pipeline.public import DIRECTION, escaped, printable, public_text

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PATIENCE = 5.0
"""Seconds that stopping may take."""

FILES = 4096
"""Open files that are asked for: a worker has a dozen sockets and pipes, GDAL keeps many connections."""
FEWEST_FILES = 256
"""Below, event loops wait for ever for sockets that they cannot open."""
FEWEST_ADDRESSES = 2 << 30
"""Bytes of address space below which libraries crash while they are loaded."""


def main() -> None:
    """Entry point: run a command; print a failure as one sentence and leave with its exit code."""
    _stop_when_told()
    _open_streams()

    from rsup.pipeline.environment import settle

    settle()  # before anything that is not Python's own is imported

    from rsup.models.base.errors import RsupError
    from rsup.models.base.progress import say

    try:
        _check_limits()
        _run()
    except RsupError as error:
        say(f"rsup: {printable(public_text(str(error)))}")
        _leave(error.exit_code)
    except MemoryError as error:
        say(f"rsup: not enough memory ({printable(str(error)) or 'none is left'}): free some, or ask for less at once")
        _leave(1)
    except BrokenPipeError:
        # The reader (head, less) went away: nothing left to say.
        _leave(1)


def _run() -> None:
    """The command, and what it printed on its way out: a disk may be full at the last line."""
    from .app import app

    try:
        app()
    finally:
        sys.stdout.flush()


def _leave(code: int) -> None:
    """End with `code`; what standard output could not take is dropped, else the interpreter would try it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(code)


def _stop_when_told() -> None:
    """Leave on Ctrl-C and SIGTERM with one sentence, at once the second time or where cleaning up takes long."""

    def leave(number: int, _: object) -> None:
        def give_up(*_: object) -> None:
            os._exit(128 + number)  # as safe as kill -9: a rerun goes on

        os.write(2, b"\nrsup: stopped; run the same command again to go on\n")
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, give_up)
        timer = threading.Timer(PATIENCE, give_up)
        timer.daemon = True
        timer.start()
        raise SystemExit(128 + number)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, leave)


class _StandardOutput(io.FileIO):
    """File descriptor 1, which says in words where it cannot be written."""

    def write(self, data: ReadableBuffer, /) -> int:
        """As FileIO; raises OutputError where the disk is full or the device gone."""
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            raise
        except OSError as error:
            from rsup.models.base.errors import OutputError

            raise OutputError(f"standard output cannot be written ({error.strerror}); send it elsewhere") from error


class _StandardError(io.FileIO):
    """File descriptor 2. News that finds no room is dropped: the work is worth more."""

    def write(self, data: ReadableBuffer, /) -> int:
        """As FileIO, but never fails."""
        with suppress(OSError):
            return super().write(data) or 0
        return memoryview(data).nbytes


class _Lines(io.TextIOWrapper):
    """A standard stream on which every line reads from left to right, whatever names and options are in it."""

    _plain = str.maketrans({char: escaped(char) for char in DIRECTION})

    def __init__(self, raw: io.FileIO) -> None:
        line_by_line = raw.fileno() == 2 or raw.isatty()
        super().__init__(io.BufferedWriter(raw), "locale", "backslashreplace", line_buffering=line_by_line)

    def write(self, text: str, /) -> int:
        """As TextIOWrapper."""
        return super().write(text.translate(self._plain))


def _open_streams() -> None:
    """Standard streams that take any text.

    One that was closed is opened on the null device: its number would go to the next file that is opened, a chunk of
    a store perhaps, and what a library prints would land there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout = _Lines(_StandardOutput(1, "w", closefd=False))
    sys.stderr = _Lines(_StandardError(2, "w", closefd=False))


def _check_limits() -> None:
    """Let this process and its workers open FILES files, where it may.

    Raises RsupError below FEWEST_FILES and FEWEST_ADDRESSES.
    """
    from rsup.models.base.errors import RsupError

    addresses = resource.getrlimit(resource.RLIMIT_AS)[0]
    if addresses != resource.RLIM_INFINITY and addresses < FEWEST_ADDRESSES:
        raise RsupError(
            f"only {addresses / 1e9:.1f} GB of address space are allowed here, and rsup needs "
            f"{FEWEST_ADDRESSES / 1e9:.1f} GB: raise it with ulimit -v"
        )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if wanted < FEWEST_FILES:
        raise RsupError(
            f"only {hard} files may be open at once here, and rsup needs {FEWEST_FILES}: raise it with ulimit -n"
        )
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
