"""What certainly does not fit on a disk is refused before the work is begun."""

from __future__ import annotations

import shutil
from pathlib import Path

from rsup.models.base.errors import OutputError

LARGE = 10**10
"""Bytes of pixels from which a disk that is too small is said at once; less fills it soon enough."""
PACKED = 4
"""Times smaller than its pixels no mosaic with ground in most of it becomes; its COG comes on top."""


def lacking(folder: Path, pixels: int, most_compression: int) -> tuple[Path, int] | None:
    """`folder`, or its nearest parent that is there, and the bytes free in it, where these are too few; else None.

    Too few are they for `pixels` bytes that compression makes at most `most_compression` times smaller.
    """
    place = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.is_dir())
    free = shutil.disk_usage(place).free
    return (place, free) if pixels > max(LARGE, most_compression * free) else None


def check_mosaic(folder: Path, pixels: int, scene: object, output: Path) -> None:
    """Raise OutputError where `pixels` bytes of a mosaic cannot fit on the disk, however well they are packed.

    They are written in `folder`; `scene` and `output` are what was asked for.
    """
    if (lack := lacking(folder, pixels, PACKED)) is not None:
        raise OutputError(
            f"the mosaic of {scene} has {pixels / 1e9:,.0f} GB of pixels, and {output} has {lack[1] / 1e9:,.0f} GB "
            "free; cut the scene, free some space or choose another --output"
        )
