"""The mosaic as one cloud-optimised GeoTIFF, written by GDAL's COG driver.

In: a finished mosaic store. Out: a tiled, compressed TIFF with overviews that GIS programs and web maps open
as it is: the store's numbers, scale and offset to reflectance, nodata 0, band names, and where it came from. How
far the bands may be off is such a file of its own. Equal stores give equal bytes.
"""

from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any
from zlib import crc32

import rasterio
import rasterio.shutil
import zarr
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.windows import Window as RasterWindow

from rsup.models.base.errors import OutputError, remedy, unwritable
from rsup.models.base.files import clear, replacing
from rsup.models.base.progress import Progress
from rsup.models.base.radiometry import ADD_OFFSET, NODATA, SCALE_FACTOR
from rsup.models.sensors import sensor_of_items

from .statistics import Statistics
from .store import bands_of, uncertainties_of

BLOCK = 512
"""Side of a TIFF tile, in pixels."""

CACHE_MIB = 256
"""GDAL's block cache: without a bound of its own GDAL takes 5 % of the machine."""

COLOURS = {"red": ColorInterp.red, "green": ColorInterp.green, "blue": ColorInterp.blue}


def write_cog(store: Path, out: Path, progress: Progress, *, uncertainty: bool = False) -> dict[str, Statistics]:
    """Write the bands of the mosaic `store` to `out`, or their uncertainty; `out` appears whole or not at all.

    Returns the statistics of each, by name. Holds one chunk of one band and GDAL's cache (256 MiB) at a time.
    `progress(done, total)` counts chunks; after the last one follow GDAL's own pass over the whole and a reading of
    what it wrote. Raises OutputError where the disk refuses.
    """
    plain = out.with_name(f".{out.name}.plain")
    try:
        clear(plain)
        with rasterio.Env(GDAL_CACHEMAX=CACHE_MIB), replacing(out) as fresh:
            sums, statistics = _write_plain(store, plain, progress, uncertainty)
            rasterio.shutil.copy(
                plain,
                fresh,
                driver="COG",
                BLOCKSIZE=BLOCK,
                COMPRESS="DEFLATE",
                PREDICTOR="STANDARD",
                OVERVIEWS="AUTO",
                OVERVIEW_RESAMPLING="AVERAGE",
                BIGTIFF="IF_SAFER",
                NUM_THREADS="ALL_CPUS",
                STATISTICS="YES",
            )
            _verify(fresh, sums)
        return statistics
    except Exception as error:  # GDAL's failures share no public class
        raise OutputError(f"{unwritable(out, _cause(error, plain))}; the same command then goes on") from error
    finally:
        with suppress(OSError):
            clear(plain)


def _cause(error: Exception, plain: Path) -> Exception:
    """The failure, or that space ran out where GDAL does not say so and there is none left."""
    with suppress(OSError):  # the image takes about as much again as the plain file it is made from
        if remedy(error) is None and shutil.disk_usage(plain.parent).free < 2 * plain.stat().st_size:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return error


def _write_plain(
    store: Path, path: Path, progress: Progress, uncertainty: bool
) -> tuple[dict[tuple[int, RasterWindow], int], dict[str, Statistics]]:
    """An ordinary TIFF to make the COG from, band after band: GDAL must not see tiles half filled.

    Returns the checksum of each window (a chunk) of each band, counted from 1; and the bands' statistics.
    """
    root, bands = zarr.open_group(store, mode="r"), uncertainties_of(store) if uncertainty else bands_of(store)
    attributes: dict[str, Any] = dict(root.attrs)
    height, width = attributes["spatial:shape"]
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=len(bands),
        dtype="uint16",
        crs=attributes.get("proj:code") or attributes["proj:wkt2"],
        transform=Affine(*attributes["spatial:transform"]),
        nodata=NODATA,
        tiled=True,
        blockxsize=BLOCK,
        blockysize=BLOCK,
        interleave="band",
        compress="zstd",
        zstd_level=1,
        predictor=2,
        bigtiff="yes",
        sparse_ok=True,
        num_threads="all_cpus",
    ) as target:
        target.descriptions = bands
        target.scales = [SCALE_FACTOR] * len(bands)
        target.offsets = [0.0 if uncertainty else ADD_OFFSET] * len(bands)
        target.colorinterp = [COLOURS.get(band, ColorInterp.undefined) for band in bands]
        target.update_tags(**_tags(attributes))
        array: Any = root[bands[0]]
        tall, wide = array.chunks
        starts = list(product(range(len(bands)), range(0, height, tall), range(0, width, wide)))
        sums, statistics = dict[tuple[int, RasterWindow], int](), {name: Statistics() for name in bands}
        for done, (band, row, col) in enumerate(starts):
            progress(done, len(starts))
            source: Any = root[bands[band]]
            data = source[row : row + tall, col : col + wide]
            window = RasterWindow(col, row, data.shape[1], data.shape[0])
            sums[band + 1, window] = crc32(data)
            statistics[bands[band]].add(data)
            if data.any():
                target.write(data, band + 1, window=window)
        for number, name in enumerate(bands, start=1):
            described = {
                f"STATISTICS_{key.upper()}": f"{value:.14g}" for key, value in statistics[name].figures().items()
            }
            target.update_tags(number, **described)
            target.update_tags(number, ns="IMAGERY", **({} if uncertainty else _light(attributes, name)))
        progress(len(starts), len(starts))
    return sums, statistics


def _verify(path: Path, sums: dict[tuple[int, RasterWindow], int]) -> None:
    """Read the file back, for GDAL closes it without a word about pixels that found no room on the disk.

    Raises OSError, or an error of rasterio's, where a pixel is not what was written or an overview is damaged.
    """
    with rasterio.open(path, driver="GTiff") as image:
        for (band, window), expected in sums.items():
            if crc32(image.read(band, window=window)) != expected:
                raise OSError("the disk did not keep all of it")
        levels = len(image.overviews(1))
    for level in range(levels):
        with rasterio.open(path, driver="GTiff", overview_level=level) as overview:
            for _, window in overview.block_windows(1):
                overview.read(window=window)


def _tags(attributes: dict[str, Any]) -> dict[str, str]:
    """Where the image came from, as TIFF tags; what the store does not say is left out."""
    items = attributes.get("items") or []
    tags = {
        "AREA_OR_POINT": "Area",
        "TIFFTAG_SOFTWARE": attributes.get("software"),
        "TIFFTAG_DOCUMENTNAME": attributes.get("title"),
        "MODEL": attributes.get("model"),
        "MODEL_SHA256": attributes.get("model_sha256"),
        "SOURCES": " ".join(str(item["id"]) for item in items if item.get("id")),
    }
    return {name: str(value) for name, value in tags.items() if value}


def _light(attributes: dict[str, Any], name: str) -> dict[str, str]:
    """What light a band sees, as GDAL writes it (domain IMAGERY), in micrometres; nothing where nobody knows."""
    sensor = sensor_of_items(attributes.get("items") or [])
    band = next((band for band in sensor.bands if band.name == name), None)
    said = {} if band is None else {"CENTRAL_WAVELENGTH_UM": band.wavelength, "FWHM_UM": band.width}
    return {key: f"{value:g}" for key, value in said.items() if value is not None}
