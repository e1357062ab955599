"""The scene: 10 m bands of one UTM zone on the lattice, as fetch writes them and upscale reads them.

In: a Zarr store or GeoTIFF that keeps the scene contract (contract.py). Out: a `Scene` that reads windows of
stored numbers; and the writer of the store that fetch makes.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zarr
from numpy.typing import NDArray
from pydantic import ValidationError

from rsup.models.base.errors import unwritable
from rsup.models.base.files import sync, sync_tree
from rsup.models.base.progress import say
from rsup.models.base.radiometry import ADD_OFFSET, DN_MIN, NODATA, SCALE_FACTOR
from rsup.pipeline.cf import add_array, add_grid, consolidate, sync_chunk
from rsup.pipeline.errors import OutputError, SceneError
from rsup.pipeline.lattice import Window, snap
from rsup.pipeline.sentinel2 import CLASS_NAMES, DARK, SCL, STORED_SHIFT

from . import remedies
from . import store as store_scene
from . import tiff as tiff_scene
from .attributes import LAUNCH, SceneAttributes, interval
from .contract import reason
from .store import COMPLETE, SOURCE

CLASSES = SCL.name
"""Arrays of a scene store that are no bands: scene classification; and `source`."""

LOOK = (4, 128)
"""A coarse look at a scene: so many squares each way, of so many pixels a side."""
DOUBTED = 0.95
"""Share of negative reflectances from which a scene is doubted: water and shadow have many, none has nearly all."""


class _Reader(Protocol):
    """store_scene or tiff_scene."""

    def read(self, path: Path, layers: Sequence[Any], rows: slice, cols: slice) -> NDArray[Any]: ...
    def lost(self, path: Path, layer: Any, rows: slice, cols: slice, where: NDArray[np.bool_]) -> str | None: ...


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

    path: Path
    crs: str
    """"EPSG:32633", or WKT where the CRS has no EPSG code."""
    window: Window
    """All pixels it has."""
    aoi: Window
    """The ground that was asked for; equal to `window` where the scene does not say."""
    bands: tuple[str, ...]
    """Common names, whatever the file calls them."""
    attributes: dict[str, Any] = field(compare=False)
    """`items` (ids, hrefs, dates, baselines, offsets), as far as they are understood."""
    layers: tuple[str | int, ...]
    """What the file calls its bands: names of arrays, or numbers of a TIFF's bands."""
    classes: str | int | None
    """The scene classification, where it has one that says something."""
    origin: str | None
    """The array `source`, where it has one."""
    interval: tuple[datetime, datetime] | None
    """When it was taken at the earliest and at the latest, by the file itself."""

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
            data[dark] = DN_MIN
            out.data[:, *target], out.dark[:, *target], out.there[target] = data, dark, there
        return out

    def _dark(
        self, layers: list[str | int], data: NDArray[np.uint16], window: Window
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which zeros [layer, y, x] are dark, and which pixels [y, x] any layer of the scene has."""
        empty = data == NODATA
        there = ~empty.all(axis=0)
        for layer in (layer for layer in self.layers if layer not in layers):
            if there.all():
                break
            part = _around(~there)
            corner = Window(window.row + part[0].start, window.col + part[1].start, *there[part].shape)
            there[part] |= self._numbers([layer], corner)[0] != NODATA
        dark = empty & there
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

    def _numbers(self, layers: list[str | int], window: Window) -> NDArray[Any]:
        """What stands in the file [layer, y, x], on a window that lies inside the scene."""
        try:
            return self._reader.read(self.path, layers, *window.within(self.window))
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
        files = sorted(self.path.rglob("*")) if self.path.is_dir() else [self.path]
        digest = hashlib.sha256()
        for file in files:
            if file.is_file():
                stat = file.stat()
                name = file.relative_to(self.path)
                digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()


class SceneWriter:
    """Writes the chunks of a scene store; calls on different chunks may come from different threads."""

    def __init__(self, path: Path, window: Window, bands: Sequence[str], chunk: int) -> None:
        self.path = path
        self.window = window
        self.bands = tuple(bands)
        self.chunk = chunk
        # Chunks of nodata too, which zarr leaves out by itself: then one that is not there was lost.
        with zarr.config.set({"array.write_empty_chunks": True}):
            names = (*self.bands, CLASSES, SOURCE)
            self._arrays = {name: zarr.open_array(path / name, mode="r+") for name in names}

    def write(
        self,
        index: tuple[int, int],
        data: NDArray[np.uint16],
        classes: NDArray[np.uint8],
        source: NDArray[np.uint16],
    ) -> None:
        """Write chunk `index` (row, column of the chunk grid): data [band, y, x], classes and source [y, x].

        Durable when it returns. Raises OutputError where the disk refuses.
        """
        row, col = index[0] * self.chunk, index[1] * self.chunk
        rows, cols = slice(row, row + data.shape[1]), slice(col, col + data.shape[2])
        planes = dict(zip(self.bands, data, strict=True)) | {CLASSES: classes, SOURCE: source}
        try:
            if not (mark := self.path / COMPLETE).exists():
                mark.touch()
                sync(mark)
                sync(mark.parent)
            for name, plane in planes.items():
                self._arrays[name][rows, cols] = plane
            sync_chunk(self.path, list(planes), index)
        except OSError as error:
            raise OutputError(f"{unwritable(self.path, error)}; the same command then goes on") from error


def create_scene(
    path: Path,
    window: Window,
    crs: str,
    bands: Sequence[str],
    chunk: int,
    aoi: Window | None = None,
    attributes: dict[str, Any] | None = None,
) -> SceneWriter:
    """Create an empty scene store at `path` (which must not exist) and return its writer.

    `chunk` is the side of a chunk in pixels; chunks are counted from the window's north-west corner. On the disk when
    it returns. Raises OutputError where the disk refuses.
    """
    shape = (window.height, window.width)
    described = {"Conventions": "CF-1.11", **(attributes or {}), "bands": list(bands)}
    described["aoi"] = list((aoi or window).bounds)
    try:
        group = zarr.create_group(path, attributes=described)
        add_grid(group, window.transform(), shape, crs)
        for band in bands:
            add_array(group, band, shape, chunk)
        flags = {
            "long_name": "Sentinel-2 scene classification",
            "flag_values": list(range(len(CLASS_NAMES))),
            "flag_meanings": " ".join(CLASS_NAMES),
            "grid_mapping": "spatial_ref",
        }
        add_array(group, CLASSES, shape, chunk, "uint8", flags)
        origin = {
            "long_name": "1 + index into the attribute `items`, 0 = none or many",
            "grid_mapping": "spatial_ref",
        }
        add_array(group, SOURCE, shape, chunk, "uint16", origin)
        consolidate(path)
        sync_tree(path)
    except OSError as error:
        raise OutputError(unwritable(path, error)) from error
    return SceneWriter(path, window, bands, chunk)


def open_scene(path: str | Path) -> Scene:
    """Open a Zarr store or GeoTIFF, check it against the scene contract line by line, and take a coarse look at it.

    Raises SceneError, naming the broken line and the remedy.
    """
    path = Path(path)
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode):
            path.open("rb").close()
    except FileNotFoundError:
        raise SceneError(f"{path} does not exist: give a scene store made by `rsup fetch`, or a GeoTIFF") from None
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or error
        raise SceneError(f"{path} cannot be opened ({words}): check its name and who may read it") from error
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        raise SceneError(f"{path} is a pipe or a device; give a scene store made by `rsup fetch`, or a GeoTIFF")
    is_store = stat.S_ISDIR(found.st_mode)
    described = (store_scene if is_store else tiff_scene).describe(path)
    try:
        words = {key: value for key, value in described.words.items() if key != "aoi" or is_store}
        attributes = SceneAttributes.model_validate(words)
        aoi = _aoi(path, attributes.aoi, described.window)
    except ValidationError as error:
        raise SceneError(
            f"{path}: its aoi is not [west, south, east, north] in metres; do without: {remedies.forget_aoi(path)}"
        ) from error
    scene = Scene(
        path,
        described.crs,
        described.window,
        aoi,
        described.bands,
        {"items": [item.model_dump(exclude_none=True) for item in attributes.items]},
        described.layers,
        described.classes,
        described.origin,
        interval(described.words) or _since_launch(path),
    )
    return _looked_at(scene)


def _aoi(path: Path, bounds: list[float] | None, window: Window) -> Window:
    if bounds is None:
        return window
    west, south, east, north = bounds
    aoi = snap((west, south, east, north)).intersect(window)
    if aoi is None:
        raise SceneError(
            f"{path}: its aoi ({', '.join(f'{edge:g}' for edge in bounds)}) lies outside its pixels; "
            f"do without: {remedies.forget_aoi(path)}"
        )
    return aoi


def _since_launch(path: Path) -> tuple[datetime, datetime] | None:
    """From the first Sentinel-2 to the file's last change: the scene is no younger. None for a clock set back."""
    files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
    changed = datetime.fromtimestamp(int(max(file.stat().st_mtime for file in files)), UTC)
    return (LAUNCH, changed) if changed > LAUNCH else None


def _looked_at(scene: Scene) -> Scene:
    """The scene, without a classification that says nothing; refused where its numbers can be no reflectance.

    A picture or numbers of another kind under the words of the contract are reflectances around -0.1. Dark water may be
    negative nearly everywhere, but only just.
    """
    times, side = LOOK
    classified, numbers = False, []
    for row in range(times):
        for col in range(times):
            place = _square(scene.aoi, row, col, times, side)
            try:
                data = scene._numbers(list(scene.layers), place)
                numbers.append(data[data != NODATA])
                if scene.classes is not None and not classified:
                    classes = scene._numbers([scene.classes], place)[0]
                    classified = bool((classes != 0)[(data != NODATA).any(axis=0)].any())
            except SceneError as error:
                if error.__cause__ is None:
                    raise
                # Damaged, which is for the chunk to say that needs it: the others can be done.
    valid = np.concatenate(numbers) if numbers else np.zeros(0, np.uint16)
    if valid.size >= 100:
        if np.mean(valid < DARK) > DOUBTED:
            raise SceneError(
                f"{scene.path}: its reflectance is below {DARK * SCALE_FACTOR + ADD_OFFSET:g} nearly everywhere "
                f"(median {np.median(valid) * SCALE_FACTOR + ADD_OFFSET:.3f}): its numbers are not "
                "reflectance * 10000 + 1000, whatever it says of them; give the bands themselves"
            )
        if np.mean(valid < STORED_SHIFT) > DOUBTED:
            say(f"{scene.path}: its reflectance is below 0 nearly everywhere; are its numbers what it says of them?")
    return scene if classified or scene.classes is None else replace(scene, classes=None)


def _square(area: Window, row: int, col: int, times: int, side: int) -> Window:
    """One of times x times squares spread over an area, smaller ones where it is small."""
    height, width = min(side, -(-area.height // times)), min(side, -(-area.width // times))
    top = area.row + (area.height - height) * row // (times - 1)
    left = area.col + (area.width - width) * col // (times - 1)
    return Window(top, left, height, width)


def _around(where: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The smallest rows and columns that hold every True of [y, x], at least one."""
    down, along = (np.flatnonzero(where.any(axis=axis)) for axis in (1, 0))
    return slice(int(down[0]), int(down[-1]) + 1), slice(int(along[0]), int(along[-1]) + 1)
