"""From an item's own grid to the lattice: every pixel a function of its place alone, never of the window.

In: stored numbers or classes on a grid of the item's CRS. Out: the same on a window of the lattice, bilinear or
nearest. GDAL's warper is not used: it approximates coordinates anew in each window, so that the same ground got
different numbers in chunks of different size.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from .grid import GSD, Window

NODES = 32
"""Lattice pixels between exactly transformed points. Linear between them is off by less than 1e-3 pixel: the
second derivative of one UTM zone's coordinates in another's is below 1e-7 a metre."""
STRIP = 128
"""Rows at once, which bounds memory."""

Method = Literal["bilinear", "nearest"]


def resample(
    numbers: NDArray[np.uint16], native: Window, gsd: int, item_crs: str, window: Window, crs: str, method: Method
) -> NDArray[np.uint16]:
    """`numbers` [y, x] on `native`, a window counted in pixels of `gsd` metres of `item_crs`, brought onto `window`.

    0 is nodata: it takes no part in a mean, and the result is 0 where it would weigh more than half.
    """
    out = np.zeros((window.height, window.width), np.uint16)
    for start in range(0, window.height, STRIP):
        strip = Window(window.row + start, window.col, min(STRIP, window.height - start), window.width)
        x, y = _centres(strip, crs, item_crs)
        col, row = x / gsd, -y / gsd
        sample = _bilinear if method == "bilinear" else _nearest
        out[start : start + strip.height] = sample(numbers, native, row, col)
    return out


def _centres(window: Window, crs: str, item_crs: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x and y [y, x], in metres of `item_crs`, of the pixel centres of a window; they broadcast."""
    rows = window.row + 0.5 + np.arange(window.height)
    cols = window.col + 0.5 + np.arange(window.width)
    if crs == item_crs:
        return np.asarray(cols[None] * GSD, np.float64), np.asarray(-rows[:, None] * GSD, np.float64)
    # Nodes at multiples of NODES of the lattice, not of the window: the same for every window.
    row_node = np.arange(window.row // NODES, window.stop_row // NODES + 2)
    col_node = np.arange(window.col // NODES, window.stop_col // NODES + 2)
    node_x, node_y = np.meshgrid(col_node * (NODES * GSD), -row_node * (NODES * GSD))
    exact = Transformer.from_crs(crs, item_crs, always_xy=True).transform(node_x, node_y)
    row_at, col_at = rows // NODES, cols // NODES
    up, left = (row_at - row_node[0]).astype(int), (col_at - col_node[0]).astype(int)
    down, right = (rows / NODES - row_at)[:, None], cols / NODES - col_at
    between = [nodes[:, left] * (1 - right) + nodes[:, left + 1] * right for nodes in exact]
    x, y = (values[up] * (1 - down) + values[up + 1] * down for values in between)
    return x, y


def _nearest(
    numbers: NDArray[np.uint16], native: Window, row: NDArray[np.float64], col: NDArray[np.float64]
) -> NDArray[np.uint16]:
    rows, cols = np.floor(row).astype(int) - native.row, np.floor(col).astype(int) - native.col
    return np.asarray(numbers[rows, cols])


def _bilinear(
    numbers: NDArray[np.uint16], native: Window, row: NDArray[np.float64], col: NDArray[np.float64]
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
