"""The country seen from above on a clear day: a window of a UTM zone in, every band and class over it out."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from rsup.pipeline.lattice import Window, chunks

from .landscape import Landscape
from .sensor import BAND_GSD, CLASSES_GSD, look

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .rasters import TruthWriter

_BLOCK = 64  # 10 m pixels of a block of truth: 576 x 576 samples a thread, in a processor's cache or nearly


@dataclass(frozen=True)
class Ground:
    """What the instrument sees of a window on a clear day without noise."""

    window: Window
    bands: dict[str, NDArray[np.float32]]
    """Reflectance [y, x] on each band's own pixels."""
    scl: NDArray[np.uint8]
    """Scene class of each 20 m pixel, [y, x]."""

    def cut(self, window: Window) -> Ground:
        """The part in `window`, which must have even edges and lie inside."""

        def part(values: NDArray[Any], gsd: int) -> NDArray[Any]:
            return values[window.in_pixels_of(gsd).within(self.window.in_pixels_of(gsd))]

        bands = {band: part(values, BAND_GSD[band]) for band, values in self.bands.items()}
        return Ground(window, bands, part(self.scl, CLASSES_GSD))


def measure(landscape: Landscape, window: Window, crs: str, truth: TruthWriter | None = None) -> Ground:
    """Look at `window` of the lattice of `crs` block by block; the truth goes to its raster, if given."""

    def empty(gsd: int, dtype: type[Any]) -> NDArray[Any]:
        pixels = window.in_pixels_of(gsd)
        return np.empty((pixels.height, pixels.width), dtype)

    bands = {band: empty(gsd, np.float32) for band, gsd in BAND_GSD.items()}
    whole = Ground(window, bands, empty(CLASSES_GSD, np.uint8))
    writing = Lock()

    def measure_block(part: Window) -> None:
        block, target = look(landscape, part, crs), whole.cut(part)
        for band, values in block.measured.items():
            target.bands[band][:] = values  # a view: filling it fills the whole
        target.scl[:] = block.scl
        if truth is not None:
            with writing:
                truth.write(part, block.truth)

    # numpy and scipy let go of the interpreter while they work, so threads use every core.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(measure_block, (part for _, part in chunks(window, _BLOCK))):
            pass
    return whole
