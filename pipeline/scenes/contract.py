"""The scene contract, line by line: what a Zarr store or GeoTIFF must say of itself.

In: names, CRS and affine as the file declares them. Out: common names, the CRS and the window, or a SceneError with the
broken line and a remedy that works (remedies.py); nothing is guessed. What numbers mean is read by foreign/numbers.py.
The contract: bands [y, x] with names, of reflectance by their scale, offset and nodata; a projected CRS in metres;
north-up 10 m pixels whose edges are multiples of 10 m; chunks that a reader can work with.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

from affine import Affine
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError

from rsup.models.base.errors import SceneError
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


def check_crs(path: ScenePath, wkt: str | None, said: remedies.Meaning | None) -> str:
    """The CRS as "EPSG:code", or as WKT where it has no code. `said`: what its user says of its numbers."""
    if not wkt:
        raise SceneError(f"{path} has no CRS; give it its UTM zone, for example {remedies.say_crs(path)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # "+init=epsg:32633", in metres, means what it meant
            crs = CRS.from_user_input(wkt)
    except CRSError as error:
        raise SceneError(
            f"{path}: its CRS cannot be understood ({reason(error)}); write it anew, for example "
            f"{remedies.say_crs(path)}"
        ) from error
    unit = crs.axis_info[0].unit_name if crs.axis_info else "no unit"
    web = crs.coordinate_operation is not None and "Pseudo Mercator" in crs.coordinate_operation.method_name
    if not crs.is_projected or unit != "metre" or web:
        raise SceneError(
            f"{path}: its CRS ({crs.name[:80]}, {unit}) is not a projected one in metres"
            f"{' of the ground' if web else ''}; warp it to its UTM zone: {remedies.onto_the_lattice(path, said)}"
        )
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else str(crs.to_wkt())


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


def check_window(
    path: ScenePath, transform: Affine, shape: tuple[int, int], crs: str, said: remedies.Meaning | None
) -> Window:
    """The lattice window of a raster of `shape` (rows, columns), which lies on the Earth."""
    if not all(map(math.isfinite, transform[:6])):
        raise SceneError(
            f"{path} does not say where its pixels lie: its affine has NaN or infinite numbers; georeference it anew"
        )
    if transform.is_identity:
        raise SceneError(
            f"{path} does not say where its pixels lie; where they are {GSD} m squares, write its own west and north "
            f"edge at the end of this: {remedies.georeference(path)}"
        )
    if transform.e > 0 and not (transform.b or transform.d):
        raise SceneError(f"{path}: its rows run from south to north; turn it: {remedies.turn(path)}")
    try:
        window = window_of(transform, shape)
    except ValueError as error:
        raise SceneError(
            f"{path}: {error}; resample it in its UTM zone: {remedies.onto_the_lattice(path, said)}"
        ) from error
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
