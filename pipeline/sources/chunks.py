"""From items to the chunks of a scene: each item looked at once, each chunk read, fused, written and recorded."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from urllib.parse import urlsplit

import numpy as np

from rsup.models.base.progress import Progress, say
from rsup.pipeline.lattice import Chunk, Window
from rsup.pipeline.ledger import Ledger
from rsup.pipeline.scenes.writer import SceneWriter

from .assets import InspectedItem, inspect
from .composite import Fused, first, median
from .plan import FetchPlan
from .products.tiles import keeping
from .stac.catalog import CATALOGS

LOOKERS = 8
"""Items looked at at once, before the first chunk."""
READERS = 2
"""Chunks read at once, each band in a thread of its own: the network is kept busy with little memory."""
COUNTS = ("valid_pixels", "dark_pixels", "zero_pixels")
"""What a finished scene says of itself, in its attributes and in the summary: how much of the ground asked for has
pixels, and those of `Fused.dark` and `Fused.blank`."""


def inspect_all(plan: FetchPlan) -> list[InspectedItem]:
    """Look at every item of a plan; raises SceneError for the first that cannot be used."""
    host = urlsplit(CATALOGS["planetary-computer"]).hostname
    sign = urlsplit(CATALOGS.get(plan.request.catalog, plan.request.catalog)).hostname == host

    with ThreadPoolExecutor(LOOKERS) as pool:
        try:
            items = list(pool.map(lambda item: inspect(item, plan.request.wanted_offset, sign), plan.items))
        finally:
            pool.shutdown(cancel_futures=True)  # one item that cannot be used ends the run: ask for no more
    coarse = [item for item in items if item.coarse]
    if coarse:
        sensor = plan.request.sensor
        band, size = next(iter(coarse[0].coarse.items()))
        say(
            f"{len(coarse)} of {len(items)} items have pixels larger than {sensor.title}'s, which are interpolated "
            f"(item {coarse[0].item.id}: {band} has {size:g} m, not {sensor.band(band).gsd} m)"
        )
    return items


def fill(plan: FetchPlan, items: list[InspectedItem], writer: SceneWriter, ledger: Ledger, progress: Progress) -> None:
    """Read chunks in a few threads, ahead of this one, which writes them; READERS + 1 are held at most."""
    done = ledger.done()
    every = list(plan.chunks())
    missing = (chunk for chunk in every if chunk.key not in done)
    finished = sum(chunk.key in done for chunk in every)
    progress(finished, len(every))
    with keeping(), ThreadPoolExecutor(READERS) as pool:

        def start(count: int) -> dict[Future[Fused], Chunk]:
            return {pool.submit(_read_chunk, plan, items, each.window): each for each in islice(missing, count)}

        running = start(READERS)
        try:
            while running:
                ready = wait(running, return_when=FIRST_COMPLETED).done.pop()
                chunk, fused = running.pop(ready), ready.result()
                running |= start(1)
                writer.write(chunk.place, fused.data, fused.classes, fused.source)
                counts = (_valid(plan, chunk.window, fused), fused.dark, fused.blank)
                ledger.record(chunk.key, "done", figures=dict(zip(COUNTS, counts, strict=True)))
                finished += 1
                progress(finished, len(every))
        finally:
            pool.shutdown(cancel_futures=True)


def _read_chunk(plan: FetchPlan, items: list[InspectedItem], window: Window) -> Fused:
    request = plan.request
    fuse = median if request.composite == "median" else first
    over = [(index, items[index]) for index in plan.over(window)]
    return fuse(over, request.bands, window, request.utm, request.mask_clouds)


def _valid(plan: FetchPlan, window: Window, fused: Fused) -> int:
    """Pixels of the ground asked for that a chunk has: in every band, or in none."""
    common = window.intersect(plan.aoi)
    return 0 if common is None else int(np.count_nonzero(fused.data[0][common.within(window)]))


def counts_of(ledger: Ledger, plan: FetchPlan) -> dict[str, int]:
    """What the chunks counted; pixels that may be other than they look are said on standard error."""
    counted = [ledger.info(chunk.key).figures or {} for chunk in plan.chunks()]
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
