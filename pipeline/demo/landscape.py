"""The truth: coordinates and a seed in, surface reflectance and scene classes at those points out.

A function of place alone: whatever window, order or grid it is asked in, a point has one value. So a truth of
any size is made window by window, and the same ground can be sampled on two UTM zones' grids.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .built import paint_lakes, paint_rivers, paint_roads, paint_villages
from .canvas import Canvas
from .farmland import paint_fields, paint_woods
from .noise import SmoothNoise
from .regions import regions_at

if TYPE_CHECKING:
    from numpy.typing import NDArray

ORIGIN = (309_780.0, 5_424_000.0)
"""x, y of the landscape's origin in CRS: on the eastern edge of tile 33UTQ, inside 33UUQ and 32UQV."""
CRS = "EPSG:32633"
"""UTM zone the landscape lives in."""


class Landscape:
    """A seeded country: fields, hedges, woods, roads, villages, rivers and lakes. Thread-safe."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._noise = SmoothNoise(seed)

    def sample(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Reflectance [band, y, x] (spectra.BANDS) and SCL code [y, x] at x, y (metres in CRS, [y, x])."""
        east, north = (np.ravel(axis - origin).astype(np.float32) for axis, origin in zip((x, y), ORIGIN, strict=True))
        canvas = Canvas.blank(east, north)
        bend = [self._noise(east, north, 420, layer) * np.float32(14) for layer in (31, 32)]
        bent = (east + bend[0], north + bend[1])
        regions = regions_at(*bent, self.seed)
        paint_fields(canvas, regions, self._noise, bent)
        paint_woods(canvas, regions, self._noise)
        paint_rivers(canvas, self._noise, self.seed)
        paint_roads(canvas, regions)
        paint_lakes(canvas, regions, self._noise)
        paint_villages(canvas, regions, self._noise)
        # So much that gains over interpolation stay near those on aerial images (tests/benchmarks/demo_ground.py).
        canvas.reflectance *= 1 + np.float32(0.05) * self._noise(east, north, 2.6, 33)
        return canvas.reflectance.reshape(-1, *x.shape), canvas.scl.reshape(x.shape)
