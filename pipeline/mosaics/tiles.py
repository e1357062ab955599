"""Tiles through the network: stored numbers in, super-resolved tiles in stored numbers out, batch by batch, each once.

A tile's output depends on nothing but the tile's own pixels.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import zip_longest
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np
import torch
from cachetools import LRUCache
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from rsup.models.base.errors import ModelError
from rsup.models.base.radiometry import NODATA, from_network, to_network
from rsup.models.consistency import Consistency
from rsup.pipeline.lattice import Window

from .passes import Pass, tiling_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rsup.models.upscaler import Upscaler


def fill_nodata(dn: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Replace nodata by the nearest valid pixel of the same band; [band, y, x], at least one valid pixel in all.

    A band without any valid pixel takes the first band that has one, so that the network never sees nodata.
    """
    filled = dn.copy()
    empty = []
    for band in filled:
        missing = band == NODATA
        if missing.all():
            empty.append(band)
        elif missing.any():
            rows, cols = distance_transform_edt(missing, return_distances=False, return_indices=True)
            band[:] = band[rows, cols]
    if empty:
        stand_in = next(band for band in filled if band.any())
        for band in empty:
            band[:] = stand_in
    return filled


class TileCache(LRUCache[Hashable, Tensor]):
    """Finished tiles that a neighbouring chunk will ask for again, the least recently used dropped first.

    A tile on a chunk's edge belongs to two chunks, one on its corner to four: without the cache a 512 px chunk spends a
    fifth to a third of its time on tiles its neighbours compute as well. Tiles are pure functions of the scene and the
    model, so a hit changes nothing but the time.
    """

    def __init__(self, limit: int) -> None:
        """`limit`: bytes of tiles to keep."""
        super().__init__(limit, getsizeof=attrgetter("nbytes"))


def finished_tiles(
    step: Pass,
    dn: dict[str, NDArray[np.uint16]],
    window: Window,
    cover: Window,
    model: Upscaler,
    consistency: Consistency,
    cache: TileCache,
) -> Iterator[tuple[Window, Tensor]]:
    """Every tile of `window` that has a valid pixel, with its output [plane, y, x] in stored numbers, always in the
    same order: sums of float32 depend on theirs.

    The planes are the pass's outputs and, where it keeps them, how far they may be off.
    """
    tiling = tiling_of(model.descriptor)
    channels, bands = zip(*step.outputs, strict=True)
    waiting: list[tuple[Window, NDArray[np.uint16]]] = []
    valid: dict[Window, NDArray[np.bool_]] = {}
    ready: dict[Window, Tensor] = {}
    wanted = []
    for tile in tiling.tiles(window):
        stack = np.stack([dn[band][tile.within(cover)] for band in step.inputs])
        # A tile without a valid pixel in the bands it is run for would only be masked again.
        if stack[list(channels)].any():
            wanted.append(tile)
            known = cache.get((step, tile))
            if known is None:
                waiting.append((tile, fill_nodata(stack)))
                valid[tile] = stack[list(channels)] != NODATA
            else:
                ready[tile] = known
    for batch, predicted in _predictions(step, waiting, model):
        for (tile, numbers), values in zip(batch, predicted, strict=True):
            lr = torch.from_numpy(numbers[list(channels)].astype(np.float32)).to(values.device)
            there = torch.from_numpy(valid.pop(tile)).to(values.device)
            sr = consistency.tile(from_network(values[: len(bands)]), lr, model.descriptor.scale, bands, there)
            if step.uncertainty:
                sr = torch.cat([sr, values[len(bands) :]])
            ready[tile] = sr
            weighty = tile.grow(-tiling.halo)
            if weighty.intersect(window) != weighty:
                with suppress(ValueError):  # a tile larger than the whole cache
                    cache[step, tile] = sr
        while wanted and wanted[0] in ready:
            tile = wanted.pop(0)
            yield tile, ready.pop(tile)
    for tile in wanted:
        yield tile, ready[tile]


def _predictions(
    step: Pass, waiting: list[tuple[Window, NDArray[np.uint16]]], model: Upscaler
) -> Iterator[tuple[list[tuple[Window, NDArray[np.uint16]]], Tensor]]:
    """Batches of filled tiles with what the network makes of them [n, plane, y, x], one batch ahead of the caller."""
    channels = [channel for channel, _ in step.outputs]
    if step.uncertainty:  # the second half of what comes out
        channels += [len(step.inputs) + channel for channel in channels]

    def predict(batch: list[tuple[Window, NDArray[np.uint16]]]) -> Tensor:
        tiles = torch.from_numpy(to_network(np.stack([numbers for _, numbers in batch])))
        predicted = model(tiles, uncertainty=step.uncertainty)[:, channels]
        if not torch.isfinite(predicted).all():
            row, col = batch[0][0].row, batch[0][0].col
            raise ModelError(
                f"model {model.descriptor.name} gave NaN or infinity near row {row}, column {col} of the lattice; "
                "its weights or its precision on this device are at fault"
            )
        return predicted

    batches = [waiting[start : start + model.batch] for start in range(0, len(waiting), model.batch)]
    with ThreadPoolExecutor(1, "network") as pool:
        running = [pool.submit(predict, batch) for batch in batches[:1]]
        for batch, following in zip_longest(batches, batches[1:]):
            if following is not None:
                running.append(pool.submit(predict, following))
            yield batch, running.pop(0).result()
