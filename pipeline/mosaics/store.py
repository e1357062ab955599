"""The mosaic store: a multiscale Zarr 3 group that many processes fill (planes.py), one chunk a task.

One [y, x] array a band at the root, perhaps one more that says how far it may be off, and halved copies in the child
groups "2", "4", "8", ... down to 512 px, each a CF dataset of its own (cf.py). Equal input gives equal bytes, however
often and in whatever order chunks are written.
Conventions: `multiscales`, `spatial` and `proj` (GeoZarr), version 0.1, beside CF; docs/zarr.md says why it is so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import zarr
from affine import Affine
from pyproj import CRS

from rsup.models.base.errors import OutputError
from rsup.models.base.files import replacing, sync_tree, writing
from rsup.models.base.intervals import DETAIL
from rsup.pipeline.cf import (
    BAND_ATTRIBUTES,
    UNCERTAINTY_ATTRIBUTES,
    add_array,
    add_grid,
    consolidate,
)
from rsup.pipeline.lattice import Window

SMALLEST_OVERVIEW = 512
"""Overviews are halved until the longer side is at most this many pixels."""


def _convention(uuid: str, name: str, description: str) -> dict[str, str]:
    return {
        "uuid": uuid,
        "name": name,
        "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{name}/refs/tags/v0.1/schema.json",
        "spec_url": f"https://github.com/zarr-conventions/{name}/blob/v0.1/README.md",
        "description": description,
    }


_PLACE = [
    _convention(
        "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
        "spatial",
        "Spatial coordinate information",
    ),
    _convention(
        "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "proj",
        "Coordinate reference system information for geospatial data",
    ),
]
"""What every group declares: what a group says is inherited by its own arrays alone."""

_PYRAMID = _convention(
    "d35379db-88df-4056-af3a-620245f8e347",
    "multiscales",
    "Multiscale layout of zarr datasets",
)
"""What the root declares besides."""


@dataclass(frozen=True)
class _Level:
    """One resolution of the pyramid; group "." is the root, at full resolution."""

    group: str
    source: str | None
    """Group it is averaged from."""
    transform: Affine
    shape: tuple[int, int]

    @property
    def axes(self) -> tuple[str, str]:
        """Names of its dimensions. A tree's groups inherit the root's, so those of other lengths have their own."""
        return ("y", "x") if self.source is None else (f"y_{self.group}", f"x_{self.group}")


def create_mosaic(
    path: Path,
    window: Window,
    crs: str,
    scale: int,
    bands: Sequence[str],
    chunk: int,
    attributes: dict[str, Any],
    uncertainty: bool = False,
) -> None:
    """Create the store with all its levels, every pixel nodata; nothing happens where this very store exists.

    `chunk` is the side of a chunk in lattice pixels, so chunk (i, j) of the store is chunk (i, j) of
    `grid.chunks(window, chunk)`. `attributes` go to the root. With `uncertainty` each band has a second array, that
    says how far it may be off, in squares of equal pixels (`side_of_squares`). The store appears whole or not at all.
    Raises OutputError where `path` holds something else or cannot be written.
    """
    with writing(path, OutputError):
        if path.exists():
            with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
                _create(Path(folder) / "new", window, crs, scale, bands, chunk, attributes, uncertainty)
                if _metadata(path) != _metadata(Path(folder) / "new"):
                    raise OutputError(f"{path} holds another mosaic; remove it or choose another output folder")
        else:
            with replacing(path) as fresh:
                _create(fresh, window, crs, scale, bands, chunk, attributes, uncertainty)
                sync_tree(fresh)


def bands_of(path: Path) -> tuple[str, ...]:
    """The mosaic's bands, in the order they were asked for."""
    names: Any = zarr.open_group(path, mode="r").attrs["bands"]
    return tuple(names)


def uncertainty_of(band: str) -> str:
    """Name of the array that says how far a band may be off."""
    return f"{band}_uncertainty"


def uncertainties_of(path: Path) -> tuple[str, ...]:
    """Names of these arrays, in the order of the bands; none where the mosaic has none."""
    names: Any = zarr.open_group(path, mode="r").attrs.get("uncertainty", ())
    return tuple(names)


def side_of_squares(path: Path) -> int:
    """Pixels along a side of the squares in which these arrays' numbers are equal, from the mosaic's corner on."""
    scale: Any = zarr.open_group(path, mode="r").attrs["scale"]
    return int(scale) // DETAIL


def is_name(band: str) -> bool:
    """Whether a band of that name can stand in a mosaic, beside the grid's arrays and the overviews' groups."""
    return not (re.fullmatch(r"x|y|spatial_ref|\d+|\.+|__.*", band) or re.search(r"[/\\\0]", band))


def has_valid_pixel(path: Path) -> bool:
    """Whether any band has a pixel that is not nodata; asks the coarsest overview, which keeps every valid one."""
    root = zarr.open_group(path, mode="r")
    layout: Any = root.attrs["multiscales"]
    coarsest = layout["layout"][-1]["asset"]
    return any(np.asarray(array_of(root, f"{coarsest}/{band}")[:]).any() for band in bands_of(path))


def _create(
    path: Path,
    window: Window,
    crs: str,
    scale: int,
    bands: Sequence[str],
    chunk: int,
    attributes: dict[str, Any],
    uncertainty: bool,
) -> None:
    levels = _levels(window, scale)
    described = {
        **attributes,
        "Conventions": "CF-1.11",
        "scale": scale,
        "bands": list(bands),
        **({"uncertainty": list(map(uncertainty_of, bands))} if uncertainty else {}),
        "multiscales": {"layout": [_layout(level) for level in levels], "resampling_method": "average"},
        **_place(window, crs, levels[0]),
    }
    described["zarr_conventions"] = [_PYRAMID, *_PLACE]
    root = zarr.create_group(path, attributes=described)
    for level in levels:
        said = {"Conventions": "CF-1.11", **_place(window, crs, level), "zarr_conventions": _PLACE}
        group = root if level.source is None else root.create_group(level.group, attributes=said)
        add_grid(group, level.transform, level.shape, crs, level.axes)
        for band in bands:
            about = BAND_ATTRIBUTES | ({"ancillary_variables": uncertainty_of(band)} if uncertainty else {})
            add_array(group, band, level.shape, chunk * scale, attributes=about, axes=level.axes)
            if uncertainty:
                about = UNCERTAINTY_ATTRIBUTES | {"long_name": f"uncertainty of {band}"}
                add_array(group, uncertainty_of(band), level.shape, chunk * scale, attributes=about, axes=level.axes)
    for level in reversed(levels):  # the root last: its copy holds the children's
        consolidate(path / level.group)


def _levels(window: Window, scale: int) -> list[_Level]:
    """The pyramid, finest first. Odd sides round up: the last pixel then reaches past the mosaic's edge."""
    transform, shape = window.transform(scale), (window.height * scale, window.width * scale)
    levels = [_Level(".", None, transform, shape)]
    factor = 1
    while max(shape) > SMALLEST_OVERVIEW:
        factor *= 2
        shape = (-(-shape[0] // 2), -(-shape[1] // 2))
        coarser = Affine(transform.a * factor, 0.0, transform.c, 0.0, transform.e * factor, transform.f)
        levels.append(_Level(str(factor), levels[-1].group, coarser, shape))
    return levels


def _place(window: Window, crs: str, level: _Level) -> dict[str, Any]:
    """Where a level lies; one whose sides were rounded up reaches past the window."""
    rows, cols = level.shape
    west, _, _, north = window.bounds
    return {
        **({"proj:code": crs} if crs.startswith("EPSG:") else {}),
        "proj:wkt2": CRS.from_user_input(crs).to_wkt(),
        "spatial:dimensions": list(level.axes),
        "spatial:bbox": [west, north + rows * level.transform.e, west + cols * level.transform.a, north],
        "spatial:transform_type": "affine",
        "spatial:transform": list(level.transform)[:6],
        "spatial:shape": [rows, cols],
        "spatial:registration": "pixel",
    }


def _layout(level: _Level) -> dict[str, Any]:
    derived = {"derived_from": level.source, "transform": {"scale": [2.0, 2.0], "translation": [0.0, 0.0]}}
    return {
        "asset": level.group,
        **(derived if level.source else {}),
        "spatial:shape": list(level.shape),
        "spatial:transform": list(level.transform)[:6],
    }


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """The array of that name: "red", "./red" or, of an overview, "2/red". Raises KeyError, TypeError for a group."""
    array = group[name.removeprefix("./")]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{name} is a group, not an array")
    return array


def _metadata(path: Path) -> dict[str, bytes]:
    """What a store says of itself: every metadata document by its place in the store."""
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("zarr.json")}
