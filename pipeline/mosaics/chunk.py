"""One chunk: the stored numbers around a window in, the super-resolved window out; a pure function, no Dask inside.

A tile's output depends on nothing but the tile's own pixels, and the blending weights of a pixel on nothing but its
place in the lattice, so the same ground gives the same numbers whatever the chunk, the scene or the worker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rsup.models.base.radiometry import DN_MAX, DN_MIN, NODATA
from rsup.models.consistency import Consistency
from rsup.pipeline.lattice import Window

from .passes import Pass, passes, tiling_of
from .tiles import TileCache, finished_tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rsup.models.upscaler import ModelDescriptor, Upscaler

    Read = Callable[[Sequence[str], Window], NDArray[np.uint16]]


@dataclass(frozen=True)
class Gathered:
    """What is known of a chunk before the network."""

    window: Window
    cover: Window
    """All tiles of the window."""
    steps: list[Pass]
    """The passes through the network."""
    dn: dict[str, NDArray[np.uint16]]
    """Stored numbers of `cover` [y, x], of each band that a pass needs."""
    lr: NDArray[np.uint16]
    """Stored numbers of `window` [band, y, x], of the bands that are asked for."""


def upscale_chunk(
    read: Read,
    available: Sequence[str],
    window: Window,
    bands: Sequence[str],
    model: Upscaler,
    consistency: Consistency,
    network_lock: AbstractContextManager[object] | None = None,
    cache: TileCache | None = None,
    *,
    uncertainty: bool = False,
) -> NDArray[np.uint16]:
    """Super-resolve one window: stored numbers [band, y, x] at `scale` times the lattice, 0 where the LR pixel is 0.

    With `uncertainty`, for which the model must have one, twice as many planes: the bands, then how far each
    may be off, in stored numbers (no offset), 1 at least and 0 where the LR pixel is 0.
    `read(bands, window)` gives stored numbers [band, y, x] and 0 beyond the scene; `available` are the bands it has.
    `network_lock` is held while the device works, not while the scene is read. `cache` serves one scene, model and
    consistency.
    Raises ModelError where the network gives NaN or infinity.
    """
    gathered = gather(read, available, window, bands, model.descriptor, uncertainty)
    with network_lock or nullcontext():
        sr = infer(gathered, bands, model, consistency, TileCache(0) if cache is None else cache)
        return settle(sr, gathered.lr, model.descriptor.scale, consistency)


def gather(
    read: Read,
    available: Sequence[str],
    window: Window,
    bands: Sequence[str],
    model: ModelDescriptor,
    uncertainty: bool = False,
) -> Gathered:
    """Read what the tiles of a window need; no device works."""
    steps = passes(bands, available, model.bands, uncertainty)
    needed = list(dict.fromkeys(band for step in steps for band in step.inputs))
    cover = tiling_of(model).cover(window)
    dn = dict(zip(needed, read(needed, cover), strict=True))
    lr = np.stack([dn[band][window.within(cover)] for band in bands])
    return Gathered(window, cover, steps, dn, lr)


def infer(
    gathered: Gathered, bands: Sequence[str], model: Upscaler, consistency: Consistency, cache: TileCache
) -> Tensor:
    """The blended tiles of a window, each held to its scene: stored numbers, float32 [plane, y, x], on the device.

    The planes are the bands and, where the passes keep them, how far they may be off. They may lie
    beyond 1..65535.
    """
    scale, window = model.descriptor.scale, gathered.window
    planes = len(bands) * (1 + gathered.steps[0].uncertainty)
    sr = torch.zeros(planes, window.height * scale, window.width * scale, device=model.device)
    weights = torch.from_numpy(tiling_of(model.descriptor).weights(scale)).to(model.device)
    for step in gathered.steps:
        targets = [bands.index(band) for _, band in step.outputs]
        if step.uncertainty:
            # By the weights of the pixels: where two tiles overlap their errors are all but the same, so that of the
            # blend is as wide as both on average. The root of summed squares is that of independent errors.
            targets += [len(bands) + target for target in targets]
        for tile, tile_sr in finished_tiles(step, gathered.dn, window, gathered.cover, model, consistency, cache):
            common = tile.intersect(window)
            assert common is not None  # tiles() gives only tiles that meet the window
            rows, cols = (_scaled(part, scale) for part in common.within(tile))
            weighted = tile_sr[:, rows, cols] * weights[rows, None] * weights[cols]
            rows, cols = (_scaled(part, scale) for part in common.within(window))
            for target, plane in zip(targets, weighted, strict=True):
                sr[target, rows, cols] += plane
    return sr


def settle(sr: Tensor, lr: NDArray[np.uint16], scale: int, consistency: Consistency) -> NDArray[np.uint16]:
    """Bring a window [plane, y, x] into the range of numbers, and round; 0 where its scene's numbers are 0.

    `lr` [band, y, x] are these; what follows the bands is how far they may be off.
    """
    result = np.empty(sr.shape, np.uint16)
    for plane in range(len(sr)):  # one by one: the temporaries of a plane are as large as the plane
        band = plane % len(lr)
        low = torch.from_numpy(lr[band : band + 1].astype(np.float32)).to(sr.device)
        if plane == band:
            held = consistency.chunk(sr[plane : plane + 1], low.clamp(min=DN_MIN), scale).round()[0]
        else:
            held = sr[plane].clamp(DN_MIN, DN_MAX).round()
        held *= (low[0] != NODATA).repeat_interleave(scale, 0).repeat_interleave(scale, 1)
        result[plane] = held.cpu().numpy()
    return result


def _scaled(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)
