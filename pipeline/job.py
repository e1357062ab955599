"""The order of things: what `rsup fetch` and `rsup upscale` do first, next and last. No other file knows it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from rsup.models.atomic import refuse_links
from rsup.models.errors import remedy, unwritable
from rsup.models.upscaler import descriptor_of, load

from . import cluster, cog, mosaic, report, stac_item
from .consistency import consistency, count_pixels
from .environment import check_libraries
from .errors import ArgumentError, ChunkError, OutputError, RsupError, SceneError
from .grid import Window, chunks, count_chunks
from .ledger import Ledger
from .passes import false_colour, passes, tiling_of
from .pool import Pool
from .progress import progress, say
from .public import printable
from .publishing import PUBLISHED, Publication, clear
from .scene import Scene, open_scene
from .sentinel2 import common_name
from .worker import ModelPlugin, give_back_memory, is_network, worker_model

if TYPE_CHECKING:
    from distributed import Client, Security

    from rsup.models.upscaler import ModelDescriptor

    from .request import FetchRequest

SCALES = (4, 8)
PACKED = 4
"""Times smaller than its pixels no mosaic with ground in most of it becomes; its COG comes on top."""

ARITHMETIC = "arithmetic"
"""The record that says what the chunks were computed in."""


def fetch(request: FetchRequest, *, dry_run: bool = False) -> dict[str, Any]:
    """Search, then read, fuse and write every chunk of one scene store; a rerun goes on where an earlier one stopped.

    Returns what was fetched, or with `dry_run` what would be. Raises an RsupError where it cannot be done.
    """
    from . import fetch as fetching  # here: upscale and its workers can do without what reads catalogues

    plan = fetching.plan(request)
    if dry_run:
        return plan.to_dict()
    with progress("fetch", "chunks") as report_progress:
        return fetching.run(plan, report_progress)


@dataclass(frozen=True)
class UpscaleRequest:
    """What `rsup upscale` was asked for."""

    scene: Path
    scale: int
    output: Path = Path()
    model: str = "default"
    bands: tuple[str, ...] = ("red", "green", "blue")
    device: str = "auto"
    workers: int | None = None
    scheduler: str | None = None
    tls_ca: Path | None = None
    """In PEM, for a scheduler behind tls://: the authority both sides trust, and this side's certificate and key."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    chunk: int = 512
    """Side of a mosaic chunk, in scene pixels: what one task computes and one file a band holds."""
    overwrite: bool = False


@dataclass(frozen=True)
class UpscalePlan:
    """A request that was checked against the scene and the model; nothing is written yet."""

    request: UpscaleRequest
    scene: Scene
    model: ModelDescriptor
    pool: Pool | None
    """The workers of this machine; None where a scheduler has them."""
    security: Security | None
    """What is shown to that scheduler."""

    @classmethod
    def make(cls, request: UpscaleRequest) -> UpscalePlan:
        """Raises ArgumentError, SceneError or ModelError where the request cannot be carried out."""
        if request.scale not in SCALES:
            raise ArgumentError(f"--scale {request.scale}: choose 4 (2.5 m) or 8 (1.25 m)")
        if not 64 <= request.chunk <= 4096:
            raise ArgumentError(f"--chunk {request.chunk}: choose 64 to 4096 scene pixels")
        # Absolute: workers of a standing cluster have a working folder of their own.
        scene = open_scene(request.scene.resolve())
        request = replace(request, bands=tuple(map(common_name, request.bands)))
        absent = [band for band in request.bands if band not in scene.bands]
        if absent or not request.bands:
            raise ArgumentError(
                f"--bands {','.join(request.bands)}: {request.scene} has {', '.join(scene.bands)}; choose from these"
            )
        if len(set(request.bands)) < len(request.bands):
            raise ArgumentError(f"--bands {','.join(request.bands)}: a band is named twice")
        if unfit := [band for band in request.bands if not mosaic.is_name(band)]:
            raise ArgumentError(f"--bands {unfit[0]}: no array of a mosaic can be called that; rename it in the scene")
        pool, security, tls = None, None, (request.tls_ca, request.tls_cert, request.tls_key)
        if request.scheduler is None:
            if any(tls):
                raise ArgumentError("--tls-ca, --tls-cert and --tls-key are for a cluster that --scheduler names")
            pool = Pool.plan(request.device, request.workers)
        elif request.workers is not None or request.device != "auto":
            raise ArgumentError("--scheduler names a cluster that stands already; leave out --workers and --device")
        else:
            security = cluster.credentials(request.scheduler, *tls)
        plan = cls(request, scene, descriptor_of(request.model, request.scale), pool, security)
        if pool is not None:
            plan.threads()
        check_libraries(scene.crs)
        return plan

    @property
    def name(self) -> str:
        """Name of every output, without its ending."""
        return f"{self.request.scene.resolve().stem}_x{self.request.scale}"

    @property
    def window(self) -> Window:
        """The ground the mosaic covers."""
        return self.scene.aoi

    @property
    def work(self) -> Path:
        """Folder of the unfinished outputs and the ledger, hidden beside the finished ones."""
        return self.request.output.resolve() / ".rsup" / self.name

    @property
    def sources(self) -> list[dict[str, Any]]:
        """The items the scene was made of; none where it does not say, as a user's own GeoTIFF."""
        items = self.scene.attributes.get("items")
        return items if isinstance(items, list) else []

    @property
    def false_colour(self) -> list[str]:
        """The bands that the network sees in the place of others."""
        return false_colour(self.request.bands, self.scene.bands, self.model)

    def keys(self) -> Iterator[str]:
        """The ledger key of every chunk of the mosaic, one by one: there may be millions."""
        return (f"{i}.{j}" for (i, j), _ in chunks(self.window, self.request.chunk))

    def fingerprint(self) -> dict[str, Any]:
        """What two runs must share for their chunks to belong to one mosaic."""
        tiling = tiling_of(self.model)
        return {
            "scene": self.scene.fingerprint(),
            "model": self.model.sha256,
            "scale": self.request.scale,
            "bands": list(self.request.bands),
            "chunk": self.request.chunk,
            "lattice": [tiling.size, tiling.halo, tiling.overlap, tiling.ramp],
            "version": version("rsup"),
        }

    def task_bytes(self) -> int:
        """Memory one chunk in flight needs at most: its float32 sum, one band's projection, its result, its input."""
        height, width = (min(self.request.chunk, side) for side in (self.window.height, self.window.width))
        cover = tiling_of(self.model).cover(Window(0, 0, height, width))
        return (
            height * width * self.request.scale**2 * (len(self.request.bands) * (4 + 2) + 4 * 6)
            + cover.height * cover.width * 2 * 4
        )

    def threads(self) -> int:
        """Chunks a worker of this machine may have in flight; raises ArgumentError where not one fits its memory."""
        assert self.pool is not None
        return self.pool.threads(self.task_bytes(), is_network(self.model))

    def summary(self) -> dict[str, Any]:
        """The plan for people and machines: what would be computed and written."""
        tiling, scale, window = tiling_of(self.model), self.request.scale, self.window
        steps = passes(self.request.bands, self.scene.bands, self.model.bands)
        return {
            "scene": str(self.request.scene),
            "model": self.model.name,
            "sha256": self.model.sha256,
            "scale": scale,
            "bands": list(self.request.bands),
            "false_colour": self.false_colour,
            "crs": self.scene.crs,
            "bounds": list(window.bounds),
            "shape": [window.height * scale, window.width * scale],
            "chunks": count_chunks(window, self.request.chunk),
            "tiles": tiling.count(window) * len(steps),
            "bytes": window.height * window.width * scale**2 * 2 * len(self.request.bands),
            "outputs": [str(self.request.output / name) for name in self.artefacts()],
        }

    def artefacts(self) -> list[str]:
        """Names of the outputs in the order they are published: the store last, for it marks the end."""
        return [f"{self.name}.{ending}" for ending in ("html", "json", "tif", "zarr")]


def upscale(request: UpscaleRequest, *, dry_run: bool = False) -> dict[str, Any]:
    """Super-resolve a scene into a published mosaic; a rerun goes on where an earlier one stopped.

    Returns the plan's summary, what was done and the consistency figures. Raises an RsupError where it could not be
    done; ChunkError where some chunks failed three times, after all others are done.
    """
    start = time.monotonic()
    plan = UpscalePlan.make(request)
    if dry_run:
        return plan.summary() | _forecast(plan)
    if plan.false_colour:
        say(f"{', '.join(plan.false_colour)}: in false colour through a network made for {', '.join(plan.model.bands)}")
    try:
        figures = _carry_out(plan)
    except OSError as error:  # of no output: who writes one says which
        helps = remedy(error) or "mend that"
        raise RsupError(
            f"the work stopped ({str(error) or type(error).__name__}): {helps}, and run the same command again to go on"
        ) from error
    if figures is None:
        return plan.summary() | {"already_done": True}
    seconds = round(time.monotonic() - start, 2)
    return plan.summary() | {"already_done": False, "consistency": figures, "seconds": seconds}


def _carry_out(plan: UpscalePlan) -> dict[str, float] | None:
    """Compute and publish what is not there yet; the consistency figures, or None where all was."""
    request = plan.request
    for folder in (plan.work.parent, plan.work):
        _own(folder, inside=False)
    with Ledger.open(plan.work / "ledger.jsonl") as ledger:
        _own(plan.work)
        moves = {plan.work / name: request.output / name for name in plan.artefacts()}
        publication = Publication(ledger, moves, overwrite=request.overwrite)
        ended = publication.settle() and ledger.belongs_to(plan.fingerprint())
        ledger.begin(plan.fingerprint(), overwrite=request.overwrite and not ended)
        if PUBLISHED in ledger.done():
            if all(final.exists() for final in moves.values()):
                return None
            publication.standing()  # refused before the ledger forgets whose they are
            ledger.restart()  # somebody took the outputs away
        if not ledger.done():
            publication.standing()
            for path in plan.work.iterdir():  # what an abandoned run left
                if path != ledger.path:
                    clear(path)
        if "finished" not in ledger.done():
            _compute(plan, ledger)
            ledger.record("finished", "done", figures=_finish(plan))
        publication.publish()
        return ledger.info("finished").figures


def _own(path: Path, *, inside: bool = True) -> None:
    """Raise OutputError where a link, pipe or device stands in what is the command's own."""
    try:
        refuse_links(path, inside=inside)
    except OSError as error:
        raise OutputError(unwritable(error.filename or path, error)) from error


def _forecast(plan: UpscalePlan) -> dict[str, Any]:
    """Where the work would run, and the seconds the network would take by the time one tile takes here."""
    request, pool = plan.request, plan.pool
    if pool is None:
        return {"workers": request.scheduler}
    import torch

    model = load(request.model, request.scale, pool.device, pool.cores)
    tile = torch.zeros(model.batch, 3, plan.model.tile, plan.model.tile)
    model(tile).cpu()  # the first call also chooses kernels and fills caches
    start = time.monotonic()
    model(tile).cpu()
    each = (time.monotonic() - start) / model.batch
    workers = [pool.device if pin is None else f"{pool.device}:{pin}" for pin in pool.pins]
    return {"workers": workers, "network_seconds": round(plan.summary()["tiles"] * each / len(workers), 1)}


def _compute(plan: UpscalePlan, ledger: Ledger) -> None:
    """Every chunk that is not done yet, on the workers."""
    request, scene = plan.request, plan.scene
    store = plan.work / f"{plan.name}.zarr"
    if not store.exists():
        _check_room(plan)
    mosaic.create_mosaic(store, plan.window, scene.crs, request.scale, request.bands, request.chunk, _provenance(plan))
    total = count_chunks(plan.window, request.chunk)
    finished = ledger.done()
    done = sum(key in finished for key in plan.keys())
    if done == total:
        return
    pending = (key for key in plan.keys() if key not in finished)
    with _client(plan, ledger) as (client, held), progress("upscale", "chunks") as report_progress:
        task = partial(_chunk_task, scene, store, request.bands, request.chunk, plan.window, held)
        report_progress(done, total)

        def on_done(key: str, _: None) -> None:
            nonlocal done
            done += 1
            ledger.record(key, "done")
            report_progress(done, total)

        def on_failed(key: str, reason: str) -> None:
            ledger.record(key, "failed", reason=reason)

        cluster.run(client, task, pending, cluster.in_flight(client), on_done, on_failed)
    if failed := ledger.failed():
        key, record = next(iter(failed.items()))
        raise ChunkError(
            f"{len(failed)} of {total} chunks failed (chunk {key}: {record.reason}); the others are done: "
            "run the same command again to try the failed ones"
        )


def _check_room(plan: UpscalePlan) -> None:
    """Raise OutputError where the mosaic cannot fit on the disk, however well it is packed."""
    needed, free = plan.summary()["bytes"], psutil.disk_usage(str(plan.work)).free
    if needed > PACKED * free:
        raise OutputError(
            f"the mosaic of {plan.request.scene} has {needed / 1e9:,.0f} GB of pixels, and {plan.request.output} has "
            f"{free / 1e9:,.0f} GB free; cut the scene, free some space or choose another --output"
        )


@contextmanager
def _client(plan: UpscalePlan, ledger: Ledger) -> Iterator[tuple[Client, tuple[str, str]]]:
    """Workers that hold the network: under which name, and in which arithmetic all of them compute.

    A run that goes on keeps the arithmetic it was begun in: chunks in bfloat16 and in float32 are up to 4 DN apart.
    """
    request, pool = plan.request, plan.pool
    if request.scheduler is not None:
        connection = cluster.remote_client(request.scheduler, plan.security)
    else:
        assert pool is not None  # make() planned it
        connection = cluster.local_client(pool, plan.threads())
    plugin = ModelPlugin(sha256(str(plan.work).encode()).hexdigest()[:16], plan.model, pool)
    with connection as client, cluster.holding(client, plugin):
        if ARITHMETIC not in ledger.done():
            ledger.record(ARITHMETIC, "done", value=cluster.common_arithmetic(client, plugin))
        yield client, (plugin.name, ledger.info(ARITHMETIC).value or "")


def _chunk_task(
    scene: Scene, store: Path, bands: tuple[str, ...], chunk: int, window: Window, held: tuple[str, str], key: str
) -> None:
    """On a worker: read, upscale and write the chunk `key` ("row.column"); `held` is what _client gave."""
    from .upscale import upscale_chunk  # on the worker: the command itself needs no torch

    index = tuple(int(part) for part in key.split("."))
    row, col = window.row + index[0] * chunk, window.col + index[1] * chunk
    part = Window(row, col, chunk, chunk).intersect(window)
    assert part is not None  # keys() cuts the window itself
    name, arithmetic = held
    plugin = worker_model(name)
    model = plugin.upscaler(arithmetic)  # first: it settles what the cache may hold
    data = upscale_chunk(scene.read, scene.bands, part, bands, model, plugin.lock, plugin.cache)
    try:
        mosaic.write_chunk(store, bands, (index[0], index[1]), data)
    except OSError as error:
        raise OutputError(f"{unwritable(store, error)}; the same command then goes on") from error
    del data
    give_back_memory()


def _finish(plan: UpscalePlan) -> dict[str, float]:
    """From the full-resolution chunks to every output, in the work folder. Returns the consistency figures."""
    request, scene, model = plan.request, plan.scene, plan.model
    page, item, tif, store = (plan.work / name for name in plan.artefacts())
    with progress("overviews", "chunks") as report_progress:
        mosaic.build_overviews(store, report_progress)
    if not mosaic.has_valid_pixel(store):
        raise SceneError(f"{request.scene} has no valid pixel in {', '.join(request.bands)}: nothing to upscale")
    with progress("COG", "chunks") as report_progress:
        cog.write_cog(store, tif, report_progress)
    figures = consistency(scene, store, request.bands, request.scale) | count_pixels(scene, request.bands)
    if figures["lost_pixels"]:
        say(f"{request.scene}: {figures['lost_pixels']:,} pixels came from an item and are nodata now: it is damaged")
    about = {"name": model.name, "sha256": model.sha256, "metadata": model.metadata}
    assets = dict(zip(("page", "cog", "zarr"), (page.name, tif.name, store.name), strict=True))
    document = stac_item.stac_item(
        plan.name,
        plan.window,
        scene.crs,
        request.scale,
        request.bands,
        about,
        plan.sources,
        assets,
        interval=scene.interval,
        false_colour=plan.false_colour,
    )
    stac_item.write_item(document, item)
    report.write_page(page, scene, store, request.bands, about, figures)
    return figures


def _provenance(plan: UpscalePlan) -> dict[str, Any]:
    """What the mosaic says of its making. No times and no paths: the same input gives the same bytes.

    No addresses either: the item has those of its sources.
    """
    return {
        "title": printable(plan.name),
        "model": plan.model.name,
        "model_sha256": plan.model.sha256,
        "scale": plan.request.scale,
        "software": f"rsup {version('rsup')}",
        "items": [{key: value for key, value in item.items() if key != "href"} for item in plan.sources],
    }
