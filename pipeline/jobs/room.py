"""What certainly does not fit on a disk is refused before the work is begun."""

from __future__ import annotations

import shutil
from pathlib import Path

LARGE = 10**10
"""Bytes of pixels from which a disk that is too small is said at once; less fills it soon enough."""


def lacking(folder: Path, pixels: int, most_compression: int) -> tuple[Path, int] | None:
    """`folder`, or its nearest parent that is there, and the bytes free in it, where these are too few; else None.

    Too few are they for `pixels` bytes that compression makes at most `most_compression` times smaller.
    """
    place = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())
    free = shutil.disk_usage(place).free
    return (place, free) if pixels > max(LARGE, most_compression * free) else None
