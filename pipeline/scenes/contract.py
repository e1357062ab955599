"""The scene contract, line by line: what a Zarr store or GeoTIFF must say of itself.

In: names, types, packing, CRS and affine as the file declares them. Out: common names, the CRS and the window, or a
SceneError with the broken line and a remedy that works (remedies.py); nothing is guessed.
The contract: uint16 bands [y, x] with names; scale 1e-4, offset -0.1, 0 = nodata; a projected CRS in metres;
north-up 10 m pixels whose edges are multiples of 10 m; chunks that a reader can work with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from affine import Affine
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError

from rsup.models.base.errors import SceneError
from rsup.models.base.radiometry import ADD_OFFSET, NODATA, SCALE_FACTOR
from rsup.models.sensors import common_name
from rsup.pipeline.lattice import GSD, Window, window_of

from . import remedies
from .remote import ScenePath

LONGEST_SIDE = 40_075_017 // GSD
"""Pixels around the equator: no raster of ground has a longer side."""
LARGEST_CHUNK = 2**30
"""Bytes: a chunk is held whole, once a thread."""
MOST_CHUNKS = 4096
"""Files that 512 x 512 pixels of a band may lie in: one of our own chunks lies in four at most."""

CLASSES = "scl"
"""The array of a scene store that is no band but the scene classification."""


def check_names(path: ScenePath, names: Sequence[str]) -> tuple[str, ...]:
    """The common names of bands, in the file's order; two names of one band are refused."""
    known: dict[str, str] = {}
    for name in names:
        band = common_name(name)
        if band in known:
            raise SceneError(
                f"{path}: {known[band]} and {name} are both {band}; leave one of them out: "
                f"{remedies.leave_out(path, name)}"
            )
        known[band] = name
    return tuple(known)


def check_type(path: ScenePath, band: str, dtype: str, packing: Sequence[Any]) -> None:
    """Raise unless a band's numbers are uint16. `packing`: its declared scale and offset, None for none."""
    if dtype == "uint16":
        return
    if dtype in ("uint8", "int8", "bool"):
        raise SceneError(
            f"{path}: {band} is {dtype}: a picture, not reflectance, whose numbers cannot be had back; "
            "give the bands themselves, as the archive has them or `rsup fetch` writes them"
        )
    declared = any(value is not None and value != neutral for value, neutral in zip(packing, (1, 0), strict=True))
    if dtype.startswith("float") or declared:
        raise SceneError(
            f"{path}: {band} is {dtype}, not uint16; where {'it' if declared else 'it holds reflectance (0 to 1) and'} "
            f"{'is reflectance by its scale and offset' if declared else 'NaN for nodata'}, "
            f"write it as reflectance * 10000 + 1000, NaN as 0: {remedies.convert(path, declared=True)}"
        )
    raise SceneError(
        f"{path}: {band} is {dtype}, not uint16: its numbers must be reflectance * 10000 + 1000, 0 = nodata; "
        "put the scale and offset that make them reflectance, for reflectance * 10000 those at the end, into: "
        f"{remedies.convert(path, declared=False)}"
    )


def check_crs(path: ScenePath, wkt: str | None) -> str:
    """The CRS as "EPSG:code", or as WKT where it has no code."""
    if not wkt:
        raise SceneError(f"{path} has no CRS; give it its UTM zone, for example {remedies.say_crs(path)}")
    try:
        crs = CRS.from_user_input(wkt)
    except CRSError as error:
        raise SceneError(
            f"{path}: its CRS cannot be understood ({reason(error)}); write it anew, for example "
            f"{remedies.say_crs(path)}"
        ) from error
    unit = crs.axis_info[0].unit_name if crs.axis_info else "no unit"
    if not crs.is_projected or unit != "metre":
        raise SceneError(
            f"{path}: its CRS ({crs.name[:80]}, {unit}) is not a projected one in metres; warp it to its UTM zone: "
            f"{remedies.onto_the_lattice(path)}"
        )
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.to_wkt())


def check_packing(path: ScenePath, band: str, scale: Any, offset: Any, nodata: Any) -> None:
    """Raise unless the stored numbers are reflectance * 10000 + 1000 with 0 = nodata."""
    try:
        found = (1.0 if scale is None else float(scale), 0.0 if offset is None else float(offset))
    except (TypeError, ValueError, OverflowError):
        raise SceneError(
            f"{path}: {band} has a scale or an offset that are no numbers; where its numbers are reflectance * 10000 "
            f"+ 1000 say so: {remedies.say_packing(path)}"
        ) from None
    pairs = zip(found, (SCALE_FACTOR, ADD_OFFSET), strict=True)
    # 1e-6 of slack: some writers keep the two numbers in float32.
    if not all(math.isclose(is_, should_be, rel_tol=1e-6) for is_, should_be in pairs):
        declared = found != (1.0, 0.0)
        raise SceneError(
            f"{path}: {band} has scale {found[0]:g} and offset {found[1]:g}, not {SCALE_FACTOR:g} and {ADD_OFFSET:g}; "
            "where its numbers are reflectance * 10000 + 1000 all the same (raw ones of processing baseline 04.00 or "
            f"later) say so: {remedies.say_packing(path)} ; else convert them"
            + (": " if declared else " by the scale and offset that make them reflectance: ")
            + remedies.convert(path, declared)
        )
    if isinstance(nodata, bool) or not isinstance(nodata, int | float) or nodata != NODATA:
        absent = nodata is None
        said = nodata if isinstance(nodata, int | float | None) and len(str(nodata)) < 30 else "that is no number"
        raise SceneError(
            f"{path}: {band} has nodata {said}, not {NODATA}; "
            + ("say so: " if absent else "write it so: ")
            + (remedies.say_packing(path) if absent else remedies.convert(path, declared=True))
        )


def check_chunks(path: ScenePath, band: str, chunk: Sequence[int], shape: Sequence[int], itemsize: int) -> None:
    """Raise where a chunk (rows, columns) is too large to hold or so small that reading takes for ever."""
    size = math.prod(map(int, chunk)) * itemsize
    files = math.prod(-(-min(512, length) // part) for length, part in zip(shape, chunk, strict=True))
    if size > LARGEST_CHUNK or files > MOST_CHUNKS:
        raise SceneError(
            f"{path}: {band} is in chunks of {' x '.join(map(str, chunk))} pixels, too "
            f"{'large to hold' if size > LARGEST_CHUNK else 'small to read'}; write it in others: "
            f"{remedies.rechunk(path)}"
        )


def check_size(path: ScenePath, shape: Sequence[int]) -> None:
    """Raise unless a raster of `shape` (rows, columns) has pixels, and no more than fit on the Earth."""
    if min(shape) < 1 or max(shape) > LONGEST_SIDE:
        raise SceneError(
            f"{path} has {' x '.join(map(str, shape))} pixels, which at {GSD} m are "
            f"{'none' if min(shape) < 1 else 'more than there is ground'}; its description is damaged, make it anew"
        )


def check_window(path: ScenePath, transform: Affine, shape: tuple[int, int], crs: str) -> Window:
    """The lattice window of a raster of `shape` (rows, columns), which lies on the Earth."""
    if not all(map(math.isfinite, transform[:6])):
        raise SceneError(
            f"{path} does not say where its pixels lie: its affine has NaN or infinite numbers; georeference it anew"
        )
    if transform.e > 0 and not (transform.b or transform.d):
        raise SceneError(f"{path}: its rows run from south to north; turn it: {remedies.turn(path)}")
    try:
        window = window_of(transform, shape)
    except ValueError as error:
        raise SceneError(f"{path}: {error}; resample it in its UTM zone: {remedies.onto_the_lattice(path)}") from error
    west, south, east, north = window.bounds
    corners = ([west, east, east, west], [south, south, north, north])
    degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(*corners)
    if not all(math.isfinite(value) for axis in degrees for value in axis):
        raise SceneError(
            f"{path} lies nowhere on the Earth (x {west:g} to {east:g}, y {south:g} to {north:g} in {crs[:40]}); "
            "correct its CRS or its georeference"
        )
    return window


def reason(error: BaseException) -> str:
    """What an error of a library says, on one line that a terminal can bear."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."
