"""One array of an EOPF product as an asset: its header and its windows, as `asset_file` gives those of a raster.

Its address is eopf:PATH#ARRAY, or eopf+https://SERVER/STORE#ARRAY; no catalogue can name one.
"""

from __future__ import annotations

import math
import struct
from itertools import product
from typing import Any

import numpy as np
import zarr
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from rsup.models.base.errors import SceneError
from rsup.models.sensors.profile import Sensor
from rsup.pipeline.lattice import GSD
from rsup.pipeline.sources.asset_file import Header
from rsup.pipeline.sources.resample import Grid

from .tiles import assemble
from .zarr_store import ZarrArray, ZarrStore, array_at, store_at

SCHEME = "eopf"
BLOSC = struct.Struct("<12xI")
"""How a chunk that Blosc packed begins: its length stands at the end of 16 bytes."""
MOST = 100_000
"""Chunks of an array that are looked at before its pixels are: ESA's have four."""


def href_of(address: str, path: str) -> str:
    """The address of an array."""
    return f"{SCHEME}{'+' if '://' in address else ':'}{address}#{path}"


def is_array(href: str) -> bool:
    """Whether it is such an address."""
    return href.startswith((f"{SCHEME}:", f"{SCHEME}+"))


def _parts(href: str) -> tuple[str, str]:
    address, _, path = href[len(SCHEME) + 1 :].rpartition("#")
    return address, path


def read_header(label: str, href: str, sensor: Sensor, fresh: bool) -> Header:
    """As asset_file's: raises SceneError where the array lies nowhere, or nothing says what its numbers mean."""
    address, path = _parts(href)
    store, found = store_at(address), array_at(address, path)
    array = found.array
    if array.ndim != 2 or min(array.shape) < 1:
        raise SceneError(f"{label}: {path} has shape {array.shape}, and a band is [y, x]; get the product anew")
    transform = _transform(store, path, found)
    if transform is None or transform.b or transform.d or not all(map(math.isfinite, transform[:6])):
        raise SceneError(
            f"{label}: {path} does not say where its pixels lie (proj:transform, spatial:transform, or x and y)"
        )
    if min(abs(transform.a), abs(transform.e)) < GSD * (1 - 1e-6) or max(map(abs, transform[:6])) > 1e9:
        raise SceneError(
            f"{label}: {path} has pixels of {abs(transform.a):g} x {abs(transform.e):g} m; no {sensor.title} band has"
        )
    grid = Grid(_crs(label, store, path, found), transform, *array.shape)
    try:
        packing, nodata = _meaning(path, found)
    except ValueError as error:
        raise SceneError(f"{label}: {error}; get the product anew") from error
    return Header(grid, str(array.dtype), packing, nodata, beside=False)


def read_window(href: str, header: Header, rows: slice, cols: slice, fresh: bool) -> NDArray[Any]:
    """The array's own numbers [y, x] in `rows` and `cols`, which lie inside it; NaN where a chunk is not there.

    A chunk of EOPF's, 60 MB, is decoded once while it is kept.
    """
    address, path = _parts(href)
    store, found = store_at(address), array_at(address, path)
    height, width = found.array.chunks
    shape: tuple[int, int] = (header.grid.height, header.grid.width)
    return assemble(
        href, shape, (height, width), (rows, cols), lambda tile: store.read(path, found, *tile), keep=not fresh
    )


def read_coarse(href: str, header: Header, fresh: bool) -> NDArray[Any]:
    """The numbers of one chunk, from the middle."""
    address, path = _parts(href)
    store, found = store_at(address), array_at(address, path)
    middle = [
        slice(size * (length // size // 2), min(length, size * (length // size // 2 + 1)))
        for size, length in zip(found.array.chunks, found.array.shape, strict=True)
    ]
    return store.read(path, found, *middle)[::8, ::8]


def chunks_of(address: str, path: str) -> set[str] | None:
    """The chunks of the array at an address that are there, by their names; None where nobody lists files,
    and of more than MOST.

    Raises SceneError for one that lies elsewhere, has not the checksum of its zip, or is cut off: what Blosc packs
    says how long it is.
    """
    store, array = store_at(address), array_at(address, path).array
    sizes = zip(array.shape, array.shards or array.chunks, strict=True)
    counts = [-(-length // size) for length, size in sizes]
    if not store.lists or math.prod(counts) > MOST:
        return None
    blosc, held = _by_blosc(array), set()
    for place in product(*map(range, counts)):
        name = array.metadata.encode_chunk_key(place)
        if (found := store.head(f"{path}/{name}", BLOSC.size)) is None:
            continue
        head, size = found
        if not size or (blosc and (len(head) < BLOSC.size or BLOSC.unpack(head)[0] != size)):
            raise SceneError(f"{store.title}: {path}/{name} is cut off or damaged: get the product anew")
        held.add(name)
    return held


def _by_blosc(array: zarr.Array[Any]) -> bool:
    """Whether Blosc is the last to pack its chunks."""
    described: Any = array.metadata.to_dict()
    if array.metadata.zarr_format == 2:
        return bool((described["compressor"] or {}).get("id") == "blosc")
    return bool(described["codecs"][-1]["name"] == "blosc")


def _meaning(path: str, found: ZarrArray) -> tuple[tuple[float, float], float | None]:
    """Scale and offset, (1, 0) where nobody says any, and nodata. Raises ValueError where they are said twice."""
    attributes, whole = found.attributes, found.array.dtype.kind in "ui"
    said = [_number(path, attributes, name) for name in ("scale_factor", "add_offset")]
    scale, offset = 1.0 if said[0] is None else said[0], 0.0 if said[1] is None else said[1]
    if found.scaled is not None:
        twice = (scale, offset) != (1.0, 0.0)
        if twice and not all(
            math.isclose(a, b, rel_tol=1e-6) for a, b in zip(found.scaled, (scale, offset), strict=True)
        ):
            raise ValueError(
                f"{path} is scaled by its codec ({found.scaled[0]:g}, {found.scaled[1]:g}) and by its attributes "
                f"({scale:g}, {offset:g})"
            )
        return found.scaled, 0.0
    nodata = next((attributes[name] for name in ("_FillValue", "fill_value") if name in attributes), None)
    if isinstance(nodata, bool) or not isinstance(nodata, int | float) or not math.isfinite(nodata):
        nodata = 0.0 if whole else None
    return (scale, offset), nodata


def _number(path: str, attributes: dict[str, Any], name: str) -> float | None:
    said = attributes.get(name)
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, int | float) or not math.isfinite(said):
        raise ValueError(f"{path} says {name} {str(said)[:40]!r}, which is no number")
    return float(said)


def _transform(store: ZarrStore, path: str, found: ZarrArray) -> Affine | None:
    """By the array, by its group, or by coordinates of pixels' centres."""
    group = path.rpartition("/")[0]
    for attributes in (found.attributes, store.attributes(group)):
        for name in ("proj:transform", "spatial:transform"):
            numbers = attributes.get(name)
            if isinstance(numbers, list) and len(numbers) in (6, 9) and all(_is_number(each) for each in numbers):
                return Affine(*numbers[:6])
    steps = []
    for axis, length in (("x", found.array.shape[1]), ("y", found.array.shape[0])):
        centres = store.array(f"{group}/{axis}")
        if centres is None or centres.array.shape != (length,) or length < 2:
            return None
        values = np.asarray(centres.array[:], np.float64)
        step = (values[-1] - values[0]) / (length - 1)
        if not np.allclose(np.diff(values), step, rtol=0, atol=abs(step) * 1e-3):
            return None
        steps.append((step, values[0] - step / 2))
    (a, c), (e, f) = steps
    return Affine(a, 0, c, 0, e, f)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _crs(label: str, store: ZarrStore, path: str, found: ZarrArray) -> str:
    """By the array, its group, or the store's root."""
    root = store.attributes("")
    discovery, other = root.get("stac_discovery"), root.get("other_metadata")
    properties = discovery.get("properties") if isinstance(discovery, dict) else None
    places = [found.attributes, store.attributes(path.rpartition("/")[0]), properties, other]
    for attributes in (each for each in places if isinstance(each, dict)):
        for name in ("proj:code", "proj:epsg", "proj:wkt2", "horizontal_CRS_code"):
            said = attributes.get(name)
            if isinstance(said, str | int) and not isinstance(said, bool) and said:
                try:
                    crs = CRS.from_user_input(said)
                except CRSError:
                    continue
                if not crs.is_projected or crs.axis_info[0].unit_name != "metre":
                    raise SceneError(f"{label}: {path} lies in {crs.name[:60]}, not in a projected CRS in metres")
                code = crs.to_epsg()
                return f"EPSG:{code}" if code else str(crs.to_wkt())
    raise SceneError(f"{label}: {path} does not say its CRS (proj:code, proj:epsg or proj:wkt2); get the product anew")
