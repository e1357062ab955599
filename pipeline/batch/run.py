"""The work of a job, unit by unit: what is new is fetched, upscaled and published; the rest is left as it is.

All that an attempt writes lies in a hidden folder of its unit until it is published at once, with the record of it: a
runner that is killed leaves what was there before, and the same command goes on in that folder.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal, NamedTuple

from rsup.models.base.errors import ArgumentError, CatalogError, RsupError, is_for_want_of_room
from rsup.models.base.progress import say, show_progress
from rsup.pipeline.jobs import fetch
from rsup.pipeline.jobs.publishing import Publication, clear, own
from rsup.pipeline.jobs.upscale import upscale
from rsup.pipeline.ledger import Ledger
from rsup.pipeline.machine import ahead
from rsup.pipeline.places.address import ObjectPath
from rsup.pipeline.places.place import names, read
from rsup.pipeline.places.scratch import leave_scratch, own_scratch
from rsup.pipeline.places.upload import upload
from rsup.pipeline.release import VERSION
from rsup.pipeline.sources.stac.catalog import NothingFoundError
from rsup.pipeline.sources.stac.interval import stamp
from rsup.pipeline.sources.stac.items import ItemReference, LeftOut
from rsup.pipeline.workers.kept import Kept, Workers

from .catalogue import Catalogue
from .collection import item_in, join, outputs_of, write_collection
from .job import Job
from .leases.holding import Held, acquire, alone, sweep
from .records import (
    RECORD,
    Failure,
    Record,
    check,
    claim,
    failure_of,
    forget_failure,
    record_of,
    write_failure,
    write_record,
)
from .units import Unit, share

LEDGER = "ledger.jsonl"
"""Of an attempt, in its folder: for which items it was begun, and how far its outputs are published."""
BEGUN = "begun"
AHEAD = 32
"""Units that are looked at ahead of the one in work: each takes four answers of a store, and most have been done."""


class _Seen(NamedTuple):
    """What stands of a unit."""

    failure: Failure | None
    record: Record | None
    whole: bool
    """Whether the item is there by which the collection leads to the unit's mosaic, and what it names."""


def run(job: Job, part: tuple[int, int], *, renew: bool = False) -> dict[str, Any]:
    """Do what is new of part I of N of a job's units. Returns counts of what became of them, and why any failed.

    With `renew`, mosaics of another model are made again with the job's. A unit that fails is recorded and stops no
    other. Raises OutputError for another job's output, CatalogError where the catalogue cannot be asked or has nothing
    for a new archive, and what it is told of where a disk is full: these are no unit's fault.
    """
    catalogue = Catalogue(job)
    if not check(job.output, job.identity(), renew=renew):
        catalogue.refuse_nothing()
    claim(job.output, job.identity(), renew=renew)
    units = catalogue.units()
    mine = share(units, part)
    count, failures = Counter[str](), []
    try:
        with Kept() as workers, ThreadPoolExecutor(AHEAD, "look") as pool:
            looks = ahead(pool, partial(_look, job), mine, AHEAD)
            for number, (unit, seen) in enumerate(zip(mine, looks, strict=True), start=1):
                if number < len(mine) and mine[number].interval != unit.interval:
                    catalogue.ask(unit.interval)
                    catalogue.look_ahead(mine[number].interval)
                outcome = _visit(job, catalogue, unit, seen, f"{unit.name} ({number} of {len(mine)})", workers)
                count[outcome] += 1
                if outcome == "failed" and (failure := failure_of(job.output / unit.path)):
                    failures.append({"unit": unit.name, "reason": failure.reason})
    finally:
        sweep(job.output)
        if isinstance(job.output, ObjectPath) and units:
            leave_scratch(job.work(units[0]).parent)
        collection = write_collection(job)
    return {
        "output": str(job.output),
        "units": len(mine),
        **{outcome: count[outcome] for outcome in ("done", "already_done", "empty", "failed", "running")},
        "failures": failures,
        "collection": None if collection is None else str(collection),
    }


def _look(job: Job, unit: Unit) -> _Seen:
    folder = job.output / unit.path
    failure, record = failure_of(folder), record_of(folder)
    if record is None or record.state == "empty":
        return _Seen(failure, record, whole=False)
    item = item_in(read(folder / f"{unit.name}_x{job.upscale.scale}.json"))
    return _Seen(failure, record, item is not None and outputs_of(item) <= names(folder))


def _visit(job: Job, catalogue: Catalogue, unit: Unit, seen: _Seen, title: str, workers: Workers) -> str:
    """Do one unit where there is anything to do; what became of it. `seen` may be of a while ago."""
    folder, items, newest, lacking = job.output / unit.path, list[ItemReference](), None, None
    catalogue.ask(unit.interval)
    try:
        items = catalogue.items(unit)
        lacking = tuple(each.to_dict() for each in catalogue.left_out(unit)) or None
    except NothingFoundError as error:
        newest = None if error.newest is None else stamp(error.newest)
    except (CatalogError, ArgumentError) as error:  # its items are not as they must be, or have no classes
        with alone(job.output):
            if failure_of(folder) is None:
                write_failure(folder, (), str(error))
        return "failed"
    model = job.upscale_plan.model.sha256 if items else None
    state: Literal["done", "empty"] = "done" if items else "empty"
    wanted = Record(state=state, sources=_ids(items), model=model, newest=newest, left_out=lacking)
    # A failure may have been forgotten since then, so that the unit is tried again.
    if (outcome := _settled(job, unit, seen if seen.failure is None else _look(job, unit), wanted)) is not None:
        return outcome
    lease = acquire(job.output, unit.name)
    if lease is None:
        return "running"
    with lease:
        if (outcome := _settled(job, unit, _look(job, unit), wanted)) is not None:  # another runner has come first
            return outcome
        forget_failure(folder)
        try:
            return _attempt(job, unit, items, wanted, lease, title, workers)
        except RsupError as error:
            if is_for_want_of_room(error):  # no unit's fault: the next run tries this one again
                raise
            say(f"{title} failed: {error}")
            write_failure(folder, wanted.sources, str(error))
            return "failed"


def _ids(items: Sequence[ItemReference]) -> tuple[str, ...]:
    """In an order of their own: that of a search is the clouds', which are measured anew now and then."""
    return tuple(sorted(item.id for item in items))


def _settled(job: Job, unit: Unit, seen: _Seen, wanted: Record) -> str | None:
    """What became of a unit, by what stands of it, where nothing is to be done about it; None where there is."""
    if seen.failure is not None and seen.failure.sources == wanted.sources:
        return "failed"
    if seen.failure is not None or os.path.lexists(job.work(unit)):
        return None
    return _answers(seen, wanted)


def _answers(seen: _Seen, wanted: Record) -> str | None:
    """The outcome where the record is of these items; a mosaic stays when its items are listed no more."""
    record = seen.record
    if record is None or (record.sources != wanted.sources and (wanted.sources or record.state == "empty")):
        return None
    if record.state == "done":
        stands = not wanted.sources or (record.model == wanted.model and seen.whole)
        return "already_done" if stands else None
    return "empty" if wanted.sources or record.newest == wanted.newest else None


def _news(record: Record | None, wanted: Record) -> str:
    if record is None or record.state == "empty":
        return f"{len(wanted.sources)} items"
    new, gone = len(set(wanted.sources) - set(record.sources)), len(set(record.sources) - set(wanted.sources))
    if new or gone:
        return f"{new} items are new and {gone} gone since it was done: it is done again"
    why = (
        "it was made with another model"
        if record.model != wanted.model
        else "an output is gone, or its item is damaged"
    )
    return f"{why}: it is done again"


def _attempt(
    job: Job,
    unit: Unit,
    items: list[ItemReference],
    wanted: Record,
    lease: Held,
    title: str,
    workers: Workers,
) -> str:
    """End what a killed runner has begun to publish; then make and publish what is wanted, or record that it is empty.

    Raises an RsupError where it cannot be done; what has been computed stays for the next attempt.
    """
    folder, work = job.output / unit.path, job.work(unit)
    if isinstance(folder, ObjectPath):
        own_scratch(work.parent)
    own(work, inside=False)  # before anything is opened in it
    with Ledger.open(work / LEDGER) as ledger:
        own(work)
        publish = _publication(job, unit, ledger)
        seen = _look(job, unit)
        outcome = _answers(seen, wanted)
        if outcome is None and items:
            say(f"{title}: {_news(seen.record, wanted)}")
            outcome = _make(job, unit, items, wanted, ledger, workers)
        elif outcome is None:
            write_record(folder, wanted)
            outcome = "empty"
        if outcome == "done":
            if not lease.held():  # this runner slept for long: what it has made may be older than what is there
                return "running"
            publish()
        ledger.forget()
    clear(work)
    return outcome


def _make(
    job: Job,
    unit: Unit,
    items: list[ItemReference],
    wanted: Record,
    ledger: Ledger,
    workers: Workers,
) -> str:
    """Fetch and upscale, up to what is to be published; "empty" where no pixel is left of the items."""
    folder, work = job.output / unit.path, ledger.path.parent
    begun = {"rsup": VERSION, "items": [item.id for item in items], "model": wanted.model}
    if not (ledger.belongs_to(begun) and BEGUN in ledger.done()):
        for path in work.iterdir():  # what an attempt with other items left
            if path != ledger.path:
                clear(path)
        ledger.begin(begun, overwrite=True)
        ledger.record(BEGUN, "done")
    scene = work / f"{unit.name}.zarr"
    request = job.fetch_request(unit.cell.box, unit.cell.crs, unit.interval, scene)
    try:
        with show_progress("fetch", "chunks") as progress:
            left_out = [LeftOut(each["id"], each["reason"]) for each in wanted.left_out or ()]
            made = fetch.run(fetch.lay_out(request, unit.cell.window, items, left_out), progress)
    except fetch.NoPixelError:
        before = record_of(folder)
        if before is not None and before.state == "done":
            raise  # the mosaic of before stands, and is not what there is now
        write_record(folder, wanted.model_copy(update={"state": "empty", "model": None}))
        return "empty"
    upscale(job.upscale_request(scene), workers=workers)
    join(work / f"{unit.name}_x{job.upscale.scale}.json", job)
    write_record(work, wanted.model_copy(update={"left_out": tuple(made["left_out"]) or None}))
    return "done"


def _publication(job: Job, unit: Unit, ledger: Ledger) -> Callable[[], None]:
    """What publishes a unit's outputs from the folder of an attempt: the record last, for it says that all are there.

    In a folder, what a killed runner has begun to publish is ended first. What has come to a store only in part has no
    record there: it is uploaded again, from here, or by another runner when that has made it.
    """
    names = [f"{unit.name}.zarr"] if job.keep_scenes else []
    names += [f"{unit.name}{ending}" for ending in job.endings]
    folder, work = job.output / unit.path, ledger.path.parent
    fresh = [work / name for name in [*names, RECORD]]
    if isinstance(folder, ObjectPath):
        return partial(upload, {path: folder / path.name for path in fresh})
    publication = Publication(ledger, {path: folder / path.name for path in fresh}, overwrite=True)
    publication.settle()
    return publication.publish
