"""The scene: 10 m bands of one UTM zone on the lattice, as fetch writes them and upscale reads them.

In: a Zarr store or GeoTIFF that keeps the scene contract (contract.py). Out: a `Scene` that reads windows of
stored numbers; and the writer of the store that fetch makes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rsup.models.base.errors import SceneError
from rsup.models.base.radiometry import DN_MIN, NODATA
from rsup.pipeline.lattice import Window

from . import remote
from . import store as store_scene
from . import tiff as tiff_scene
from .contract import reason
from .foreign.layout import Plane
from .foreign.numbers import Numbers
from .remote import ScenePath


class _Reader(Protocol):
    """store_scene or tiff_scene."""

    def read(self, path: ScenePath, layers: Sequence[Any], rows: slice, cols: slice) -> NDArray[Any]: ...
    def lost(self, path: ScenePath, layer: Any, rows: slice, cols: slice, where: NDArray[np.bool_]) -> str | None: ...


@dataclass(frozen=True)
class Pixels:
    """A window of a scene."""

    data: NDArray[np.uint16]
    """Stored numbers [band, y, x]; 0 where the scene has no pixel, and outside of it."""
    dark: NDArray[np.bool_]
    """[band, y, x]: there, but 0 in the file, which is nodata's number too; DN_MIN, the darkest value, in `data`."""
    there: NDArray[np.bool_]
    """[y, x]: whether any band of the scene, asked for or not, has the pixel."""


@dataclass(frozen=True)
class Scene:
    """A scene on disk; cheap to copy and to pickle, safe to read from many threads."""

    path: ScenePath
    crs: str
    """"EPSG:32633", or WKT where the CRS has no EPSG code."""
    window: Window
    """All pixels it has."""
    aoi: Window
    """The ground that was asked for; equal to `window` where the scene does not say."""
    bands: tuple[str, ...]
    """Common names, whatever the file calls them."""
    attributes: dict[str, Any] = field(compare=False)
    """`items` (ids, hrefs, dates, baselines, offsets) and `left_out` (ids, reasons), as far as they are understood."""
    layers: tuple[str | int | Plane, ...]
    """What the file calls its bands: names of arrays or planes of them, or numbers of a TIFF's bands."""
    classes: str | int | Plane | None
    """The scene classification, where it has one that says something."""
    origin: str | None
    """The array `source`, where it has one."""
    interval: tuple[datetime, datetime] | None
    """When it was taken at the earliest and at the latest, by the file itself."""
    numbers: tuple[Numbers | None, ...] = ()
    """What those of each band in the file mean; None, or nothing at all, for stored numbers."""

    def read(self, bands: Sequence[str], window: Window) -> NDArray[np.uint16]:
        """Stored numbers [band, y, x] of `window`; 0 outside the scene and where it has no pixel.

        No pixel is where every band of the scene is 0, asked for or not, and where a band is 0 that the
        classification calls nodata; any other 0 is dark, and given as DN_MIN.
        """
        return self.examine(bands, window).data

    def examine(self, bands: Sequence[str], window: Window) -> Pixels:
        """As `read`, with which of the pixels are dark, and which are there at all."""
        missing = [band for band in bands if band not in self.bands]
        if missing:
            raise SceneError(f"{self.path} has no band {', '.join(missing)}; it has {', '.join(self.bands)}")
        shape = (window.height, window.width)
        out = Pixels(
            np.zeros((len(bands), *shape), np.uint16), np.zeros((len(bands), *shape), bool), np.zeros(shape, bool)
        )
        common = window.intersect(self.window)
        if common is not None:
            layers = [self.layers[self.bands.index(band)] for band in bands]
            target = common.within(window)
            data = self._numbers(layers, common).astype(np.uint16, copy=False)
            dark, there = self._dark(layers, data, common)
            for plane, where, layer in zip(data, dark, layers, strict=True):
                meant = self._meaning(layer)
                plane[where] = DN_MIN if meant is None else meant.zero or NODATA
            out.data[:, *target], out.dark[:, *target], out.there[target] = data, dark, there
        return out

    def _dark(
        self, layers: list[str | int | Plane], data: NDArray[np.uint16], window: Window
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which zeros [layer, y, x] are dark, and which pixels [y, x] any layer of the scene has."""
        empty = data == NODATA
        there = ~empty.all(axis=0)
        for layer in (layer for layer in self.layers if layer not in layers):
            if there.all():
                break
            part = _around(~there)
            height, width = there[part].shape
            row, col = window.row + part[0].start, window.col + part[1].start
            corner = replace(window, row=row, col=col, height=height, width=width)
            there[part] |= self._numbers([layer], corner)[0] != NODATA
        dark = empty & there
        for layer, where in zip(layers, dark, strict=True):
            meant = self._meaning(layer)
            if meant is not None and meant.zero is None:
                where[:] = False  # what is absent from it is told apart from 0
        if dark.any() and self.classes is not None:
            dark &= self._numbers([self.classes], window)[0] != 0
        for layer, where in zip(layers, dark, strict=True):
            if where.any():
                rows, cols = window.within(self.window)
                if lost := self._reader.lost(self.path, layer, rows, cols, where):
                    raise SceneError(
                        f"{self.path}: {lost} is lost, where other bands have pixels; "
                        "fetch the scene anew, or copy it from where it is whole"
                    )
        return dark, there

    def sources(self, window: Window) -> NDArray[np.unsignedinteger[Any]] | None:
        """1 + index of the item each pixel [y, x] came from, 0 for none or many; None where the scene does not say."""
        common = window.intersect(self.window)
        if self.origin is None or common is None:
            return None
        out = np.zeros((window.height, window.width), np.uint32)
        out[common.within(window)] = self._numbers([self.origin], common)[0]
        return out

    def _meaning(self, layer: str | int | Plane) -> Numbers | None:
        """What a band's numbers mean in the file; None for stored numbers, and for what is no band."""
        place = self.layers.index(layer) if layer in self.layers else len(self.numbers)
        return self.numbers[place] if place < len(self.numbers) else None

    def _numbers(self, layers: list[str | int | Plane], window: Window) -> NDArray[Any]:
        """What stands in the file [layer, y, x], bands as stored numbers, on a window that lies inside the scene."""
        try:
            found = self._reader.read(self.path, layers, *window.within(self.window))
            meant = [self._meaning(layer) for layer in layers]
            if not any(meant):
                return found
            pairs = zip(found, meant, strict=True)
            return np.stack([plane if each is None else each.stored(plane) for plane, each in pairs])
        except SceneError:
            raise
        except Exception as error:  # every codec and driver has errors of its own
            names = [self.bands[self.layers.index(layer)] if layer in self.layers else str(layer) for layer in layers]
            raise SceneError(f"{self.path}: {', '.join(names)} cannot be read: {reason(error)}") from error

    @property
    def _reader(self) -> _Reader:
        return store_scene if self.path.is_dir() else tiff_scene

    def fingerprint(self) -> str:
        """SHA-256 (hex) over the names, sizes and times of its files: changes with pixels and metadata."""
        if not isinstance(self.path, Path):
            return remote.fingerprint(self.path)
        files = sorted(self.path.rglob("*")) if self.path.is_dir() else [self.path]
        digest = hashlib.sha256()
        for file in files:
            if file.is_file():
                stat = file.stat()
                name = file.relative_to(self.path)
                digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        if any(self.numbers):
            digest.update(repr(self.numbers).encode())
        return digest.hexdigest()


def _around(where: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The smallest rows and columns that hold every True of [y, x], at least one."""
    down, along = (np.flatnonzero(where.any(axis=axis)) for axis in (1, 0))
    return slice(int(down[0]), int(down[-1]) + 1), slice(int(along[0]), int(along[-1]) + 1)
