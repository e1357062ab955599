"""Scenes and mosaics that go to an object store: made in a folder of this machine first, then uploaded.

In: a request, and the place its output shall have. A folder is written as ever; for s3:// the request is carried out in
scratch, where a run that was stopped goes on, and its outputs are uploaded when all are finished.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rsup.models.base.errors import OutputError
from rsup.models.base.progress import say, show_progress
from rsup.pipeline.ledger import Ledger
from rsup.pipeline.places import objects
from rsup.pipeline.places import place as places
from rsup.pipeline.places.address import ObjectPath
from rsup.pipeline.places.place import Place
from rsup.pipeline.places.scratch import leave_scratch, own_scratch, scratch
from rsup.pipeline.places.upload import MARK, ROOT, upload
from rsup.pipeline.sources.request import FetchRequest

from . import fetch as fetching
from . import upscale as upscaling
from .forecast import forecast
from .publishing import clear
from .upscale_plan import UpscalePlan, UpscaleRequest

_BEGUN = "uploading"
"""The record before the first object: what lies there is from here."""


def fetch(request: FetchRequest, output: Place, *, dry_run: bool = False) -> dict[str, Any]:
    """As `fetch.fetch`, of a scene store at `output`."""
    if isinstance(output, Path):
        return fetching.fetch(replace(request, output=output), dry_run=dry_run)
    if not output.name:
        raise OutputError(f"-o {output} is no name for a scene store; write something like {output}/scene.zarr")
    folder = scratch("fetch", str(output))
    local = replace(request, output=folder / output.name)
    plan = fetching.plan(local)
    if dry_run:
        return plan.to_dict() | {"output": str(output)}
    if fetching.answers(output, fetching.fingerprint_of(plan), request.overwrite):
        objects.remove(output / MARK)
        return fetching.summary(plan, output, already_done=True)
    with _held(folder) as ledger:
        if _BEGUN not in ledger.done():
            _refuse_strangers(output)
        with show_progress("fetch", "chunks") as progress:
            fetching.run(plan, progress)
        _send({local.output: output}, ledger)
        made = fetching.summary(plan, output, already_done=False)
        ledger.forget()
        clear(local.output)
    leave_scratch(folder)
    return made


def upscale(request: UpscaleRequest, output: Place, *, dry_run: bool = False) -> dict[str, Any]:
    """As `upscale.upscale`, of a mosaic in the folder or prefix `output`."""
    if isinstance(output, Path):
        return upscaling.upscale(replace(request, output=output), dry_run=dry_run)
    folder = scratch("upscale", str(output), str(request.scene), request.scale)
    plan = UpscalePlan.make(replace(request, output=folder))
    moves = {folder / name: output / name for name in plan.artefacts().values()}
    about = plan.summary() | {"outputs": [str(final) for final in moves.values()]}
    if dry_run:
        return about | forecast(plan)
    stores = [final for fresh, final in moves.items() if fresh.suffix == ".zarr"]
    record = output / ".rsup" / f"{plan.name}.json"
    made_for = (json.dumps(plan.fingerprint(), indent=2, sort_keys=True) + "\n").encode()
    with _held(folder) as ledger:
        said, begun = places.read(record), _BEGUN in ledger.done()
        there = [final for final in moves.values() if objects.is_there(final / ROOT if final in stores else final)]
        result = {"already_done": True}
        if request.overwrite or said != made_for or len(there) < len(moves):
            if there and not (request.overwrite or begun or said == made_for):
                raise OutputError(f"{there[0]} exists already; choose another --output or pass --overwrite")
            for store in stores if not begun else []:
                _refuse_strangers(store)
            result = upscaling.upscale(plan.request) | {"already_done": False}
            objects.remove(record)
            _send(moves, ledger)
            objects.put(record, made_for)  # last: with it the next run knows whose they are
        ledger.forget()
        for left in (plan.work.parent, *moves):
            clear(left)
    leave_scratch(folder)
    return result | about


def _refuse_strangers(store: ObjectPath) -> None:
    """Raise OutputError where objects lie that are of no store, whole or begun: an upload would remove them."""
    if any(True for _ in objects.below(store)) and not any(objects.is_there(store / name) for name in (ROOT, MARK)):
        raise OutputError(f"{store} holds something that is no store; choose another output")


@contextmanager
def _held(folder: Path) -> Iterator[Ledger]:
    """The folder made, and for this process alone."""
    own_scratch(folder)
    with Ledger.open(folder / ".upload") as ledger:
        ledger.begin({"of": folder.name})
        yield ledger


def _send(moves: dict[Path, ObjectPath], ledger: Ledger) -> None:
    ledger.record(_BEGUN, "done")
    size = sum(file.stat().st_size for fresh in moves for file in (fresh, *fresh.rglob("*")) if file.is_file())
    target = next(iter(moves.values()))
    say(f"uploading {size / 1e6:,.1f} MB to {target.parent if len(moves) > 1 else target}")
    upload(moves)
