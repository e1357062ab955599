"""The archive as a static STAC collection: the mosaics' own items in, `collection.json` that leads to them out.

Beside it, a virtual raster over the mosaics of each interval and zone, which are assets of the collection.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import pystac

from rsup.models.base.errors import OutputError
from rsup.models.base.files import write_whole, writing
from rsup.models.sensors import sensor_of
from rsup.pipeline.places import objects
from rsup.pipeline.places.address import ObjectPath
from rsup.pipeline.places.place import Place, read_all, write
from rsup.pipeline.scenes.attributes import moment

from .formats.vrt import Image, image_of, vrt_of
from .job import Job
from .leases.holding import alone
from .units import Unit

FILE = "collection.json"
VRTS = {"cog": ".vrt", "uncertainty": "_uncertainty.vrt"}
"""How the VRT over an asset of the items ends."""
ROLES = [pystac.ProviderRole.PRODUCER, pystac.ProviderRole.LICENSOR]
"""Of who took the images."""


def join(item: Path, job: Job) -> None:
    """Let the finished item of a mosaic say which collection it is of, two folders further up."""
    said = json.loads(item.read_bytes())
    said["collection"] = _id(job)
    said["links"] = [link for link in said["links"] if link["rel"] not in ("root", "parent", "collection")]
    said["links"] += [
        {"rel": rel, "href": f"../../{FILE}", "type": "application/json"} for rel in ("root", "parent", "collection")
    ]
    with writing(item, OutputError):
        write_whole(item, (json.dumps(said, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_collection(job: Job, units: list[Unit]) -> Place | None:
    """Write the collection of the finished units' items, and the VRTs of its intervals; None where there is none yet.

    Of two runners that end, the later one writes what both did. Raises OutputError.
    """
    path = job.output / FILE
    if isinstance(path, ObjectPath):
        while True:
            before = objects.look(path)  # ahead of the items: who has written since then has seen more of them
            if not (files := _files(job, units)):
                return None
            said = files.pop(FILE)
            for name, raster in files.items():
                write(job.output / name, raster)
            if objects.create(path, said) if before is None else objects.swap(path, before.tag, said):
                return path
    with writing(path, OutputError), alone(job.output):
        for name, said in (files := _files(job, units)).items():
            write(job.output / name, said)
    return path if files else None


def _files(job: Job, units: list[Unit]) -> dict[str, bytes]:
    """VRTs, and the collection last, as they are now, by their paths below the output; nothing without items."""
    places = [unit.path / f"{unit.name}_x{job.upscale.scale}.json" for unit in units]
    found = zip(units, places, read_all([job.output / place for place in places]), strict=True)
    items, images = dict[str, dict[str, Any]](), defaultdict[str, list[Image]](list)
    for unit, place, said in found:
        if said is None:
            continue
        item = json.loads(said)
        items[place.as_posix()] = {key: item[key] for key in ("bbox", "properties")}
        for kind, ending in VRTS.items():
            if kind in item["assets"]:
                name = f"{unit.interval.name}/{unit.cell.zone}_x{job.upscale.scale}{ending}"
                images[name].append(image_of(item, kind, unit.cell.name))
    if not items:
        return {}
    collection = _collection(job, items) | {"assets": {name: _asset(name) for name in sorted(images)}}
    return {name: vrt_of(shown) for name, shown in images.items()} | {
        FILE: (json.dumps(collection, indent=2, ensure_ascii=False) + "\n").encode()
    }


def _asset(name: str) -> dict[str, Any]:
    """Of a VRT, by its path below the collection."""
    interval, file = name.split("/")
    title = f"Mosaics of {interval}, zone {file.partition('_')[0]}, as one virtual raster"
    uncertain = ["uncertainty"] if name.endswith(VRTS["uncertainty"]) else []
    return {"href": f"./{name}", "type": "application/xml", "title": title, "roles": ["data", "virtual", *uncertain]}


def _collection(job: Job, items: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """`items` by their paths below the collection."""
    properties = [item["properties"] for item in items.values()]
    metres, sensor = properties[0]["gsd"], sensor_of(job.fetch.collection)
    collection = pystac.Collection(
        _id(job),
        f"{sensor.title} super-resolved to {metres:g} m, by interval and cell.",
        pystac.Extent(pystac.SpatialExtent([_around([item["bbox"] for item in items.values()])]), _span(properties)),
        summaries=pystac.Summaries(
            {
                "gsd": [metres],
                "proj:code": sorted({each["proj:code"] for each in properties}),
                "rsup:scale": sorted({each["rsup:scale"] for each in properties}),
                "rsup:model_sha256": sorted({each["rsup:model_sha256"] for each in properties}),
                "rsup:interval": [job.interval],
                "rsup:cells": [job.cells],
                "rsup:sources": {"minimum": min(_sources(properties)), "maximum": max(_sources(properties))},
            }
        ),
        title=f"{sensor.title} super-resolved to {metres:g} m",
        license="other",
        providers=[
            pystac.Provider(name, roles=ROLES, url=address) for name, address in filter(None, [sensor.provider])
        ],
    )
    said = collection.to_dict(include_self_link=False, transform_hrefs=False)
    said["links"] = [{"rel": "root", "href": f"./{FILE}", "type": "application/json"}]
    if sensor.terms:
        title = f"Terms of {sensor.title} data"
        said["links"].append({"rel": "license", "href": sensor.terms, "title": title})
    said["links"] += [{"rel": "item", "href": f"./{place}", "type": "application/geo+json"} for place in items]
    return said


def _id(job: Job) -> str:
    return f"{job.fetch.collection}-x{job.upscale.scale}"


def _sources(properties: list[dict[str, Any]]) -> list[int]:
    return [len(each["rsup:sources"]) for each in properties]


def _around(boxes: list[list[float]]) -> list[float]:
    """The box in degrees around boxes, whose west is above their east where they cross the antimeridian."""
    crossing = Counter(west > east for west, _, east, _ in boxes)[True] > 0
    turned = [
        (west + 360 if crossing and west < 0 else west, south, east + 360 if crossing and east < 0 else east, north)
        for west, south, east, north in boxes
    ]
    west, south, east, north = (pick(box[edge] for box in turned) for edge, pick in enumerate((min, min, max, max)))
    return [west, south, east - 360 if east > 180 else east, north]


def _span(properties: list[dict[str, Any]]) -> pystac.TemporalExtent:
    first = [moment(each.get("start_datetime") or each["datetime"]) for each in properties]
    last = [moment(each.get("end_datetime") or each["datetime"]) for each in properties]
    ends: list[datetime | None] = [
        min(each for each in first if each is not None),
        max(each for each in last if each is not None),
    ]
    return pystac.TemporalExtent([ends])
