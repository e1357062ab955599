"""Tiles through the network: stored numbers in, super-resolved and weighted tiles in stored numbers out, each once.

A tile's output depends on nothing but the tile's own pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from cachetools import LRUCache
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn import functional

from rsup.models.base.intervals import DETAIL
from rsup.models.base.radiometry import NODATA, from_network, to_network
from rsup.models.consistency import Consistency
from rsup.pipeline.lattice import Window

from .passes import Pass, tiling_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rsup.models.upscaler import Upscaler


AROUND, STEP = 16, 8
"""Pixels of a tile. What lies farther from a place than the first moves what the shipped students make of it by a
quarter of a stored number at most (float32, faithful; a sharp one beside a glint: three). Parts of tiles begin and end
at multiples of the second: networks' own grids are as coarse, and what runs them keeps something for every shape."""


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


def worth_seeing(valid: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns of a tile [channel, y, x] that hold the scene's own numbers, and of what stands in for others as
    much around them as matters.

    Farther out a local network would only enlarge what fills the tile up: a scene of 256 x 256 pixels lies on four
    tiles of 160 x 160 at best, which have more than half as many again, and on nine at worst.
    """
    down, along = (np.flatnonzero(valid.any(axes)) for axes in ((0, 2), (0, 1)))
    parts = (
        slice(max(there[0] - AROUND, 0) // STEP * STEP, -(-(there[-1] + 1 + AROUND) // STEP) * STEP)
        for there in (down, along)
    )
    rows, cols = (slice(part.start, min(part.stop, side)) for part, side in zip(parts, valid.shape[1:], strict=True))
    return rows, cols


class TileCache(LRUCache[Hashable, "Finished"]):
    """Finished tiles that a neighbouring chunk will ask for again, the least recently used dropped first.

    A tile on a chunk's edge belongs to two chunks, one on its corner to four: without the cache a 512 px chunk spends a
    fifth to a third of its time on tiles its neighbours compute as well. Tiles are pure functions of the scene and the
    model, so a hit changes nothing but the time.
    """

    def __init__(self, limit: int) -> None:
        """`limit`: bytes of tiles to keep."""
        super().__init__(limit, getsizeof=lambda tile: sum(part.nbytes for part in tile.parts))


class Finished(NamedTuple):
    """What a tile gives to a mosaic."""

    parts: tuple[Tensor, ...]
    """The pass's outputs and, where it keeps that, how far they may be off, DETAIL numbers along a side of a scene's
    pixel: stored numbers times their weights, float32 [band, y, x] on the device, without the halo.
    """
    sound: Tensor
    """Whether the network gave numbers and nothing else: bool, on the device, so that nobody waits for it at once."""


@dataclass(frozen=True, eq=False)
class _Job:
    """A tile that waits for the network."""

    step: Pass
    numbers: NDArray[np.uint16]
    """Stored numbers [band, y, x] of the pass's inputs, filled."""
    valid: NDArray[np.bool_]
    """[channel, y, x]: which of the outputs' numbers are the scene's own."""
    answer: Future[Finished]


class Tiles:
    """The network at work: tiles of any chunk, thread and order in, finished tiles out, each computed once.

    Radiometry, network, consistency and weights of a tile are one piece of work on the device. On the CPU as many
    tiles are worked on side by side as the model has cores. On a GPU whatever waits goes through together, up to the
    model's batch and from whichever chunks it came, and the one thread that hands it over never waits for the result.
    """

    def __init__(self, model: Upscaler, consistency: Consistency, limit: int = 0) -> None:
        """`limit`: bytes of finished tiles to keep for the chunks beside, on the device."""
        self.model, self.consistency = model, consistency
        cpu = model.device.type == "cpu"
        self._most = 1 if cpu else model.batch
        self.ahead = model.batch + 1
        """Tiles worth asking for before the first of them is taken."""
        tiling = tiling_of(model.descriptor)
        self._weights = {
            fine: torch.from_numpy(tiling.weights(fine)).to(model.device) for fine in (model.descriptor.scale, DETAIL)
        }
        self._cache = TileCache(limit)
        self._running: dict[Hashable, Future[Finished]] = {}
        self._waiting: deque[_Job] = deque()
        self._lock = Lock()
        # One thread an operation, as in the model: how torch cuts one over threads changes its rounding.
        self._lanes = ThreadPoolExecutor(model.batch if cpu else 1, "lane", torch.set_num_threads, (1,))

    def __enter__(self) -> Tiles:
        return self

    def __exit__(self, *_: object) -> None:
        self._lanes.shutdown()

    def ask(self, step: Pass, tile: Window, numbers: NDArray[np.uint16], keep: bool) -> Future[Finished]:
        """Have a tile computed, or what is computed already; `numbers` [band, y, x] of the pass's inputs, with nodata.

        `keep`: others will ask for it. The future raises ModelError where the device has no memory left.
        """
        key = (step, tile)
        with self._lock:
            answer = self._running.get(key)
            if answer is None and (known := self._cache.get(key)) is not None:
                answer = Future()
                answer.set_result(known)
            if answer is not None:
                return answer
            answer = self._running[key] = Future()
        channels = [channel for channel, _ in step.outputs]
        job = _Job(step, fill_nodata(numbers), numbers[channels] != NODATA, answer)
        answer.add_done_callback(partial(self._leave, key, keep))
        with self._lock:
            self._waiting.append(job)
        self._lanes.submit(self._work)
        return answer

    def _leave(self, key: Hashable, keep: bool, answer: Future[Finished]) -> None:
        with self._lock:
            del self._running[key]
            if keep and answer.exception() is None:
                parts, sound = answer.result()
                with suppress(ValueError):  # a tile larger than the whole cache
                    self._cache[key] = Finished(tuple(part.contiguous() for part in parts), sound)

    def _work(self) -> None:
        """Compute what waits, as much as goes together; nothing where an earlier call took it along."""
        batch: list[_Job] = []
        with self._lock:
            while self._waiting and len(batch) < self._most:
                if batch and self._waiting[0].step != batch[0].step:
                    break
                batch.append(self._waiting.popleft())
        if not batch:
            return
        try:
            for job, finished in zip(batch, self._finished(batch), strict=True):
                job.answer.set_result(finished)
        except BaseException as error:
            for job in batch:
                if not job.answer.done():
                    job.answer.set_exception(error)

    @torch.inference_mode()
    def _finished(self, batch: list[_Job]) -> list[Finished]:
        model, step = self.model, batch[0].step
        scale, tiling = model.descriptor.scale, tiling_of(model.descriptor)
        channels, bands = zip(*step.outputs, strict=True)
        numbers = self._there(np.stack([job.numbers for job in batch]).astype(np.float32))
        parts = self._made(batch, numbers)
        if channels != tuple(range(len(step.inputs))):
            parts = tuple(part[:, channels] for part in parts)
        # Where tiles pass together all are told what is valid, so that none depends on the others.
        whole = self._most == 1 and batch[0].valid.all()
        valid = None if whole else self._there(np.stack([job.valid for job in batch]))
        # What is infinite or no number makes its sum so.
        sound = torch.stack([part.sum((1, 2, 3)) for part in parts]).sum(0).isfinite()
        image, *widths = parts
        image = self.consistency.tiles(from_network(image), numbers[:, channels], scale, bands, valid)
        ended = []
        for part, (fine, line) in zip((image, *widths), self._weights.items(), strict=False):
            halo, ramp = tiling.halo * fine, tiling.overlap * fine
            weights = line[halo : len(line) - halo]
            part = part[..., halo : part.shape[-2] - halo, halo : part.shape[-1] - halo]
            for edge in (slice(ramp), slice(len(weights) - ramp, None)) if ramp else ():
                part[..., edge, :] *= weights[edge, None]
                part[..., edge] *= weights[edge]
            ended.append(part)
        return [Finished(of_tile, one) for of_tile, one in zip(zip(*ended, strict=True), sound, strict=True)]

    def _made(self, batch: list[_Job], numbers: Tensor) -> tuple[Tensor, ...]:
        """What the network makes of tiles, in its range; of what it was not given, its last pixels over again."""
        uncertainty, side = batch[0].step.uncertainty, self.model.descriptor.tile
        if self.model.whole:
            return self.model.outputs(to_network(numbers), uncertainty=uncertainty)
        (job,) = batch
        rows, cols = worth_seeing(job.valid)
        parts = self.model.outputs(to_network(numbers[..., rows, cols]), uncertainty=uncertainty)
        beyond = cols.start, side - cols.stop, rows.start, side - rows.stop
        if not any(beyond):
            return parts
        fines = [part.shape[-1] // (cols.stop - cols.start) for part in parts]
        return tuple(
            functional.pad(part, [pixels * fine for pixels in beyond], mode="replicate")
            for part, fine in zip(parts, fines, strict=True)
        )

    def _there(self, array: NDArray[Any]) -> Tensor:
        """The array on the device."""
        tensor = torch.from_numpy(array)
        if self.model.device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self.model.device, non_blocking=True)
