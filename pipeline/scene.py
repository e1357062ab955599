"""The scene: 10 m bands of one UTM zone on the lattice, as fetch writes them and upscale reads them.

In: a Zarr store or GeoTIFF that keeps the scene contract (contract.py). Out: a `Scene` that reads windows of
raw stored numbers; and the writer of the store that fetch makes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from affine import Affine
from numpy.typing import NDArray

from rsup.models.atomic import sync_tree
from rsup.models.errors import unwritable

from .cf import add_array, add_grid, consolidate, sync_chunk
from .contract import check_crs, check_packing, check_window
from .errors import OutputError, SceneError
from .grid import GSD, Window, snap
from .sentinel2 import CLASS_NAMES

CLASSES, SOURCE = "scl", "source"
"""Arrays of a scene store that are no bands: scene classification; 1 + index of the item, 0 = none or many."""

_METADATA = ("zarr.json", ".zgroup", ".zattrs", ".zmetadata")
"""zarr reads these at once and reports the first that fails; asyncio prints what else failed as tracebacks where the
program ends right then. So files that may not be read are found out before."""

_ENCODING = "{'dtype': 'uint16', 'scale_factor': 1e-4, 'add_offset': -0.1, '_FillValue': 0}"


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
    attributes: dict[str, Any] = field(compare=False)
    """The store's own: `items` (ids, hrefs, dates, baselines, offsets), `aoi`, software."""

    def read(self, bands: Sequence[str], window: Window) -> NDArray[np.uint16]:
        """Stored numbers [band, y, x] of `window`; 0 outside the scene."""
        missing = [band for band in bands if band not in self.bands]
        if missing:
            raise SceneError(f"{self.path} has no band {', '.join(missing)}; it has {', '.join(self.bands)}")
        out = np.zeros((len(bands), window.height, window.width), np.uint16)
        common = window.intersect(self.window)
        if common is None:
            return out
        rows, cols = common.within(self.window)
        try:
            if self.path.is_dir():
                group = zarr.open_group(self.path, mode="r")
                data = np.stack([_array(group, band)[rows, cols] for band in bands])
            else:
                data = _read_geotiff(self.path, [self.bands.index(band) + 1 for band in bands], rows, cols)
        except Exception as error:  # every codec and driver has errors of its own
            raise SceneError(f"{self.path}: bands {', '.join(bands)} cannot be read: {error}") from error
        out[(slice(None), *common.within(window))] = data
        return out

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
        self._group = zarr.open_group(path, mode="r+")

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
            for name, plane in planes.items():
                _array(self._group, name)[rows, cols] = plane
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
    """Open a Zarr store or GeoTIFF and check it against the scene contract, line by line.

    Raises SceneError, naming the broken line and the remedy.
    """
    path = Path(path)
    try:
        path.stat()
        for name in _METADATA if path.is_dir() else ():
            with suppress(FileNotFoundError):
                (path / name).open("rb").close()
    except FileNotFoundError:
        raise SceneError(f"{path} does not exist: give a scene store made by `rsup fetch`, or a GeoTIFF") from None
    except OSError as error:
        raise SceneError(
            f"{error.filename} cannot be opened ({error.strerror}): check its name and who may read it"
        ) from error
    return _open_zarr(path) if path.is_dir() else _open_geotiff(path)


def _open_zarr(path: Path) -> Scene:
    try:
        group = zarr.open_group(path, mode="r")
        arrays = dict(group.arrays())
    except Exception as error:  # zarr raises many kinds for a folder that is no store
        raise SceneError(f"{path} is not a readable Zarr group: {error}") from error
    rasters = {name: a for name, a in arrays.items() if a.ndim == 2 and name not in (CLASSES, SOURCE)}
    if not rasters:
        raise SceneError(f"{path} has no band; rsup needs 2-D arrays [y, x] such as red, green and blue")
    for name, array in rasters.items():
        if _dimensions(array) not in (("y", "x"), None):
            raise SceneError(f"{path}: {name} has dimensions {_dimensions(array)}; rsup needs (y, x)")
        if array.dtype.kind != "u" or array.dtype.itemsize != 2:
            raise SceneError(
                f"{path}: {name} is {array.dtype}, not uint16; "
                f"write reflectance with to_zarr(encoding={{'{name}': {_ENCODING}}})"
            )
        check_packing(path, name, *_packing(array))
    crs = check_crs(path, _grid_mapping(arrays, rasters), "ds.rio.write_crs('EPSG:32633').to_zarr(...)")
    shapes = {array.shape for array in rasters.values()}
    if len(shapes) > 1:
        raise SceneError(f"{path}: bands differ in shape ({sorted(shapes)}); resample them to one 10 m grid")
    height, width = shapes.pop()
    window = check_window(path, _affine(path, arrays, height, width), (height, width))
    attributes = _with_known_items(dict(group.attrs))
    listed = attributes.get("bands")  # Zarr keeps no order
    bands = tuple(listed) if isinstance(listed, list) and set(listed) == set(rasters) else tuple(sorted(rasters))
    return Scene(path, crs, window, _aoi(path, attributes, window), bands, attributes)


def _open_geotiff(path: Path) -> Scene:
    import warnings

    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said below, with the remedy
            source = rasterio.open(path)
    except RasterioError as error:
        raise SceneError(f"{path} is neither a Zarr store nor a raster that GDAL reads: {error}") from error
    with source:
        names = source.descriptions
        if not all(names) or len(set(names)) < len(names):
            raise SceneError(
                f"{path}: every band needs a name of its own as its description; "
                "set them with rasterio.open(path, 'r+').descriptions = ('red', 'green', 'blue')."
            )
        for name, dtype, *packing in zip(
            names, source.dtypes, source.scales, source.offsets, source.nodatavals, strict=True
        ):
            if dtype != "uint16":
                raise SceneError(f"{path}: {name} is {dtype}, not uint16; use gdal_translate -ot UInt16")
            check_packing(path, name, *packing)
        wkt = source.crs.to_wkt() if source.crs else None
        crs = check_crs(path, wkt, f"gdal_edit.py -a_srs EPSG:32633 {path}")
        window = check_window(path, source.transform, source.shape)
        return Scene(path, crs, window, window, tuple(names), _with_known_items(dict(source.tags())))


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise SceneError(f"{group.store_path}: {name} is a group, not an array")
    return array


def _dimensions(array: zarr.Array[Any]) -> tuple[str, ...] | None:
    """Names of the dimensions, from Zarr 3's metadata or xarray's attribute in Zarr 2."""
    names = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return tuple(names) if names else None  # type: ignore[arg-type]


def _packing(array: zarr.Array[Any]) -> tuple[Any, Any, Any]:
    """CF scale, offset and fill value; in Zarr 2 xarray keeps the last one as the array's own fill value."""
    fill = array.attrs.get("_FillValue")
    if fill is None and array.metadata.zarr_format == 2:
        fill = array.fill_value
    return array.attrs.get("scale_factor"), array.attrs.get("add_offset"), fill


def _grid_mapping(arrays: dict[str, zarr.Array[Any]], rasters: dict[str, zarr.Array[Any]]) -> str | None:
    """The CRS (WKT) of the bands' grid mapping; `spatial_ref` counts even if no band names it."""
    named = [str(a.attrs["grid_mapping"]) for a in rasters.values() if "grid_mapping" in a.attrs]
    for name in (*named, "spatial_ref"):
        if name in arrays:
            wkt = arrays[name].attrs.get("crs_wkt") or arrays[name].attrs.get("spatial_ref")
            if wkt:
                return str(wkt)
    return None


def _affine(path: Path, arrays: dict[str, zarr.Array[Any]], height: int, width: int) -> Affine:
    """Pixel-to-CRS affine: from `x` and `y`, which stay right when a store is cut; else from GeoTransform."""
    if min(height, width) > 1 and "x" in arrays and "y" in arrays:
        axes = []
        for name, size in (("x", width), ("y", height)):
            centres = np.asarray(arrays[name][:], np.float64)
            step = (centres[-1] - centres[0]) / max(1, len(centres) - 1)
            if len(centres) != size or not np.allclose(np.diff(centres), step, rtol=0, atol=1e-6):
                raise SceneError(
                    f"{path}: {name} does not count {size} evenly spaced pixel centres; "
                    f"resample it with gdalwarp -tr {GSD} {GSD} -tap"
                )
            axes.append((step, centres[0] - step / 2))
        (dx, west), (dy, north) = axes
        return Affine(dx, 0.0, west, 0.0, dy, north)
    text = arrays["spatial_ref"].attrs.get("GeoTransform") if "spatial_ref" in arrays else None
    try:
        west, dx, row_rotation, north, column_rotation, dy = (float(number) for number in str(text or "").split())
    except ValueError:  # too few, too many, or no numbers
        raise SceneError(
            f"{path} does not say where its pixels lie; write x and y, or use rio.write_transform"
        ) from None
    return Affine.from_gdal(west, dx, row_rotation, north, column_rotation, dy)


def _with_known_items(attributes: dict[str, Any]) -> dict[str, Any]:
    """The attributes, with such `items` as are objects: in a store of somebody else's the name may mean anything."""
    items = attributes.get("items")
    return attributes | {"items": [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []}


def _aoi(path: Path, attributes: dict[str, Any], window: Window) -> Window:
    bounds = attributes.get("aoi")
    if bounds is None:
        return window
    try:
        west, south, east, north = (float(number) for number in bounds)
        aoi = snap((west, south, east, north)).intersect(window)
    except (TypeError, ValueError, OverflowError) as error:  # infinity overflows
        raise SceneError(f"{path}: its aoi ({bounds}) is not [west, south, east, north] in metres") from error
    if aoi is None:
        raise SceneError(f"{path}: its aoi ({bounds}) lies outside its pixels; correct or remove that attribute")
    return aoi


def _read_geotiff(path: Path, indexes: list[int], rows: slice, cols: slice) -> NDArray[np.uint16]:
    import rasterio
    from rasterio.windows import Window as RasterWindow

    with rasterio.open(path) as source:
        data = source.read(indexes, window=RasterWindow.from_slices(rows, cols))
    return np.asarray(data, np.uint16)
