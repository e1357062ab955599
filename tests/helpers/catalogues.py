"""Catalogues to search: items, files of them, and the question that the tests ask."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rsup.models.sensors.sentinel2 import SENTINEL2
from rsup.pipeline.sources.footprint import Box
from rsup.pipeline.sources.stac.catalog import Query

BOX = Box.of((15.0, 46.0, 15.1, 46.1))


def query(where: str, **changes: Any) -> Query:
    asked: dict[str, Any] = {
        "sensor": SENTINEL2,
        "catalog": where,
        "collection": "sentinel-2-l2a",
        "bbox": "15,46,15.1,46.1",
        "box": BOX,
        "start": datetime(2024, 6, 1, tzinfo=UTC),
        "end": datetime(2024, 6, 30, 23, 59, 59, tzinfo=UTC),
        "max_cloud": 20.0,
        "bands": ("red", "green", "blue"),
    }
    return Query(**asked | changes)


def item(item_id: str, *, day: str = "2024-06-10", cloud: float | None = 5.0, **changes: Any) -> dict[str, Any]:
    west, south = changes.pop("corner", (14.5, 45.5))
    ring = [[west, south], [west + 1, south], [west + 1, south + 1], [west, south + 1], [west, south]]
    made: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": item_id,
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"datetime": f"{day}T10:00:00Z", **({} if cloud is None else {"eo:cloud_cover": cloud})},
        "assets": {
            key: {"href": f"https://example.org/{item_id}/{key}.tif"} for key in ("red", "green", "blue", "scl")
        },
        "links": [],
    }
    first, last = (chr(65 + ord(letter) % 26) for letter in (item_id[0], item_id[-1]))  # a tile of its own
    made["properties"] |= {"grid:code": f"MGRS-33T{first}{last}"} | changes.pop("properties", {})
    return made | changes


def write_static(folder: Path, *items: dict[str, Any]) -> str:
    """A catalogue, a collection and item files below it; returns the path of the catalogue."""
    (folder / "items").mkdir(parents=True, exist_ok=True)
    links = []
    for number, made in enumerate(items):
        (folder / "items" / f"{number}.json").write_text(json.dumps(made))
        links.append({"rel": "item", "href": f"./items/{number}.json"})
    links.append({"rel": "child", "href": "./catalog.json"})  # a circle
    (folder / "collection.json").write_text(json.dumps({"type": "Collection", "links": links}))
    root = {"type": "Catalog", "links": [{"rel": "child", "href": "collection.json"}]}
    (folder / "catalog.json").write_text(json.dumps(root))
    return str(folder / "catalog.json")
