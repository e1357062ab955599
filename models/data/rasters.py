"""Image files and Zarr stores, as something to cut training crops from: a path in, three or four bands in [0, 1] out.

PNG, JPEG and GeoTIFF are read through GDAL, stores through xarray. What cannot be used raises UnusableError with the
reason.
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
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window

from rsup.models.base.regular import check_file, check_store

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")

_DRIVERS = ["PNG", "JPEG", "GTiff"]
"""The formats behind the suffixes. GDAL's others include some whose files make it read what else they name."""

_ORDER = ("red", "green", "blue", "nir")
"""What the bands of a file without names are."""

_STRICT = {
    # With this shortcut GDAL takes what happens to lie in memory for the missing end of a PNG file.
    "GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO",
    # Without this, damage inside a JPEG file is a warning that rasterio does not pass on.
    "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES",
}

_METRES = {"m", "meter", "meters", "metre", "metres"}

_MERCATOR_RADIUS = 6_378_137
"""Radius of the sphere of EPSG:3857, in metres."""

# RuntimeError is what the decoders of Zarr chunks raise.
_FAILURES = (RasterioError, OSError, ValueError, KeyError, RuntimeError)


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
    """What to read for the channels: band numbers of a file, names in a store."""
    white: float
    """The number that becomes 1."""

    def read(self, row: int, col: int, height: int, width: int) -> NDArray[np.float32]:
        """A window, [band, height, width], with 1 at white, not clipped, NaN without data. Raises UnusableError."""
        try:
            if self.path.suffix == ".zarr":
                with _store(self.path) as store:
                    part = store[list(self.bands)].isel(y=slice(row, row + height), x=slice(col, col + width))
                    data = np.stack([part[name].values for name in self.bands]).astype(np.float32)
            else:
                with _file(self.path) as file:
                    data = _read_file(file, self.bands, Window(col, row, width, height))
        except _FAILURES as error:
            raise UnusableError(f"cannot be read ({_sentence(error)})") from error
        return np.asarray(data / np.float32(self.white), np.float32)


def open_raster(path: Path, bands: Sequence[str], white: float | None) -> Raster:
    """Look at a file's or store's header; raises UnusableError.

    `bands` are names, whatever their case: descriptions of the file's bands, else the colours its header gives, else
    red, green, blue, nir in this order; one gray band stands for all, and the first of `bands` for a fourth that is
    missing. `white` is of no concern to plain
    8-bit files.
    """
    try:
        if path.suffix == ".zarr":
            check_store(path)
            return _open_store(path, bands, white)
        check_file(path)
        return _open_file(path, bands, white)
    except _FAILURES as error:
        raise UnusableError(f"cannot be opened ({_sentence(error)})") from error


def _open_file(path: Path, bands: Sequence[str], white: float | None) -> Raster:
    with _file(path) as file:
        if ColorInterp.palette in file.colorinterp:
            raise UnusableError("has a palette: save it as RGB")
        chosen = _choose(file, bands)
        kinds = {file.dtypes[band - 1] for band in chosen}
        unscaled = all(file.scales[band - 1] == 1 and file.offsets[band - 1] == 0 for band in chosen)
        if kinds == {"uint8"} and unscaled:
            white = 255.0
        if white is None:
            kind = f"{', '.join(sorted(kinds))}{'' if unscaled else ' with a scale'}"
            raise UnusableError(f"holds {kind}: say with data.white which number is white")
        return Raster(path, file.height, file.width, _gsd(file), chosen, white)


def _gsd(file: Any) -> float | None:
    """Metres a pixel; on a Mercator map of the web, where metres grow towards the poles, those on the ground."""
    if file.crs is None or not file.crs.is_projected:
        return None
    gsd = math.sqrt(abs(file.transform.determinant)) * float(file.crs.linear_units_factor[1])
    if file.crs.to_epsg() == 3857:
        gsd /= math.cosh((file.bounds.top + file.bounds.bottom) / 2 / _MERCATOR_RADIUS)
    return gsd


def _choose(file: Any, bands: Sequence[str]) -> tuple[int, ...]:
    """Numbers of the wanted bands; raises UnusableError."""
    if file.count - (ColorInterp.alpha in file.colorinterp) == 1 and set(bands[:3]) <= set(_ORDER[:3]):
        return (1,) * len(bands)
    names = _names(file)
    bands = [*bands[:3], *(band if band.casefold() in names else bands[0] for band in bands[3:])]
    missing = [band for band in bands if band.casefold() not in names]
    if missing:
        raise UnusableError(f"has bands {', '.join(names)}, no {missing[0]}: name three of them with data.bands")
    return tuple(names.index(band.casefold()) + 1 for band in bands)


def _names(file: Any) -> list[str]:
    """Of each band, a name: see `open_raster`."""
    told = [(text or "").strip().casefold() for text in file.descriptions]
    if any(told):
        return told
    colours = [each.name for each in file.colorinterp]
    if not set(_ORDER[:3]) <= set(colours):
        return [*_ORDER, *(f"band {number}" for number in range(5, file.count + 1))][: file.count]
    # GDAL calls the fourth of four bytes of a TIFF alpha unless it was told better when it wrote them.
    if file.count == 4 and file.driver == "GTiff" and colours[3] in ("alpha", "undefined"):
        colours[3] = "nir"
    return colours


def _read_file(file: Any, bands: Sequence[int], window: Window) -> NDArray[np.float32]:
    """[band, y, x] after the file's own scale and offset, NaN where there is no data."""
    numbers = file.read(list(bands), window=window)
    absent = _absent(file, bands, window)
    if numbers.dtype == np.uint8:
        # A byte has no number to spare: what stands for absence in all bands is a fair brightness in one of them.
        absent = np.broadcast_to(absent.all(0), absent.shape)
    index = [band - 1 for band in bands]
    scales, offsets = (np.array(each, np.float32)[index, None, None] for each in (file.scales, file.offsets))
    return np.where(absent, np.float32(np.nan), numbers.astype(np.float32) * scales + offsets)


def _absent(file: Any, bands: Sequence[int], window: Window) -> NDArray[np.bool_]:
    """[band, y, x], by the file's nodata values or mask, or by its alpha band where that is a mask."""
    if MaskFlags.alpha not in file.mask_flag_enums[bands[0] - 1]:
        return np.asarray(file.read_masks(list(bands), window=window) == 0)
    alpha = file.colorinterp.index(ColorInterp.alpha) + 1
    opacity = file.read(alpha, window=window)
    absent = opacity == 0
    # A mask has two values; more of them in a TIFF are near infrared that goes by the name of alpha (see `_names`).
    mask = file.driver != "GTiff" or bool((absent | (opacity == opacity.max())).all())
    return np.broadcast_to(absent & (mask and alpha not in bands), (len(bands), *absent.shape))


def _open_store(path: Path, bands: Sequence[str], white: float | None) -> Raster:
    with _store(path) as store:
        missing = [band for band in bands if band not in store or store[band].dims != ("y", "x")]
        if missing:
            raise UnusableError(f"has no band {missing[0]} with the axes y, x")
        if white is None:
            raise UnusableError("holds measured numbers: say with data.white which reflectance is white")
        height, width = store[bands[0]].shape
        known = "x" in store.coords and width > 1 and store.x.attrs.get("units") in _METRES
        gsd = abs(float(store.x[1] - store.x[0])) if known else None
        return Raster(path, height, width, gsd, tuple(bands), white)


@contextmanager
def _file(path: Path) -> Iterator[Any]:
    with warnings.catch_warnings():
        # Photographs have no place on Earth, and need none.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        # rasterio.open itself takes no more than one driver.
        with rasterio.Env(**_STRICT), rasterio.DatasetReader(str(path), driver=_DRIVERS) as file:
            yield file


@contextmanager
def _store(path: Path) -> Iterator[xr.Dataset]:
    with xr.open_zarr(path, consolidated=False, chunks=None) as store:
        yield store


def _sentence(error: BaseException) -> str:
    """What went wrong; rasterio itself often says no more than that the cause knows."""
    return next(iter(str(error.__cause__ or error).splitlines()), type(error).__name__)
