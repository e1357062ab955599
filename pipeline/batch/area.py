"""The ground of a job: a bbox, a GeoJSON or a GeoPackage in; its parts, zone by zone, in metres of that zone, out."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Transformer
from shapely.geometry import shape

from rsup.models.base.errors import ArgumentError
from rsup.models.base.regular import read_at_most
from rsup.pipeline.sources.footprint import Box, utm_of

from .formats import geopackage

LARGEST = 16 << 20
"""Bytes of a file: an outline with more detail than pixels of 10 m has been made for something else."""
STRIP = 3
"""Degrees of longitude in which no zone changes: Norway's and Svalbard's exceptions begin at multiples of 3."""
BANDS = (-80, 0, 56, 64, 72, 84)
"""Latitudes where the zones' edges change."""
STEP = 0.05
"""Degrees between the points of an edge: what is straight in degrees is bent in a zone, here by less than a pixel."""


def of_box(numbers: tuple[float, float, float, float]) -> Any:
    """The polygon of west, south, east, north in degrees, beyond 180 where west > east.

    Raises ArgumentError for what is no such box.
    """
    box = Box.of(numbers)
    if box.west == box.east or box.south == box.north:
        raise ArgumentError(f"bbox {box} has no ground in it: give west, south, east, north")
    return shapely.box(box.west, box.south, box.east, box.north)


def of_file(path: Path) -> Any:
    """The polygons of a GeoJSON file (RFC 7946: degrees) or a GeoPackage (any CRS) as one, in degrees.

    They go on beyond 180 where they lie on both sides of it.

    Raises ArgumentError for any other file.
    """
    try:
        content = read_at_most(path, LARGEST)
    except OSError as error:
        raise ArgumentError(
            f"area {path} cannot be read ({error.strerror}): give a GeoJSON file or a GeoPackage"
        ) from None
    if content is None:
        raise ArgumentError(f"area {path} is larger than {LARGEST >> 20} MiB: simplify its outline")
    if content.startswith(geopackage.MAGIC):
        try:
            parts = geopackage.geometries(content, path)
        except ValueError as error:
            raise ArgumentError(f"area {path} {error}") from None
        return _whole([shapely.make_valid(part) for part in parts], path)
    try:
        parts = [shapely.make_valid(shapely.force_2d(shape(part))) for part in _geometries(json.loads(content))]
    except Exception as error:  # of GEOS, and of Python on whatever stands in the place of coordinates
        raise ArgumentError(f"area {path} is no GeoJSON ({type(error).__name__}): give polygons in degrees") from None
    return _whole(parts, path)


def _whole(parts: list[Any], path: Path) -> Any:
    if any(part.geom_type not in ("Polygon", "MultiPolygon") for part in parts) or not parts:
        raise ArgumentError(f"area {path} must hold polygons, and nothing else")
    return _checked(shapely.union_all(parts), path)


def _geometries(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Of a geometry, a feature or a collection of either; raises KeyError and TypeError for anything else."""
    if document["type"] == "FeatureCollection":
        return [feature["geometry"] for feature in document["features"]]
    if document["type"] == "GeometryCollection":
        return list(document["geometries"])
    return [document["geometry"] if document["type"] == "Feature" else document]


def _checked(area: Any, path: Path) -> Any:
    points = shapely.get_coordinates(area)
    if not len(points) or not np.isfinite(points).all():
        raise ArgumentError(f"area {path} has no ground in it: give polygons in degrees")
    if np.abs(points[:, 0]).max() > 180 or np.abs(points[:, 1]).max() > 90:
        raise ArgumentError(f"area {path} is not in degrees: give longitudes and latitudes of WGS 84 (EPSG:4326)")
    if points[:, 1].min() < BANDS[0] or points[:, 1].max() > BANDS[-1]:
        raise ArgumentError(f"area {path} reaches beyond UTM, which ends at 80 S and 84 N")
    if np.ptp(points[:, 0]) > 180:  # cut at the antimeridian, as RFC 7946 asks
        return shapely.transform(area, lambda xy: np.where([[True, False]] & (xy < 0), xy + 360, xy))
    return area


def by_zone(area: Any) -> dict[str, Any]:
    """The parts of an area in degrees by the UTM zone they lie in ("EPSG:32633"), in metres of that zone."""
    west, _, east, _ = shapely.bounds(area)
    strips = defaultdict(list)
    for lon in range(int(np.floor(west / STRIP)) * STRIP, int(np.ceil(east)), STRIP):
        for south, north in zip(BANDS[:-1], BANDS[1:], strict=True):
            part = shapely.intersection(area, shapely.box(lon, south, lon + STRIP, north))
            if part.area > 0:
                middle = Box(lon, south, lon + STRIP, north)
                strips[utm_of(middle)].append(part)
    return {crs: _in_metres(shapely.union_all(parts), crs) for crs, parts in sorted(strips.items())}


def _in_metres(part: Any, crs: str) -> Any:
    to_metres = Transformer.from_crs("EPSG:4326", crs, always_xy=True)

    def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(to_metres.transform(points[:, 0], points[:, 1]), axis=-1)

    return shapely.make_valid(shapely.transform(shapely.segmentize(part, STEP), move))
