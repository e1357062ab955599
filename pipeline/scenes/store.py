"""A scene in a Zarr store: what its metadata says, and its numbers, read as from a stranger.

In: a folder with Zarr metadata, versions 2 and 3, and chunks. Out: a `Description` that keeps the contract, and windows
of its arrays. Nothing outside of the folder is read, no pipe or device is opened, and only codecs that turn bytes into
numbers are run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from affine import Affine
from numpy.typing import NDArray

from rsup.models.base.errors import SceneError
from rsup.models.sensors import common_name
from rsup.pipeline.lattice import GSD, Window

from . import remedies
from .contract import (
    CLASSES,
    check_chunks,
    check_crs,
    check_names,
    check_packing,
    check_size,
    check_type,
    check_window,
    reason,
)
from .guard import check_codecs, check_documents, check_inside, files_of
from .remote import ScenePath, answered, is_complete, is_there, opened

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
    layers: tuple[str | int, ...]
    """What the file calls each of them: the name of an array, the number of a TIFF's band."""
    classes: str | int | None
    """The scene classification, where there is one."""
    origin: str | None
    """The array `source`, where there is one."""
    words: Mapping[str, Any]
    """Attributes or tags, as they are."""


def describe(path: ScenePath) -> Description:
    """Read a store's metadata and check it line by line. Raises SceneError with the broken line and its remedy."""
    check_documents(path)
    try:
        with answered(path):
            group = zarr.open_group(opened(path), mode="r")
            arrays = dict(group.arrays())
    except SceneError:
        raise
    except Exception as error:  # zarr raises many kinds for a folder that is no store
        raise SceneError(f"{path} is not a readable Zarr group: {reason(error)}") from error
    try:
        return _describe(path, _words(group), arrays)
    except SceneError:
        raise
    except Exception as error:  # words that no line of the contract foresees
        raise SceneError(f"{path}: its metadata cannot be understood ({reason(error)}); write it anew") from error


def _describe(path: ScenePath, words: Mapping[str, Any], arrays: Mapping[str, zarr.Array[Any]]) -> Description:
    planes = {name: array for name, array in arrays.items() if array.ndim == 2}
    classes = next((name for name in planes if common_name(name) == CLASSES), None)
    rasters = {name: array for name, array in planes.items() if name not in (classes, SOURCE)}
    if not rasters:
        raise SceneError(f"{path} has no band; rsup needs 2-D arrays [y, x] such as red, green and blue")
    rasters = {name: rasters[name] for name in _order(words, rasters)}
    bands = check_names(path, tuple(rasters))
    for name, array in rasters.items():
        if _dimensions(array) not in (("y", "x"), None):
            raise SceneError(
                f"{path}: {name} has dimensions {', '.join(map(str, _dimensions(array) or ()))[:80]}; "
                f"rsup needs (y, x): {remedies.transpose(path)}"
            )
        scale, offset, nodata = _packing(array)
        check_type(path, name, str(array.dtype), (scale, offset))
        check_packing(path, name, scale, offset, nodata)
    shapes = {array.shape for array in rasters.values()}
    if len(shapes) > 1:
        raise SceneError(
            f"{path}: bands differ in shape ({', '.join(map(str, sorted(shapes)))}); keep in one store those of one "
            f"{GSD} m grid, and remove the others"
        )
    height, width = shapes.pop()
    check_size(path, (height, width))
    for name, array in rasters.items():
        check_chunks(path, name, array.chunks, array.shape, array.dtype.itemsize)
    crs = check_crs(path, _grid_mapping(arrays, rasters))
    window = check_window(path, _affine(path, arrays, height, width), (height, width), crs)
    beside = {name: array.shape == (height, width) and array.dtype.kind in "ui" for name, array in planes.items()}
    return Description(
        crs,
        window,
        bands,
        tuple(rasters),
        classes if classes and beside[classes] else None,
        SOURCE if beside.get(SOURCE) else None,
        words,
    )


def read(path: ScenePath, layers: Sequence[Any], rows: slice, cols: slice) -> NDArray[Any]:
    """Numbers [layer, y, x] of some arrays. Raises SceneError for a chunk that is damaged, lost or elsewhere."""
    with answered(path):
        group = zarr.open_group(opened(path), mode="r")
    planes = []
    for name in layers:
        try:
            with answered(path):
                planes.append(_window(path, _array(group, name), (rows, cols)))
        except SceneError:
            raise
        except Exception as error:  # every codec has errors of its own
            raise SceneError(f"{path}: {name} cannot be read: {reason(error)}") from error
    return np.stack(planes)


def lost(path: ScenePath, layer: Any, rows: slice, cols: slice, where: NDArray[np.bool_]) -> str | None:
    """The chunk's file that is absent at one of the pixels `where` [y, x] of a window; None where all are there."""
    with answered(path):
        array = _array(zarr.open_group(opened(path), mode="r"), layer)
    for file, (across, along) in files_of(path, array, (rows, cols)):
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


def _dimensions(array: zarr.Array[Any]) -> tuple[Any, ...] | None:
    """Names of the dimensions, from Zarr 3's metadata or xarray's attribute in Zarr 2."""
    names: Any = getattr(array.metadata, "dimension_names", None) or _words(array).get("_ARRAY_DIMENSIONS")
    return tuple(names) if isinstance(names, list | tuple) and names else None


def _packing(array: zarr.Array[Any]) -> tuple[Any, Any, Any]:
    """CF scale, offset and fill value; in Zarr 2 xarray keeps the last one as the array's own fill value."""
    words = _words(array)
    fill = words.get("_FillValue")
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


def _affine(path: ScenePath, arrays: Mapping[str, zarr.Array[Any]], height: int, width: int) -> Affine:
    """Pixel-to-CRS affine: from `x` and `y`, which stay right when a store is cut; else from GeoTransform."""
    if min(height, width) > 1 and "x" in arrays and "y" in arrays:
        (dx, west), (dy, north) = (_axis(path, arrays[name], size) for name, size in (("x", width), ("y", height)))
        return Affine(dx, 0.0, west, 0.0, dy, north)
    text = _words(arrays["spatial_ref"]).get("GeoTransform") if "spatial_ref" in arrays else None
    try:
        west, dx, row_rotation, north, column_rotation, dy = (float(number) for number in str(text or "").split())
    except ValueError:  # too few, too many, or no numbers
        raise SceneError(
            f"{path} does not say where its pixels lie; write x and y, with its own west and north edge at the end: "
            f"{remedies.place(path)}"
        ) from None
    return Affine.from_gdal(west, dx, row_rotation, north, column_rotation, dy)


def _axis(path: ScenePath, array: zarr.Array[Any], size: int) -> tuple[float, float]:
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
            f"else bring it onto even ones: {remedies.interpolate(path)}"
        )
    return float(step), float(centres[0] - step / 2)
