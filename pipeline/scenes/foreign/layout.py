"""Which arrays of a stranger's store are bands: arrays with named dimensions in, one plane [y, x] a band out.

What xarray, odc-stac, stackstac and rioxarray write: arrays [y, x], [time, y, x] of one moment, and [time, band, y, x]
with the bands' names along a dimension. What has more than one moment is nobody's to choose from but its owner's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import numpy as np
import zarr
from affine import Affine

from rsup.models.base.errors import SceneError
from rsup.models.sensors import SENSORS
from rsup.pipeline.lattice import GSD
from rsup.pipeline.scenes import remedies
from rsup.pipeline.scenes.attributes import moment
from rsup.pipeline.scenes.remote import ScenePath

Arrays = Mapping[str, zarr.Array[Any]]
Words = Mapping[str, Any]
DEGREES = ("lat", "latitude", "lon", "longitude")
"""Dimensions of grids of degrees."""
MOMENTS = ("time", "t")
MOST_PLANES = 512
"""Of one array: bands of a scene, or moments to choose from."""
UNITS = {
    "days": timedelta(days=1),
    "hours": timedelta(hours=1),
    "minutes": timedelta(minutes=1),
    "seconds": timedelta(seconds=1),
    "milliseconds": timedelta(milliseconds=1),
    "microseconds": timedelta(microseconds=1),
    "nanoseconds": timedelta(microseconds=1) / 1000,
}
"""Of time since a date, as CF writes it."""


@dataclass(frozen=True)
class Plane:
    """One plane [y, x] of an array."""

    array: str
    at: tuple[int, ...] = ()
    """Where it lies along each dimension before y and x."""

    def index(self, rows: slice, cols: slice) -> tuple[slice, ...]:
        """The part of the array that is a window of it."""
        return (*(slice(place, place + 1) for place in self.at), rows, cols)


@dataclass(frozen=True)
class Layout:
    """How a store is laid out."""

    path: ScenePath
    arrays: Arrays
    words_of: Callable[[Any], Words]
    """The attributes of a node."""
    values_of: Callable[[zarr.Array[Any]], Any]
    """All numbers or texts of a small array."""

    def planes(self) -> dict[str, Plane]:
        """By the names of their bands. Raises SceneError for dimensions that somebody has to choose from, or turn."""
        found: dict[str, Plane] = {}
        beside = self._beside()
        for name, array in self.arrays.items():
            if array.ndim >= 2 and name not in beside:
                for band, plane in self._of(name, array):
                    if band in found:
                        raise SceneError(
                            f"{self.path}: {found[band].array} and {name} both have a band {band}; "
                            f"leave one of them out: {remedies.leave_out(self.path, name)}"
                        )
                    found[band] = plane
        return found

    def check_metres(self, plane: Plane, of_user: remedies.Meaning | None) -> None:
        """Raise SceneError for a plane on a grid of degrees. `of_user`: what its user says of its numbers."""
        array = self.arrays[plane.array]
        dimensions = dimensions_of(array, self.words_of(array)) or ()
        if set(dimensions) & set(DEGREES):
            if any(self._is_metres(name) for name in dimensions[-2:]):
                raise SceneError(
                    f"{self.path}: {plane.array} has dimensions {', '.join(dimensions)[:80]}, which hold metres; call "
                    f"them y and x: {remedies.transpose(self.path)}"
                )
            raise SceneError(
                f"{self.path}: {plane.array} is on a grid of degrees ({', '.join(dimensions)[:80]}); warp it to its "
                f"UTM zone: {remedies.onto_the_lattice(self.path, of_user)}"
            )

    def moment(self) -> datetime | None:
        """When it was taken, by a coordinate of one moment."""
        for name in MOMENTS:
            array = self.arrays.get(name)
            if array is not None and array.size == 1:
                return since(self.words_of(array), self.values_of(array).reshape(-1)[0])
        return None

    def crs(self, words: Words) -> str | None:
        """What arrays and the store's own `words` say of it where no grid mapping does, as stackstac's attributes."""
        places = [*(self.words_of(array) for array in self.arrays.values() if array.ndim >= 2), words]
        said = [place.get(name) for name in ("crs", "proj:code", "epsg", "proj:epsg") for place in places]
        if texts := [text for text in said if isinstance(text, str | int) and not isinstance(text, bool) and text]:
            return f"EPSG:{texts[0]}" if isinstance(texts[0], int) else texts[0]
        code = self.arrays.get("epsg")
        return f"EPSG:{int(self.values_of(code).reshape(-1)[0])}" if code is not None and code.size == 1 else None

    def transform(self, corner: tuple[float, float]) -> Affine | None:
        """The affine in the arrays' attributes, where x and y begin at its first pixel's corner or centre."""
        for array in self.arrays.values():
            said = self.words_of(array).get("transform") if array.ndim >= 2 else None
            if isinstance(said, list | tuple) and len(said) in (6, 9) and all(isinstance(n, int | float) for n in said):
                found = Affine(*said[:6])
                for place in ((found.c, found.f), found @ (0.5, 0.5)):
                    if all(math.isclose(a, b, abs_tol=1e-6) for a, b in zip(place, corner, strict=True)):
                        return found
        return None

    def _are_on_y_x(self) -> bool:
        """Whether any array is on y and x."""
        return any((dimensions_of(each, self.words_of(each)) or ())[-2:] == ("y", "x") for each in self.arrays.values())

    def _is_metres(self, dimension: str) -> bool:
        """Whether coordinates go further than degrees do."""
        array = self.arrays.get(dimension)
        if array is None or array.ndim != 1 or array.dtype.kind not in "iuf" or not array.size:
            return False
        return bool(np.nanmax(np.abs(self.values_of(array).astype(np.float64))) > 360)

    def _beside(self) -> set[str]:
        """Arrays that others name as their coordinates."""
        named = [self.words_of(array).get("coordinates") for array in self.arrays.values()]
        return {name for text in named if isinstance(text, str) for name in text.split()}

    def _of(self, name: str, array: zarr.Array[Any]) -> Iterator[tuple[str, Plane]]:
        dimensions = dimensions_of(array, self.words_of(array))
        if dimensions is None or len(dimensions) != array.ndim:
            if array.ndim == 2:
                yield name, Plane(name)
            return
        if dimensions[-2:] != ("y", "x") and not set(dimensions[-2:]) <= set(DEGREES):
            shown = f"{self.path}: {name} has dimensions {', '.join(dimensions)[:80]}"
            if {remedies.AXES.get(each, each) for each in dimensions} >= {"y", "x"}:
                raise SceneError(f"{shown}; rsup needs (y, x), in this order and last: {remedies.transpose(self.path)}")
            if array.ndim == 2 and any(sensor.common_name(name) for sensor in SENSORS.values()):
                if self._are_on_y_x():
                    raise SceneError(
                        f"{shown}, and not those of other bands; leave it out: {remedies.leave_out(self.path, name)}"
                    )
                raise SceneError(
                    f"{shown}; rsup needs (y, x); with the name of the rows first: "
                    f"{remedies.call_dimensions(self.path, *dimensions)}"
                )
            return  # bounds of coordinates, and the like
        if math.prod(array.shape[:-2]) > MOST_PLANES:
            raise SceneError(
                f"{self.path}: {name} has {' x '.join(map(str, array.shape[:-2]))} planes along "
                f"{', '.join(dimensions[:-2])[:80]}, more than a scene has bands; cut out the one moment that is meant"
            )
        leading = list(zip(dimensions[:-2], array.shape[:-2], strict=True))
        named = [self._names(name, array, dimension, size) for dimension, size in leading]
        labelled = [labels for labels in named if labels is not None]
        if len(labelled) > 1:
            raise SceneError(f"{self.path}: {name} has bands along {' and '.join(dimensions[:-2])}; keep one of these")
        for place in product(*(range(size) for size in array.shape[:-2])):
            labels = [labels[at] for labels, at in zip(named, place, strict=True) if labels is not None]
            yield (labels[0] if labels else name), Plane(name, place)

    def _names(self, name: str, array: zarr.Array[Any], dimension: str, size: int) -> list[str] | None:
        """The bands along a dimension; None for one of length 1 that names none."""
        coordinate = self.arrays.get(dimension)
        if coordinate is not None and coordinate.shape == (size,) and dimension not in MOMENTS:
            values = self.values_of(coordinate)
            if values.dtype.kind == "S":  # as netCDF has texts
                values = np.char.decode(values, "utf-8")
            if values.dtype.kind in "OTU" and all(isinstance(value, str) and value for value in values.tolist()):
                return [str(value) for value in values]
            said = self.words_of(array).get("long_name")  # rioxarray numbers bands, and keeps their names here
            if isinstance(said, list | tuple) and len(said) == size and all(isinstance(each, str) for each in said):
                return list(said)
        if size == 1:
            return None
        if dimension in MOMENTS:
            raise SceneError(
                f"{self.path}: {name} has {size} moments along {dimension}; choose one, the first being 0: "
                f"{remedies.choose(self.path, dimension)}"
            )
        raise SceneError(
            f"{self.path}: {name} has {size} planes along {dimension}, which have no names; name them, in their order: "
            f"{remedies.name_dimension(self.path, dimension)}"
        )


def dimensions_of(array: zarr.Array[Any], words: Words) -> tuple[str, ...] | None:
    """Names of the dimensions, from Zarr 3's metadata or xarray's attribute in Zarr 2."""
    names: Any = getattr(array.metadata, "dimension_names", None) or words.get("_ARRAY_DIMENSIONS")
    return tuple(map(str, names)) if isinstance(names, list | tuple) and names else None


def since(words: Words, value: Any) -> datetime | None:
    """A moment as CF counts it ("days since 2024-06-05 10:10:00"); None for what is none."""
    found = re.fullmatch(r"(\w+) since (.+)", str(words.get("units", "")))
    start = moment(re.sub(r"\.0+$", "", found[2])) if found else None
    unit = UNITS.get(found[1].lower().rstrip("s") + "s") if found else None
    if (
        start is None
        or unit is None
        or words.get("calendar", "standard")
        not in (
            "standard",
            "gregorian",
            "proleptic_gregorian",
        )
    ):
        return None
    try:
        return (start + timedelta(seconds=float(value) * unit.total_seconds())).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None


def are_corners(transform: Affine) -> bool:
    """Whether pixels of the lattice's size lie half a pixel beside it both ways: corners taken for centres."""
    half = GSD / 2
    beside = (abs(edge % GSD - half) < 1e-6 for edge in (transform.c, transform.f))
    return math.isclose(transform.a, GSD) and math.isclose(abs(transform.e), GSD) and all(beside)
