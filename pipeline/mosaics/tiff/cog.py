"""The mosaic as one cloud-optimised GeoTIFF.

In: a finished mosaic store with its overviews, and its figures. Out: a tiled, compressed TIFF with the same overviews,
which GIS programs and web maps open as it is: the store's numbers, scale and offset to reflectance, nodata 0, band
names, and where it came from. How far the bands may be off is such a file of its own. Equal stores give equal bytes.

GDAL writes what is said of the image, in a TIFF of one tile; the tiles come from the store, each read, packed and
written once. Its COG driver would need an image of this size to copy from, would average the overviews anew, and tells
nobody where the disk has refused a tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from affine import Affine
from numcodecs import Zstd
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile

from rsup.models.base.errors import OutputError
from rsup.models.base.files import replacing, writing
from rsup.models.base.progress import Progress
from rsup.models.base.radiometry import ADD_OFFSET, NODATA, SCALE_FACTOR
from rsup.models.sensors import sensor_of_items
from rsup.pipeline.machine import ahead, side_by_side
from rsup.pipeline.mosaics.planes import read_back
from rsup.pipeline.mosaics.statistics import Statistics
from rsup.pipeline.mosaics.store import array_of, bands_of, side_of_squares, uncertainties_of

from .bigtiff import Pyramid, Tag, read_tags

BLOCK = 512
"""Side of a TIFF tile, in pixels."""
PACKED = Zstd(level=1)
"""Eight times as fast as DEFLATE by libdeflate at its least, for files 4 % larger (zlib's own level 6: 40 times, 2 %);
docs/outputs.md says who reads it."""
COLOURS = {"red": ColorInterp.red, "green": ColorInterp.green, "blue": ColorInterp.blue}


class _Level(NamedTuple):
    """The numbers of a level of the pyramid."""

    arrays: list[zarr.Array[Any]]
    """[y, x], one a band."""
    square: int
    """Pixels of the level along a side of what a number stands for."""


class _Square(NamedTuple):
    """Tiles that are read at once: as many as lie under a chunk of the store."""

    level: int
    """Of the pyramid, 0 the finest."""
    row: int
    """Of the tile grid, where it begins."""
    col: int
    side: int
    """In tiles."""


def write_cog(
    store: Path, out: Path, statistics: Mapping[str, Statistics], progress: Progress, *, uncertainty: bool = False
) -> None:
    """Write the bands of the mosaic `store` to `out`, or their uncertainty; `out` appears whole or not at all.

    `statistics`: of each, by name. Holds a chunk of every band for each core, and no more than the memory allows.
    `progress(done, total)` counts chunks of all levels. Raises OutputError where the disk refuses, or a chunk that was
    written cannot be read any more.
    """
    root, bands = zarr.open_group(store, mode="r"), uncertainties_of(store) if uncertainty else bands_of(store)
    attributes: dict[str, Any] = dict(root.attrs)
    groups = [level["asset"] for level in attributes["multiscales"]["layout"]]
    arrays = [[array_of(root, f"{group}/{band}") for band in bands] for group in groups]
    levels = _levels(arrays, side_of_squares(store) if uncertainty else 1)
    tags = _tags_of(attributes, bands, statistics, uncertainty)
    with writing(out, OutputError, goes_on=True), replacing(out) as fresh, open(fresh, "wb") as file:
        shapes = [(rows, cols) for rows, cols in (level[0].shape for level in arrays)]
        pyramid = Pyramid(file, tags, shapes)
        squares = list(_squares(pyramid, levels))
        most = len(bands) * arrays[0][0].chunks[0] * arrays[0][0].chunks[1] * 2
        threads = side_by_side(2 * most)
        # Of a mosaic of one chunk, tiles: a pool of their own, for those that wait for them fill the first.
        with ThreadPoolExecutor(threads, "cog") as pool, ThreadPoolExecutor(side_by_side(BLOCK**2), "tiles") as tiles:
            packing = ahead(pool, partial(_pack, levels, shapes, tiles), squares, threads)
            for done, (square, packed) in enumerate(zip(squares, packing, strict=True)):
                progress(done, len(squares))
                for (row, col), tile in packed.items():
                    pyramid.add(square.level, row, col, tile)
        pyramid.close()
        progress(len(squares), len(squares))


def _levels(arrays: list[list[zarr.Array[Any]]], square: int) -> list[_Level]:
    """Where the numbers of each level are read, finest first: squares of so many pixels a side are equal in that one.

    From the level in which a square is a pixel, or the coarsest there is: its numbers are the same, and fewer.
    """
    levels = []
    for finer in range(len(arrays)):
        coarser = min(max(0, square.bit_length() - 1 - finer), len(arrays) - 1 - finer)
        levels.append(_Level(arrays[finer + coarser], 1 << coarser))
    return levels


def _squares(pyramid: Pyramid, levels: list[_Level]) -> Iterator[_Square]:
    """All of the pyramid, coarsest level first."""
    for level in reversed(range(len(levels))):
        side = max(1, min(levels[level].arrays[0].chunks) * levels[level].square // BLOCK)
        for row, col in product(*(range(0, count, side) for count in pyramid.levels[level].grid)):
            yield _Square(level, row, col, side)


Packed = dict[tuple[int, int], bytes]
"""Tiles by their places in the level's grid."""


def _pack(levels: list[_Level], shapes: list[tuple[int, int]], tiles: Executor, square: _Square) -> Packed:
    """Read and pack the tiles of a square of the bands' pyramid."""
    (height, width), (bands, side) = shapes[square.level], levels[square.level]
    top, left = square.row * BLOCK, square.col * BLOCK
    bottom, right = min(top + square.side * BLOCK, height), min(left + square.side * BLOCK, width)
    window = slice(top // side, -(-bottom // side)), slice(left // side, -(-right // side))
    planes = list(tiles.map(partial(read_back, window=window), bands))
    down, across = (range(-(-length // BLOCK)) for length in (bottom - top, right - left))
    places = list(product(down, across))

    def packed(place: tuple[int, int]) -> bytes:
        rows, cols = (slice(at * BLOCK // side, (at + 1) * BLOCK // side) for at in place)
        return _tile([plane[rows, cols] for plane in planes], side)

    in_grid = ((square.row + row, square.col + col) for row, col in places)
    return dict(zip(in_grid, tiles.map(packed, places), strict=True))


def _tile(planes: Sequence[NDArray[np.uint16]], side: int) -> bytes:
    """A tile as it is stored: differences along rows (predictor 2), bands of a pixel together, 0 beyond the image.

    A number stands for squares of so many pixels a `side`.
    """
    height, width = planes[0].shape
    tile = np.zeros((BLOCK // side, BLOCK // side, side, len(planes)), "<u2")
    for plane, differences in zip(planes, tile[:height, :width, 0].transpose(2, 0, 1), strict=True):
        differences[:, 0] = plane[:, 0]
        np.subtract(plane[:, 1:], plane[:, :-1], out=differences[:, 1:])
    return bytes(PACKED.encode(tile.repeat(side, axis=0)))


def _tags_of(
    attributes: dict[str, Any], bands: tuple[str, ...], statistics: Mapping[str, Statistics], uncertainty: bool
) -> list[Tag]:
    """All that is said of the image, as GDAL writes it in a TIFF of one tile."""
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            height=BLOCK,
            width=BLOCK,
            count=len(bands),
            dtype="uint16",
            crs=attributes.get("proj:code") or attributes["proj:wkt2"],
            transform=Affine(*attributes["spatial:transform"]),
            nodata=NODATA,
            tiled=True,
            blockxsize=BLOCK,
            blockysize=BLOCK,
            interleave="pixel",
            compress="zstd",
            predictor=2,
            bigtiff="yes",
            endianness="little",
            sparse_ok=True,
        ) as target:
            target.descriptions = bands
            target.scales = [SCALE_FACTOR] * len(bands)
            target.offsets = [0.0 if uncertainty else ADD_OFFSET] * len(bands)
            target.colorinterp = [COLOURS.get(band, ColorInterp.undefined) for band in bands]
            target.update_tags(**_tags(attributes))
            for number, name in enumerate(bands, start=1):
                described = {
                    f"STATISTICS_{key.upper()}": f"{value:.14g}" for key, value in statistics[name].figures().items()
                }
                target.update_tags(number, **described)
                target.update_tags(number, ns="IMAGERY", **({} if uncertainty else _light(attributes, name)))
        return read_tags(memory.read())


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
