"""The process behind `rsup`: its signals and streams, and the one place where a failure becomes a sentence.

Signals are heard before anything else is imported, so that Ctrl-C in the first moment is no traceback either.
"""

from __future__ import annotations

import io
import os
import resource
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PATIENCE = 5.0
"""Seconds that stopping may take."""

FILES = 256
"""Files and connections a run may need at once: the reader's threads, the workers' pipes and sockets, GDAL's cache."""


def main() -> None:
    """Entry point: run a command; print a failure as one sentence and leave with its exit code."""
    _stop_when_told()
    _open_streams()

    from .errors import RsupError
    from .progress import say
    from .public import printable, public_text

    try:
        _raise_limit_of_files()
        _run()
    except RsupError as error:
        say(f"rsup: {printable(public_text(str(error)))}")
        _leave(error.exit_code)
    except BrokenPipeError:
        # The reader (head, less) went away: nothing left to say.
        _leave(1)


def _run() -> None:
    """The command, and what it printed on its way out: a disk may be full at the last line."""
    from .commands import app

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
            from .errors import OutputError

            raise OutputError(f"standard output cannot be written ({error.strerror}); send it elsewhere") from error


def _open_streams() -> None:
    """Standard streams that always take text.

    One that was closed is opened on the null device: its number would go to the next file that is opened, a chunk of
    a store perhaps, and what a library prints would land there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    output = io.BufferedWriter(_StandardOutput(1, "w", closefd=False))
    line_by_line = os.isatty(1)
    sys.stdout = io.TextIOWrapper(output, encoding="utf-8", errors="backslashreplace", line_buffering=line_by_line)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def _raise_limit_of_files() -> None:
    """Allow this process and its workers as many open files as they may have; raises OutputError where that is too few.

    Below, Dask's event loops wait for ever for sockets they cannot open.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        from .errors import RsupError

        raise RsupError(f"only {hard} files may be open at once here, and rsup needs {FILES}: raise it with ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    main()
