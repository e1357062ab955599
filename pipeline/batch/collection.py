"""The archive as a static STAC collection: the mosaics' own items in, `collection.json` that leads to them out.

Beside it, a virtual raster over the mosaics of each interval and zone, and a MosaicJSON over those of each interval,
which are assets of the collection.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pystac
from pystac.provider import ProviderRole

from rsup.models.base.errors import OutputError
from rsup.models.base.files import write_whole, writing
from rsup.models.base.progress import say
from rsup.models.sensors import sensor_of
from rsup.pipeline.places import objects
from rsup.pipeline.places.address import ObjectPath
from rsup.pipeline.places.place import Place, folders, read_all, write
from rsup.pipeline.scenes.attributes import moment

from .cells import Cell
from .formats.mosaic_json import Footprint, footprint_of, mosaic_json_of
from .formats.vrt import Image, image_of, vrt_of
from .job import Job
from .leases.holding import alone

FILE = "collection.json"
KINDS = {"cog": "", "uncertainty": "_uncertainty"}
"""Assets of the items that are shown as one, and what follows the scale in the name of what shows them."""
SUMMARISED = ("gsd", "proj:code", "rsup:scale", "rsup:model_sha256", "rsup:sources")
"""Properties of the items."""
ROLES = [ProviderRole.PRODUCER, ProviderRole.LICENSOR]
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


def item_in(said: bytes | None) -> dict[str, Any] | None:
    """The item that a file holds; None where it lacks what a collection is made of: cut short, edited, no file."""
    try:
        item = json.loads(said or b"")
        properties, (_, _, _, _) = item["properties"], map(float, item["bbox"])
        whole = all(key in properties for key in SUMMARISED) and None not in _moments(properties)
        outputs_of(item), float(properties["gsd"]), len(properties["rsup:sources"])
        for kind in KINDS.keys() & item["assets"]:
            image_of(item, kind, "")
            footprint_of(item, kind, "")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return None
    return item if whole else None


def outputs_of(item: dict[str, Any]) -> set[str]:
    """Names of the files and stores beside an item that are its assets."""
    return {unquote(asset["href"]).removeprefix("./").partition("/")[0] for asset in item["assets"].values()}


def write_collection(job: Job) -> Place | None:
    """Write the collection of the items that are published, and what shows its intervals; None where there is none yet.

    Of two runners that end, the later one writes what both did. Raises OutputError.
    """
    path = job.output / FILE
    if isinstance(path, ObjectPath):
        while True:
            before = objects.look(path)  # ahead of the items: who has written since then has seen more of them
            if not (files := _files(job)):
                return None
            said = files.pop(FILE)
            _write_what_differs(job.output, files)
            if before is not None and before.data == said:
                return path
            if objects.create(path, said) if before is None else objects.swap(path, before.tag, said):
                return path
    with writing(path, OutputError), alone(job.output):
        _write_what_differs(job.output, files := _files(job))
    return path if files else None


def _write_what_differs(output: Place, files: dict[str, bytes]) -> None:
    """Write files by their paths below `output`, in their order: an archive of years has many that stay as they are."""
    for (name, said), before in zip(files.items(), read_all([output / name for name in files]), strict=True):
        if said != before:
            write(output / name, said)


def _files(job: Job) -> dict[str, bytes]:
    """What shows intervals, and the collection last, as they are now, by their paths below the output.

    Nothing without items.
    """
    scale = f"x{job.upscale.scale}"
    units = list(_published(job))
    places = [Path(interval, cell.name, f"{cell.name}_{interval}_{scale}.json") for interval, cell in units]
    found = zip(units, places, read_all([job.output / place for place in places]), strict=True)
    items = dict[str, dict[str, Any]]()
    images, footprints = defaultdict[str, list[Image]](list), defaultdict[str, list[Footprint]](list)
    for (interval, cell), place, said in found:
        if said is None:
            continue
        if (item := item_in(said)) is None:
            say(f"{job.output / place} is damaged, and left out of the collection")
            continue
        items[place.as_posix()] = {key: item[key] for key in ("bbox", "properties")}
        for kind, ending in KINDS.items():
            if kind in item["assets"]:
                images[f"{interval}/{cell.zone}_{scale}{ending}.vrt"].append(image_of(item, kind, cell.name))
                footprints[f"{interval}/mosaic_{scale}{ending}.json"].append(footprint_of(item, kind, cell.name))
    if not items:
        return {}
    files = {name: vrt_of(shown) for name, shown in images.items()}
    for name, listed in footprints.items():
        folder = job.output / name.partition("/")[0]
        # What opens it looks for a relative path from where it was started: a store's address spares its user that.
        prefix = f"{folder}/" if isinstance(folder, ObjectPath) else None
        files[name] = mosaic_json_of(f"{_id(job)} {folder.name}", listed, prefix)
    collection = _collection(job, items) | {"assets": {name: _asset(name) for name in sorted(files)}}
    return files | {FILE: (json.dumps(collection, indent=2, ensure_ascii=False) + "\n").encode()}


def _published(job: Job) -> Iterator[tuple[str, Cell]]:
    """Interval and cell of what lies in the output: a mosaic stays in it when no catalogue lists its items any more."""
    for interval in folders(job.output):
        there = set(folders(job.output / interval)) if not interval.startswith(".") else set()
        yield from ((interval, cell) for cell in job.places if cell.name in there)


def _asset(name: str) -> dict[str, Any]:
    """Of what shows an interval, by its path below the collection."""
    interval, _, file = name.partition("/")
    raster = file.endswith(".vrt")
    zone, shown = (f", zone {file.partition('_')[0]}", "one virtual raster") if raster else ("", "MosaicJSON")
    roles = ["data", *(["virtual"] if raster else []), *(["uncertainty"] if "_uncertainty." in file else [])]
    return {
        "href": f"./{name}",
        "type": "application/xml" if raster else "application/json",
        "title": f"Mosaics of {interval}{zone}, as {shown}",
        "roles": roles,
    }


def _collection(job: Job, items: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """`items` by their paths below the collection."""
    properties = [item["properties"] for item in items.values()]
    metres, sensor = properties[0]["gsd"], sensor_of(job.fetch.collection)
    title = f"{sensor.title} super-resolved to {metres:g} m"
    collection = pystac.Collection(
        _id(job),
        f"{title}, by interval and cell.",
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
        title=title,
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
    first, last = zip(*map(_moments, properties), strict=True)
    ends: list[datetime | None] = [min(filter(None, first)), max(filter(None, last))]
    return pystac.TemporalExtent([ends])


def _moments(properties: dict[str, Any]) -> tuple[datetime | None, datetime | None]:
    """The first and the last of an item."""
    first, last = (moment(properties.get(f"{end}_datetime") or properties["datetime"]) for end in ("start", "end"))
    return first, last
