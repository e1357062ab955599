"""Files that appear whole or not at all: written under a hidden name, forced to the disk, then renamed.

Hidden names are rsup's own (`.NAME.new`, `.NAME.old`, ...): no link is followed there and no pipe or device opened.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import RsupError, unwritable


@contextmanager
def writing(
    path: str | os.PathLike[str],
    kind: type[RsupError],
    *more: type[Exception],
    inside: bool = False,
    goes_on: bool = False,
) -> Iterator[None]:
    """What the disk refuses in the block (OSError, and what libraries raise in its place) becomes a `kind`.

    Its sentence says that `path`, or with `inside` the very file that the error names, cannot be written, why, and what
    helps; with `goes_on` that the command can be run again then.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, (OSError, *more)):
            raise
        again = "; the same command then goes on" if goes_on else ""
        refused = (error.filename if inside and isinstance(error, OSError) else None) or path
        raise kind(unwritable(refused, error) + again) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A hidden neighbour of `path` to write to, which takes the place of `path` when the block ends well.

    Where the block raises, `path` stays as it was and the neighbour is removed.
    """
    fresh = path.with_name(f".{path.name}.new")
    clear(fresh)  # what a killed process left
    try:
        yield fresh
        sync(fresh)
        os.replace(fresh, path)
        sync(path.parent)
    except BaseException:
        with suppress(OSError):  # what failed matters more; a writer that still runs may be in the way
            remove(fresh)
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Write what is in memory to `path`, by way of `replacing`. Raises OSError."""
    with replacing(path) as fresh:
        fresh.write_bytes(data)


def publish(moves: dict[Path, Path]) -> None:
    """Give finished outputs their names, in the order given; what had the names before stands `aside` when it returns.

    `moves` is finished path to final path, on one file system. What is old goes last name first, all of it before
    anything new comes: at no moment old and new stand beside each other, and where the last name stands, all do.
    A move that was made already (its finished path is gone) is left out, so a publication that was killed goes on.
    On the disk when it returns. Where it is stopped, or a name cannot be given (OSError), it puts back what was there.
    """
    try:
        for fresh, final in reversed(moves.items()):
            if os.path.lexists(fresh) and os.path.lexists(final):
                os.rename(final, aside(final))  # a link moves as a link
        for fresh, final in moves.items():
            if os.path.lexists(fresh):
                os.rename(fresh, final)
        for folder in {path.parent for move in moves.items() for path in move}:
            sync(folder)
    except BaseException:
        with suppress(OSError):  # then the next call goes on from there
            _put_back(moves)
        raise


def _put_back(moves: dict[Path, Path]) -> None:
    for fresh, final in reversed(moves.items()):
        if os.path.lexists(final) and not os.path.lexists(fresh):
            os.rename(final, fresh)
    for final in moves.values():
        if os.path.lexists(aside(final)):
            os.rename(aside(final), final)


def aside(path: Path) -> Path:
    """The hidden name of what `path` was before, until the new one is there for good."""
    return path.with_name(f".{path.name}.old")


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Force a folder with all it holds to the disk."""
    for entry in folder.rglob("*"):
        sync(entry)
    sync(folder)


def refuse_links(path: Path, *, inside: bool = True) -> None:
    """Raise OSError (ELOOP) where a link, pipe, socket or device stands at `path`, or (`inside`) anywhere below it.

    For names that are rsup's own: nobody but a stranger puts such a thing there. What does not exist is none.
    """
    try:
        kind = stat.S_IFMT(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    if kind not in (stat.S_IFREG, stat.S_IFDIR):
        raise foreign(path)
    folders = [path] if inside and kind == stat.S_IFDIR else []
    while folders:
        # A writer of a killed run may be alive for a moment, and take its file away meanwhile.
        with suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    raise foreign(Path(entry.path))


def foreign(path: Path) -> OSError:
    """What is raised where something stands at `path` that rsup never puts there."""
    return OSError(errno.ELOOP, "a link, pipe or device stands there", str(path))


def clear(path: Path) -> None:
    """Remove what a killed process left under a hidden name; raises OSError for a link, pipe or device there."""
    refuse_links(path, inside=False)
    remove(path)


def remove(path: Path) -> None:
    """Remove a file or a folder with all it holds, if it is there; of a link only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
