"""From a request to a scene store: what is going to be read (`plan`), and reading and writing it (`run`).

In: a FetchRequest. Out: `scene.zarr` on the lattice of one UTM zone, MARGIN pixels wider on each side than the
ground asked for, so that every model tile that touches that ground sees the same pixels whatever the bbox.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rsup.models.base.errors import OutputError, SceneError
from rsup.models.base.files import aside, write_whole, writing
from rsup.models.base.progress import Progress, show_progress
from rsup.pipeline import memory
from rsup.pipeline.lattice import Window
from rsup.pipeline.ledger import Ledger
from rsup.pipeline.places import place as places
from rsup.pipeline.places.address import ObjectPath
from rsup.pipeline.places.place import Place
from rsup.pipeline.release import VERSION
from rsup.pipeline.scenes.writer import SceneWriter, create_scene
from rsup.pipeline.sources.assets import InspectedItem, quiet
from rsup.pipeline.sources.chunks import COUNTS, counts_of, fill, inspect_all, say_left_out
from rsup.pipeline.sources.footprint import box_of, window_in
from rsup.pipeline.sources.plan import FetchPlan
from rsup.pipeline.sources.request import FetchRequest
from rsup.pipeline.sources.stac.catalog import Query, ask
from rsup.pipeline.sources.stac.items import ItemReference, LeftOut

from .publishing import PUBLISHED, Publication, clear, own
from .room import lacking

MARGIN = 128
"""Pixels of ground stored around the ground asked for."""
MOST_COMPRESSION = 20
"""Times a scene shrinks on the disk at most: large ones are empty in part."""


class NoPixelError(SceneError):
    """Items that were read and have no pixel of the ground asked for, or none that is left."""


def fetch(request: FetchRequest, *, dry_run: bool = False) -> dict[str, Any]:
    """Search, then read, fuse and write every chunk of one scene store; a rerun goes on where an earlier one stopped.

    Returns what was fetched, or with `dry_run` what would be. Raises an RsupError where it cannot be done.
    """
    planned = plan(request)
    if dry_run:
        return planned.to_dict()
    with show_progress("fetch", "chunks") as progress:
        return run(planned, progress)


def plan(request: FetchRequest) -> FetchPlan:
    """Search the catalogue, unless the items are known, and lay out the store; writes nothing.

    Raises ArgumentError and CatalogError, and OutputError for more ground than the disk has room for.
    """
    aoi = request.ground or window_in(request.box, request.utm)
    _check_room(request, aoi.grow(MARGIN))
    if request.items:
        return lay_out(request, aoi, request.items, [])
    query = query_of(request, aoi)
    listing = ask(query)
    items, left_out = listing.choose(query), listing.left_out(query)
    request.check_offsets([each.id for item in items for each in (item, *item.spares)] + [each.id for each in left_out])
    return lay_out(request, aoi, items, left_out)


def query_of(request: FetchRequest, aoi: Window) -> Query:
    """What a catalogue is asked for a store of `aoi`, a window of `request.utm`."""
    return Query(
        request.sensor,
        request.catalog,
        request.collection,
        str(request.box),
        box_of(aoi.grow(MARGIN), request.utm),
        request.start,
        request.end,
        request.max_cloud,
        request.bands,
        classified=request.mask_clouds,
        strict=request.strict,
    )


def lay_out(
    request: FetchRequest, aoi: Window, items: Sequence[ItemReference], left_out: Sequence[LeftOut] = ()
) -> FetchPlan:
    """The store of `aoi`, a window of `request.utm`, made of these items; best first. `left_out`: those that lack."""
    return FetchPlan(request, aoi, aoi.grow(MARGIN), tuple(items), tuple(left_out))


def _check_room(request: FetchRequest, window: Window) -> None:
    """Refuse what cannot fit, before a catalogue is asked for it."""
    needed = window.height * window.width * (2 * len(request.bands) + 3)
    if (lack := lacking(request.output.parent, needed, MOST_COMPRESSION)) is not None:
        place, room = lack
        raise OutputError(
            f"--bbox {request.box} comes to {window.height} x {window.width} pixels, {needed / 1e9:.0f} GB before "
            f"compression, and {place} has room for {room / 1e9:.0f} GB: ask for less ground, or split it"
        )


def run(plan: FetchPlan, progress: Progress) -> dict[str, Any]:
    """Read, fuse and write every chunk of a plan; `progress(done, total)` follows. Returns a summary.

    A run that was stopped, however, goes on where it was when it is run again. The output has its name only when
    it is whole; one that was there before is replaced then, and only with `overwrite`. Where the output stands already
    and answers this very request, nothing is read.
    Raises OutputError, and SceneError naming the item and band that cannot be read.
    """
    request, output = plan.request, plan.request.output
    if not output.name or output.name == "..":
        raise OutputError(f"-o {output} is no name for a scene store; write something like scene.zarr")
    asked = fingerprint_of(plan)
    store, ledger_path = (output.with_name(f".{output.name}.{ending}") for ending in ("partial", "ledger"))
    if not any(map(os.path.lexists, (store, ledger_path, aside(output)))) and answers(output, asked, request.overwrite):
        return summary(plan, output, already_done=True)
    with Ledger.open(ledger_path) as ledger:
        own(store)
        publication = Publication(ledger, {store: output}, overwrite=request.overwrite)
        publication.settle()
        overwrite = request.overwrite
        if PUBLISHED in ledger.done():  # a run was killed in its last moment: it is over now
            overwrite = overwrite and _said(output).get("request") != asked
            ledger.forget()
        # Now, when nobody else can publish there, and not only before: a search takes its time.
        if answers(output, asked, overwrite):
            if ledger.belongs_to(asked):  # replacing it was begun once, and is not asked for any more
                clear(store)
                ledger.forget()
            return summary(plan, output, already_done=True)
        ledger.begin(asked, overwrite=overwrite)
        memory.return_at_once()
        with quiet():
            items, gone = inspect_all(plan)
        plan = plan.of((each.item for each in items), gone)
        say_left_out(plan.left_out)
        writer = _open_store(plan, asked, items, store, ledger)
        with quiet():
            fill(plan, items, writer, ledger, progress)
        counts = counts_of(ledger, plan)
        if not counts["valid_pixels"]:
            clear(store)
            ledger.forget()
            others = f" ({len(plan.left_out)} more were left out)" if plan.left_out else ""
            raise NoPixelError(
                f"no pixel of --bbox {request.box} is left in {len(plan.items)} items{others}; "
                "widen --date, raise --max-cloud or do without --mask-clouds"
            )
        _note(store, counts)
        publication.publish()
        ledger.forget()
    return summary(plan, output, already_done=False)


def summary(plan: FetchPlan, output: Place, *, already_done: bool) -> dict[str, Any]:
    """Of the finished store of a plan, at `output`."""
    request = plan.request
    said = _said(output)
    valid, dark, zero = (said.get(name) or 0 for name in COUNTS)
    return {
        "scene": str(output),
        "already_done": already_done,
        "crs": request.utm,
        "bounds": plan.aoi.bounds,
        "pixels": (plan.aoi.height, plan.aoi.width),
        "bands": request.bands,
        "items": [item["id"] for item in said.get("items") or ()],
        "left_out": said.get("left_out") or [],
        "valid_percent": round(100 * valid / (plan.aoi.height * plan.aoi.width), 2),
        "dark_pixels": dark,
        "zero_pixels": zero,
    }


def answers(output: Place, asked: dict[str, Any], overwrite: bool) -> bool:
    """Whether a finished store stands there that was made for this very request.

    Raises OutputError where anything else would have to be replaced without `overwrite`, or is no scene store.
    """
    if isinstance(output, Path) and not os.path.lexists(output):
        return False
    if isinstance(output, ObjectPath) and places.read(output / "zarr.json") is None:
        return False
    if overwrite:
        if isinstance(output, Path) and not (output / "zarr.json").is_file():
            raise OutputError(f"{output} is no scene store, which is all that --overwrite replaces; choose another -o")
        return False
    made_for = _said(output).get("request")
    if made_for == asked:
        return True
    known = made_for if isinstance(made_for, dict) else asked
    differing = sorted(key for key in asked if known.get(key) != asked[key])
    reason = f" and is of another request ({', '.join(differing)} differ)" if differing else ""
    raise OutputError(f"{output} exists{reason}; choose another -o or pass --overwrite")


def fingerprint_of(plan: FetchPlan) -> dict[str, Any]:
    """What two requests share that have one answer, as plain JSON; a finished store says it as `request`."""
    asked = {
        key: getattr(plan.request, key)
        for key in ("public_catalog", "collection", "bands", "composite", "mask_clouds", "utm", "offset", "chunk")
    }
    described = {
        "rsup": VERSION,
        **asked,
        "aoi": plan.aoi.bounds,
        "items": [item.id for item in plan.items],
    }
    return json.loads(json.dumps(described))  # type: ignore[no-any-return]


def _said(store: Place) -> dict[str, Any]:
    """The attributes of a finished store; none where it is no store."""
    described = store / "zarr.json"
    try:
        content = places.read(described) if isinstance(described, ObjectPath) or described.is_file() else None
        said = None if content is None else json.loads(content)["attributes"]
    except (ValueError, RecursionError, KeyError, TypeError):
        said = None
    return said if isinstance(said, dict) else {}


def _open_store(
    plan: FetchPlan, asked: dict[str, Any], items: list[InspectedItem], path: Path, ledger: Ledger
) -> SceneWriter:
    """The writer of the partial store, which is made where the ledger does not know it."""
    request = plan.request
    begun_with = _said(path).get("items")
    names = [each.item.id for each in items]
    if begun_with is not None and [item.get("id") for item in begun_with] != names:
        ledger.restart()  # an item has come to lack something, or has it again: its pixels are no more to be mixed in
    if "store" in ledger.done() and path.is_dir():
        try:
            return SceneWriter(path, plan.window, request.bands, request.chunk)
        except Exception as error:  # zarr raises many kinds for a store that has been damaged
            raise OutputError(
                f"{path} cannot be opened ({error}); pass --overwrite to start afresh, or choose another -o"
            ) from error
    ledger.restart()
    clear(path)
    described = [
        {key: getattr(each.item, key) for key in ("id", "collection", "datetime", "cloud", "tile")}
        | {
            "href": each.item.public_href,
            "hrefs": each.item.public_hrefs,
            "baseline": each.decision.baseline,
            "offset": each.decision.offset,
            "evidence": list(each.decision.evidence),
        }
        for each in items
    ]
    attributes = {
        "software": f"rsup {VERSION}",
        "catalog": request.public_catalog,
        "composite": request.composite,
        "mask_clouds": request.mask_clouds,
        "items": described,
        "left_out": [each.to_dict() for each in plan.left_out],
        "request": asked,
    }
    writer = create_scene(
        path, plan.window, request.utm, request.bands, request.chunk, plan.aoi, attributes, request.sensor
    )
    ledger.record("store", "done")
    return writer


def _note(store: Path, attributes: dict[str, Any]) -> None:
    """Add to a store's own attributes what is only known in the end. Raises OutputError where the disk refuses."""
    root = store / "zarr.json"
    described = json.loads(root.read_bytes())
    described["attributes"] |= attributes
    with writing(store, OutputError, goes_on=True):
        write_whole(root, json.dumps(described, indent=2).encode())
