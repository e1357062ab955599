"""From a product to a mosaic in one step: a scene is made beside the output, upscaled, and dropped or kept.

In: an UpscaleRequest whose scene is a product, and the place of the output. The scene is fetched in windows, as any is;
a run that was stopped goes on with either half. A record beside the outputs says what they were made of, so that the
same command on finished outputs is done already, though the scene is gone.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from rsup.models.base.errors import ArgumentError, OutputError, SceneError
from rsup.models.base.progress import show_progress
from rsup.models.sensors import DEFAULT
from rsup.models.sensors.profile import UndecidedError
from rsup.pipeline.lattice import GSD
from rsup.pipeline.places import objects
from rsup.pipeline.places import place as places
from rsup.pipeline.places.place import Place
from rsup.pipeline.places.scratch import leave_scratch, own_scratch, scratch
from rsup.pipeline.places.upload import ROOT, upload
from rsup.pipeline.scenes.foreign.numbers import Said
from rsup.pipeline.scenes.scene import Scene
from rsup.pipeline.sources.plan import FetchPlan
from rsup.pipeline.sources.request import FetchRequest

from . import fetch as fetching
from . import storing
from .forecast import forecast
from .product import request_of
from .publishing import clear
from .upscale_plan import UpscalePlan, UpscaleRequest

HIDDEN = ".rsup"


def upscale(
    product: str, request: UpscaleRequest, output: Place, *, keep_scene: bool, dry_run: bool = False
) -> dict[str, Any]:
    """As `storing.upscale`, of the product at a path or an address, in the place of `request.scene`.

    Raises an RsupError where it cannot be done.
    """
    if request.said != Said():
        raise ArgumentError(
            "--input-scale, --input-offset and --input-nodata say what the numbers of a scene mean, and a product says "
            "it itself: leave them out"
        )
    bands = request.bands or DEFAULT.native(GSD)
    fetch = request_of([product], None, date=None, max_cloud=100, bands=bands, overwrite=request.overwrite)
    name = f"{_stem(fetch, product)}.zarr"
    work = output / HIDDEN if isinstance(output, Path) else scratch("product", str(output), name, request.scale)
    scene = output / name if keep_scene and isinstance(output, Path) else work / name
    fetch = replace(fetch, output=scene)
    fetch_plan = fetching.plan(fetch)
    request = replace(request, scene=scene, output=output if isinstance(output, Path) else Path())
    plan = UpscalePlan.make(request, _to_be(fetch_plan))
    finals = [output / final for final in plan.artefacts().values()]
    kept: list[Place] = [output / name] if keep_scene else []
    about = plan.summary() | {"scene": str(kept[0]) if kept else product, "outputs": list(map(str, [*finals, *kept]))}
    if dry_run:
        return about | forecast(plan)
    record = output / HIDDEN / f"{plan.name}.product.json"
    made_for = (json.dumps(_fingerprint(fetch_plan, plan), indent=2, sort_keys=True) + "\n").encode()
    if not request.overwrite and places.read(record) == made_for and all(map(_stands, [*finals, *kept])):
        _drop(scene, keep_scene and isinstance(output, Path))
        return about | {"already_done": True}
    begun = any(map(os.path.lexists, (scene, scene.with_name(f".{name}.partial"), scene.with_name(f".{name}.ledger"))))
    if not (request.overwrite or begun) and (standing := next(filter(_stands, [*finals, *kept]), None)) is not None:
        raise OutputError(f"{standing} exists already; choose another --output or pass --overwrite")
    if not isinstance(output, Path):
        own_scratch(work)
    # What an earlier step of this very command has made is gone on with.
    again = replace(fetch_plan, request=replace(fetch, overwrite=request.overwrite and not _is_of(scene, fetch_plan)))
    try:
        with show_progress("fetch", "chunks") as progress:
            fetched = fetching.run(again, progress)
    except UndecidedError as error:
        raise SceneError(f"{error}: with `rsup fetch`, of whose scene a mosaic is made then") from error
    done = storing.upscale(request, output)
    if kept and not isinstance(output, Path):
        upload({scene: kept[0]})  # type: ignore[dict-item]  # an object's
    places.write(record, made_for)
    _drop(scene, keep_scene and isinstance(output, Path))
    if not isinstance(output, Path):
        leave_scratch(work)
    counted = {key: fetched[key] for key in ("items", "valid_percent", "dark_pixels", "zero_pixels")}
    return done | about | counted


def _stem(fetch: FetchRequest, product: str) -> str:
    """The product's own name where it is one item, that of its path where it is many; as a name of files."""
    named = (
        fetch.items[0].id if len(fetch.items) == 1 else re.sub(r"(\.(SAFE|zip|zarr))+$", "", product.rpartition("/")[2])
    )
    return re.sub(r"[^A-Za-z0-9_-]+", "_", named)[:120].strip("_") or "product"


def _to_be(fetch_plan: FetchPlan) -> Scene:
    """The scene that is still to be made."""
    request = fetch_plan.request
    made = {"items": [{"collection": item.collection} for item in fetch_plan.items]}
    bands = request.bands
    return Scene(request.output, request.utm, fetch_plan.window, fetch_plan.aoi, bands, made, bands, None, None, None)


def _fingerprint(fetch_plan: FetchPlan, plan: UpscalePlan) -> dict[str, Any]:
    """What two runs share that have one answer."""
    made = {key: value for key, value in plan.fingerprint().items() if key != "scene"}
    return {"scene": fetching.fingerprint_of(fetch_plan), "mosaic": made}


def _is_of(scene: Path, fetch_plan: FetchPlan) -> bool:
    """Whether a finished scene stands there that was made for this very request."""
    try:
        return fetching.answers(scene, fetching.fingerprint_of(fetch_plan), overwrite=False)
    except OutputError:
        return False


def _stands(place: Place) -> bool:
    if isinstance(place, Path):
        return os.path.lexists(place)
    return objects.is_there(place / ROOT if place.name.endswith(".zarr") else place)


def _drop(scene: Path, keep: bool) -> None:
    if not keep:
        clear(scene)
