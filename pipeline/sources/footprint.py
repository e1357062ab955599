"""Ground in degrees: boxes that may cross the antimeridian, their UTM zone, and which footprints touch them.

In: a user's bbox, a GeoJSON geometry. Out: a UTM zone, a window of its lattice, yes or no.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from pyproj import Transformer

from rsup.models.base.errors import ArgumentError
from rsup.pipeline.lattice import Window, snap
from rsup.pipeline.outline import ring, ring_in_degrees

FURTHEST = 10.0
"""Degrees from a UTM zone's central meridian up to which its coordinates are used."""
SLACK = 0.05
"""Degrees added around a footprint: catalogues simplify them, and a needless look costs little."""


@dataclass(frozen=True)
class Box:
    """A bbox in degrees; `east` is beyond 180 where it crosses the antimeridian."""

    west: float
    south: float
    east: float
    north: float

    @classmethod
    def of(cls, numbers: tuple[float, ...]) -> Box:
        """Check a user's west, south, east, north. Raises ArgumentError with the reason."""
        text = ",".join(f"{number:g}" for number in numbers)
        if len(numbers) != 4 or not all(math.isfinite(number) for number in numbers):
            raise ArgumentError(f"--bbox {text} must be four numbers in degrees: west,south,east,north")
        west, south, east, north = numbers
        if max(abs(west), abs(east)) > 180 or max(abs(south), abs(north)) > 90:
            raise ArgumentError(f"--bbox {text} lies outside the world; give degrees: west,south,east,north")
        if south > north:
            raise ArgumentError(f"--bbox {text} is reversed: south is greater than north")
        if west > east:
            east += 360
            if east - west > 180:
                raise ArgumentError(f"--bbox {text} looks reversed: west is greater than east")
        if south < -80 or north > 84:
            raise ArgumentError(f"--bbox {text} reaches beyond UTM, which ends at 80 S and 84 N")
        return cls(west, south, east, north)

    def __str__(self) -> str:
        return f"{self.west:g},{self.south:g},{self.east - 360 if self.east > 180 else self.east:g},{self.north:g}"

    @property
    def centre(self) -> tuple[float, float]:
        """Longitude, latitude."""
        return (self.west + self.east) / 2, (self.south + self.north) / 2

    def split(self) -> list[tuple[float, float, float, float]]:
        """As boxes that do not cross the antimeridian: servers turn one that does silently around."""
        if self.east <= 180:
            return [(self.west, self.south, self.east, self.north)]
        return [(self.west, self.south, 180.0, self.north), (-180.0, self.south, self.east - 360, self.north)]


def utm_of(box: Box) -> str:
    """The UTM zone of the box's centre, as "EPSG:32633", with the exceptions of Norway and Svalbard."""
    lon, lat = box.centre
    lon = (lon + 180) % 360 - 180
    zone = int((lon + 180) // 6) % 60 + 1
    if 56 <= lat < 64 and 3 <= lon < 12:
        zone = 32
    elif lat >= 72 and 0 <= lon < 42:
        zone = 31 + 2 * int(np.searchsorted([9, 21, 33], lon, side="right"))
    return f"EPSG:{(32600 if lat >= 0 else 32700) + zone}"


def window_in(box: Box, crs: str) -> Window:
    """The lattice window of UTM zone `crs` that covers the box. Raises ArgumentError where it is too far off."""
    meridian = (int(crs.removeprefix("EPSG:")) % 100) * 6 - 183
    middle = box.centre[0]
    middle += 360 * round((meridian - middle) / 360)
    half = (box.east - box.west) / 2
    if abs(middle - meridian) + half > FURTHEST:
        raise ArgumentError(
            f"--bbox {box} reaches further than {FURTHEST:g} degrees from the middle of {crs}; "
            "split it or choose another --crs"
        )
    lons, lats = ring((middle - half, box.south), (2 * half, box.north - box.south), 100)
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(lons, lats)
    return snap((x.min(), y.min(), x.max(), y.max()))


def box_of(window: Window, crs: str) -> Box:
    """The smallest box in degrees around a window of UTM zone `crs`."""
    lons, lats = ring_in_degrees(window, crs, 20)
    return Box(float(lons.min()), float(lats.min()), float(lons.max()), float(lats.max()))


@lru_cache(maxsize=16)
def around(box: Box) -> Any:
    """The box and SLACK, as a polygon: one box is asked about of many footprints."""
    import shapely

    return shapely.box(box.west - SLACK, box.south - SLACK, box.east + SLACK, box.north + SLACK)


class Footprint:
    """The ground an item covers, as its GeoJSON geometry says; checked, so that nothing asked of it fails."""

    def __init__(self, geometry: dict[str, Any]) -> None:
        """Raises ValueError for what is no polygon of finite degrees."""
        import shapely
        from shapely.geometry import shape

        try:
            found = shapely.force_2d(shape(geometry))
        except Exception as error:  # of GEOS, and of Python on whatever stands in the place of coordinates
            raise ValueError(f"is no GeoJSON geometry ({type(error).__name__})") from error
        points = shapely.get_coordinates(found)
        if found.geom_type not in ("Polygon", "MultiPolygon") or not len(points):
            raise ValueError(f"is a {found.geom_type}{'' if len(points) else ' without coordinates'}, not an area")
        if not np.isfinite(points).all() or np.abs(points[:, 0]).max() > 720 or np.abs(points[:, 1]).max() > 90:
            raise ValueError("is not in degrees")
        self._polygon = found
        self._lons = points[:, 0]
        self._turned: tuple[float, float, Any] = 0.0, 0.0, None
        """As it was turned last, and between which middles of boxes that is so."""

    def touches(self, box: Box) -> bool:
        """Whether it comes within SLACK of the box, on either side of the antimeridian.

        Items that cross the antimeridian are described in every way (two parts, -180 to 180, beyond 180): each vertex
        is moved to the turn of the globe nearest the box.
        """
        import shapely

        turned = self._turned_to(box)
        if turned is None:
            return False  # it lies on the far side, torn apart by the turn
        return bool(shapely.intersects(turned, around(box)))

    def around(self) -> Box | None:
        """The smallest box around its vertices, its west from 0 to 360; None where it is as wide as half the globe."""
        import shapely

        points = shapely.get_coordinates(self._polygon)
        lons = np.sort(points[:, 0] % 360)
        gaps = np.diff(lons, append=lons[0] + 360)
        widest = int(np.argmax(gaps))
        west, width = float(lons[(widest + 1) % len(lons)]), float(360 - gaps[widest])
        south, north = float(points[:, 1].min()), float(points[:, 1].max())
        return None if width >= 180 else Box(west, south, west + width, north)

    def part_of(self, box: Box) -> Box:
        """The rectangle around it, cut to the box; the whole box where they do not meet but touch."""
        turned = self._turned_to(box)
        west, south, east, north = (box.west, box.south, box.east, box.north) if turned is None else turned.bounds
        part = (max(west, box.west), max(south, box.south), min(east, box.east), min(north, box.north))
        return Box(*part) if part[0] < part[2] and part[1] < part[3] else box

    def _turned_to(self, box: Box) -> Any:
        """The polygon, made valid, on the turn of the globe nearest the box; None where that tears it apart."""
        import shapely

        middle = box.centre[0]
        low, high, turned = self._turned
        if not low < middle < high:  # seldom: neighbouring cells ask one after another
            turns = np.round((middle - self._lons) / 360)
            turned = shapely.transform(self._polygon, lambda points: points + [[360, 0]] * turns[:, None])
            west, _, east, _ = turned.bounds
            turned = None if east - west > 180 else shapely.make_valid(turned)
            shapely.prepare(turned)
            middles = self._lons + 360 * turns
            self._turned = float(middles.max()) - 180, float(middles.min()) + 180, turned
        return turned

    def overlap(self, other: Footprint) -> float:
        """The ground both cover as a share of the ground either covers, 0..1."""
        import shapely

        mine, theirs = shapely.make_valid(self._polygon), shapely.make_valid(other._polygon)
        union = mine.union(theirs).area
        return float(mine.intersection(theirs).area / union) if union else 1.0
