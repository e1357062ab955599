"""From a request to a scene store: what is going to be read (`plan`), and reading and writing it (`run`).

In: a FetchRequest. Out: `scene.zarr` on the lattice of one UTM zone, MARGIN pixels wider on each side than the
ground asked for, so that every model tile that touches that ground sees the same pixels whatever the bbox.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from rsup.models.base.errors import unwritable
from rsup.models.base.files import aside, refuse_links, replacing
from rsup.models.base.progress import say
from rsup.pipeline.errors import ArgumentError, OutputError, SceneError
from rsup.pipeline.lattice import Window, chunks, count_chunks
from rsup.pipeline.ledger import Ledger
from rsup.pipeline.scenes.scene import SceneWriter, create_scene
from rsup.pipeline.sentinel2 import BANDS
from rsup.pipeline.sources.assets import Source, inspect, quiet
from rsup.pipeline.sources.composite import Chunk, first, median
from rsup.pipeline.sources.footprint import box_of, window_in
from rsup.pipeline.sources.request import FetchRequest
from rsup.pipeline.sources.stac.catalog import CATALOGS, Query, search
from rsup.pipeline.sources.stac.items import ItemReference

from .publishing import PUBLISHED, Publication, clear

__all__ = ["FetchPlan", "FetchRequest", "plan", "run"]

MARGIN = 128
"""Pixels of ground stored around the ground asked for."""
MOST_COMPRESSION = 20
"""Times a scene shrinks on the disk at most: large ones are empty in part."""
LARGE = 10**10
"""Bytes of pixels from which a disk that is too small is said at once; less fills it soon enough."""
LOOKERS = 8
"""Items looked at at once, before the first chunk."""
READERS = 2
"""Chunks read at once, each band in a thread of its own: the network is kept busy with little memory."""
COUNTS = ("valid_pixels", "dark_pixels", "zero_pixels")
"""What a finished scene says of itself, in its attributes and in the summary: how much of the ground asked for has
pixels, and those of `Chunk.dark` and `Chunk.blank`."""

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class FetchPlan:
    """What a request comes to."""

    request: FetchRequest
    aoi: Window
    """The ground asked for, snapped outwards to the lattice of `request.utm`."""
    window: Window
    """All that is stored: `aoi` and the margin."""
    items: tuple[ItemReference, ...]
    """Best first."""

    def chunks(self) -> Iterator[tuple[tuple[int, int], Window]]:
        """Index in the chunk grid and window of each chunk."""
        return chunks(self.window, self.request.chunk)

    def over(self, window: Window) -> list[int]:
        """Indexes of the items whose footprint touches a window."""
        box = box_of(window, self.request.utm)
        return [i for i, item in enumerate(self.items) if item.geometry is None or item.geometry.touches(box)]

    def _pixels_under(self, item: ItemReference) -> int:
        """Pixels of the chunks that an item can reach: those of the rectangle around its footprint."""
        part = box_of(self.window, self.request.utm)
        if item.geometry is not None:
            part = item.geometry.part_of(part)
        common = window_in(part, self.request.utm).intersect(self.window)
        if common is None:
            return 0
        side, (rows, cols) = self.request.chunk, common.within(self.window)
        height, width = (
            min(-(-s.stop // side) * side, length) - s.start // side * side
            for s, length in ((rows, self.window.height), (cols, self.window.width))
        )
        return int(height * width)

    def to_dict(self) -> dict[str, Any]:
        """The plan for --dry-run; sizes in bytes before compression, those to read at most."""
        pixels = self.window.height * self.window.width
        bands = len(self.request.bands)
        read = 2 * (bands + 1) * sum(self._pixels_under(item) for item in self.items)
        return {
            "output": str(self.request.output),
            "crs": self.request.utm,
            "aoi": self.aoi.bounds,
            "aoi_pixels": (self.aoi.height, self.aoi.width),
            "stored_bounds": self.window.bounds,
            "stored_pixels": (self.window.height, self.window.width),
            "chunks": count_chunks(self.window, self.request.chunk),
            "bytes_to_read": read,
            "bytes_to_write": pixels * (2 * bands + 3),
            "items": [
                {key: getattr(item, key) for key in ("id", "datetime", "cloud", "tile", "baseline")}
                for item in self.items
            ],
        }


def plan(request: FetchRequest) -> FetchPlan:
    """Search the catalogue and lay out the store; writes nothing.

    Raises ArgumentError and CatalogError, and OutputError for more ground than the disk has room for.
    """
    aoi = window_in(request.box, request.utm)
    _check_room(request, aoi.grow(MARGIN))
    query = Query(
        request.catalog,
        request.collection,
        str(request.box),
        box_of(aoi.grow(MARGIN), request.utm),
        request.start,
        request.end,
        request.max_cloud,
        request.bands,
    )
    items = tuple(search(query))
    blind = [item.id for item in items if "scl" not in item.hrefs]
    if request.mask_clouds and blind:
        raise ArgumentError(f"--mask-clouds needs scene classification, which item {blind[0]} does not have")
    return FetchPlan(request, aoi, aoi.grow(MARGIN), items)


def _check_room(request: FetchRequest, window: Window) -> None:
    """Refuse what cannot fit, before a catalogue is asked for it."""
    place = next((folder for folder in request.output.absolute().parents if folder.is_dir()), Path("/"))
    needed = window.height * window.width * (2 * len(request.bands) + 3)
    room = shutil.disk_usage(place).free
    if needed > max(LARGE, MOST_COMPRESSION * room):
        raise OutputError(
            f"--bbox {request.box} comes to {window.height} x {window.width} pixels, {needed / 1e9:.0f} GB before "
            f"compression, and {place} has room for {room / 1e9:.0f} GB: ask for less ground, or split it"
        )


def run(plan: FetchPlan, report: Report) -> dict[str, Any]:
    """Read, fuse and write every chunk of a plan; `report(done, total)` follows. Returns a summary.

    A run that was stopped, however, goes on where it was when it is run again. The output has its name only when
    it is whole; one that was there before is replaced then, and only with `overwrite`. Where the output stands already
    and answers this very request, nothing is read.
    Raises OutputError, and SceneError naming the item and band that cannot be read.
    """
    request, output = plan.request, plan.request.output
    if not output.name or output.name == "..":
        raise OutputError(f"-o {output} is no name for a scene store; write something like scene.zarr")
    asked = _fingerprint(plan)
    store, ledger_path = (output.with_name(f".{output.name}.{ending}") for ending in ("partial", "ledger"))
    if not any(map(os.path.lexists, (store, ledger_path, aside(output)))) and _answers(
        output, asked, request.overwrite
    ):
        return _summary(plan, already_done=True)
    with Ledger.open(ledger_path) as ledger:
        try:
            refuse_links(store)
        except OSError as error:
            raise OutputError(unwritable(error.filename or store, error)) from error
        publication = Publication(ledger, {store: output}, overwrite=request.overwrite)
        publication.settle()
        overwrite = request.overwrite
        if PUBLISHED in ledger.done():  # a run was killed in its last moment: it is over now
            overwrite = overwrite and _said(output).get("request") != asked
            ledger.forget()
        # Now, when nobody else can publish there, and not only before: a search takes its time.
        if _answers(output, asked, overwrite):
            if ledger.belongs_to(asked):  # replacing it was begun once, and is not asked for any more
                clear(store)
                ledger.forget()
            return _summary(plan, already_done=True)
        ledger.begin(asked, overwrite=overwrite)
        _give_memory_back()
        with quiet():
            sources = _inspect_all(plan)
        writer = _open_store(plan, asked, sources, store, ledger)
        with quiet():
            _fill(plan, sources, writer, ledger, report)
        counts = _counts(ledger, plan)
        if not counts["valid_pixels"]:
            clear(store)
            ledger.forget()
            raise SceneError(
                f"no pixel of --bbox {request.box} is left in {len(plan.items)} items; "
                "widen --date, raise --max-cloud or do without --mask-clouds"
            )
        _note(store, counts)
        publication.publish()
        ledger.forget()
    return _summary(plan, already_done=False)


def _summary(plan: FetchPlan, *, already_done: bool) -> dict[str, Any]:
    """Of the finished store of a plan."""
    request = plan.request
    said = _said(request.output)
    valid, dark, zero = (said.get(name) or 0 for name in COUNTS)
    return {
        "scene": str(request.output),
        "already_done": already_done,
        "crs": request.utm,
        "bounds": plan.aoi.bounds,
        "pixels": (plan.aoi.height, plan.aoi.width),
        "bands": request.bands,
        "items": [item.id for item in plan.items],
        "valid_percent": round(100 * valid / (plan.aoi.height * plan.aoi.width), 2),
        "dark_pixels": dark,
        "zero_pixels": zero,
    }


def _answers(output: Path, asked: dict[str, Any], overwrite: bool) -> bool:
    """Whether a finished store stands there that was made for this very request.

    Raises OutputError where anything else would have to be replaced without `overwrite`, or is no scene store.
    """
    if not os.path.lexists(output):
        return False
    if overwrite:
        if not (output / "zarr.json").is_file():
            raise OutputError(f"{output} is no scene store, which is all that --overwrite replaces; choose another -o")
        return False
    made_for = _said(output).get("request")
    if made_for == asked:
        return True
    known = made_for if isinstance(made_for, dict) else asked
    differing = sorted(key for key in asked if known.get(key) != asked[key])
    reason = f" and is of another request ({', '.join(differing)} differ)" if differing else ""
    raise OutputError(f"{output} exists{reason}; choose another -o or pass --overwrite")


def _give_memory_back() -> None:
    """Have the C library return freed arrays to the system at once.

    glibc keeps what it once gave out, in an arena a thread: over a large scene that grows by a quarter.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc
        mmap_threshold = -3
        library.mallopt(mmap_threshold, 256 * 1024)


def _fingerprint(plan: FetchPlan) -> dict[str, Any]:
    """What two requests share that have one answer, as plain JSON; a finished store says it as `request`."""
    asked = {
        key: getattr(plan.request, key)
        for key in ("public_catalog", "collection", "bands", "composite", "mask_clouds", "utm", "offset", "chunk")
    }
    described = {
        "rsup": version("rsup"),
        **asked,
        "aoi": plan.aoi.bounds,
        "items": [item.id for item in plan.items],
    }
    return json.loads(json.dumps(described))  # type: ignore[no-any-return]


def _said(store: Path) -> dict[str, Any]:
    """The attributes of a finished store; none where it is no store."""
    described = store / "zarr.json"
    try:
        said = json.loads(described.read_bytes())["attributes"] if described.is_file() else None
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        said = None
    return said if isinstance(said, dict) else {}


def _inspect_all(plan: FetchPlan) -> list[Source]:
    host = urlsplit(CATALOGS["planetary-computer"]).hostname
    sign = urlsplit(CATALOGS.get(plan.request.catalog, plan.request.catalog)).hostname == host

    with ThreadPoolExecutor(LOOKERS) as pool:
        try:
            sources = list(pool.map(lambda item: inspect(item, plan.request.wanted_offset, sign), plan.items))
        finally:
            pool.shutdown(cancel_futures=True)  # one item that cannot be used ends the run: ask for no more
    coarse = [source for source in sources if source.coarse]
    if coarse:
        band, size = next(iter(coarse[0].coarse.items()))
        say(
            f"{len(coarse)} of {len(sources)} items have pixels larger than Sentinel-2's, which are interpolated "
            f"(item {coarse[0].item.id}: {band} has {size:g} m, not {BANDS[band].gsd} m)"
        )
    return sources


def _open_store(
    plan: FetchPlan, asked: dict[str, Any], sources: list[Source], path: Path, ledger: Ledger
) -> SceneWriter:
    """The writer of the partial store, which is made where the ledger does not know it."""
    request = plan.request
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
        {key: getattr(source.item, key) for key in ("id", "collection", "datetime", "cloud", "tile")}
        | {
            "href": source.item.public_href,
            "hrefs": source.item.public_hrefs,
            "baseline": source.decision.baseline,
            "offset": source.decision.offset,
            "evidence": list(source.decision.evidence),
        }
        for source in sources
    ]
    attributes = {
        "software": f"rsup {version('rsup')}",
        "catalog": request.public_catalog,
        "composite": request.composite,
        "mask_clouds": request.mask_clouds,
        "items": described,
        "request": asked,
    }
    writer = create_scene(path, plan.window, request.utm, request.bands, request.chunk, plan.aoi, attributes)
    ledger.record("store", "done")
    return writer


def _fill(plan: FetchPlan, sources: list[Source], writer: SceneWriter, ledger: Ledger, report: Report) -> None:
    """Read chunks in a few threads, ahead of this one, which writes them; READERS + 1 are held at most."""
    done = ledger.done()
    every = list(plan.chunks())
    missing = ((index, window) for index, window in every if f"{index[0]},{index[1]}" not in done)
    finished = sum(f"{i},{j}" in done for (i, j), _ in every)
    report(finished, len(every))
    with ThreadPoolExecutor(READERS) as pool:

        def start(count: int) -> dict[Future[Chunk], tuple[tuple[int, int], Window]]:
            return {pool.submit(_read_chunk, plan, sources, each[1]): each for each in islice(missing, count)}

        running = start(READERS)
        try:
            while running:
                ready = wait(running, return_when=FIRST_COMPLETED).done.pop()
                index, window = running.pop(ready)
                chunk = ready.result()
                running |= start(1)
                writer.write(index, chunk.data, chunk.classes, chunk.source)
                counts = (_valid(plan, window, chunk), chunk.dark, chunk.blank)
                ledger.record(f"{index[0]},{index[1]}", "done", figures=dict(zip(COUNTS, counts, strict=True)))
                finished += 1
                report(finished, len(every))
        finally:
            pool.shutdown(cancel_futures=True)


def _read_chunk(plan: FetchPlan, sources: list[Source], window: Window) -> Chunk:
    request = plan.request
    fuse = median if request.composite == "median" else first
    over = [(index, sources[index]) for index in plan.over(window)]
    return fuse(over, request.bands, window, request.utm, request.mask_clouds)


def _valid(plan: FetchPlan, window: Window, chunk: Chunk) -> int:
    """Pixels of the ground asked for that a chunk has: in every band, or in none."""
    common = window.intersect(plan.aoi)
    return 0 if common is None else int(np.count_nonzero(chunk.data[0][common.within(window)]))


def _counts(ledger: Ledger, plan: FetchPlan) -> dict[str, int]:
    """What the chunks counted; pixels that may be other than they look are said on standard error."""
    counted = [ledger.info(f"{i},{j}").figures or {} for (i, j), _ in plan.chunks()]
    counts = {name: int(sum(figures.get(name, 0) for figures in counted)) for name in COUNTS}
    if counts["dark_pixels"]:
        say(
            f"{counts['dark_pixels']} pixels are 0 in some band though there is ground: kept as the darkest number "
            "(water and shade are so, and damaged files)"
        )
    if counts["zero_pixels"]:
        say(
            f"{counts['zero_pixels']} pixels have a scene class and are 0 in every band: they stay without data; "
            "their files may be damaged (the array `source` names the items)"
        )
    return counts


def _note(store: Path, attributes: dict[str, Any]) -> None:
    """Add to a store's own attributes what is only known in the end."""
    root = store / "zarr.json"
    described = json.loads(root.read_bytes())
    described["attributes"] |= attributes
    with replacing(root) as fresh:
        fresh.write_text(json.dumps(described, indent=2))
