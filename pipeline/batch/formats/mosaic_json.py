"""The COGs of one interval as a web map's source: what their items say in, a MosaicJSON document out.

A tile server (titiler, rio-tiler with cogeo-mosaic) finds in it which COGs a tile of Web Mercator needs, whatever UTM
zone they are in. Equal items give equal bytes. (Format: github.com/developmentseed/mosaicjson-spec, 0.0.3.)
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import asinh, cos, floor, log2, pi, radians, tan
from typing import Any
from urllib.parse import unquote

EQUATOR = 2 * pi * 6378137.0
"""Metres: the width of the one tile of zoom 0."""
TILE = 256
"""Pixels of a tile's side."""


@dataclass(frozen=True)
class Footprint:
    """A COG, by its item."""

    path: str
    """Relative to the document, or to its prefix."""
    bbox: tuple[float, float, float, float]
    """West, south, east, north in degrees; west > east where it crosses the antimeridian."""
    gsd: float
    """Side of a pixel, in metres of ground."""
    pixels: int
    """Of its longer side."""
    data_type: str

    @property
    def stretch(self) -> float:
        """How much longer a metre of its ground is in Web Mercator."""
        return 1 / cos(radians((self.bbox[1] + self.bbox[3]) / 2))


def footprint_of(item: dict[str, Any], asset: str, folder: str) -> Footprint:
    """The COG that is the asset `asset` of an item, which lies in `folder`."""
    properties, file = item["properties"], item["assets"][asset]
    path = f"{folder}/{unquote(file['href']).removeprefix('./')}"
    west, south, east, north = item["bbox"]
    return Footprint(
        path,
        (west, south, east, north),
        properties["proj:transform"][0],
        max(properties["proj:shape"]),
        file["bands"][0]["data_type"],
    )


def mosaic_json_of(name: str, images: Sequence[Footprint], prefix: str | None) -> bytes:
    """The document of an interval's images, whose paths are relative to `prefix`, or to the document without one.

    Tiles are listed at the zoom where one is as wide as the widest image or wider, at which a map is not to be looked
    at from further away: one of its tiles would need more and more files.
    """
    zoom = max(0, min(floor(log2(EQUATOR / (each.gsd * each.pixels * each.stretch))) for each in images))
    finest = max(round(log2(EQUATOR / TILE / (each.gsd * each.stretch))) for each in images)
    tiles = defaultdict[str, list[str]](list)
    for image in sorted(images, key=lambda each: each.path):
        for quadkey in _tiles(image.bbox, zoom):
            tiles[quadkey].append(image.path)
    west, south, east, north = _around([image.bbox for image in images])
    said = {
        "mosaicjson": "0.0.3",
        "name": name,
        "minzoom": zoom,
        "maxzoom": max(zoom, finest),
        "bounds": [west, south, east, north],
        "center": [(west + east) / 2, (south + north) / 2, zoom],
        "asset_type": "COG",
        **({} if prefix is None else {"asset_prefix": prefix}),
        "data_type": images[0].data_type,
        "tiles": dict(sorted(tiles.items())),
    }
    return (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode()


def _tiles(bbox: tuple[float, float, float, float], zoom: int) -> Iterator[str]:
    """Quadkeys of the tiles that meet a box in degrees."""
    west, south, east, north = bbox
    if west > east:
        yield from _tiles((west, south, 180.0, north), zoom)
        yield from _tiles((-180.0, south, east, north), zoom)
        return
    count = 1 << zoom

    def index(share: float) -> int:
        return min(count - 1, floor(share * count))

    for row in range(index(_down(north)), index(_down(south)) + 1):
        for col in range(index(west / 360 + 0.5), index(east / 360 + 0.5) + 1):
            yield "".join(str((col >> bit & 1) + 2 * (row >> bit & 1)) for bit in reversed(range(zoom)))


def _down(lat: float) -> float:
    """How far down the map a latitude is, as a share of its height."""
    return 0.5 - asinh(tan(radians(lat))) / (2 * pi)


def _around(boxes: Sequence[tuple[float, float, float, float]]) -> tuple[float, float, float, float]:
    """The box around boxes; the whole way round where one crosses the antimeridian, which the format cannot say."""
    wests, souths, easts, norths = zip(*boxes, strict=True)
    if any(west > east for west, _, east, _ in boxes):
        return -180.0, min(souths), 180.0, max(norths)
    return min(wests), min(souths), max(easts), max(norths)
