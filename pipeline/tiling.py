"""Tiles: how a model cuts the lattice, and how the outputs of neighbouring tiles blend."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from .lattice import Window

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Tiling:
    """How a model cuts the lattice; all lengths in lattice (10 m) pixels.

    The outer `halo` of a tile is context only (weight 0); the `overlap` inside it is the ramp it shares with its
    neighbour; ramps of neighbours add up to 1 everywhere.
    """

    size: int
    halo: int
    overlap: int

    def __post_init__(self) -> None:
        if self.stride < max(1, self.overlap):
            raise ValueError(f"a {self.size} px tile is too small for halo {self.halo} and overlap {self.overlap}")

    @property
    def stride(self) -> int:
        """Distance between the corners of neighbouring tiles."""
        return self.size - 2 * self.halo - self.overlap

    def weights(self, scale: int) -> NDArray[np.float32]:
        """Blending weight of each output pixel along one axis of a tile, shape [size * scale].

        0 over the halo, then sample j of n rises as (j + 1/2) / n, 1 in the middle, and falls as the mirror image, so
        that a tile and its neighbour sum to 1.
        """
        n = self.overlap * scale
        rise = (np.arange(n) + 0.5) / max(n, 1)
        flat = np.ones((self.stride - self.overlap) * scale)
        edge = np.zeros(self.halo * scale)
        # 1 - rise, not rise[::-1]: the sum with the neighbour is then 1 to the last bit.
        return np.concatenate([edge, rise, flat, 1 - rise, edge]).astype(np.float32)

    def tiles(self, window: Window) -> list[Window]:
        """Every lattice tile that has weight inside `window`, row by row.

        Tile k starts at pixel k * stride of the lattice, so the answer for a pixel never depends on the window.
        """
        rows, cols = self._places(window)
        return [
            replace(window, row=row * self.stride, col=col * self.stride, height=self.size, width=self.size)
            for row, col in product(rows, cols)
        ]

    def count(self, window: Window) -> int:
        """How many tiles have weight inside `window`, without making them."""
        rows, cols = self._places(window)
        return len(rows) * len(cols)

    def _places(self, window: Window) -> tuple[range, range]:
        """The numbers k of those tiles, down and along."""
        reach = self.size - self.halo  # a tile at t has weight on [t + halo, t + reach)
        down, along = (
            range((start - reach) // self.stride + 1, -((self.halo - stop) // self.stride))
            for start, stop in ((window.row, window.stop_row), (window.col, window.stop_col))
        )
        return down, along

    def cover(self, window: Window) -> Window:
        """The smallest window that holds every tile of `window` whole: what one chunk has to read."""
        tiles = self.tiles(window)
        row, col = tiles[0].row, tiles[0].col
        height, width = tiles[-1].stop_row - row, tiles[-1].stop_col - col
        return replace(window, row=row, col=col, height=height, width=width)
