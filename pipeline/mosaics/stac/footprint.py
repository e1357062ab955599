"""Where a mosaic lies: its window in, a GeoJSON geometry in degrees and its bbox out, and the grid in STAC's words."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from rsup.pipeline.lattice import Window
from rsup.pipeline.outline import ring_in_degrees


def footprint(window: Window, crs: str) -> tuple[dict[str, Any], list[float]]:
    """The window's edge in degrees, with a vertex every 10 km or less, cut at the antimeridian; and its bbox.

    RFC 7946: rings anticlockwise, coordinates to 7 digits (1 cm), a bbox across the antimeridian has its west
    above its east.
    """
    west, south, east, north = window.bounds
    steps = max(8, math.ceil(max(east - west, north - south) / 10_000))
    lon, lat = ring_in_degrees(window, crs, steps)
    ring = list(zip(lon.tolist(), lat.tolist(), strict=True))
    if lon.max() <= 180:
        parts = [ring]
    else:
        parts = [_clip(ring, 180, -1), [(lon - 360, lat) for lon, lat in _clip(ring, 180, 1)]]
    rounded = [[[round(lon, 7), round(lat, 7)] for lon, lat in part] for part in parts]
    lats = [point[1] for part in rounded for point in part]
    bbox = [
        min(point[0] for point in rounded[0]),
        min(lats),
        max(point[0] for point in rounded[-1]),
        max(lats),
    ]
    if len(rounded) == 1:
        return {"type": "Polygon", "coordinates": rounded}, bbox
    return {"type": "MultiPolygon", "coordinates": [[part] for part in rounded]}, bbox


def _clip(ring: list[tuple[float, float]], meridian: float, side: int) -> list[tuple[float, float]]:
    """The part of a closed ring with side * (lon - meridian) >= 0 (one edge of Sutherland and Hodgman, 1974)."""
    kept: list[tuple[float, float]] = []
    for a, b in pairwise(ring):
        inside_a, inside_b = (side * (point[0] - meridian) >= 0 for point in (a, b))
        if inside_a:
            kept.append(a)
        if inside_a != inside_b:
            t = (meridian - a[0]) / (b[0] - a[0])
            kept.append((meridian, a[1] + t * (b[1] - a[1])))
    return [*kept, kept[0]]


def projection(window: Window, crs: str, scale: int) -> dict[str, Any]:
    """The mosaic's grid, in the words of the projection extension."""
    return {
        **({"proj:code": crs} if crs.startswith("EPSG:") else {"proj:code": None, "proj:wkt2": crs}),
        "proj:shape": [window.height * scale, window.width * scale],
        "proj:transform": list(window.transform(scale))[:6],
        "proj:bbox": list(window.bounds),
    }
