"""From a file's own grid to the lattice: every pixel a function of its place alone, never of the window.

In: stored numbers or classes on the grid of a file, wherever its header says that its pixels lie. Out: the same on a
window of the lattice, bilinear or nearest. GDAL's warper is not used: it approximates coordinates anew in each window,
so that the same ground got different numbers in chunks of different size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer
from pyproj.exceptions import ProjError

from rsup.pipeline.lattice import Rectangle, Window, window_of

NODES = 32
"""Lattice pixels between exactly transformed points. Linear between them is off by less than 1e-3 pixel: the
second derivative of one UTM zone's coordinates in another's is below 1e-7 a metre."""
STRIP = 128
"""Rows at once, which bounds memory."""

Method = Literal["bilinear", "nearest"]


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a file lie; its rows and columns are counted from its own corner."""

    crs: str
    transform: Affine
    """Pixel to CRS, in metres; not rotated."""
    height: int
    width: int

    @property
    def pixel(self) -> float:
        """The longer side of a pixel, in metres."""
        return max(abs(self.transform.a), abs(self.transform.e))

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north, in metres."""
        x, y = self.transform.c, self.transform.f
        other_x, other_y = x + self.transform.a * self.width, y + self.transform.e * self.height
        return min(x, other_x), min(y, other_y), max(x, other_x), max(y, other_y)

    def on_lattice(self, crs: str, gsd: int) -> Window | None:
        """The window of `gsd` metre pixels of `crs` that the file covers pixel for pixel; None on another grid."""
        if self.crs != crs:
            return None
        try:
            return window_of(self.transform, (self.height, self.width), gsd)
        except ValueError:
            return None

    def around(self, window: Window, crs: str) -> Rectangle:
        """Rows and columns of this grid that surround a window of the lattice of `crs`, with two pixels to spare.

        Raises ValueError where the two cannot be brought together.
        """
        west, south, east, north = window.bounds
        try:
            west, south, east, north = Transformer.from_crs(crs, self.crs, always_xy=True).transform_bounds(
                west, south, east, north, densify_pts=21
            )
        except ProjError as error:
            raise ValueError(f"its CRS cannot be transformed ({error})") from error
        cols = sorted((x - self.transform.c) / self.transform.a for x in (west, east))
        rows = sorted((y - self.transform.f) / self.transform.e for y in (north, south))
        if not np.isfinite([*cols, *rows]).all():
            raise ValueError("its CRS does not reach the ground that is fetched")
        row, col = int(np.floor(rows[0])) - 2, int(np.floor(cols[0])) - 2
        found = Rectangle(row, col, int(np.ceil(rows[1])) + 2 - row, int(np.ceil(cols[1])) + 2 - col)
        # A square turned by 45 degrees needs one 1.42 times as wide; a CRS whose metres are none would need any number.
        if max(found.height, found.width) > 2 * max(window.height, window.width) + 16:
            raise ValueError("the metres of its CRS are too far from those of the ground that is fetched")
        return found


def resample(
    numbers: NDArray[np.uint16], native: Rectangle, grid: Grid, window: Window, crs: str, method: Method
) -> NDArray[np.uint16]:
    """`numbers` [y, x] on `native`, rows and columns of `grid`, brought onto `window` of the lattice of `crs`.

    0 is nodata: it takes no part in a mean, and the result is 0 where it would weigh more than half.
    """
    out = np.zeros((window.height, window.width), np.uint16)
    for start in range(0, window.height, STRIP):
        strip = replace(window, row=window.row + start, height=min(STRIP, window.height - start))
        x, y = _centres(strip, crs, grid.crs)
        col, row = (x - grid.transform.c) / grid.transform.a, (y - grid.transform.f) / grid.transform.e
        sample = _bilinear if method == "bilinear" else _nearest
        out[start : start + strip.height] = sample(numbers, native, row, col)
    return out


def _centres(window: Window, crs: str, item_crs: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x and y [y, x], in metres of `item_crs`, of the pixel centres of a window; they broadcast."""
    rows = window.row + 0.5 + np.arange(window.height)
    cols = window.col + 0.5 + np.arange(window.width)
    if crs == item_crs:
        return np.asarray(cols[None] * window.gsd, np.float64), np.asarray(-rows[:, None] * window.gsd, np.float64)
    # Nodes at multiples of NODES of the lattice, not of the window: the same for every window.
    row_node = np.arange(window.row // NODES, window.stop_row // NODES + 2)
    col_node = np.arange(window.col // NODES, window.stop_col // NODES + 2)
    node_x, node_y = np.meshgrid(col_node * (NODES * window.gsd), -row_node * (NODES * window.gsd))
    exact = Transformer.from_crs(crs, item_crs, always_xy=True).transform(node_x, node_y)
    row_at, col_at = rows // NODES, cols // NODES
    up, left = (row_at - row_node[0]).astype(int), (col_at - col_node[0]).astype(int)
    down, right = (rows / NODES - row_at)[:, None], cols / NODES - col_at
    between = [nodes[:, left] * (1 - right) + nodes[:, left + 1] * right for nodes in exact]
    x, y = (values[up] * (1 - down) + values[up + 1] * down for values in between)
    return x, y


def _nearest(
    numbers: NDArray[np.uint16], native: Rectangle, row: NDArray[np.float64], col: NDArray[np.float64]
) -> NDArray[np.uint16]:
    rows, cols = np.floor(row).astype(int) - native.row, np.floor(col).astype(int) - native.col
    return np.asarray(numbers[rows, cols])


def _bilinear(
    numbers: NDArray[np.uint16], native: Rectangle, row: NDArray[np.float64], col: NDArray[np.float64]
) -> NDArray[np.uint16]:
    up, left = np.floor(row - 0.5), np.floor(col - 0.5)
    down, right = row - 0.5 - up, col - 0.5 - left
    rows, cols = up.astype(int) - native.row, left.astype(int) - native.col
    total = np.zeros(np.broadcast_shapes(row.shape, col.shape))
    weight = np.zeros_like(total)
    for i, share_y in ((0, 1 - down), (1, down)):
        for j, share_x in ((0, 1 - right), (1, right)):
            values = numbers[rows + i, cols + j]
            share = share_y * share_x * (values > 0)
            total += share * values
            weight += share
    enough = weight >= 0.5
    mean = np.rint(total / np.where(enough, weight, 1))
    return np.where(enough, mean, 0).astype(np.uint16)
