"""The scene contract, line by line: what a Zarr store or GeoTIFF must say of itself.

In: the CRS, packing and affine as the file declares them. Out: the CRS and the window, or a SceneError with
the broken line and its remedy; nothing is guessed.
The contract: uint16 bands [y, x] with names; scale 1e-4, offset -0.1, 0 = nodata; a projected CRS in metres;
north-up 10 m pixels whose edges are multiples of 10 m.
"""

from __future__ import annotations

import math
from pathlib import Path

from affine import Affine
from pyproj import CRS
from pyproj.exceptions import CRSError

from rsup.models.radiometry import ADD_OFFSET, NODATA, SCALE_FACTOR

from .errors import SceneError
from .grid import GSD, Window, window_of


def check_crs(path: Path, wkt: str | None, remedy: str) -> str:
    """The CRS as "EPSG:code", or as WKT where it has no code; `remedy` is how this kind of file gets one."""
    if not wkt:
        raise SceneError(f"{path} has no CRS; give it its UTM zone, for example {remedy}")
    try:
        crs = CRS.from_user_input(wkt)
    except CRSError as error:
        raise SceneError(f"{path}: its CRS cannot be understood ({error}); write it anew: {remedy}") from error
    unit = crs.axis_info[0].unit_name if crs.axis_info else "no unit"
    if not crs.is_projected or unit != "metre":
        raise SceneError(
            f"{path}: its CRS ({crs.name}, {unit}) is not a projected one in metres; "
            f"warp it to its UTM zone with gdalwarp -t_srs EPSG:326NN -tr {GSD} {GSD} -tap"
        )
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.to_wkt())


def check_packing(path: Path, band: str, scale: float | None, offset: float | None, nodata: float | None) -> None:
    """Raise unless the stored numbers are reflectance * 10000 + 1000 with 0 = nodata."""
    try:
        found = (1.0 if scale is None else float(scale), 0.0 if offset is None else float(offset))
    except (TypeError, ValueError) as error:
        raise SceneError(
            f"{path}: {band} has scale {scale!r} and offset {offset!r}, which are no numbers; "
            f"write the CF attributes scale_factor {SCALE_FACTOR:g} and add_offset {ADD_OFFSET:g}"
        ) from error
    pairs = zip(found, (SCALE_FACTOR, ADD_OFFSET), strict=True)
    # 1e-6 of slack: some writers keep the two numbers in float32.
    if not all(math.isclose(is_, should_be, rel_tol=1e-6) for is_, should_be in pairs):
        raise SceneError(
            f"{path}: {band} has scale {found[0]:g} and offset {found[1]:g}, not {SCALE_FACTOR:g} "
            f"and {ADD_OFFSET:g}; where its numbers are reflectance * 10000 + 1000 (raw ones of processing "
            f"baseline 04.00 or later) say so with gdal_edit.py -scale {SCALE_FACTOR:g} -offset "
            f"{ADD_OFFSET:g} or the CF attributes scale_factor and add_offset, else convert them first"
        )
    if nodata is None or nodata != NODATA:
        raise SceneError(
            f"{path}: {band} has nodata {nodata}, not {NODATA}; set it with gdalwarp -dstnodata {NODATA} "
            "or the CF attribute _FillValue"
        )


def check_window(path: Path, transform: Affine, shape: tuple[int, int]) -> Window:
    """The lattice window of a raster of `shape` (rows, columns)."""
    if transform.e > 0 and not (transform.b or transform.d):
        raise SceneError(
            f"{path}: its rows run from south to north; turn it with ds.isel(y=slice(None, None, -1)) or gdalwarp"
        )
    try:
        return window_of(transform, shape)
    except ValueError as error:
        raise SceneError(
            f"{path}: {error}; resample it in its UTM zone with gdalwarp -tr {GSD} {GSD} -tap -r bilinear"
        ) from error
