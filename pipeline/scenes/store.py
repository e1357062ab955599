"""A scene in a Zarr store: what its metadata says, and its numbers, read as from a stranger.

In: a folder with Zarr metadata, versions 2 and 3, and chunks. Out: a `Description` that keeps the contract, and windows
of its arrays. Nothing outside of the folder is read, no pipe or device is opened, and only codecs that turn bytes into
numbers are run.
"""

from __future__ import annotations

import base64
import math
import struct
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from affine import Affine
from numpy.typing import NDArray
from zarr.errors import ZarrUserWarning

from rsup.models.base.errors import SceneError
from rsup.models.sensors import common_name
from rsup.pipeline.lattice import GSD, Window

from . import remedies
from .contract import (
    CLASSES,
    check_chunks,
    check_crs,
    check_names,
    check_size,
    check_window,
    reason,
)
from .foreign.layout import Arrays, Layout, Plane, Words, are_corners
from .foreign.numbers import Numbers, Said, meanings
from .guard import check_codecs, check_documents, check_inside, files_of
from .remote import ScenePath, answered, is_complete, is_there, opened

# Names along a dimension, as xarray writes them; every opening of a group says it anew, in threads too.
warnings.filterwarnings("ignore", "The data type .* does not have a Zarr V3 specification", ZarrUserWarning)
SOURCE = "source"
"""The array that says which item each pixel came from: 1 + index of the item, 0 = none or many."""
COMPLETE = f"{SOURCE}/every-chunk-is-written"
"""A file that says of its store that a chunk which is not there was lost.

By itself Zarr has no such word: an absent chunk holds the fill value. It is no attribute, because xarray carries
attributes over when somebody writes a changed scene with it, and leaves out chunks that hold nothing but nodata.
"""


@dataclass(frozen=True)
class Description:
    """What a scene's file says, checked against the contract."""

    crs: str
    window: Window
    bands: tuple[str, ...]
    """Common names."""
    layers: tuple[str | int | Plane, ...]
    """What the file calls each of them: the name of an array, or a plane of one; the number of a TIFF's band."""
    classes: str | int | Plane | None
    """The scene classification, where there is one."""
    origin: str | None
    """The array `source`, where there is one."""
    words: Mapping[str, Any]
    """Attributes or tags, as they are."""
    numbers: tuple[Numbers | None, ...]
    """What those of each band mean; None for stored numbers."""


def describe(path: ScenePath, said: Said) -> Description:
    """Read a store's metadata and check it line by line. Raises SceneError with the broken line and its remedy.

    `said`: what its user says of its numbers.
    """
    check_documents(path)
    try:
        with answered(path):
            group = zarr.open_group(opened(path), mode="r")
            arrays = dict(group.arrays())
            groups = sorted(group.group_keys())
    except SceneError:
        raise
    except Exception as error:  # zarr raises many kinds for a folder that is no store
        raise SceneError(f"{path} is not a readable Zarr group: {reason(error)}") from error
    try:
        return _describe(path, _words(group), arrays, groups, said)
    except SceneError:
        raise
    except Exception as error:  # words that no line of the contract foresees
        raise SceneError(f"{path}: its metadata cannot be understood ({reason(error)}); write it anew") from error


def _describe(path: ScenePath, words: Words, arrays: Arrays, groups: Sequence[str], said: Said) -> Description:
    layout = Layout(path, arrays, _words, lambda array: _whole(path, array))
    planes = layout.planes()
    classes = next((name for name in planes if common_name(name) == CLASSES), None)
    rasters = {name: plane for name, plane in planes.items() if name not in (classes, SOURCE)}
    if not rasters:
        hint = f"; give one of its groups ({', '.join(groups)[:80]}), as {path / groups[0]}" if groups else ""
        raise SceneError(f"{path} has no band; rsup needs arrays [y, x] such as red, green and blue{hint}")
    described = {name: (str(arrays[p.array].dtype), _packing(arrays[p.array])) for name, p in rasters.items()}
    meant = meanings(path, described, said)
    rasters = {name: rasters[name] for name in _order(words, rasters) if name in meant}
    bands = check_names(path, tuple(rasters))
    held = {name: arrays[plane.array] for name, plane in rasters.items()}
    numbers = tuple(meant[name] for name in rasters)
    shapes = {array.shape[-2:] for array in held.values()}
    if len(shapes) > 1:
        raise SceneError(
            f"{path}: bands differ in shape ({', '.join(map(str, sorted(shapes)))}); keep in one store those of one "
            f"{GSD} m grid, and remove the others"
        )
    height, width = shapes.pop()
    check_size(path, (height, width))
    for name, array in held.items():
        *before, rows, cols = array.chunks
        check_chunks(path, name, (rows, cols), array.shape[-2:], array.dtype.itemsize * math.prod(before))
    of_user = None if numbers[0] is None else numbers[0].of_user
    for plane in rasters.values():
        layout.check_metres(plane, of_user)
    crs = check_crs(path, _grid_mapping(arrays, held) or layout.crs(words), of_user)
    window = check_window(path, _affine(layout, height, width, of_user), (height, width), crs, of_user)
    alike = {
        name: arrays[plane.array].shape[-2:] == (height, width) and arrays[plane.array].dtype.kind in "ui"
        for name, plane in planes.items()
    }
    taken = layout.moment()
    return Description(
        crs,
        window,
        bands,
        tuple(_layer(plane) for plane in rasters.values()),
        _layer(planes[classes]) if classes and alike[classes] else None,
        SOURCE if alike.get(SOURCE) else None,
        words if taken is None else {"datetime": taken.isoformat(), **words},
        numbers,
    )


def _whole(path: ScenePath, array: zarr.Array[Any]) -> NDArray[Any]:
    """All of a small array: a coordinate."""
    check_chunks(path, array.basename, array.chunks, array.shape, array.dtype.itemsize)
    return _window(path, array, tuple(slice(0, size) for size in array.shape))


def _layer(plane: Plane) -> str | Plane:
    """What a scene calls it: the array's name alone where there is no more to say."""
    return plane if plane.at else plane.array


def _located(group: zarr.Group, layer: str | Plane, rows: slice, cols: slice) -> tuple[zarr.Array[Any], Any]:
    """The array of a layer, and the part of it that is a window."""
    plane = Plane(layer) if isinstance(layer, str) else layer
    return _array(group, plane.array), plane.index(rows, cols)


def read(path: ScenePath, layers: Sequence[Any], rows: slice, cols: slice) -> NDArray[Any]:
    """Numbers [layer, y, x] of some arrays. Raises SceneError for a chunk that is damaged, lost or elsewhere."""
    with answered(path):
        group = zarr.open_group(opened(path), mode="r")
    planes = []
    for name in layers:
        try:
            with answered(path):
                part = _window(path, *_located(group, name, rows, cols))
                planes.append(part.reshape(part.shape[-2:]))
        except SceneError:
            raise
        except Exception as error:  # every codec has errors of its own
            raise SceneError(f"{path}: {name} cannot be read: {reason(error)}") from error
    return np.stack(planes)


def lost(path: ScenePath, layer: Any, rows: slice, cols: slice, where: NDArray[np.bool_]) -> str | None:
    """The chunk's file that is absent at one of the pixels `where` [y, x] of a window; None where all are there."""
    with answered(path):
        array, index = _located(zarr.open_group(opened(path), mode="r"), layer, rows, cols)
    for file, (*_, across, along) in files_of(path, array, index):
        part = where[max(0, across.start - rows.start) : across.stop - rows.start]
        if part[:, max(0, along.start - cols.start) : along.stop - cols.start].any() and not is_there(file):
            return str(file).removeprefix(f"{path}/")
    return None


def _window(path: ScenePath, array: zarr.Array[Any], index: tuple[slice, ...]) -> NDArray[Any]:
    check_codecs(path, array)
    mark = path / COMPLETE
    complete = array.ndim == 2 and (mark.exists() if isinstance(mark, Path) else is_complete(mark))
    for file, _ in files_of(path, array, index):
        check_inside(path, file, absent_is_lost=complete)
    return np.asarray(array[index])


def _words(node: zarr.Array[Any] | zarr.Group) -> Mapping[str, Any]:
    """The attributes, which zarr takes as they come."""
    found: Any = node.metadata.attributes
    return found if isinstance(found, dict) else {}


def _order(words: Mapping[str, Any], rasters: Mapping[str, Any]) -> tuple[str, ...]:
    """The bands as the attribute `bands` lists them, else by name: Zarr keeps no order."""
    listed = words.get("bands")
    if isinstance(listed, list) and all(isinstance(name, str) for name in listed) and sorted(listed) == sorted(rasters):
        return tuple(listed)
    return tuple(sorted(rasters))


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise SceneError(f"{group.store_path}: {name} is a group, not an array")
    return array


def _packing(array: zarr.Array[Any]) -> tuple[Any, Any, Any]:
    """CF scale, offset and fill value; in Zarr 2 xarray keeps the last one as the array's own fill value.

    odc-stac writes `nodata`, older tools `missing_value`.
    """
    words = _words(array)
    fill = next((words[key] for key in ("_FillValue", "missing_value", "nodata") if words.get(key) is not None), None)
    if isinstance(fill, str) and array.dtype.kind == "f":
        with suppress(ValueError, struct.error):  # as xarray writes a float in Zarr 3, which may be NaN
            fill = struct.unpack("<d", base64.standard_b64decode(fill))[0]
    if fill is None and array.metadata.zarr_format == 2:
        fill = array.fill_value
    fill = fill.item() if isinstance(fill, np.generic) else fill
    return words.get("scale_factor"), words.get("add_offset"), fill


def _grid_mapping(arrays: Mapping[str, zarr.Array[Any]], rasters: Mapping[str, zarr.Array[Any]]) -> str | None:
    """The CRS (WKT) of the bands' grid mapping; `spatial_ref` counts even if no band names it."""
    named = [name for a in rasters.values() if isinstance(name := _words(a).get("grid_mapping"), str)]
    for name in (*named, "spatial_ref"):
        if name in arrays:
            wkt = _words(arrays[name]).get("crs_wkt") or _words(arrays[name]).get("spatial_ref")
            if wkt:
                return wkt if isinstance(wkt, str) else "no text"
    return None


def _affine(layout: Layout, height: int, width: int, of_user: remedies.Meaning | None) -> Affine:
    """Pixel-to-CRS affine: from `x` and `y`, which stay right when a store is cut; else from GeoTransform."""
    path, arrays = layout.path, layout.arrays
    if min(height, width) > 1 and "x" in arrays and "y" in arrays:
        (dx, west), (dy, north) = (
            _axis(path, arrays[name], size, of_user) for name, size in (("x", width), ("y", height))
        )
        transform = Affine(dx, 0.0, west, 0.0, dy, north)
        if (declared := layout.transform(transform @ (0.5, 0.5))) is not None:
            return declared
        if are_corners(transform):
            raise SceneError(
                f"{path}: x and y are multiples of {GSD} m, where no pixel of {GSD} m has its centre; if they name top "
                f"left corners (stackstac's default) move them by half a pixel: {remedies.shift(path)} ; or stack with "
                "xy_coords='center'"
            )
        return transform
    text = _words(arrays["spatial_ref"]).get("GeoTransform") if "spatial_ref" in arrays else None
    try:
        west, dx, row_rotation, north, column_rotation, dy = (float(number) for number in str(text or "").split())
    except ValueError:  # too few, too many, or no numbers
        raise SceneError(
            f"{path} does not say where its pixels lie; write x and y, with its own west and north edge at the end: "
            f"{remedies.place(path)}"
        ) from None
    return Affine.from_gdal(west, dx, row_rotation, north, column_rotation, dy)


def _axis(path: ScenePath, array: zarr.Array[Any], size: int, of_user: remedies.Meaning | None) -> tuple[float, float]:
    """Step and outer edge of the first pixel along one axis, from the centres of `size` pixels."""
    centres = np.empty(0)
    if array.shape == (size,):
        check_chunks(path, array.basename, array.chunks, array.shape, array.dtype.itemsize)
        with suppress(TypeError, ValueError, OverflowError):  # dates, texts
            centres = _window(path, array, (slice(0, size),)).astype(np.float64)
    step = (centres[-1] - centres[0]) / (size - 1) if centres.size else np.nan
    # 1e-6 m of slack; NaN and infinity are close to nothing.
    if not np.isfinite(step) or not np.allclose(np.diff(centres), step, rtol=0, atol=1e-6):
        raise SceneError(
            f"{path}: {array.basename} does not count {size} evenly spaced pixel centres; where its pixels are {GSD} m "
            f"squares write x and y anew, with its own west and north edge at the end: {remedies.place(path)} ; "
            f"else bring it onto even ones: {remedies.interpolate(path, of_user)}"
        )
    return float(step), float(centres[0] - step / 2)
