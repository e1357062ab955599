"""The lattice: which pixels, chunks and model tiles exist, in whole numbers; no I/O.

Every scene and mosaic of one CRS shares one lattice of 10 m pixels anchored at the CRS origin, so two runs that see
the same ground cut it into the same tiles whatever their bounding boxes. A window counts pixels of its own `gsd`, those
of the lattice unless it says otherwise: column = x / gsd, row = -y / gsd (rows grow southwards, as in a raster).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from affine import Affine

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

GSD = 10
"""Ground sampling distance of the lattice, in metres."""


@dataclass(frozen=True, order=True)
class Rectangle:
    """Pixels of a raster of any kind, half open: rows row..row+height, columns col..col+width.

    What its rows and columns are counted from, and how large a pixel is, whoever made it knows.
    """

    row: int
    col: int
    height: int
    width: int

    @property
    def stop_row(self) -> int:
        """First row south of it."""
        return self.row + self.height

    @property
    def stop_col(self) -> int:
        """First column east of it."""
        return self.col + self.width

    def within(self, outer: Self) -> tuple[slice, slice]:
        """Row and column slices that cut it out of an array that covers `outer`."""
        rows = slice(self.row - outer.row, self.stop_row - outer.row)
        return rows, slice(self.col - outer.col, self.stop_col - outer.col)

    def intersect(self, other: Self) -> Self | None:
        """The common rectangle, or None where there is none."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        height = min(self.stop_row, other.stop_row) - row
        width = min(self.stop_col, other.stop_col) - col
        return replace(self, row=row, col=col, height=height, width=width) if height > 0 and width > 0 else None


@dataclass(frozen=True, order=True)
class Window(Rectangle):
    """A rectangle of pixels of `gsd` metres, counted from the origin of the CRS."""

    gsd: int = GSD
    """Metres along a pixel."""

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north, in metres of the CRS."""
        return (self.col * self.gsd, -self.stop_row * self.gsd, self.stop_col * self.gsd, -self.row * self.gsd)

    def transform(self, scale: int = 1) -> Affine:
        """Pixel-to-CRS affine of this window sampled `scale` times finer than its pixels."""
        pixel = self.gsd / scale
        return Affine(pixel, 0.0, self.col * self.gsd, 0.0, -pixel, -self.row * self.gsd)

    def within(self, outer: Self) -> tuple[slice, slice]:
        """Row and column slices that cut it out of an array that covers `outer`; ValueError for pixels of two sizes."""
        self._check_pixels(outer)
        return super().within(outer)

    def intersect(self, other: Self) -> Self | None:
        """The common rectangle, or None where there is none; ValueError for pixels of two sizes."""
        self._check_pixels(other)
        return super().intersect(other)

    def grow(self, pixels: int) -> Window:
        """The window with `pixels` more on each side."""
        height, width = self.height + 2 * pixels, self.width + 2 * pixels
        return replace(self, row=self.row - pixels, col=self.col - pixels, height=height, width=width)

    def in_pixels_of(self, gsd: int) -> Window:
        """The same ground in pixels of `gsd` metres; ValueError where they do not fill it exactly."""
        metres = [pixels * self.gsd for pixels in (self.row, self.col, self.height, self.width)]
        if any(length % gsd for length in metres):
            raise ValueError(f"{self} does not lie on the lattice of {gsd} m pixels")
        row, col, height, width = (length // gsd for length in metres)
        return Window(row, col, height, width, gsd)

    def _check_pixels(self, other: Window) -> None:
        if self.gsd != other.gsd:
            raise ValueError(f"a window of {self.gsd} m pixels and one of {other.gsd} m pixels have no rows in common")


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
            height, width = min(size, window.stop_row - row), min(size, window.stop_col - col)
            yield Chunk((i, j), replace(window, row=row, col=col, height=height, width=width))


def count_chunks(window: Window, size: int) -> int:
    """How many squares `chunks` cuts a window into."""
    return -(-window.height // size) * -(-window.width // size)


def snap(bounds: tuple[float, float, float, float], gsd: int = GSD) -> Window:
    """The smallest window of `gsd` metre pixels that cover `bounds` (west, south, east, north in metres)."""
    west, south, east, north = bounds
    # A micrometre of slack, so that an edge that lies on the lattice but for rounding does not gain a pixel.
    slack = 1e-6
    col, row = int(np.floor(west / gsd + slack)), int(np.floor(-north / gsd + slack))
    stop_col, stop_row = int(np.ceil(east / gsd - slack)), int(np.ceil(-south / gsd - slack))
    return Window(row, col, max(1, stop_row - row), max(1, stop_col - col), gsd)


def window_of(transform: Affine, shape: tuple[int, int], gsd: int = GSD) -> Window:
    """The window of a raster of `shape` (rows, columns) whose affine lies on the lattice of `gsd` metre pixels.

    Raises ValueError, naming the offending numbers, for pixels that are not `gsd` metre squares, rotated or mirrored
    rasters, and edges that are no multiples of `gsd`.
    """
    a, b, c, d, e, f = tuple(transform)[:6]
    if b or d:
        raise ValueError("the raster is rotated; rsup needs north-up pixels")
    if abs(a - gsd) > 1e-6 or abs(e + gsd) > 1e-6:
        raise ValueError(f"pixels are {a:g} x {-e:g} CRS units, not {gsd} x {gsd} m")
    col, row = c / gsd, -f / gsd
    if abs(col - round(col)) > 1e-6 or abs(row - round(row)) > 1e-6:
        raise ValueError(f"pixel edges are not multiples of {gsd} m: the corner is at x={c:g}, y={f:g}")
    return Window(round(row), round(col), *shape, gsd)


def geobox(window: Window, crs: str, scale: int = 1) -> GeoBox:
    """The window as an odc-geo GeoBox, sampled `scale` times finer than its pixels."""
    from odc.geo.geobox import GeoBox

    return GeoBox((window.height * scale, window.width * scale), window.transform(scale), crs)
