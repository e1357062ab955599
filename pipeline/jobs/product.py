"""Products in the place of a catalogue: what is asked of them becomes a request to fetch, and a scene to upscale.

In: paths or addresses of products, and the options of fetch. Out: a FetchRequest that knows its items and its ground.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rsup.models.base.errors import ArgumentError
from rsup.pipeline.public import printable, public_address
from rsup.pipeline.sources.assets import quiet
from rsup.pipeline.sources.footprint import box_of, utm_of
from rsup.pipeline.sources.products.product import Product, window_of_all
from rsup.pipeline.sources.products.recognise import read_product
from rsup.pipeline.sources.request import FetchRequest
from rsup.pipeline.sources.stac.catalog import NothingFoundError
from rsup.pipeline.sources.stac.items import distinct


def request_of(products: Sequence[str], bbox: tuple[float, ...] | None, **options: Any) -> FetchRequest:
    """What fetch is asked of these products: all of their ground where there is no bbox, in the zone of most of them.

    `options`: the other fields of a FetchRequest. Raises ArgumentError for options that make no sense, SceneError for
    what is no product or is damaged, and NothingFoundError where none is of the ground and dates asked for.
    """
    asked = FetchRequest(bbox=(0, 0, 0, 0) if bbox is None else bbox, output=Path(), **options)
    with quiet():
        found = [product for each in products for product in read_product(each, asked.bands)]
    kept = [product for product in found if _is_asked_for(product, asked, whole=bbox is None)]
    if not kept:
        names = ", ".join(printable(public_address(each)) for each in products)
        raise NothingFoundError(f"{names}: not one product is of the ground, dates and cloud asked for", None)
    blind = [product.item.id for product in kept if asked.sensor.classification not in product.item.hrefs]
    if asked.mask_clouds and blind:
        raise ArgumentError(f"--mask-clouds needs scene classification, which {blind[0]} does not have")
    chosen = distinct(product.item for product in kept)
    ids = {item.id for item in chosen}
    kept = [product for product in kept if product.item.id in ids]
    zone = asked.utm if asked.crs else _zone(kept)
    if bbox is None:
        ground = window_of_all(kept, zone)
        around = box_of(ground, zone)
        east = around.east - 360 if around.east > 180 else around.east
        asked = replace(
            asked, bbox=(around.west, max(-80.0, around.south), east, min(84.0, around.north)), ground=ground
        )
    best_first = sorted(chosen, key=lambda item: (101.0 if item.cloud is None else item.cloud, item.datetime, item.id))
    return replace(asked, crs=zone, items=tuple(best_first))


def _is_asked_for(product: Product, asked: FetchRequest, *, whole: bool) -> bool:
    item, moment = product.item, datetime.fromisoformat(product.item.datetime)
    early, late = asked.start and moment < asked.start, asked.end and moment > asked.end
    near = whole or item.geometry is None or item.geometry.touches(asked.box)
    return near and not early and not late and (item.cloud or 0) <= asked.max_cloud


def _zone(products: Sequence[Product]) -> str:
    """That of most products, of the first of two that are equal; by their place, where they lie in no UTM zone."""
    crs = Counter(product.crs for product in products).most_common(1)[0][0]
    if crs.startswith(("EPSG:326", "EPSG:327")) and len(crs) == len("EPSG:32633"):
        return crs
    first = next(product for product in products if product.crs == crs)
    return utm_of(box_of(first.window, first.crs))
