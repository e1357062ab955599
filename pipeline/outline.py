"""Edges as rings of points, and a window's in degrees, where it may cross the antimeridian.

In: a rectangle, or a window of the lattice with its CRS. Out: the ring's coordinates, closed, anticlockwise from the
south-western corner: what is straight in one CRS is bent in another, so corners alone do not tell how far it reaches.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from .lattice import Window

Ring = tuple[NDArray[np.float64], NDArray[np.float64]]
"""x and y, or longitude and latitude, of the points."""


def ring(corner: tuple[float, float], size: tuple[float, float], steps: int) -> Ring:
    """The edge of a rectangle by its south-western corner and its width and height, `steps` points a side."""
    rise = np.linspace(0, 1, steps + 1)[:-1]
    fall = np.linspace(0, 1, steps + 1)[:0:-1]
    nought, one = np.zeros(steps), np.ones(steps)
    right = np.concatenate([rise, one, fall, nought, [0]])
    up = np.concatenate([nought, rise, one, fall, [0]])
    return corner[0] + size[0] * right, corner[1] + size[1] * up


def ring_in_degrees(window: Window, crs: str, steps: int) -> Ring:
    """The edge of a window of the lattice of `crs`; the longitude goes on beyond 180 at the antimeridian."""
    west, south, east, north = window.bounds
    x, y = ring((west, south), (east - west, north - south), steps)
    lon, lat = _to_degrees(crs).transform(x, y)
    lon = lon + 360 * np.round((np.unwrap(lon, period=360) - lon) / 360)  # whole turns, which its sums miss by a hair
    return lon + 360 if lon.min() < -180 else lon, lat


@lru_cache(maxsize=120)
def _to_degrees(crs: str) -> Transformer:
    """Of a UTM zone: making one takes longer than a ring."""
    return Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
