"""From items to the chunks of a scene: each item looked at once, each chunk read, fused, written and recorded."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from urllib.parse import urlsplit

import numpy as np

from rsup.models.base.errors import SceneError
from rsup.models.base.progress import Progress, say
from rsup.models.sensors.profile import UndecidedError
from rsup.pipeline.lattice import Chunk, Window
from rsup.pipeline.ledger import Ledger
from rsup.pipeline.scenes.writer import SceneWriter

from .assets import InspectedItem, inspect
from .composite import Fused, first, median
from .plan import FetchPlan
from .products.tiles import keeping
from .retry import GoneError
from .stac.catalog import CATALOGS
from .stac.items import ItemReference, LeftOut

LOOKERS = 8
"""Items looked at at once, before the first chunk."""
READERS = 2
"""Chunks read at once, each band in a thread of its own: the network is kept busy with little memory."""
COUNTS = ("valid_pixels", "dark_pixels", "zero_pixels")
"""What a finished scene says of itself, in its attributes and in the summary: how much of the ground asked for has
pixels, and those of `Fused.dark` and `Fused.blank`."""


def inspect_all(plan: FetchPlan) -> tuple[list[InspectedItem], list[LeftOut]]:
    """Look at every item of a plan: those that can be used, and those whose assets are not where they should be.

    Raises SceneError for the first that cannot be used for another reason, or, where the request is strict or none is
    left, for that one.
    """
    host = urlsplit(CATALOGS["planetary-computer"]).hostname
    sign = urlsplit(CATALOGS.get(plan.request.catalog, plan.request.catalog)).hostname == host

    with ThreadPoolExecutor(LOOKERS) as pool:
        try:
            looked = list(pool.map(lambda item: _look(plan, item, sign), plan.items))
        finally:
            pool.shutdown(cancel_futures=True)  # one item that cannot be used ends the run: ask for no more
    undecided = [error for _, error, _ in looked if error is not None]
    if undecided:
        names = ", ".join(item.id for item, (_, error, _) in zip(plan.items, looked, strict=True) if error is not None)
        others = f" (so are {len(undecided)} items: {names})" if len(undecided) > 1 else ""
        raise UndecidedError(f"{undecided[0]}{others}")
    items = [found for found, _, _ in looked if found is not None]
    gone = [each for _, _, lost in looked for each in lost]
    if not items:
        others = f"; nor can any of the other {len(gone) - 1} items be used" if len(gone) > 1 else ""
        raise SceneError(f"{gone[0].reason}{others}")
    _say_overruled(items)
    coarse = [item for item in items if item.coarse]
    if coarse:
        sensor = plan.request.sensor
        band, size = next(iter(coarse[0].coarse.items()))
        say(
            f"{len(coarse)} of {len(items)} items have pixels larger than {sensor.title}'s, which are interpolated "
            f"(item {coarse[0].item.id}: {band} has {size:g} m, not {sensor.band(band).gsd} m)"
        )
    return items, gone


def _look(
    plan: FetchPlan, item: ItemReference, sign: bool
) -> tuple[InspectedItem | None, UndecidedError | None, list[LeftOut]]:
    """The item, or the first of its spares whose files are there; what is to be decided of it; what is gone."""
    gone: list[LeftOut] = []
    for each in (item, *item.spares):
        try:
            return inspect(each, plan.request.wanted_offset(each.id), sign), None, gone
        except UndecidedError as error:
            return None, error, gone
        except GoneError as error:
            if plan.request.strict:
                raise
            gone.append(LeftOut(each.id, str(error)))
    return None, None, gone


def _say_overruled(items: list[InspectedItem]) -> None:
    """Say where --offset has decided against what items say of themselves."""
    overruled = [each for each in items if each.decision.overrules]
    if overruled:
        first = overruled[0]
        say(
            f"--offset {first.decision.offset} contradicts the evidence of {len(overruled)} of {len(items)} items, and "
            f"counts all the same (item {first.item.id}: {'; '.join(first.decision.evidence)})"
        )


def say_left_out(items: Sequence[LeftOut]) -> None:
    """A line for each item that was left out."""
    for each in items:
        say(f"left out: {each.reason} (--strict would stop here)")


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
