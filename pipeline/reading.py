"""One item on one window of the lattice: an item reference in, its pixels as stored numbers out.

The files' own headers say where their pixels lie, never the catalogue. Each band is read on its own native grid,
converted to stored numbers there, and only then brought onto the lattice: numbers that wrapped around (see
sentinel2) would bleed into their neighbours otherwise. Pixels already on the lattice are copied, not resampled.
"""

from __future__ import annotations

import logging
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np
import odc.stac
import pystac
import rasterio
from numpy.typing import NDArray
from odc.geo.geobox import GeoBox
from pyproj import Transformer
from pystac.extensions.projection import ProjectionExtension
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from .errors import SceneError
from .grid import GSD, Window
from .items import ItemReference
from .resample import Method, resample
from .sentinel2 import BANDS, SCL, Offset, OffsetDecision, dark_level, decide_offset, product_offset, to_stored

# What a failing read says is in the exception; odc's own log line would only double it.
logging.getLogger("odc").addHandler(logging.NullHandler())

GDAL_OPTIONS: dict[str, Any] = {
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    "GDAL_HTTP_TIMEOUT": 60,
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 1,
    "GDAL_CACHEMAX": 256,
}
REMOTE_OPTIONS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
"""No requests for side-car files that archives do not have; local files may keep their georeference in one."""
DRIVERS = ("GTiff", "JP2OpenJPEG")
"""What an asset may be: a VRT, say, could name any file of this machine."""
COARSE = 384
"""Longest side, in pixels, of the look at an item's dark pixels."""
WAITS = (1.0, 4.0)
"""Seconds before the second and third attempt to read an asset."""

T = TypeVar("T")


def _gdal(href: str) -> rasterio.Env:
    """GDAL's options for reading an asset, in the thread that enters this."""
    return rasterio.Env(**GDAL_OPTIONS, **(REMOTE_OPTIONS if urlsplit(href).scheme else {}))


@dataclass(frozen=True)
class Source:
    """An item that has been looked at: where its pixels lie and what their numbers mean."""

    item: ItemReference
    crs: str
    decision: OffsetDecision
    sign: bool
    """Its hrefs need Planetary Computer's signature, made anew at each read because it expires."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence, around threads that read, a warning rasterio means to silence for its own scratch rasters.

    It does so per process, so that threads undo each other's silence (odc-geo issue 131). A source without
    georeference is an error of `inspect`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield


def inspect(item: ItemReference, wanted: Offset, sign: bool) -> Source:
    """Look at an item: its CRS, and its dark pixels for the offset.

    The look is at the whole item, coarsely, so that the decision is the same whatever ground is fetched.
    Raises SceneError where the item cannot be read or its offset cannot be decided.
    """

    def look() -> tuple[str | None, float | None]:
        with _open(item, item.evidence_band, _href(item, item.evidence_band, sign)) as source:
            shape = (min(COARSE, source.height), min(COARSE, source.width))
            crs = source.crs and (f"EPSG:{source.crs.to_epsg()}" if source.crs.to_epsg() else source.crs.to_wkt())
            return crs, dark_level(source.read(1, out_shape=shape))

    crs, dark = _persevere(look, item, item.evidence_band)
    if not crs:
        raise SceneError(f"item {item.id}: its {item.evidence_band} asset has no CRS; leave it out by --date")
    product = _product_offset(item) if item.baseline is None else None
    decision = decide_offset(item.id, item.properties, item.evidence_asset, dark, product, wanted)
    return Source(item, crs, decision, sign)


def read(source: Source, band: str, window: Window, crs: str) -> NDArray[np.uint16]:
    """Stored numbers (classes, for `scl`) [y, x] of `window` in the lattice of `crs`; 0 where the item has none.

    Bands are bilinear where they are not on the lattice, classes nearest. Raises SceneError, naming item and band.
    """
    gsd = SCL.gsd if band == SCL.name else BANDS[band].gsd
    aligned = gsd == GSD and source.crs == crs
    native = window if aligned else _native_window(window, crs, source.crs, gsd)
    numbers = _persevere(lambda: _load(source, band, native, gsd), source.item, band)
    if band != SCL.name:
        numbers = to_stored(numbers, source.decision)
    if aligned:
        return numbers
    method: Method = "nearest" if band == SCL.name else "bilinear"
    return resample(numbers, native, gsd, source.crs, window, crs, method)


def _native_window(window: Window, crs: str, item_crs: str, gsd: int) -> Window:
    """What of the item's own grid, counted in pixels of `gsd` metres, surrounds a window, with two pixels to spare."""
    west, south, east, north = Transformer.from_crs(crs, item_crs, always_xy=True).transform_bounds(
        *window.bounds, densify_pts=21
    )
    col, row = int(np.floor(west / gsd)) - 2, int(np.floor(-north / gsd)) - 2
    return Window(row, col, int(np.ceil(-south / gsd)) + 2 - row, int(np.ceil(east / gsd)) + 2 - col)


def _load(source: Source, band: str, native: Window, gsd: int) -> NDArray[np.uint16]:
    """The item's raw numbers on a window of its own grid, counted in pixels of `gsd` metres."""
    grid = GeoBox(
        (native.height, native.width),
        rasterio.Affine(gsd, 0, native.col * gsd, 0, -gsd, -native.row * gsd),
        source.crs,
    )
    href = _href(source.item, band, source.sign)
    with _open(source.item, band, href):
        pass  # refused here, before odc opens it with whatever driver fits
    # odc chooses what to read by the catalogue's word; ours says that the asset covers the grid asked for.
    asset = pystac.Asset(href, media_type="image/tiff", roles=["data"])
    item = pystac.Item(source.item.id, None, None, pystac.utils.str_to_datetime(source.item.datetime), {})
    item.add_asset(band, asset)
    described = ProjectionExtension.ext(asset, add_if_missing=True)
    described.apply(code=source.crs, shape=list(grid.shape), transform=list(grid.transform)[:6])
    with _gdal(href):
        data = odc.stac.load(
            [item],
            bands=[band],
            geobox=grid,
            resampling="nearest" if band == SCL.name else "bilinear",
            dtype="uint16",
            nodata=0,
            fail_on_error=True,
            stac_cfg={"*": {"assets": {"*": {"data_type": "uint16", "nodata": 0}}}},
        )
    return np.asarray(data[band].values[0], np.uint16)


@contextmanager
def _open(item: ItemReference, band: str, href: str) -> Iterator[rasterio.DatasetReader]:
    """The asset, or a SceneError where it is no raster of the two kinds archives hold."""
    with _gdal(href), rasterio.open(href) as source:
        if source.driver not in DRIVERS:
            raise SceneError(
                f"item {item.id}, band {band}: its asset is neither GeoTIFF nor JPEG 2000 but {source.driver}"
            )
        yield source


def _href(item: ItemReference, band: str, sign: bool) -> str:
    href = item.hrefs[band]
    if not sign:
        return href
    import planetary_computer

    return str(planetary_computer.sign_url(href))


def _persevere(action: Callable[[], T], item: ItemReference, band: str) -> T:
    """Try a read three times; SceneError after that."""
    for wait in (*WAITS, None):
        try:
            return action()
        except (RasterioError, OSError) as error:  # of requests too, when signing
            if wait is None:
                raise SceneError(
                    f"item {item.id}, band {band}: its asset cannot be read ({_words(error)}); "
                    "run the same command again to go on from here"
                ) from error
            time.sleep(wait)
    raise AssertionError("unreachable")


def _words(error: BaseException) -> str:
    """The innermost reason, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


def _product_offset(item: ItemReference) -> int | None:
    """BOA_ADD_OFFSET from the product's own metadata, as far as it can be had."""
    href = item.product_metadata
    if href is None or urlsplit(href).scheme == "s3":
        return None
    try:
        if urlsplit(href).scheme:
            with urllib.request.urlopen(href, timeout=60) as response:
                text = response.read().decode()
        else:
            text = Path(href).read_text()
    except (OSError, ValueError):
        return None
    return product_offset(text)
