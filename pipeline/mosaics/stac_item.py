"""The STAC item of a mosaic: where it lies, what its numbers mean, which model and sources made it.

In: the mosaic's window, bands, model and sources. Out: a STAC 1.1 item (GeoJSON feature) as a dictionary, and
the file. Extensions: projection 2.0, raster 2.0, processing 1.2, file 2.1, machine learning model (mlm) 1.4.
It holds no date of its own making: equal input gives an equal item.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pystac
from pystac.utils import datetime_to_str

from rsup.models.base.errors import OutputError
from rsup.models.base.files import write_whole, writing
from rsup.models.base.intervals import MEANING
from rsup.models.base.radiometry import ADD_OFFSET, NODATA, SCALE_FACTOR
from rsup.models.sensors import first_light, sensor_of_items
from rsup.pipeline.lattice import Window
from rsup.pipeline.outline import ring_in_degrees
from rsup.pipeline.public import printable, public_address
from rsup.pipeline.release import VERSION
from rsup.pipeline.scenes.attributes import moment

from .store import uncertainty_of

EXTENSIONS = [
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/mlm/v1.4.0/schema.json",
]

ASSETS: dict[str, dict[str, Any]] = {
    "cog": {
        "title": "Mosaic as cloud-optimised GeoTIFF",
        "media_type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data"],
    },
    "zarr": {
        "title": "Mosaic as multiscale Zarr store",
        "media_type": "application/vnd.zarr; version=3",
        "roles": ["data"],
    },
    "uncertainty": {
        "title": "Uncertainty of the mosaic as cloud-optimised GeoTIFF",
        "description": f"How far each band may be off, in reflectance: {MEANING} The Zarr store has it as well.",
        "media_type": "image/tiff; application=geotiff; profile=cloud-optimized",
        "roles": ["data", "uncertainty"],
    },
    "page": {"title": "Before and after", "media_type": "text/html", "roles": ["overview"]},
}
"""What is said of each file by its key."""

HELD_BY = {
    "sensor": "corrected so that the sensor would see the {gsd} m pixels, within its noise",
    "mean": "projected so that block means equal the {gsd} m pixels",
}
"""What was done to the network's image."""

OPEN = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""The end of a range that nothing ends: STAC wants a date, or a range with both ends."""


def stac_item(
    name: str,
    window: Window,
    crs: str,
    scale: int,
    bands: Sequence[str],
    model: dict[str, Any],
    sources: list[dict[str, Any]],
    assets: dict[str, str],
    *,
    interval: tuple[datetime, datetime] | None = None,
    false_colour: Sequence[str] = (),
    held_by: str,
    figures: Mapping[str, float],
) -> dict[str, Any]:
    """The item `name` of a mosaic that covers `window` with `scale` times the lattice's pixels.

    `model`: name, sha256 (hex), header (of its weights: architecture and bands; None for an interpolator).
    `sources`: the scene's items; of each the id, datetime and href (its STAC document), whichever is there. `assets`:
    names of files beside the item, by the keys of `ASSETS`. `interval`: when the scene was taken, where no source says.
    `false_colour`: the bands that went through the network in the place of others. `held_by`: what holds the mosaic to
    its scene, "sensor" or "mean"; `figures`: what was measured of that.
    """
    geometry, bbox = _footprint(window, crs)
    described = _bands(bands)
    properties = {
        **_dates(sources, interval),
        "title": f"{printable(name)}: {sensor_of_items(sources).title} super-resolved to {window.gsd / scale:g} m",
        "gsd": window.gsd / scale,
        "bands": described,
        **_projection(window, crs, scale),
        **_processing(window.gsd, scale, model, sources, held_by),
        **_mlm(bands, model),
        "rsup:scale": scale,
        "rsup:consistency": {"held_by": held_by, **figures},
        "rsup:false_colour": list(false_colour),
        "rsup:model_sha256": model["sha256"],
        "rsup:sources": _ids(sources),
    }
    item = pystac.Item(
        id=printable(name),
        geometry=geometry,
        bbox=bbox,
        datetime=moment(properties["datetime"]),
        properties=properties,
        stac_extensions=EXTENSIONS,
    )
    for key, file in assets.items():
        pixels = _bands(list(map(uncertainty_of, bands)), 0) if key == "uncertainty" else described
        item.add_asset(key, _file_asset(key, file, pixels))
    item.add_asset("model", _model_asset(model))
    item.add_links(_derived_from(sources))
    return item.to_dict(include_self_link=False, transform_hrefs=False)


def write_item(item: dict[str, Any], path: Path) -> None:
    """Write the item as JSON; `path` appears whole or not at all. Raises OutputError where the disk refuses."""
    with writing(path, OutputError, goes_on=True):
        write_whole(path, (json.dumps(item, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _footprint(window: Window, crs: str) -> tuple[dict[str, Any], list[float]]:
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


def _projection(window: Window, crs: str, scale: int) -> dict[str, Any]:
    """The mosaic's grid, in the words of the projection extension."""
    return {
        **({"proj:code": crs} if crs.startswith("EPSG:") else {"proj:code": None, "proj:wkt2": crs}),
        "proj:shape": [window.height * scale, window.width * scale],
        "proj:transform": list(window.transform(scale))[:6],
        "proj:bbox": list(window.bounds),
    }


def _bands(bands: Sequence[str], offset: float = ADD_OFFSET) -> list[dict[str, Any]]:
    return [
        {
            "name": band,
            "data_type": "uint16",
            "nodata": NODATA,
            "raster:scale": SCALE_FACTOR,
            "raster:offset": offset,
        }
        for band in bands
    ]


def _dates(sources: list[dict[str, Any]], interval: tuple[datetime, datetime] | None) -> dict[str, Any]:
    """One moment where all sources share it, else the range they span; without any, what the scene says."""
    moments = sorted(taken for source in sources if (taken := moment(source.get("datetime"))))
    first, last = map(datetime_to_str, (moments[0], moments[-1]) if moments else interval or (first_light(), OPEN))
    if first == last:
        return {"datetime": first}
    return {"datetime": None, "start_datetime": first, "end_datetime": last}


def _ids(sources: list[dict[str, Any]]) -> list[str]:
    return [printable(str(source["id"])) for source in sources if source.get("id")]


def _processing(
    gsd: int, scale: int, model: dict[str, Any], sources: list[dict[str, Any]], held_by: str
) -> dict[str, Any]:
    """How the pixels of `gsd` metres became the mosaic, in the words of the processing extension."""
    ids = _ids(sources)
    lineage = (
        f"Super-resolved from {gsd} m to {gsd / scale:g} m with the model {model['name']} "
        f"(SHA-256 {model['sha256']}), then {HELD_BY[held_by].format(gsd=gsd)}."
        + (f" Sources: {', '.join(ids)}." if ids else "")
    )
    return {
        "processing:level": "L4",  # a model's output, by the levels the extension refers to
        "processing:lineage": lineage,
        "processing:software": {"rsup": VERSION},
    }


def _mlm(asked: Sequence[str], model: dict[str, Any]) -> dict[str, Any]:
    """The network's own interface; that of an interpolator, which has no header, is whatever bands are asked for."""
    header = model["header"] or {}
    bands = list(header.get("bands", asked))
    tasks, order = ["super-resolution"], ["batch", "channel", "height", "width"]
    tensor = {"shape": [-1, len(bands), -1, -1], "dim_order": order, "data_type": "float32"}
    return {
        "mlm:name": _mlm_name(str(model["name"])),
        "mlm:architecture": str(header.get("architecture", model["name"])),
        "mlm:framework": "PyTorch",
        "mlm:tasks": tasks,
        "mlm:input": [{"name": "10 m tile", "bands": bands, "input": tensor}],
        "mlm:output": [{"name": "super-resolved tile", "tasks": tasks, "result": tensor}],
    }


def _mlm_name(name: str) -> str:
    """What the extension allows: letters, digits and _.- between a letter and a letter or digit."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(name).name).strip("_.-")
    allowed = re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]+[A-Za-z0-9]", plain)
    return plain if allowed else f"model-{plain or 'unnamed'}"


def _file_asset(key: str, file: str, bands: list[dict[str, Any]]) -> pystac.Asset:
    """A file beside the item; one with pixels says what they are."""
    extra = {"bands": bands} if "data" in ASSETS[key]["roles"] else {}
    # A reference (RFC 3986), whatever the file's name: "#" would start a fragment.
    return pystac.Asset(quote(os.fsencode(file)), **ASSETS[key], extra_fields=extra)


def _model_asset(model: dict[str, Any]) -> pystac.Asset:
    """The weights by their digest (RFC 6920): the item must not tell where they lay on somebody's disk."""
    digest = bytes.fromhex(model["sha256"])
    name = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    extra = {
        "file:checksum": f"1220{digest.hex()}",  # multihash: SHA-256, 32 bytes
        "mlm:artifact_type": "rsup",
    }
    return pystac.Asset(
        f"ni:///sha-256;{name}",
        title=f"Model {model['name']}",
        media_type="application/octet-stream",
        roles=["mlm:model"],
        extra_fields=extra,
    )


def _derived_from(sources: list[dict[str, Any]]) -> list[pystac.Link]:
    """A link to each source's STAC document that has a public address."""
    links = []
    for source in sources:
        if href := _public(source.get("href")):
            title = printable(str(source.get("id") or href))
            links.append(pystac.Link("derived_from", href, "application/geo+json", title))
    return links


def _public(href: Any) -> str | None:
    """An http(s) href without login, query and fragment, where secrets may be; None for anything else."""
    if not isinstance(href, str) or not re.match(r"https?://", href, re.IGNORECASE):
        return None
    return printable(public_address(href))
