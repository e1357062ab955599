"""Images in tiles that take long to decode, each decoded once: windows in, the file's own numbers out.

Chunks of a scene do not lie as the tiles of a file do, and GDAL decodes a JPEG 2000 tile anew for every window that
touches it. Here a tile is kept until the chunks beside and below it have had it: two rows of tiles, in bounded memory.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterWindow

from rsup.pipeline.lattice import Rectangle
from rsup.pipeline.sources import asset_file
from rsup.pipeline.sources.asset_file import DRIVERS, GDAL_OPTIONS, NO_NEIGHBOURS, Header
from rsup.pipeline.sources.remote import scheme_of

MOST_BYTES = 384 << 20
"""Of decoded tiles: two rows of Sentinel-2's, 1024 pixels high, in ten bands, or an EOPF chunk of each of six."""
LARGEST_TILE = 16 << 20
"""Bytes of a tile that is decoded as a whole; of larger ones GDAL decodes what a window needs."""
MOST_FILES = 64
"""That stay open at once."""

Shape = tuple[int, int]


@dataclass
class _Slot:
    """One tile or file, for one thread at a time."""

    lock: Lock = field(default_factory=Lock)
    value: Any = None
    users: int = 0
    size: int = 0


class Kept:
    """What was made once and is used again, by key; what has not been used for longest is dropped."""

    def __init__(self, most: int, drop: Callable[[Any], None] = lambda value: None) -> None:
        self._slots: OrderedDict[Hashable, _Slot] = OrderedDict()
        self._most, self._drop, self._lock = most, drop, Lock()

    @contextmanager
    def lend(self, key: Hashable, make: Callable[[], tuple[Any, int]]) -> Iterator[Any]:
        """`make`: a value and its size; asked by one thread, while others who want the same wait."""
        with self._lock:
            slot = self._slots.setdefault(key, _Slot())
            self._slots.move_to_end(key)
            slot.users += 1
        try:
            with slot.lock:
                if slot.value is None:
                    slot.value, slot.size = make()
                yield slot.value
        finally:
            with self._lock:
                slot.users -= 1
                self.shrink(self._most)

    def shrink(self, most: int) -> None:
        """Drop what is more than that, but for what is being used."""
        total = sum(slot.size for slot in self._slots.values())
        for key in list(self._slots):
            if total <= most:
                return
            if not self._slots[key].users:
                slot = self._slots.pop(key)
                total -= slot.size
                if slot.value is not None:
                    self._drop(slot.value)


_tiles = Kept(MOST_BYTES)
_files = Kept(MOST_FILES, lambda file: file.close())
_askers: list[object] = []


@contextmanager
def keeping() -> Iterator[None]:
    """In the block tiles and files are kept; afterwards none is."""
    asker = object()
    _askers.append(asker)
    try:
        yield
    finally:
        _askers.remove(asker)
        if not _askers:
            _tiles.shrink(-1)
            _files.shrink(-1)


read_header, read_coarse = asset_file.read_header, asset_file.read_coarse


def read_window(href: str, header: Header, rows: slice, cols: slice, fresh: bool) -> NDArray[Any]:
    """As asset_file's, of a JPEG 2000 file of this machine."""
    if not _askers or fresh or header.beside:
        return asset_file.read_window(href, header, rows, cols, fresh)
    with _file(href) as source:
        shape: Shape = source.block_shapes[0]
    if math.prod(shape) * np.dtype(header.dtype).itemsize > LARGEST_TILE:
        return asset_file.read_window(href, header, rows, cols, fresh)

    def decode(tile: tuple[slice, slice]) -> NDArray[Any]:
        with _file(href) as source:
            return np.asarray(source.read(1, window=RasterWindow.from_slices(*tile)))

    return assemble(href, (header.grid.height, header.grid.width), shape, (rows, cols), decode)


def assemble(
    name: Hashable,
    whole: Shape,
    shape: Shape,
    window: tuple[slice, slice],
    decode: Callable[[tuple[slice, slice]], NDArray[Any]],
    keep: bool = True,
) -> NDArray[Any]:
    """A window [y, x] of an image of `whole` pixels from its tiles of `shape`, each decoded once while it is kept."""
    rows, cols = window
    wanted = Rectangle(rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start)
    out: NDArray[Any] | None = None
    spans = [range(part.start // size, -(-part.stop // size)) for part, size in zip(window, shape, strict=True)]
    for place in product(*spans):
        corner = [index * size for index, size in zip(place, shape, strict=True)]
        sides = [min(size, length - start) for size, length, start in zip(shape, whole, corner, strict=True)]
        tile = Rectangle(*corner, *sides)
        inside = (slice(tile.row, tile.stop_row), slice(tile.col, tile.stop_col))

        def make(inside: tuple[slice, slice] = inside) -> tuple[NDArray[Any], int]:
            decoded = decode(inside)
            return decoded, decoded.nbytes

        with _tiles.lend((name, place), make) if _askers and keep else _once(make) as numbers:
            common = wanted.intersect(tile)
            assert common is not None
            if out is None:
                out = np.zeros((wanted.height, wanted.width), numbers.dtype)
            elif out.dtype != numbers.dtype:  # NaN of a tile that is not there
                out = out.astype(np.promote_types(out.dtype, numbers.dtype))
            out[common.within(wanted)] = numbers[common.within(tile)]
    assert out is not None
    return out


@contextmanager
def _once(make: Callable[[], tuple[NDArray[Any], int]]) -> Iterator[NDArray[Any]]:
    yield make()[0]


@contextmanager
def _file(href: str) -> Iterator[DatasetReader]:
    """The open file, for this thread alone."""
    with rasterio.Env(**GDAL_OPTIONS, **NO_NEIGHBOURS), _files.lend(href, lambda: (_open(href), 1)) as source:
        yield source


def _open(href: str) -> DatasetReader:
    return DatasetReader(Path(href), driver=DRIVERS, OVERVIEW_LEVEL="NONE")


def has_tiles(href: str) -> bool:
    """Whether it is a JPEG 2000 file of this machine, in a zip or not."""
    return not scheme_of(href) and href.lower().endswith(".jp2")
