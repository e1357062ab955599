"""One product: the clear ground, a sky and a swath in; COGs of its bands and scene classes out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rsup.models.base.radiometry import NODATA
from rsup.pipeline.lattice import Window

from .acquisitions import Acquisition
from .clouds import CLOUD_HIGH, CLOUD_MEDIUM, Sky
from .noise import mix
from .rasters import numbers, write_cog
from .sensor import BAND_GSD, CLASSES_GSD, noise, pixel_centres
from .spectra import BANDS
from .survey import Ground

if TYPE_CHECKING:
    from numpy.typing import NDArray


def expose(acquisition: Acquisition, ground: Ground, sky: Sky, swath: Swath, seed: int, folder: Path) -> Shares:
    """Write the product's bands and scene classes: the ground under its sky, with noise, as numbers."""
    salt = int(mix(seed, *acquisition.datatake.encode())[0])
    for band in BANDS:
        pixels = ground.window.in_pixels_of(BAND_GSD[band])
        x, y = pixel_centres(pixels, pixels.gsd, acquisition.crs)
        seen = sky.veil(band, ground.bands[band], x, y) * np.float32(acquisition.gain)
        seen = seen + noise(band, pixels, salt, seen)
        stored = np.where(swath.covers(x, y), numbers(seen, acquisition.offset), NODATA).astype(np.uint16)
        write_cog(folder / f"{band}.tif", stored, pixels.transform(), acquisition.crs)
    pixels = ground.window.in_pixels_of(CLASSES_GSD)
    x, y = pixel_centres(pixels, pixels.gsd, acquisition.crs)
    scl = np.where(swath.covers(x, y), sky.classes(ground.scl, x, y), NODATA).astype(np.uint8)
    # Classes are names: an overview must show one of them, not their mean.
    write_cog(folder / "scl.tif", scl, pixels.transform(), acquisition.crs, resampling="mode")
    return Shares.of(scl)


@dataclass(frozen=True)
class Swath:
    """Edge of what an overpass saw: a line over the landscape; None: it lies elsewhere."""

    region: Window
    ends: tuple[float, float] | None
    side: str

    def covers(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether the points x, y (metres in landscape.CRS) were seen."""
        if self.ends is None:
            return np.ones(x.shape, bool)
        west, south, east, north = self.region.bounds
        top, bottom = (west + share * (east - west) for share in self.ends)
        edge = top + (bottom - top) * (north - y) / (north - south)
        return x < edge if self.side == "west" else x >= edge


@dataclass(frozen=True)
class Shares:
    """What a product's scene classes say of it: shares (0..1) of all pixels or, clouds, of the valid ones."""

    nodata: float
    cloud: float
    classes: dict[int, float]

    @classmethod
    def of(cls, scl: NDArray[np.uint8]) -> Shares:
        """Count the classes of `scl`, [y, x]."""
        counts = np.bincount(scl.ravel(), minlength=12)
        valid = max(1, int(counts[1:].sum()))
        classes = {code: float(counts[code]) / valid for code in range(1, 12)}
        return cls(float(counts[0]) / scl.size, classes[CLOUD_MEDIUM] + classes[CLOUD_HIGH], classes)
