"""The lattice: which pixels, chunks and model tiles exist, in whole numbers; no I/O.

Every scene and mosaic of one CRS shares one lattice of 10 m pixels anchored at the CRS origin, so two runs that see
the same ground cut it into the same tiles whatever their bounding boxes. Lattice coordinates count 10 m pixels:
column = x / 10, row = -y / 10 (rows grow southwards, as in a raster).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from affine import Affine

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

GSD = 10
"""Ground sampling distance of the lattice, in metres."""


@dataclass(frozen=True, order=True)
class Window:
    """A rectangle of lattice pixels, half open: rows row..row+height, columns col..col+width."""

    row: int
    col: int
    height: int
    width: int

    @property
    def stop_row(self) -> int:
        """First row south of the window."""
        return self.row + self.height

    @property
    def stop_col(self) -> int:
        """First column east of the window."""
        return self.col + self.width

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north, in metres of the CRS."""
        return (self.col * GSD, -self.stop_row * GSD, self.stop_col * GSD, -self.row * GSD)

    def transform(self, scale: int = 1) -> Affine:
        """Pixel-to-CRS affine of this window sampled `scale` times finer than the lattice."""
        pixel = GSD / scale
        return Affine(pixel, 0.0, self.col * GSD, 0.0, -pixel, -self.row * GSD)

    def within(self, outer: Window) -> tuple[slice, slice]:
        """Row and column slices that cut this window out of an array that covers `outer`."""
        rows = slice(self.row - outer.row, self.stop_row - outer.row)
        return rows, slice(self.col - outer.col, self.stop_col - outer.col)

    def intersect(self, other: Window) -> Window | None:
        """The common rectangle, or None where there is none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.stop_row, other.stop_row) - row
        width = min(self.stop_col, other.stop_col) - col
        return Window(row, col, height, width) if height > 0 and width > 0 else None

    def grow(self, pixels: int) -> Window:
        """The window with `pixels` more on each side."""
        return Window(self.row - pixels, self.col - pixels, self.height + 2 * pixels, self.width + 2 * pixels)


class Chunk(NamedTuple):
    """One square of a window that is worked on by itself."""

    place: tuple[int, int]
    """Row and column in the chunk grid."""
    window: Window

    @property
    def key(self) -> str:
        """Its name in a ledger: "row.column"."""
        return f"{self.place[0]}.{self.place[1]}"


def chunks(window: Window, size: int) -> Iterator[Chunk]:
    """Cut `window` into squares of `size` pixels from its north-west corner, row by row."""
    for i, row in enumerate(range(window.row, window.stop_row, size)):
        for j, col in enumerate(range(window.col, window.stop_col, size)):
            part = Window(row, col, min(size, window.stop_row - row), min(size, window.stop_col - col))
            yield Chunk((i, j), part)


def count_chunks(window: Window, size: int) -> int:
    """How many squares `chunks` cuts a window into."""
    return -(-window.height // size) * -(-window.width // size)


def snap(bounds: tuple[float, float, float, float]) -> Window:
    """The smallest window whose pixels cover `bounds` (west, south, east, north in metres)."""
    west, south, east, north = bounds
    # A micrometre of slack, so that an edge that lies on the lattice but for rounding does not gain a pixel.
    slack = 1e-6
    col, row = int(np.floor(west / GSD + slack)), int(np.floor(-north / GSD + slack))
    stop_col, stop_row = int(np.ceil(east / GSD - slack)), int(np.ceil(-south / GSD - slack))
    return Window(row, col, max(1, stop_row - row), max(1, stop_col - col))


def window_of(transform: Affine, shape: tuple[int, int]) -> Window:
    """The window of a raster of `shape` (rows, columns) whose affine lies on the lattice.

    Raises ValueError, naming the offending numbers, for pixels that are not 10 m squares, rotated or mirrored
    rasters, and edges that are no multiples of 10 m.
    """
    a, b, c, d, e, f = tuple(transform)[:6]
    if b or d:
        raise ValueError("the raster is rotated; rsup needs north-up pixels")
    if abs(a - GSD) > 1e-6 or abs(e + GSD) > 1e-6:
        raise ValueError(f"pixels are {a:g} x {-e:g} CRS units, not {GSD} x {GSD} m")
    col, row = c / GSD, -f / GSD
    if abs(col - round(col)) > 1e-6 or abs(row - round(row)) > 1e-6:
        raise ValueError(f"pixel edges are not multiples of {GSD} m: the corner is at x={c:g}, y={f:g}")
    return Window(round(row), round(col), *shape)


def geobox(window: Window, crs: str, scale: int = 1) -> GeoBox:
    """The window as an odc-geo GeoBox, sampled `scale` times finer than the lattice."""
    from odc.geo.geobox import GeoBox

    return GeoBox((window.height * scale, window.width * scale), window.transform(scale), crs)
