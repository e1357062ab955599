"""Failures a user can cause: one class a kind, one exit code a class; and what a disk's refusal means.

| exit code | class | |
|---|---|---|
| 1 | RsupError | anything else |
| 2 | ArgumentError, RecipeError | options, recipes |
| 3 | ModelError | models |
| 4 | CatalogError | catalogues |
| 5 | SceneError | scenes |
| 6 | OutputError | outputs |
| 7 | ChunkError | chunks or units that failed, or whose workers were lost |
| 8 | DataError | images to learn from, or to measure on |
| 9 | TrainingError | training |
"""

from __future__ import annotations

import errno
import os


class RsupError(Exception):
    """A failure a user can cause and mend: one sentence that says what to do.

    The command line prints the sentence, without a traceback, and leaves with `exit_code`.
    """

    exit_code = 1


class ArgumentError(RsupError):
    """An option's value makes no sense (bbox, date, scale, band, chunk size)."""

    exit_code = 2


class RecipeError(RsupError):
    """A training recipe that cannot be read, or settings in it that do not fit each other."""

    exit_code = 2


class ModelError(RsupError):
    """A model that does not exist, does not fit the request, or whose file is damaged."""

    exit_code = 3


class CatalogError(RsupError):
    """A STAC catalogue that is unreachable, answers nonsense, or has nothing for the request."""

    exit_code = 4


class SceneError(RsupError):
    """A scene (store, GeoTIFF or source asset) that cannot be read or breaks the scene contract."""

    exit_code = 5


class OutputError(RsupError):
    """An output that cannot be written: no permission, no space, or it belongs to another run."""

    exit_code = 6


class ChunkError(RsupError):
    """Some chunks, or units of a job, failed for good or lost their workers; the others are done; a rerun goes on."""

    exit_code = 7


class DataError(RsupError):
    """Images to learn from or to be measured on that are missing, unreadable or too few."""

    exit_code = 8


class TrainingError(RsupError):
    """A training run that cannot start, go on, or that lost its footing (a loss that is not finite)."""

    exit_code = 9


_REMEDIES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some space there",
    errno.EACCES: "get permission to write there, or choose another output",
    errno.EPERM: "get permission to write there, or choose another output",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "remove it, or choose another output",
    errno.EEXIST: "move away what stands there, or choose another output",
    errno.ENOTEMPTY: "move away what stands there, or choose another output",
    errno.EISDIR: "move away what stands there, or choose another output",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "allow more open files (ulimit -n)",
    errno.EFBIG: "allow larger files (ulimit -f)",
}
"""What helps, by the cause."""


def remedy(error: Exception) -> str | None:
    """What helps against a refusal of the disk; None where the cause says nothing. Libraries may say it in words."""
    number = error.errno if isinstance(error, OSError) else None
    said = str(error)
    return next((helps for cause, helps in _REMEDIES.items() if cause == number or os.strerror(cause) in said), None)


def is_for_want_of_room(error: Exception) -> bool:
    """Whether a full disk, or a quota, is what an error speaks of, itself or in the words of whoever told of it."""
    return any(os.strerror(cause) in str(error) for cause in (errno.ENOSPC, errno.EDQUOT))


def unwritable(path: str | os.PathLike[str], error: Exception) -> str:
    """The sentence for a path that cannot be written: why, and what helps against exactly that."""
    reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return f"{os.fspath(path)} cannot be written ({reason}): {remedy(error) or 'choose another output'}"
