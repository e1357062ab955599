"""One asset as a file: opened by GDAL as what it may be and nothing else, its header, and whether it is whole.

Whoever writes a catalogue chooses what is opened here. So: GeoTIFF and JPEG 2000 only, chosen before anything is
opened; regular files only; no other file that the asset names (overviews in its metadata, side-cars).
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import CRSError, RasterioIOError
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

from rsup.models.base.errors import SceneError
from rsup.models.sensors.profile import Sensor
from rsup.pipeline.lattice import GSD
from rsup.pipeline.places.credentials import headers_for
from rsup.pipeline.places.objects import gdal_settings

from .remote import direct, length, scheme_of
from .resample import Grid

GDAL_OPTIONS: dict[str, Any] = {
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_CONNECTTIMEOUT": 10,
    "GDAL_HTTP_TIMEOUT": 60,
    "GDAL_HTTP_LOW_SPEED_TIME": 15,
    "GDAL_HTTP_LOW_SPEED_LIMIT": 100,
    "GDAL_HTTP_MAX_RETRY": 3,
    "GDAL_HTTP_RETRY_DELAY": 1,
    "GDAL_CACHEMAX": 256,
}
NO_NEIGHBOURS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR"}
"""No requests for side-car files that archives do not have, and none of a local folder's files is looked into."""
IN_ZIP = "/vsizip/"
"""How GDAL names a file in a zip. A catalogue may name none; who opens a product has looked through its zip."""
PAST_THE_CACHE = {"CPL_VSIL_CURL_NON_CACHED": "/vsicurl/:/vsis3/"}
"""GDAL keeps what a broken answer brought, and would answer a second attempt with it."""
NO_HEAD = {"CPL_VSIL_CURL_USE_HEAD": "NO"}
"""The first bytes are asked for in the place of a file's head."""
REFUSED = r"HTTP response code: (401|403|405|501)\b"
"""What a server says to HEAD that may answer GET."""
_without_head: set[str] = set()
"""Servers that did."""
DRIVERS = ["GTiff", "JP2OpenJPEG"]
"""What an asset may be: a VRT, say, could name any file of this machine."""
BLOCK_BYTES = 512 << 20
"""Of the largest block, which GDAL holds whole; a Sentinel-2 band in a single one has half of that."""
MOST_BLOCKS = 200_000
"""Of a file whose blocks are counted; a Sentinel-2 band in tiles of 32 has half of that."""
COARSE = 384
"""Longest side, in pixels, of the look at an item's dark pixels."""
WHOLE = 4096
"""Longest side of what is looked at whole; of what is larger and has no overview, SAMPLES x SAMPLES spots are."""
SAMPLES = 8

HASHES = (
    {0x11: hashlib.sha1, 0x12: hashlib.sha256, 0x13: hashlib.sha512, 0x20: hashlib.sha384, 0xD5: hashlib.md5}
    | {0x14: hashlib.sha3_512, 0x15: hashlib.sha3_384, 0x16: hashlib.sha3_256, 0x17: hashlib.sha3_224}
    | {0xB200 + size: partial(hashlib.blake2b, digest_size=size) for size in range(1, 65)}
)
"""Functions by their multihash code."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself."""

    grid: Grid
    dtype: str
    packing: tuple[float, float]
    """Scale and offset; (1, 0) where it says none."""
    nodata: float | None
    beside: bool
    """Its georeference lies in a file beside it."""


def read_header(label: str, href: str, sensor: Sensor, fresh: bool) -> Header:
    """What an asset says of itself, checked to be one band that lies somewhere.

    `label` names item and band in the SceneError that refuses what cannot be used; `fresh` asks the server anew.
    Raises errors of rasterio where the asset cannot be read.
    """
    local = not scheme_of(href)
    if local and not href.startswith(IN_ZIP):
        _check_regular(label, Path(href))
    with _opened(href, fresh) as source:
        beside = local and (source.crs is None or source.transform.is_identity)
        if not beside:
            return _header(label, source, sensor, beside=False)
    with _opened(href, fresh, beside=True) as source:
        return _header(label, source, sensor, beside=True)


def _header(label: str, source: DatasetReader, sensor: Sensor, beside: bool) -> Header:
    if source.count != 1:
        raise SceneError(
            f"{label}: its asset holds {source.count} bands, and nothing says which is meant; get it anew, or have its "
            "item lead to a file of the band alone"
        )
    if not source.crs:
        raise SceneError(
            f"{label}: its asset has no CRS, and the ground it shows is unknown; get it anew, or leave its item out by "
            "--date"
        )
    if not source.crs.is_projected or source.crs.linear_units_factor[1] != 1:
        raise SceneError(
            f"{label}: the CRS of its asset ({_code(source.crs)[:60]}) is not a projected one in metres; "
            "its item must lead to the band in its UTM zone"
        )
    transform = source.transform
    numbers = tuple(transform)[:6]
    if not all(map(math.isfinite, numbers)) or max(map(abs, numbers)) > 1e9 or transform.b or transform.d:
        raise SceneError(f"{label}: its asset is rotated or lies nowhere ({numbers}); give it a north-up file")
    if min(abs(transform.a), abs(transform.e)) < GSD * (1 - 1e-6):
        raise SceneError(
            f"{label}: the pixels of its asset are {abs(transform.a):g} x {abs(transform.e):g} m, finer than {GSD} m; "
            f"no {sensor.title} band is, so average it to {GSD} m first"
        )
    if math.prod(source.block_shapes[0]) * np.dtype(source.dtypes[0]).itemsize > BLOCK_BYTES:
        raise SceneError(f"{label}: its asset can only be read in blocks of more than 512 MiB; rewrite it in tiles")
    grid = Grid(_code(source.crs), transform, source.height, source.width)
    return Header(grid, source.dtypes[0], (source.scales[0], source.offsets[0]), source.nodata, beside)


def check_blocks(label: str, href: str, size: int) -> None:
    """Raise SceneError where a file of this machine, of `size` bytes, is no GeoTIFF, or ends before its blocks do."""
    with _opened(href, fresh=False) as source:
        if source.driver != "GTiff":
            raise SceneError(f"{label}: its asset is no GeoTIFF, whatever it is called; get it anew")
        sides = zip(source.shape, source.block_shapes[0], strict=True)
        counts = [-(-length // side) for length, side in sides]
        if math.prod(counts) > MOST_BLOCKS:
            raise SceneError(f"{label}: its asset is cut into {math.prod(counts):,} blocks: it is no band; get it anew")
        for row, col in product(*map(range, counts)):
            start, length = (
                source.get_tag_item(f"BLOCK_{what}_{col}_{row}", "TIFF", bidx=1) for what in ("OFFSET", "SIZE")
            )
            if start is not None and int(start) + int(length or 0) > size:
                raise SceneError(
                    f"{label}: its asset has {size} bytes and its image does not end there: it is cut off; get it anew"
                )


def read_window(href: str, header: Header, rows: slice, cols: slice, fresh: bool) -> NDArray[Any]:
    """The file's own numbers [y, x] in `rows` and `cols`, which lie inside it."""
    with _opened(href, fresh, header.beside) as source:
        return np.asarray(source.read(1, window=RasterWindow.from_slices(rows, cols)))


def read_coarse(href: str, header: Header, fresh: bool) -> NDArray[Any]:
    """Some of the file's own numbers, from all over it."""
    # Overviews of its own only: it could name any file as one, and GDAL would open that with whatever driver fits.
    with _opened(href, fresh, header.beside) as source:
        inner = not header.beside and not source.tags(ns="OVERVIEWS")
    with _opened(href, fresh, header.beside, overviews=inner) as source:
        shape = (source.height, source.width)
        if overviews := source.overviews(1):
            if max(shape) / max(overviews) <= WHOLE:
                height, width = (min(COARSE, size) for size in shape)
                return np.asarray(source.read(1, out_shape=(height, width)))
        elif max(shape) <= WHOLE:
            # Not by out_shape: without overviews, GDAL decodes JPEG 2000 anew for every row of it.
            step = -(-max(shape) // COARSE)
            return np.asarray(source.read(1))[::step, ::step]
        side = COARSE // SAMPLES
        rows, cols = (((np.arange(SAMPLES) + 0.5) * size / SAMPLES - side / 2).clip(0).astype(int) for size in shape)
        height, width = (min(side, size) for size in shape)
        spots = [RasterWindow(col, row, width, height) for row in rows for col in cols]
        return np.concatenate([np.asarray(source.read(1, window=spot)).ravel() for spot in spots])


@contextmanager
def _opened(href: str, fresh: bool, beside: bool = False, overviews: bool = False) -> Iterator[DatasetReader]:
    """The asset as one of DRIVERS, none other being asked. `beside`: with the files beside it."""
    options: dict[str, Any] = {"GEOREF_SOURCES": "INTERNAL,PAM"} if beside else {}
    if not overviews:
        options["OVERVIEW_LEVEL"] = "NONE"
    name, access = reached(href)
    server = urlsplit(href).netloc if scheme_of(href) in ("http", "https") else None
    settings = GDAL_OPTIONS | ({} if beside else NO_NEIGHBOURS) | (PAST_THE_CACHE if fresh else {}) | access
    try:
        with ExitStack() as stack:

            def opened(**more: str) -> DatasetReader:
                stack.enter_context(rasterio.Env(**settings | more))
                # Not rasterio.open, which takes one driver.
                return stack.enter_context(DatasetReader(name, driver=DRIVERS, **options))

            try:
                source = opened(**(NO_HEAD if server in _without_head else {}))
            except RasterioIOError as error:
                # A signature may be good for GET alone, and some servers know no HEAD.
                if server is None or server in _without_head or not re.search(REFUSED, str(error)):
                    raise
                source = opened(**NO_HEAD | PAST_THE_CACHE)
                _without_head.add(server)
            yield source
    except CRSError as error:  # no RasterioError
        raise RasterioIOError(f"its CRS cannot be understood: {error}") from error


def reached(href: str) -> tuple[str | Path, dict[str, Any]]:
    """What GDAL calls an address or a path, and its settings for whoever has to be told who asks."""
    scheme = scheme_of(href)
    if scheme == "s3":
        place = href.partition("://")[2]
        return f"/vsis3/{place}", gdal_settings(place.partition("/")[0])
    if scheme not in ("http", "https"):
        return Path(href), {}
    if headers_for(href):
        href = direct(href)  # GDAL would take headers to whatever server it is led to
    settings = {}
    if headers := headers_for(href):
        settings["GDAL_HTTP_HEADERS"] = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if netrc := os.environ.get("NETRC"):
        settings["GDAL_HTTP_NETRC_FILE"] = netrc
    return f"/vsicurl/{href}", settings


def _code(crs: rasterio.crs.CRS) -> str:
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.to_wkt())


def _check_regular(label: str, path: Path) -> None:
    """Before it is opened: a pipe would wait for its writer, a device do what it does."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise SceneError(f"{label}: its asset {path} is {kind}; correct its item, or leave it out by --date")


def check_whole(label: str, href: str, asset: Mapping[str, Any]) -> None:
    """Raise SceneError where an asset is not as long as its item says, or, a local one, has another checksum.

    Fields `file:size` and `file:checksum` (a multihash) of STAC's file extension. Of remote assets only the length is
    compared: their checksum would take all of a file of which a small part is wanted.
    """
    said, checksum, path = asset.get("file:size"), asset.get("file:checksum"), None
    scheme = scheme_of(href)
    if not scheme:
        path = Path(href)
    if isinstance(said, int) and not isinstance(said, bool):
        size = path.stat().st_size if path else length(href) if scheme != "s3" else None
        if size is not None and size != said:
            raise SceneError(
                f"{label}: its asset has {size} bytes and its item says {said} (file:size): "
                "it is cut off or another file; get it anew"
            )
    if path and isinstance(checksum, str):
        try:
            function, digest = _multihash(checksum)
        except (ValueError, KeyError):
            raise SceneError(
                f"{label}: its file:checksum {checksum[:80]!r} is no multihash that rsup can verify; correct it"
            ) from None
        with path.open("rb") as file:
            if hashlib.file_digest(file, function).digest() != digest:
                raise SceneError(
                    f"{label}: its asset is not the file its item describes (file:checksum differs): "
                    "it is damaged or another file; get it anew"
                )


def _multihash(text: str) -> tuple[Callable[..., Any], bytes]:
    """Function and digest: a multihash is a code, a length (varints) and the digest. ValueError, KeyError otherwise."""
    code, rest = _varint(bytes.fromhex(text))
    size, digest = _varint(rest)
    function = HASHES[code]
    if not len(digest) == size == function().digest_size:
        raise ValueError("its length is wrong")
    return function, digest


def _varint(raw: bytes) -> tuple[int, bytes]:
    """A number of seven bits a byte, lowest first, and what follows it."""
    value = shift = 0
    for position, byte in enumerate(raw[:9]):
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, raw[position + 1 :]
        shift += 7
    raise ValueError("no number")
