"""A product as fetch knows it: an item like a catalogue's, and the grid that its own files give it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from rsup.models.base.errors import SceneError
from rsup.pipeline.lattice import Window, snap
from rsup.pipeline.outline import ring, ring_in_degrees
from rsup.pipeline.sources.footprint import Footprint
from rsup.pipeline.sources.resample import Grid
from rsup.pipeline.sources.stac.items import ItemReference

LARGEST = 33_000
"""Pixels of the lattice along a side: a tile has a third of that."""

LEVEL_1C = "level 1C: reflectance at the top of the atmosphere, without scene classification"
"""What a product of level 1 says of itself, as evidence."""


@dataclass(frozen=True)
class Product:
    """One granule of a product."""

    item: ItemReference
    crs: str
    window: Window
    """The ground of its pixels, in pixels of the lattice of `crs`."""

    @classmethod
    def of(cls, item: ItemReference, grid: Grid) -> Product:
        """With the ground that `grid`, of one of its bands, covers. Raises SceneError where that is none."""
        window = snap(grid.bounds)
        if max(window.height, window.width) > LARGEST:
            sides = f"{window.height / 100:,.0f} x {window.width / 100:,.0f} km"
            raise SceneError(f"item {item.id}: its pixels would cover {sides}, which no product does; get it anew")
        lons, lats = ring_in_degrees(window, grid.crs, 8)
        corners = [[float(lon), float(lat)] for lon, lat in zip(lons, lats, strict=True)]
        try:
            footprint = Footprint({"type": "Polygon", "coordinates": [corners]})
        except ValueError as error:
            raise SceneError(f"item {item.id}: the ground of its pixels {error}; get the product anew") from error
        return cls(replace(item, geometry=footprint), grid.crs, window)


def window_of_all(products: list[Product], crs: str) -> Window:
    """The smallest window of the lattice of `crs` around all of the products."""
    from pyproj import Transformer

    edges = []
    for product in products:
        west, south, east, north = product.window.bounds
        if product.crs != crs:
            x, y = ring((west, south), (east - west, north - south), 100)
            x, y = Transformer.from_crs(product.crs, crs, always_xy=True).transform(x, y)
            west, south, east, north = (float(edge) for edge in (x.min(), y.min(), x.max(), y.max()))
        edges.append((west, south, east, north))
    wests, souths, easts, norths = zip(*edges, strict=True)
    return snap((min(wests), min(souths), max(easts), max(norths)))


def described(scale: float, offset: float | None) -> dict[str, Any]:
    """An asset's fields, in the words of the raster extension: reflectance = number * scale + offset, 0 is nodata."""
    return {"raster:bands": [{"scale": scale, "nodata": 0, **({} if offset is None else {"offset": offset})}]}
