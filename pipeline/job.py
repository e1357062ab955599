"""The order of things: what `rsup fetch` and `rsup upscale` do first, next and last. No other file knows it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from rsup.models.upscaler import descriptor_of, load

from . import cluster, cog, mosaic, report, stac_item
from .consistency import consistency
from .errors import ArgumentError, ChunkError, OutputError, SceneError
from .grid import Window, chunks
from .ledger import Ledger
from .passes import passes, tiling_of
from .progress import progress
from .scene import Scene, open_scene

if TYPE_CHECKING:
    from distributed import Client

    from rsup.models.upscaler import ModelDescriptor

    from .request import FetchRequest

SCALES = (4, 8)


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
    chunk: int = 512
    """Side of a mosaic chunk, in scene pixels: what one task computes and one file a band holds."""
    overwrite: bool = False


@dataclass(frozen=True)
class UpscalePlan:
    """A request that was checked against the scene and the model; nothing is written yet."""

    request: UpscaleRequest
    scene: Scene
    model: ModelDescriptor
    pool: cluster.Pool | None
    """The workers of this machine; None where a scheduler has them."""

    @classmethod
    def make(cls, request: UpscaleRequest) -> UpscalePlan:
        """Raises ArgumentError, SceneError or ModelError where the request cannot be carried out."""
        if request.scale not in SCALES:
            raise ArgumentError(f"--scale {request.scale}: choose 4 (2.5 m) or 8 (1.25 m)")
        if not 64 <= request.chunk <= 4096:
            raise ArgumentError(f"--chunk {request.chunk}: choose 64 to 4096 scene pixels")
        # Absolute: workers of a standing cluster have a working folder of their own.
        scene = open_scene(request.scene.resolve())
        absent = [band for band in request.bands if band not in scene.bands]
        if absent or not request.bands:
            raise ArgumentError(f"--bands {','.join(request.bands)}: {request.scene} has {', '.join(scene.bands)}")
        if len(set(request.bands)) < len(request.bands):
            raise ArgumentError(f"--bands {','.join(request.bands)}: a band is named twice")
        pool = None
        if request.scheduler is None:
            pool = cluster.Pool.plan(request.device, request.workers)
        elif request.workers is not None or request.device != "auto":
            raise ArgumentError("--scheduler names a cluster that stands already; leave out --workers and --device")
        return cls(request, scene, descriptor_of(request.model, request.scale), pool)

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

    def keys(self) -> dict[str, tuple[tuple[int, int], Window]]:
        """Every chunk of the mosaic by its ledger key."""
        return {f"{i}.{j}": ((i, j), window) for (i, j), window in chunks(self.window, self.request.chunk)}

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
        pixels = (self.request.chunk * self.request.scale) ** 2
        cover = tiling_of(self.model).cover(Window(0, 0, self.request.chunk, self.request.chunk))
        return pixels * (len(self.request.bands) * (4 + 2) + 4 * 6) + cover.height * cover.width * 2 * 4

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
            "crs": self.scene.crs,
            "bounds": list(window.bounds),
            "shape": [window.height * scale, window.width * scale],
            "chunks": len(self.keys()),
            "tiles": len(tiling.tiles(window)) * len(steps),
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
    try:
        with Ledger.open(plan.work / "ledger.jsonl", plan.fingerprint(), overwrite=request.overwrite) as ledger:
            if "published" in ledger.done():
                if all((request.output / name).exists() for name in plan.artefacts()):
                    return plan.summary() | {"already_done": True}
                ledger.restart()  # somebody took the outputs away
            if not ledger.done():
                _make_room(plan, ledger.path)
            if "finished" not in ledger.done():
                _compute(plan, ledger)
                ledger.record("finished", "done", figures=_finish(plan))
            _publish(plan)
            ledger.record("published", "done")
            figures = ledger.info("finished")["figures"]
    except OSError as error:
        raise OutputError(
            f"cannot write in {request.output}: {error.strerror or error}; "
            "mend that (space, permission) and run the same command again to go on"
        ) from error
    seconds = round(time.monotonic() - start, 2)
    return plan.summary() | {"already_done": False, "consistency": figures, "seconds": seconds}


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


def _make_room(plan: UpscalePlan, ledger: Path) -> None:
    """Before the first chunk: refuse to replace somebody's files unasked, drop what an abandoned run left."""
    taken = [path for name in plan.artefacts() if (path := plan.request.output / name).exists()]
    if taken and not plan.request.overwrite:
        raise OutputError(f"{taken[0]} exists already; choose another --output or pass --overwrite")
    for path in plan.work.iterdir():
        if path != ledger:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _compute(plan: UpscalePlan, ledger: Ledger) -> None:
    """Every chunk that is not done yet, on the workers."""
    request, scene = plan.request, plan.scene
    store = plan.work / f"{plan.name}.zarr"
    mosaic.create_mosaic(store, plan.window, scene.crs, request.scale, request.bands, request.chunk, _provenance(plan))
    keys = plan.keys()
    pending = [key for key in keys if key not in ledger.done()]
    if not pending:
        return
    task = partial(_chunk_task, scene, store, request.bands, request.chunk, plan.window)
    with _client(plan) as (client, threads), progress("upscale", "chunks") as report_progress:
        done = len(keys) - len(pending)
        report_progress(done, len(keys))

        def on_done(key: str, _: None) -> None:
            nonlocal done
            done += 1
            ledger.record(key, "done")
            report_progress(done, len(keys))

        def on_failed(key: str, reason: str) -> None:
            ledger.record(key, "failed", reason=reason)

        # One task more than threads a worker, so that no thread waits for the next to arrive.
        cluster.run(client, task, pending, threads + len(client.nthreads()), on_done, on_failed)
    if failed := ledger.failed():
        key, record = next(iter(failed.items()))
        raise ChunkError(
            f"{len(failed)} of {len(keys)} chunks failed (chunk {key}: {record['reason']}); the others are done: "
            "run the same command again to try the failed ones"
        )


@contextmanager
def _client(plan: UpscalePlan) -> Iterator[tuple[Client, int]]:
    """Workers that hold the network, and how many threads they have together."""
    request, pool = plan.request, plan.pool
    if request.scheduler is not None:
        connection = cluster.remote_client(request.scheduler)
    else:
        assert pool is not None  # make() planned it
        # Half of what is free: the other half is the network's, the reader's and the neighbours'.
        fitting = psutil.virtual_memory().available // 2 // (plan.task_bytes() * len(pool.pins))
        connection = cluster.local_client(pool, max(1, min(cluster.THREADS, fitting)))
    with connection as client:
        model = plan.model.metadata["path"] or plan.model.name
        plugin = cluster.ModelPlugin(model, request.scale, pool)
        client.register_plugin(plugin)
        yield client, sum(client.nthreads().values())


def _chunk_task(scene: Scene, store: Path, bands: tuple[str, ...], chunk: int, window: Window, key: str) -> None:
    """On a worker: read, upscale and write the chunk `key` ("row.column")."""
    from .upscale import upscale_chunk  # on the worker: the command itself needs no torch

    index = tuple(int(part) for part in key.split("."))
    row, col = window.row + index[0] * chunk, window.col + index[1] * chunk
    part = Window(row, col, chunk, chunk).intersect(window)
    assert part is not None  # keys() cuts the window itself
    held = cluster.worker_model()
    model = held.upscaler()  # first: it settles what the cache may hold
    data = upscale_chunk(scene.read, scene.bands, part, bands, model, held.lock, held.cache)
    try:
        mosaic.write_chunk(store, bands, (index[0], index[1]), data)
    except OSError as error:
        raise OutputError(
            f"cannot write {store}: {error.strerror or error}; "
            "mend that (space, permission) and run the same command again to go on"
        ) from error
    del data
    cluster.give_back_memory()


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
    figures = consistency(scene, store, request.bands, request.scale)
    about = {"name": model.name, "sha256": model.sha256, "metadata": model.metadata}
    assets = dict(zip(("page", "cog", "zarr"), (page.name, tif.name, store.name), strict=True))
    document = stac_item.stac_item(
        plan.name, plan.window, scene.crs, request.scale, request.bands, about, plan.sources, assets
    )
    stac_item.write_item(document, item)
    report.write_page(page, scene, store, request.bands, about, figures)
    return figures


def _provenance(plan: UpscalePlan) -> dict[str, Any]:
    """What the mosaic says of its making. No times and no paths: the same input gives the same bytes."""
    return {
        "title": plan.name,
        "model": plan.model.name,
        "model_sha256": plan.model.sha256,
        "scale": plan.request.scale,
        "software": f"rsup {version('rsup')}",
        "items": plan.sources,
    }


def _publish(plan: UpscalePlan) -> None:
    """Rename every finished output to its final name, replacing what stands there; the store comes last."""
    for name in plan.artefacts():
        source, target = plan.work / name, plan.request.output / name
        if not source.exists():  # a run that died here had moved it already
            continue
        if target.is_dir():
            shutil.rmtree(target)
        os.replace(source, target)
