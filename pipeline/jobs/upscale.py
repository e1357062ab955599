"""The order of things: what `rsup upscale` does first, next and last. No other file knows it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsup.models.base.errors import ChunkError, OutputError, RsupError, remedy
from rsup.models.base.files import writing
from rsup.models.base.progress import say, show_progress
from rsup.pipeline.lattice import Chunk, count_chunks
from rsup.pipeline.ledger import Ledger
from rsup.pipeline.memory import give_back_memory, keep_for_the_next
from rsup.pipeline.mosaics import store as mosaic
from rsup.pipeline.mosaics.planes import write_chunk
from rsup.pipeline.public import printable
from rsup.pipeline.release import VERSION
from rsup.pipeline.scenes.scene import Scene
from rsup.pipeline.workers import local, slurm, standing, tasks
from rsup.pipeline.workers.model import ModelPlugin, worker_model

from .artefacts import OUTPUTS, artefacts_of
from .finish import finish
from .forecast import forecast
from .publishing import PUBLISHED, Publication, clear, own
from .room import check_mosaic
from .upscale_plan import UpscalePlan, UpscaleRequest

if TYPE_CHECKING:
    from distributed import Client

    from rsup.models.sensors.response import Response
    from rsup.pipeline.workers.kept import Workers


ARITHMETIC = "arithmetic"
"""The record that says what the chunks were computed in."""


def upscale(request: UpscaleRequest, *, dry_run: bool = False, workers: Workers = local.local_client) -> dict[str, Any]:
    """Super-resolve a scene into a published mosaic; a rerun goes on where an earlier one stopped.

    `workers` gives those of this machine. Returns the plan's summary, what was done and the consistency figures.
    Raises an RsupError where it could not be done; ChunkError where some chunks failed three times, after all others
    are done.
    """
    start = time.monotonic()
    plan = UpscalePlan.make(request)
    if dry_run:
        return plan.summary() | forecast(plan)
    if plan.false_colour:
        say(f"{', '.join(plan.false_colour)}: in false colour through a network made for {', '.join(plan.model.bands)}")
    try:
        figures = _carry_out(plan, workers)
    except OSError as error:  # of no output: who writes one says which
        helps = remedy(error) or "mend that"
        raise RsupError(
            f"the work stopped ({str(error) or type(error).__name__}): {helps}, and run the same command again to go on"
        ) from error
    if figures is None:
        return plan.summary() | {"already_done": True}
    seconds = round(time.monotonic() - start, 2)
    return plan.summary() | {"already_done": False, "consistency": figures, "seconds": seconds}


def _carry_out(plan: UpscalePlan, workers: Workers) -> dict[str, float] | None:
    """Compute and publish what is not there yet; the consistency figures, or None where all was."""
    keep_for_the_next()
    request = plan.request
    for folder in (plan.work.parent, plan.work):
        own(folder, inside=False)
    with Ledger.open(plan.work / "ledger.jsonl") as ledger:
        own(plan.work)
        # What a killed run has begun to publish is its own outputs, whatever is asked for now.
        theirs = _publication(plan, ledger, artefacts_of(plan.name, *_made(ledger)))
        ended = theirs.settle() and ledger.belongs_to(plan.fingerprint())
        publication = _publication(plan, ledger, plan.artefacts())
        if request.overwrite or not ledger.done():
            _refuse_leftover(plan)  # before the ledger forgets whose it is
        ledger.begin(plan.fingerprint(), overwrite=request.overwrite and not ended)
        if PUBLISHED in ledger.done():
            if all(final.exists() for final in publication.moves.values()):
                _drop_store(plan)
                return None
            publication.standing()  # refused before the ledger forgets whose they are
            ledger.restart()  # somebody took the outputs away
        if not ledger.done():
            publication.standing()
            for path in plan.work.iterdir():  # what an abandoned run left
                if path != ledger.path:
                    clear(path)
        if "finished" not in ledger.done():
            _compute(plan, ledger, workers)
            ledger.record("finished", "done", figures=finish(plan, ledger))
            give_back_memory()
        publication.publish()
        _drop_store(plan)
        return ledger.info("finished").figures


def _made(ledger: Ledger) -> tuple[tuple[str, ...], bool]:
    """Which outputs the run that the ledger is of makes: their kinds, and whether with uncertainty."""
    known = ledger.fingerprint
    return tuple(known.get("outputs") or OUTPUTS), bool(known.get("uncertainty"))


def _publication(plan: UpscalePlan, ledger: Ledger, names: dict[str, str]) -> Publication:
    """Of the outputs of that name."""
    moves = {plan.work / name: plan.request.output / name for name in names.values()}
    return Publication(ledger, moves, overwrite=plan.request.overwrite)


def _drop_store(plan: UpscalePlan) -> None:
    """Remove the chunks where they are no output."""
    if "zarr" not in plan.request.outputs:
        clear(plan.store)


def _refuse_leftover(plan: UpscalePlan) -> None:
    """Raise OutputError where an output of another mosaic would stand beside this one's, which has none of the kind."""
    asked = plan.artefacts()
    for key, name in artefacts_of(plan.name, OUTPUTS, uncertainty=True).items():
        if key not in asked and (leftover := plan.request.output / name).exists():
            raise OutputError(
                f"{leftover} would stand beside a mosaic that it is not of: remove it, or choose another --output"
            )


def _compute(plan: UpscalePlan, ledger: Ledger, workers: Workers) -> None:
    """Every chunk that is not done yet, on the workers."""
    request, scene = plan.request, plan.scene
    store = plan.store
    if not store.exists():
        check_mosaic(plan.work, plan.summary()["bytes"], request.scene, request.output)
    about, uncertain = _provenance(plan), request.uncertainty
    mosaic.create_mosaic(store, plan.window, scene.crs, request.scale, request.bands, request.chunk, about, uncertain)
    total = count_chunks(plan.window, request.chunk)
    finished = ledger.done()
    done = sum(chunk.key in finished for chunk in plan.chunks())
    if done == total:
        return
    pending = (chunk for chunk in plan.chunks() if chunk.key not in finished)
    with _client(plan, ledger, workers) as (client, held), show_progress("upscale", "chunks") as progress:
        responses = plan.responses if request.consistency == "sensor" else None
        task = partial(_chunk_task, scene, store, request.bands, request.uncertainty, responses, held)
        progress(done, total)

        def on_done(chunk: Chunk, _: None) -> None:
            nonlocal done
            done += 1
            ledger.record(chunk.key, "done")
            progress(done, total)

        def on_failed(chunk: Chunk, reason: str) -> None:
            ledger.record(chunk.key, "failed", reason=reason)

        tasks.run(client, task, pending, tasks.in_flight(client), on_done, on_failed)
    if failed := ledger.failed():
        key, record = next(iter(failed.items()))
        raise ChunkError(
            f"{len(failed)} of {total} chunks failed (chunk {key}: {record.reason}); the others are done: "
            "run the same command again to try the failed ones"
        )


@contextmanager
def _client(plan: UpscalePlan, ledger: Ledger, workers: Workers) -> Iterator[tuple[Client, tuple[str, str]]]:
    """Workers that hold the network: under which name, and in which arithmetic all of them compute.

    A run that goes on keeps the arithmetic it was begun in: chunks in bfloat16 and in float32 are up to 4 DN apart.
    """
    request, pool = plan.request, plan.pool
    if request.scheduler is not None:
        connection: AbstractContextManager[Client] = standing.remote_client(request.scheduler, plan.security)
    elif request.cluster is not None:
        connection = slurm.slurm_client(request.workers or 1, plan.work)
    else:
        assert pool is not None  # make() planned it
        connection = workers(pool, plan.threads())
    plugin = ModelPlugin(sha256(str(plan.work).encode()).hexdigest()[:16], plan.model, pool)
    with connection as client, tasks.holding(client, plugin):
        arithmetic = ledger.settled(ARITHMETIC)
        if arithmetic is None:
            arithmetic = tasks.common_arithmetic(client, plugin)
            ledger.record(ARITHMETIC, "settled", value=arithmetic)
        yield client, (plugin.name, arithmetic)


def _chunk_task(
    scene: Scene,
    store: Path,
    bands: tuple[str, ...],
    uncertainty: bool,
    responses: dict[str, Response] | None,
    held: tuple[str, str],
    chunk: Chunk,
) -> None:
    """On a worker: read, upscale and write one chunk; `held` is what _client gave.

    `responses`: what holds the mosaic to its scene; None for block means.
    """
    from rsup.pipeline.mosaics.chunk import upscale_chunk  # on the worker: the command itself needs no torch

    name, arithmetic = held
    tiles = worker_model(name).tiles(arithmetic, responses)  # first: it settles what the cache may hold
    data = upscale_chunk(scene.read, scene.bands, chunk.window, bands, tiles, uncertainty=uncertainty, mosaic=scene.aoi)
    with writing(store, OutputError, goes_on=True):
        write_chunk(store, bands, chunk.place, *data)
    del data
    give_back_memory()


def _provenance(plan: UpscalePlan) -> dict[str, Any]:
    """What the mosaic says of its making. No times and no paths: the same input gives the same bytes.

    No addresses either: the item has those of its sources.
    """
    return {
        "title": printable(plan.name),
        "model": plan.model.name,
        "model_sha256": plan.model.sha256,
        "held_by": plan.request.consistency,
        "software": f"rsup {VERSION}",
        "items": [{key: value for key, value in item.items() if key != "href"} for item in plan.sources],
    }
