"""Files that appear whole or not at all: written under a hidden name, forced to the disk, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden neighbour of `path` to write to, which takes the place of `path` when the block ends well.

    Where the block raises, `path` stays as it was and the neighbour is removed.
    """
    fresh = path.with_name(f".{path.name}.new")
    remove(fresh)  # what a killed process left
    try:
        yield fresh
        sync(fresh)
        os.replace(fresh, path)
        sync(path.parent)
    except BaseException:
        with suppress(OSError):  # what failed matters more; a writer that still runs may be in the way
            remove(fresh)
        raise


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
