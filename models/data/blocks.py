"""Rasters as images of one ground resolution, each with its place between training and validation.

A raster and a pixel size in metres in, blocks out (the whole raster, or pieces of a large one), each read as
[band, y, x] in [0, 1] with the raster's finer pixels averaged.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .rasters import Raster, UnusableError

LARGE = 4096
"""Rasters with no shorter side than this, in pixels of their own, are divided between training and validation.

Whatever crop or pixel size is asked for: else ground would change sides, and be measured after it was learned.
"""

CELLS = 4
"""Rows and columns of cells that a large raster is divided into."""

BLOCK = 2048
"""Longest side of a part, in pixels of what is given out."""

TOLERANCE = 1.1
"""Images up to this factor coarser or finer than asked for are taken as they are: so little averaging only blurs."""

STRIP = 1 << 22
"""About as many pixels of a raster are in memory at once while they are averaged."""

_YEAR = re.compile(r"(19|20)\d{2}")


@dataclass(frozen=True)
class Block:
    """A raster, or one block of a large one; its place is in the raster's own pixels."""

    raster: Raster
    row: int
    col: int
    height: int
    width: int
    factor: float
    """Own pixels a pixel of what is given out; 1 where nothing is averaged."""
    share: float
    """In [0, 1): validation takes the blocks below its share."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what is given out; own pixels that do not fill one more are left out."""
        return int(self.height / self.factor + 1e-6), int(self.width / self.factor + 1e-6)

    def read(self) -> NDArray[np.float32]:
        """[band, *size] in [0, 1], NaN where there is no data or not for all of a pixel. Raises UnusableError."""
        if self.factor == 1:
            return np.clip(self.raster.read(self.row, self.col, self.height, self.width), 0, 1)
        height, width = self.size
        rows = max(1, int(STRIP / self.factor / self.width))
        strips = [self._averaged(top, min(rows, height - top), width) for top in range(0, height, rows)]
        return np.clip(np.concatenate(strips, 1), 0, 1)

    def _averaged(self, top: int, height: int, width: int) -> NDArray[np.float32]:
        """Rows `top` to `top + height` of what is given out, not clipped: what is brighter than white still counts."""
        first, last = int(top * self.factor), min(math.ceil((top + height) * self.factor), self.height)
        data = self.raster.read(self.row + first, self.col, last - first, self.width)
        absent = ~np.isfinite(data).all(0, keepdims=True)
        # Sums would carry one missing pixel along its row and column; the missing share of a pixel is averaged instead.
        layers = np.concatenate([np.where(absent, 0, data), absent])
        layers = area_mean(layers, 2, width, self.factor)
        layers = area_mean(layers, 1, height, self.factor, top * self.factor - first)
        return np.where(layers[-1:] > 1e-6, np.nan, layers[:-1]).astype(np.float32)


def blocks_of(raster: Raster, gsd: float | None) -> list[Block]:
    """What a raster gives at `gsd` metres a pixel, or as it is where that is None.

    Raises UnusableError where its pixels are coarser, or of unknown size.
    """
    factor = 1.0
    if gsd is not None:
        if raster.gsd is None:
            raise UnusableError("does not say in metres how large its pixels are, and data.gsd asks for that")
        factor = gsd / raster.gsd
        if factor < 1 / TOLERANCE:
            raise UnusableError(f"has pixels of {raster.gsd:g} m, coarser than {gsd:g} m")
        factor = 1.0 if factor < TOLERANCE else factor
    site = site_of(raster.path)
    if min(raster.height, raster.width) < LARGE:
        return list(_blocks(raster, (0, raster.height), (0, raster.width), factor, _position(site)))
    cells = [(row, col) for row in range(CELLS) for col in range(CELLS)]
    # In the order of their digests, so that every large raster is divided in the same proportion; and by their number,
    # not their pixels, so that neither `gsd` nor another survey's resolution moves ground from one side to the other.
    order = sorted(cells, key=lambda cell: _position(f"{site}/{cell[0]}/{cell[1]}"))
    rows, cols = (_edges(0, side, CELLS) for side in (raster.height, raster.width))
    return [
        part
        for row, col in cells
        for part in _blocks(raster, rows[row], cols[col], factor, (order.index((row, col)) + 0.5) / len(cells))
    ]


def site_of(path: Path) -> str:
    """What a file shows: its name without a year between underscores, so that all years of a place stay together."""
    words = path.stem.split("_")
    return "_".join([word for word in words if not _YEAR.fullmatch(word)] or words)


def _position(name: str) -> float:
    """Where in [0, 1) a name falls, for ever."""
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:6]) / 2**48


def _blocks(
    raster: Raster, rows: tuple[int, int], cols: tuple[int, int], factor: float, share: float
) -> Iterator[Block]:
    """Rows and columns from, to, in as few equal blocks as BLOCK allows."""
    down, across = (_edges(*span, max(1, math.ceil((span[1] - span[0]) / factor / BLOCK))) for span in (rows, cols))
    for top, bottom in down:
        for left, right in across:
            yield Block(raster, top, left, bottom - top, right - left, factor, share)


def _edges(start: int, stop: int, count: int) -> list[tuple[int, int]]:
    """`count` spans as equal as whole pixels allow."""
    edges = [start + (stop - start) * k // count for k in range(count + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def area_mean(
    data: NDArray[np.floating], axis: int, count: int, factor: float, start: float = 0
) -> NDArray[np.float64]:
    """`count` means along an axis, the i-th over [start + i * factor, start + (i + 1) * factor] of its pixels.

    A pixel that is covered in part counts by that part: differences of the integral, which is linear within a pixel.
    """
    length = data.shape[axis]
    integral = np.cumsum(data, axis, np.float64)
    edges = start + np.arange(count + 1) * factor
    pixel = np.minimum(edges.astype(np.intp), length - 1)
    shape = [1] * data.ndim
    shape[axis] = -1
    missing = (1 + pixel - edges).reshape(shape)
    at = integral.take(pixel, axis) - missing * data.take(pixel, axis)
    return np.asarray(np.diff(at, axis=axis) / factor)
