"""One chunk: the stored numbers around a window in, the super-resolved window out; a pure function, no Dask inside.

A tile's output depends on nothing but the tile's own pixels, and the blending weights of a pixel on nothing but its
place in the lattice, so the same ground gives the same numbers whatever the chunk, the scene or the worker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rsup.models.base.errors import ModelError
from rsup.models.base.intervals import round_off
from rsup.models.base.radiometry import DN_MAX, DN_MIN, NODATA
from rsup.models.consistency import Consistency
from rsup.pipeline.lattice import Window

from .passes import Pass, passes, tiling_of
from .tiles import Finished, Tiles

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rsup.models.upscaler import ModelDescriptor

    Read = Callable[[Sequence[str], Window], NDArray[np.uint16]]


@dataclass(frozen=True)
class Gathered:
    """What is known of a chunk before the network."""

    window: Window
    mosaic: Window
    """What the window is a part of."""
    cover: Window
    """All tiles of the window."""
    steps: list[Pass]
    """The passes through the network."""
    dn: dict[str, NDArray[np.uint16]]
    """Stored numbers of `cover` [y, x], of each band that a pass needs."""
    lr: NDArray[np.uint16]
    """Stored numbers of `window` [band, y, x], of the bands that are asked for."""


class _Asked(NamedTuple):
    """A tile that a chunk waits for."""

    tile: Window
    step: Pass
    answer: Future[Finished]


def upscale_chunk(
    read: Read,
    available: Sequence[str],
    window: Window,
    bands: Sequence[str],
    tiles: Tiles,
    *,
    uncertainty: bool = False,
    mosaic: Window | None = None,
) -> NDArray[np.uint16]:
    """Super-resolve one window: stored numbers [band, y, x] at `scale` times the lattice, 0 where the LR pixel is 0.

    With `uncertainty`, for which the model must have one, twice as many planes: the bands, then how far each
    may be off, in stored numbers (no offset), 1 at least and 0 where the LR pixel is 0.
    `read(bands, window)` gives stored numbers [band, y, x] and 0 beyond the scene; `available` are the bands it has.
    `tiles` serve one scene, on any number of threads that call this. `mosaic`: what the window is a part of, where
    tiles that its other parts need as well are worth keeping.
    Raises ModelError where the network gives NaN or infinity.
    """
    gathered = gather(read, available, window, bands, tiles.model.descriptor, uncertainty, mosaic)
    scale = tiles.model.descriptor.scale
    planes = len(bands) * (1 + uncertainty)
    result = np.empty((planes, window.height * scale, window.width * scale), np.uint16)
    for rows, sr in blend(gathered, bands, tiles):
        lr = gathered.lr[:, rows]
        result[:, rows.start * scale : rows.stop * scale] = settle(sr, lr, scale, tiles.consistency)
    return result


def gather(
    read: Read,
    available: Sequence[str],
    window: Window,
    bands: Sequence[str],
    model: ModelDescriptor,
    uncertainty: bool = False,
    mosaic: Window | None = None,
) -> Gathered:
    """Read what the tiles of a window need; no device works."""
    steps = passes(bands, available, model.bands, uncertainty)
    needed = list(dict.fromkeys(band for step in steps for band in step.inputs))
    cover = tiling_of(model).cover(window)
    dn = dict(zip(needed, read(needed, cover), strict=True))
    lr = np.stack([dn[band][window.within(cover)] for band in bands])
    return Gathered(window, mosaic or window, cover, steps, dn, lr)


def blend(gathered: Gathered, bands: Sequence[str], tiles: Tiles) -> Iterator[tuple[slice, Tensor]]:
    """The blended tiles of a window from north to south, each held to its scene: rows of the scene, and stored numbers,
    float32 [plane, y, x], of their pixels, on the device. They may lie beyond 1..65535.

    The planes are the bands and, where the passes keep them, how far they may be off. A strip is as high as the
    distance between tiles; the next one takes its place.
    """
    descriptor, window = tiles.model.descriptor, gathered.window
    scale, tiling = descriptor.scale, tiling_of(descriptor)
    planes = len(bands) * (1 + gathered.steps[0].uncertainty)
    height, ramp = (tiling.stride + tiling.overlap) * scale, tiling.overlap * scale
    strip = torch.zeros(planes, height, window.width * scale, device=tiles.model.device)
    for row, asked in groupby(_in_order(gathered, tiles), lambda each: each[0]):
        top = row + tiling.halo  # where the weights of this row of tiles begin
        for _, tile in asked:
            if tile is not None:
                _add(strip, top, tile, bands, window, descriptor)
        start, stop = max(top, window.row), min(top + tiling.stride, window.stop_row)
        if start < stop:  # else its last rows alone are inside, which it shares with the next
            yield slice(start - window.row, stop - window.row), strip[:, (start - top) * scale : (stop - top) * scale]
        # What the next row of tiles has in common with this one.
        strip[:, :ramp] = strip[:, height - ramp :]
        strip[:, ramp:] = 0


def _parts(asked: _Asked, model: ModelDescriptor) -> tuple[Tensor, ...]:
    """What the tile gives, once it is finished. Raises ModelError where that is not all numbers."""
    parts, sound = asked.answer.result()
    if not sound:
        raise ModelError(
            f"model {model.name} gave NaN or infinity near row {asked.tile.row}, column {asked.tile.col} of the "
            "lattice; its weights or its precision on this device are at fault"
        )
    return parts


def _add(strip: Tensor, top: int, asked: _Asked, bands: Sequence[str], window: Window, model: ModelDescriptor) -> None:
    """Add a tile, once it is finished, to the strip [plane, y, x] whose first row is row `top` of the lattice.

    Uncertainty by the weights of the pixels: where two tiles overlap their errors are all but the same, so that of the
    blend is as wide as both on average. The root of summed squares is that of independent errors.
    """
    weighty, scale = asked.tile.grow(-model.halo), model.scale
    common = weighty.intersect(window)
    assert common is not None  # tiles() gives only tiles that meet the window
    rows, cols = (_scaled(part, scale) for part in common.within(weighty))
    down = slice((common.row - top) * scale, (common.stop_row - top) * scale)
    along = _scaled(common.within(window)[1], scale)
    for first, part in zip(range(0, len(strip), len(bands)), _parts(asked, model), strict=True):
        for (_, band), plane in zip(asked.step.outputs, part, strict=True):
            strip[first + bands.index(band), down, along] += plane[rows, cols]


def _in_order(gathered: Gathered, tiles: Tiles) -> Iterator[tuple[int, _Asked | None]]:
    """Every tile of the window with the row it begins in, always in the same order: sums of float32 depend on theirs.

    None for one without a valid pixel in the bands it would be run for: it would only be masked again. Tiles are asked
    for before they are waited for.
    """
    tiling = tiling_of(tiles.model.descriptor)
    running: deque[tuple[int, _Asked | None]] = deque()
    for row, line in groupby(tiling.tiles(gathered.window), lambda tile: tile.row):
        these = list(line)
        for step in gathered.steps:
            channels = [channel for channel, _ in step.outputs]
            for tile in these:
                numbers = np.stack([gathered.dn[band][tile.within(gathered.cover)] for band in step.inputs])
                asked = None
                if numbers[channels].any():
                    weighty = tile.grow(-tiling.halo)
                    shared = weighty.intersect(gathered.window) != weighty.intersect(gathered.mosaic)
                    asked = _Asked(tile, step, tiles.ask(step, tile, numbers, shared))
                running.append((row, asked))
                if len(running) > tiles.ahead:
                    yield running.popleft()
    yield from running


def settle(sr: Tensor, lr: NDArray[np.uint16], scale: int, consistency: Consistency) -> NDArray[np.uint16]:
    """Bring blended pixels [plane, y, x] into the range of numbers, and round; 0 where their scene's numbers are 0.

    `lr` [band, y, x] are these; what follows the bands is how far they may be off, of fewer digits. `sr` is used up.
    """
    result = np.empty(sr.shape, np.uint16)
    for plane in range(len(sr)):  # one by one: the temporaries of a plane are as large as the plane
        band = plane % len(lr)
        low = torch.from_numpy(lr[band : band + 1].astype(np.float32)).to(sr.device)
        if plane == band:
            held = consistency.chunk(sr[plane : plane + 1], low.clamp(min=DN_MIN), scale)[0].round_()
        else:
            held = sr[plane].clamp_(DN_MIN, DN_MAX).round_()
        if not lr[band].all():
            held *= (low[0] != NODATA).repeat_interleave(scale, 0).repeat_interleave(scale, 1)
        # Half as many bytes leave the device as there would be of float32.
        result[plane] = held.to(torch.uint16).cpu().numpy()
        if plane != band:
            round_off(result[plane])
    return result


def _scaled(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)
