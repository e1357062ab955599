"""The STAC item of a mosaic: where it lies, what its numbers mean, which model and sources made it.

In: the mosaic's window, bands and their statistics, model and sources. Out: a STAC 1.1 item (GeoJSON feature) as a
dictionary, and the file. Extensions: projection 2.0, raster 2.0, processing 1.2, and eo 1.1, whose `eo:bands` is where
readers look for names; what eo 2.0 says instead stands in `bands` as well. It holds no time of its own making: equal
input gives an equal item.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pystac
import rasterio
from pystac.utils import datetime_to_str

from rsup.models.base.errors import OutputError
from rsup.models.base.files import write_whole, writing
from rsup.models.base.intervals import MEANING
from rsup.models.sensors import first_light, sensor_of_items
from rsup.models.sensors.profile import Sensor
from rsup.pipeline.lattice import Window
from rsup.pipeline.public import printable, public_address
from rsup.pipeline.release import VERSION, library_version
from rsup.pipeline.scenes.attributes import moment

from .bands import Figures, eo_bands, measured, uncertainties
from .footprint import footprint, projection
from .model_item import OPEN, mlm_name

EXTENSIONS = [
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
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
        "description": f"How far each band may be off, in reflectance: {MEANING} The store has it as well.",
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

MADE = "SOURCE_DATE_EPOCH"
"""The variable that says when an output counts as made, in seconds since 1970 (reproducible-builds.org)."""


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
    statistics: Figures,
) -> dict[str, Any]:
    """The item `name` of a mosaic that covers `window` with `scale` times the lattice's pixels.

    `model`: name, sha256 (hex), header (of its weights: architecture and bands; None for an interpolator).
    `sources`: the scene's items; of each the id, datetime, cloud and href (its STAC document), whichever is there.
    `assets`: names of files beside the item, by the keys of `ASSETS`, and of the model's item as "model". `interval`:
    when the scene was taken, where no source says. `false_colour`: the bands that went through the network in the place
    of others. `held_by`: what holds the mosaic to its scene, "sensor" or "mean"; `figures`: what was measured of that;
    `statistics`: of the bands, and of their uncertainty.
    """
    geometry, bbox = footprint(window, crs)
    gsd, sensor = window.gsd / scale, sensor_of_items(sources)
    properties = {
        **_dates(sources, interval),
        "title": f"{printable(name)}: {sensor.title} super-resolved to {gsd:g} m",
        "gsd": gsd,
        **(_origin(sensor, sources) if sources else {}),
        **projection(window, crs, scale),
        **_processing(window.gsd, scale, model, sources, held_by, false_colour),
        "rsup:scale": scale,
        "rsup:consistency": {"held_by": held_by, **figures},
        "rsup:false_colour": list(false_colour),
        "rsup:model": printable(str(model["name"])),
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
    pixels = measured(bands, sensor, gsd, statistics)
    for key, file in assets.items():
        if key in ASSETS:
            uncertain = key == "uncertainty"
            item.add_asset(key, _file_asset(key, file, uncertainties(bands, gsd, statistics) if uncertain else pixels))
    item.add_links(_derived_from(sources))
    if "model" in assets:
        item.add_link(_model_link(assets["model"], model))
    if sources and sensor.terms:
        item.add_link(pystac.Link("license", sensor.terms, title=f"Terms of {sensor.title} data"))
    return item.to_dict(include_self_link=False, transform_hrefs=False)


def write_item(item: dict[str, Any], path: Path) -> None:
    """Write the item as JSON; `path` appears whole or not at all. Raises OutputError where the disk refuses."""
    with writing(path, OutputError, goes_on=True):
        write_whole(path, (json.dumps(item, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _origin(sensor: Sensor, sources: list[dict[str, Any]]) -> dict[str, Any]:
    """Who took the images and on which terms; what not all sources share is left out."""
    seen = {sensor.identify(str(source.get("id") or ""), {}).platform for source in sources}
    platform = sensor.platforms.get(seen.pop() or "") if len(seen) == 1 else None
    clouds = [source["cloud"] for source in sources if source.get("cloud") is not None]
    said = {
        "platform": platform,
        "constellation": sensor.constellation,
        "instruments": list(sensor.instruments) or None,
        # Of the whole items, as their makers estimate it: what of that lies in the mosaic, nobody has said.
        "eo:cloud_cover": round(sum(clouds) / len(clouds), 2) if len(clouds) == len(sources) else None,
        "license": "other" if sensor.terms else None,
        "attribution": _attribution(sensor, sources),
    }
    if sensor.provider:
        name, address = sensor.provider
        said["providers"] = [{"name": name, "url": address, "roles": ["producer", "licensor"]}]
    return {key: value for key, value in said.items() if value is not None}


def _attribution(sensor: Sensor, sources: list[dict[str, Any]]) -> str:
    """What the licence asks for, with the years in which the images were taken, as far as they say it."""
    years = sorted({taken.year for source in sources if (taken := moment(source.get("datetime")))})
    return " ".join([sensor.attribution, *([", ".join(map(str, years))] if years else [])])


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
    gsd: int,
    scale: int,
    model: dict[str, Any],
    sources: list[dict[str, Any]],
    held_by: str,
    false_colour: Sequence[str],
) -> dict[str, Any]:
    """How the pixels of `gsd` metres became the mosaic, in the words of the processing extension."""
    ids, name = _ids(sources), printable(str(model["name"]))
    through = f" {', '.join(false_colour)} in the place of the bands it was made for." if false_colour else ""
    lineage = (
        f"Super-resolved from {gsd} m to {gsd / scale:g} m with the model {name} (SHA-256 {model['sha256']}), "
        f"then {HELD_BY[held_by].format(gsd=gsd)}.{through}" + (f" Sources: {', '.join(ids)}." if ids else "")
    )
    made = os.environ.get(MADE, "")
    return {
        "processing:level": "L4",  # a model's output, by the levels the extension refers to
        "processing:lineage": lineage,
        "processing:version": VERSION,
        **({"processing:datetime": datetime_to_str(datetime.fromtimestamp(int(made), UTC))} if made.isdigit() else {}),
        "processing:software": {
            "rsup": VERSION,
            mlm_name(name): f"sha256:{model['sha256']}",
            "torch": library_version("torch"),
            "GDAL": rasterio.__gdal_version__,
        },
    }


def _file_asset(key: str, file: str, bands: list[dict[str, Any]]) -> pystac.Asset:
    """A file beside the item; one with pixels says what they are.

    `eo:bands` is for COGs alone: readers of names open what has it with GDAL.
    """
    extra = {"bands": bands} if "data" in ASSETS[key]["roles"] else {}
    if "cloud-optimized" in ASSETS[key]["media_type"]:
        extra["eo:bands"] = eo_bands(bands)
    # A reference (RFC 3986), whatever the file's name: "#" would start a fragment.
    return pystac.Asset(quote(os.fsencode(file)), **ASSETS[key], extra_fields=extra)


def _model_link(file: str, model: dict[str, Any]) -> pystac.Link:
    """To the model's item, as mlm asks of what a model has made."""
    name = printable(str(model["name"]))
    return pystac.Link(
        "derived_from",
        quote(os.fsencode(file)),
        "application/geo+json",
        f"Model {name}",
        extra_fields={"mlm:name": mlm_name(name)},
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
