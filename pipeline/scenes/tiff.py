"""A scene in a GeoTIFF: what its header says, and its numbers.

In: a file. Out: a `Description` that keeps the contract, and windows of its bands. GDAL is held to its GTiff driver: a
file of another kind, whatever its name, may lead it to other files and addresses.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterWindow

from rsup.models.base.errors import SceneError
from rsup.models.sensors import common_name

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
from .foreign.numbers import Said, meanings
from .remote import ScenePath, dataset
from .store import Description

DRIVER = "GTiff"
"""Also of cloud-optimised GeoTIFFs."""


def describe(path: ScenePath, said: Said) -> Description:
    """Read a GeoTIFF's header and check it line by line. Raises SceneError with the broken line and its remedy.

    `said`: what its user says of its numbers.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said by the contract, with the remedy
            with _open(path) as source:
                return _describe(path, source, said)
    except (RasterioError, UnicodeDecodeError) as error:
        if _is_netcdf(path):
            raise SceneError(
                f"{path} is netCDF, which is not read; make a store of it: {remedies.from_netcdf(path)}"
            ) from error
        if path.name.lower().endswith(".jp2"):
            raise SceneError(
                f"{path} is an image of a product, which does not say what its numbers mean; give the product itself"
            ) from error
        raise SceneError(
            f"{path} is neither a Zarr store nor a raster that GDAL's GeoTIFF driver reads ({reason(error)}): get it "
            "anew, or give a scene, a product or a GeoTIFF"
        ) from error


def _is_netcdf(path: ScenePath) -> bool:
    """Whether a file of this machine begins as netCDF 3 or, in HDF5, 4 does."""
    if not isinstance(path, Path):
        return False
    with path.open("rb") as file:
        return file.read(8).startswith((b"CDF", b"\x89HDF"))


def read(path: ScenePath, layers: Sequence[Any], rows: slice, cols: slice) -> NDArray[Any]:
    """Numbers [layer, y, x] of some bands, counted from 1."""
    with _open(path) as source:
        return np.asarray(source.read(list(layers), window=RasterWindow.from_slices(rows, cols)))


def lost(path: ScenePath, layer: Any, rows: slice, cols: slice, where: NDArray[np.bool_]) -> str | None:
    """The block that is absent at one of the pixels `where` [y, x] of a window; None where all are there."""
    with _open(path) as source:
        tall, wide = source.block_shapes[layer - 1]
        down, along = np.nonzero(where)
        blocks = np.unique(np.stack([(rows.start + down) // tall, (cols.start + along) // wide]), axis=1)
        for row, col in blocks.T:
            if source.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=layer) is None:
                return f"block {row}, {col} of band {layer}"
    return None


def _open(path: ScenePath) -> rasterio.DatasetReader:
    return dataset(path, DRIVER)


def _describe(path: ScenePath, source: rasterio.DatasetReader, said: Said) -> Description:
    names: tuple[str, ...] = source.descriptions
    if not all(names) or len(set(names)) < len(names):
        raise SceneError(
            f"{path}: every band needs a name of its own as its description; "
            f"give it those of its bands, in their order: {remedies.name_bands(path, len(names))}"
        )
    check_size(path, source.shape)
    layers = {name: number for number, name in enumerate(names, 1)}
    classes = next((layers.pop(name) for name in names if common_name(name) == CLASSES), None)
    if not layers:
        raise SceneError(f"{path} has no band; rsup needs red, green and blue, or what --bands names")
    described = {}
    for name, number in layers.items():
        dtype, scale, offset, nodata = (
            values[number - 1] for values in (source.dtypes, source.scales, source.offsets, source.nodatavals)
        )
        # GDAL's 1 and 0 are what it answers where a file says nothing.
        described[name] = (dtype, (None if (scale, offset) == (1, 0) else scale, offset or None, nodata))
        check_chunks(path, name, source.block_shapes[number - 1], source.shape, np.dtype(dtype).itemsize)
    found = meanings(path, described, said)
    layers = {name: number for name, number in layers.items() if name in found}
    bands = check_names(path, tuple(layers))
    meant = tuple(found.values())
    words_of_user = None if meant[0] is None else meant[0].of_user
    crs = check_crs(path, source.crs.to_wkt() if source.crs else None, words_of_user)
    window = check_window(path, source.transform, source.shape, crs, words_of_user)
    words = {**source.tags(), **source.tags(ns="IMAGERY")}
    return Description(crs, window, bands, tuple(layers.values()), classes, None, words, meant)
