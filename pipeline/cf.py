"""The CF layout of a raster store: a Zarr group that xarray, rioxarray and GDAL read as reflectance.

In: an affine, a shape, a CRS, bands. Out: arrays `x`, `y` (pixel centres, metres), `spatial_ref` (grid
mapping) and one uint16 array [y, x] a band, Zarr 3, unsharded; and a way to make a written chunk durable.
Conventions: CF 1.11 (grid mappings, packed data); `GeoTransform`, `spatial_ref` as GDAL and rioxarray do.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS
from zarr.codecs import BloscCodec
from zarr.errors import ZarrUserWarning

from rsup.models.base.files import sync
from rsup.models.base.intervals import MEANING
from rsup.models.base.radiometry import ADD_OFFSET, NODATA, SCALE_FACTOR

BAND_ATTRIBUTES: dict[str, Any] = {
    "scale_factor": SCALE_FACTOR,
    "add_offset": ADD_OFFSET,
    "_FillValue": NODATA,
    "units": "1",
    "grid_mapping": "spatial_ref",
}
"""What makes the stored numbers reflectance for a reader that knows CF."""

UNCERTAINTY_ATTRIBUTES: dict[str, Any] = {
    # CF's modifier for one standard deviation: this holds as much of the errors as one does of Gaussian errors. Scenes
    # are of level 2A, reflectance at the surface.
    "standard_name": "surface_bidirectional_reflectance standard_error",
    "comment": MEANING,
    "scale_factor": SCALE_FACTOR,
    "_FillValue": NODATA,
    "units": "1",
    "grid_mapping": "spatial_ref",
}
"""The same of numbers that say how far a band may be off: a difference has no offset."""


def add_array(
    group: zarr.Group,
    name: str,
    shape: tuple[int, int],
    chunk: int,
    dtype: str = "uint16",
    attributes: dict[str, Any] | None = None,
    axes: tuple[str, str] = ("y", "x"),
) -> None:
    """Create an empty (0) array along `axes` in `chunk` px squares; a band unless `attributes` say otherwise."""
    group.create_array(
        name,
        shape=shape,
        chunks=(min(chunk, shape[0]), min(chunk, shape[1])),
        dtype=dtype,
        fill_value=0,
        # Of the codecs that Zarr 3 itself names. Bits of a number that neighbours share lie together, and what LZ4 then
        # packs takes less room than what Zstandard packs at its first level, in a third of the time (docs/zarr.md).
        compressors=[BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")],
        dimension_names=axes,
        attributes=BAND_ATTRIBUTES if attributes is None else attributes,
    )


def write_block(array: zarr.Array[Any], index: tuple[int, int], pixels: NDArray[np.unsignedinteger]) -> None:
    """Write chunk `index` (row, column of the chunk grid) whole; one of nothing but 0 is left out, or taken away.

    zarr neither reads what stood there nor touches a neighbour.
    """
    # By itself zarr compares every number with the fill value first, which takes a third of the time that packing does.
    # Releases that cannot be told better (before 3.1.6) go on doing so.
    if pixels.any() and hasattr(array, "with_config"):
        array = array.with_config({"write_empty_chunks": True})
    array.set_block_selection(index, pixels)


def add_grid(
    group: zarr.Group, transform: Affine, shape: tuple[int, int], crs: str, axes: tuple[str, str] = ("y", "x")
) -> None:
    """Write the coordinates of both axes and `spatial_ref` of a north-up raster of `shape` (rows, columns)."""
    height, width = shape
    down, along = axes
    centres = {
        along: (transform.c + (np.arange(width) + 0.5) * transform.a, "projection_x_coordinate", "X"),
        down: (transform.f + (np.arange(height) + 0.5) * transform.e, "projection_y_coordinate", "Y"),
    }
    for name, (values, standard_name, axis) in centres.items():
        described: dict[str, Any] = {"standard_name": standard_name, "axis": axis, "units": "metre"}
        coordinate = group.create_array(
            name,
            shape=values.shape,
            chunks=values.shape,
            dtype="float64",
            fill_value=np.nan,
            dimension_names=(name,),
            attributes=described,
        )
        coordinate[:] = values
    reference = CRS.from_user_input(crs)
    mapping = reference.to_cf() | {
        "spatial_ref": reference.to_wkt(),
        "GeoTransform": " ".join(repr(float(number)) for number in transform.to_gdal()),
    }
    scalar = group.create_array("spatial_ref", shape=(), dtype="int64", fill_value=0, attributes=mapping)
    scalar[()] = 0


def consolidate(store: Path) -> None:
    """Gather all metadata in the root's zarr.json, where xarray looks first (and warns in its absence)."""
    with warnings.catch_warnings():
        # zarr warns that the Zarr 3 specification does not know consolidated metadata; readers that do not
        # know them either still find every array's own zarr.json.
        warnings.simplefilter("ignore", ZarrUserWarning)
        zarr.consolidate_metadata(store)


def sync_chunk(store: Path, names: Sequence[str], index: tuple[int, int]) -> None:
    """Force chunk `index` (row, column of the chunk grid) of the named arrays to the disk.

    A chunk that holds only nodata has no file: its absence is made durable with the folder.
    """
    for name in names:
        chunk = store / name / "c" / str(index[0]) / str(index[1])
        folder = chunk.parent
        while not folder.is_dir():
            folder = folder.parent
        for entry in (chunk, folder, store / name / "c", store / name):
            if entry.exists():
                sync(entry)
