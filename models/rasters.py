"""Image files and Zarr stores, as something to cut training crops from: a path in, three bands in [0, 1] out.

PNG, JPEG and GeoTIFF are read through GDAL, stores through xarray. What cannot be used raises UnusableError with the reason.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import xarray as xr
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

_ORDER = ("red", "green", "blue", "nir")
"""What the bands of a file without names are."""


class UnusableError(Exception):
    """Why a file gives no image."""


@dataclass(frozen=True)
class Raster:
    """A file or store that can be read, as far as its header says."""

    path: Path
    height: int
    width: int
    gsd: float | None
    """Metres a pixel, None where the file does not say."""
    bands: tuple[Any, ...]
    """What to read for the three channels: band numbers of a file, names in a store."""
    white: float
    """The number that becomes 1."""

    def read(self, row: int, col: int, height: int, width: int) -> NDArray[np.float32]:
        """A window, [3, height, width] with 1 at white, not clipped; NaN where there is no data. Raises UnusableError."""
        try:
            if self.path.suffix == ".zarr":
                with _store(self.path) as store:
                    part = store[list(self.bands)].isel(y=slice(row, row + height), x=slice(col, col + width))
                    data = np.stack([part[name].values for name in self.bands]).astype(np.float32)
            else:
                with _file(self.path) as file:
                    window = Window(col, row, width, height)
                    data = file.read(list(self.bands), window=window, masked=True).astype(np.float32).filled(np.nan)
                    index = [band - 1 for band in self.bands]
                    scales, offsets = (
                        np.array(each, np.float32)[index, None, None] for each in (file.scales, file.offsets)
                    )
                    data = data * scales + offsets
        except (RasterioError, OSError, ValueError, KeyError) as error:
            raise UnusableError(f"cannot be read ({str(error).splitlines()[0]})") from error
        return np.asarray(data / np.float32(self.white), np.float32)


def open_raster(path: Path, bands: Sequence[str], white: float | None) -> Raster:
    """Look at a file's or store's header; raises UnusableError."""
    try:
        return (_open_store if path.suffix == ".zarr" else _open_file)(path, bands, white)
    except (RasterioError, OSError, ValueError, KeyError) as error:
        raise UnusableError(f"cannot be opened ({str(error).splitlines()[0]})") from error


def _open_file(path: Path, bands: Sequence[str], white: float | None) -> Raster:
    with _file(path) as file:
        if ColorInterp.palette in file.colorinterp:
            raise UnusableError("has a palette: save it as RGB")
        chosen = _choose(file, bands)
        kinds = {file.dtypes[band - 1] for band in chosen}
        plain = all(file.scales[band - 1] == 1 and file.offsets[band - 1] == 0 for band in chosen)
        if white is None and not (kinds == {"uint8"} and plain):
            raise UnusableError(f"holds {', '.join(sorted(kinds))}: say with data.white which number is white")
        gsd = None
        if file.crs is not None and file.crs.is_projected:
            gsd = math.sqrt(abs(file.transform.determinant)) * file.crs.linear_units_factor[1]
        return Raster(path, file.height, file.width, gsd, chosen, 255.0 if white is None else white)


def _choose(file: Any, bands: Sequence[str]) -> tuple[int, ...]:
    """Numbers of the wanted bands: by name where the file has names, else red, green, blue, nir in this order."""
    named = [(text or "").strip().lower() for text in file.descriptions]
    if set(bands) <= set(named):
        return tuple(named.index(band) + 1 for band in bands)
    count = file.count - (ColorInterp.alpha in file.colorinterp)
    if count == 1 and set(bands) <= set(_ORDER[:3]):
        return (1, 1, 1)
    missing = [band for band in bands if band not in _ORDER[:count]]
    if missing:
        raise UnusableError(f"has no band {missing[0]} among its {count}")
    return tuple(_ORDER.index(band) + 1 for band in bands)


def _open_store(path: Path, bands: Sequence[str], white: float | None) -> Raster:
    with _store(path) as store:
        missing = [band for band in bands if band not in store]
        if missing:
            raise UnusableError(f"has no band {missing[0]}")
        if white is None:
            raise UnusableError("holds measured numbers: say with data.white which reflectance is white")
        height, width = (int(store[bands[0]].sizes[axis]) for axis in ("y", "x"))
        gsd = abs(float(store.x[1] - store.x[0])) if width > 1 and "x" in store.coords else None
        return Raster(path, height, width, gsd, tuple(bands), white)


@contextmanager
def _file(path: Path) -> Iterator[Any]:
    with warnings.catch_warnings():
        # Photographs have no place on Earth, and need none.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            yield file


@contextmanager
def _store(path: Path) -> Iterator[xr.Dataset]:
    with xr.open_zarr(path, consolidated=False, chunks=None) as store:
        yield store
