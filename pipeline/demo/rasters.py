"""Writes the archive's Cloud Optimized GeoTIFFs: a whole band at once, or the truth window by window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.windows import Window as RasterWindow

from rsup.models.base.radiometry import ADD_OFFSET, DN_MAX, DN_MIN, NODATA, SCALE_FACTOR
from rsup.pipeline.lattice import Window

from .sensor import FINE
from .spectra import BANDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COG = {"driver": "COG", "compress": "DEFLATE", "blocksize": 256, "num_threads": "ALL_CPUS"}


def numbers(reflectance: NDArray[np.floating], offset: int = -1000) -> NDArray[np.uint16]:
    """Reflectance -> stored numbers, DN = reflectance * 10000 - offset; a valid pixel never becomes 0."""
    return np.asarray(np.clip(np.rint(reflectance * 10_000) - offset, DN_MIN, DN_MAX), np.uint16)


def write_cog(path: Path, values: NDArray[Any], transform: Affine, crs: str, resampling: str = "average") -> None:
    """Write one band [y, x] with overviews by `resampling`, 0 = nodata."""
    height, width = values.shape
    profile = {"width": width, "height": height, "count": 1, "dtype": values.dtype.name, "nodata": NODATA}
    with rasterio.open(
        path, "w", crs=crs, transform=transform, overview_resampling=resampling, **profile, **_COG
    ) as target:
        target.write(values, 1)


class TruthWriter:
    """The open truth raster; `write` takes blocks in any order."""

    def __init__(self, target: rasterio.io.DatasetWriter, window: Window) -> None:
        self._target, self._window = target, window

    def write(self, window: Window, reflectance: NDArray[np.float32]) -> None:
        """Store the part of a block of truth ([band, y, x], FINE samples a pixel) that lies in the raster."""
        common = window.intersect(self._window)
        if common is None:
            return
        rows, columns = (slice(s.start * FINE, s.stop * FINE) for s in common.within(window))
        into_rows, into_columns = (slice(s.start * FINE, s.stop * FINE) for s in common.within(self._window))
        self._target.write(
            numbers(reflectance[:, rows, columns]), window=RasterWindow.from_slices(into_rows, into_columns)
        )


@contextmanager
def truth_raster(path: Path, window: Window, crs: str) -> Iterator[TruthWriter]:
    """A 1.25 m raster of all bands over `window`, in the scene store's numbers; a COG in the end."""
    draft = path.with_suffix(".draft.tif")
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "width": window.width * FINE,
        "height": window.height * FINE,
        "count": len(BANDS),
        "dtype": "uint16",
        "nodata": NODATA,
        "crs": crs,
        "transform": window.transform(FINE),
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "bigtiff": "IF_SAFER",
    }
    with rasterio.open(draft, "w", **profile) as target:
        target.scales, target.offsets = (SCALE_FACTOR,) * len(BANDS), (ADD_OFFSET,) * len(BANDS)
        for number, band in enumerate(BANDS, start=1):
            target.set_band_description(number, band)
        yield TruthWriter(target, window)
    rasterio.shutil.copy(draft, path, overview_resampling="average", **_COG)
    draft.unlink()
