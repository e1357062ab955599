"""Files that others name, looked at before they are opened: a pipe makes its reader wait, a device flows for ever."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def check_file(path: Path) -> None:
    """Raise OSError unless `path` leads to an ordinary file."""
    try:
        mode = path.stat().st_mode
    except ValueError:
        raise OSError(errno.EINVAL, "there is a NUL in its name", str(path)) from None
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is a pipe, a socket or a device", str(path))


def read_at_most(path: Path, most: int) -> bytes | None:
    """The bytes of an ordinary file, or None where it holds more than `most` of them. Raises OSError."""
    check_file(path)
    with open(path, "rb") as file:
        content = file.read(most + 1)
    return None if len(content) > most else content


def check_store(path: Path) -> None:
    """Raise OSError unless all that lies in the folder `path` is folders and ordinary files."""
    waiting, entered = [str(path)], set()
    while waiting:
        folder = waiting.pop()
        about = os.stat(folder)
        if (about.st_dev, about.st_ino) in entered:  # by another link, or round in a circle
            continue
        entered.add((about.st_dev, about.st_ino))
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting.append(entry.path)
                elif not entry.is_file():
                    check_file(Path(entry.path))
