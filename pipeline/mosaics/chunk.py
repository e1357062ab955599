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
from rsup.models.base.intervals import DETAIL
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
) -> tuple[NDArray[np.uint16], ...]:
    """Super-resolve one window: stored numbers [band, y, x] at `scale` times the lattice, 0 where the LR pixel is 0.

    With `uncertainty`, for which the model must have one, how far these may be off besides: stored numbers (no
    offset) [band, y, x] at DETAIL times the lattice, 1 at least and 0 where the LR pixel is 0.
    `read(bands, window)` gives stored numbers [band, y, x] and 0 beyond the scene; `available` are the bands it has.
    `tiles` serve one scene, on any number of threads that call this. `mosaic`: what the window is a part of, where
    tiles that its other parts need as well are worth keeping.
    Raises ModelError where the network gives NaN or infinity.
    """
    gathered = gather(read, available, window, bands, tiles.model.descriptor, uncertainty, mosaic)
    scale = tiles.model.descriptor.scale
    fines = (scale, DETAIL)[: 1 + uncertainty]
    result = tuple(np.empty((len(bands), window.height * fine, window.width * fine), np.uint16) for fine in fines)
    for rows, (sr, *widths) in blend(gathered, bands, tiles):
        lr = gathered.lr[:, rows]
        made, *told = (part[:, _scaled(rows, fine)] for part, fine in zip(result, fines, strict=True))
        settle(sr, lr, scale, tiles.consistency, made)
        for each, out in zip(widths, told, strict=True):
            settle_widths(each, lr, out)
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


def blend(gathered: Gathered, bands: Sequence[str], tiles: Tiles) -> Iterator[tuple[slice, list[Tensor]]]:
    """The blended tiles of a window from north to south, each held to its scene: rows of the scene, and stored numbers,
    float32 [band, y, x], of their pixels, on the device. They may lie beyond 1..65535.

    Where the passes keep it, also how far these may be off, DETAIL numbers along a side of a scene's pixel. A strip is
    as high as the distance between tiles; the next one takes its place.
    """
    descriptor, window, device = tiles.model.descriptor, gathered.window, tiles.model.device
    tiling = tiling_of(descriptor)
    strips = {
        fine: torch.zeros(len(bands), (tiling.stride + tiling.overlap) * fine, window.width * fine, device=device)
        for fine in (descriptor.scale, DETAIL)[: 1 + gathered.steps[0].uncertainty]
    }
    for row, asked in groupby(_in_order(gathered, tiles), lambda each: each[0]):
        top = row + tiling.halo  # where the weights of this row of tiles begin
        for _, tile in asked:
            if tile is not None:
                _add(strips, top, tile, bands, window, descriptor)
        start, stop = max(top, window.row), min(top + tiling.stride, window.stop_row)
        if start < stop:  # else its last rows alone are inside, which it shares with the next
            ready = slice(start - top, stop - top)
            yield (
                slice(start - window.row, stop - window.row),
                [strip[:, _scaled(ready, fine)] for fine, strip in strips.items()],
            )
        for fine, strip in strips.items():
            # What the next row of tiles has in common with this one.
            strip[:, : tiling.overlap * fine] = strip[:, tiling.stride * fine :]
            strip[:, tiling.overlap * fine :] = 0


def _parts(asked: _Asked, model: ModelDescriptor) -> tuple[Tensor, ...]:
    """What the tile gives, once it is finished. Raises ModelError where that is not all numbers."""
    parts, sound = asked.answer.result()
    if not sound:
        raise ModelError(
            f"model {model.name} gave NaN or infinity near row {asked.tile.row}, column {asked.tile.col} of the "
            "lattice; its weights or its precision on this device are at fault"
        )
    return parts


def _add(
    strips: dict[int, Tensor],
    top: int,
    asked: _Asked,
    bands: Sequence[str],
    window: Window,
    model: ModelDescriptor,
) -> None:
    """Add a tile, once it is finished, to the strips [band, y, x], by their numbers along a side of a scene's pixel,
    whose first row is row `top` of the lattice.

    Uncertainty by the weights of the pixels: where two tiles overlap their errors are all but the same, so that of the
    blend is as wide as both on average. The root of summed squares is that of independent errors.
    """
    weighty = asked.tile.grow(-model.halo)
    common = weighty.intersect(window)
    assert common is not None  # tiles() gives only tiles that meet the window
    down = slice(common.row - top, common.stop_row - top)
    for (fine, strip), part in zip(strips.items(), _parts(asked, model), strict=True):
        rows, cols = (_scaled(axis, fine) for axis in common.within(weighty))
        place = _scaled(down, fine), _scaled(common.within(window)[1], fine)
        for (_, band), plane in zip(asked.step.outputs, part, strict=True):
            strip[bands.index(band), *place] += plane[rows, cols]


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


def settle(sr: Tensor, lr: NDArray[np.uint16], scale: int, consistency: Consistency, out: NDArray[np.uint16]) -> None:
    """Bring blended pixels [band, y, x] into the range of numbers, and round them into `out`; 0 where the numbers of
    their scene are 0, which are `lr` [band, y, x]. `sr` is used up.
    """
    for band, numbers in enumerate(lr):  # one by one: the temporaries of a plane are as large as the plane
        low = torch.from_numpy(numbers[None].astype(np.float32)).to(sr.device)
        held = consistency.chunk(sr[band : band + 1], low.clamp(min=DN_MIN), scale)[0]
        out[band] = _stored(held, numbers, scale)


def settle_widths(widths: Tensor, lr: NDArray[np.uint16], out: NDArray[np.uint16]) -> None:
    """The same of how far pixels may be off, DETAIL numbers along a side of a scene's pixel [band, y, x]."""
    for band, numbers in enumerate(lr):
        out[band] = _stored(widths[band].clamp_(DN_MIN, DN_MAX), numbers, DETAIL)


def _stored(plane: Tensor, lr: NDArray[np.uint16], fine: int) -> NDArray[np.uint16]:
    """Round a plane [y, x], in its place; 0 where the scene's numbers are, `fine` pixels along a side of each."""
    plane.round_()
    if not lr.all():
        valid = torch.from_numpy(lr != NODATA).to(plane.device)
        plane *= valid.repeat_interleave(fine, 0).repeat_interleave(fine, 1)
    # Half as many bytes leave the device as there would be of float32.
    return np.asarray(plane.to(torch.uint16).cpu().numpy())


def _scaled(part: slice, scale: int) -> slice:
    return slice(part.start * scale, part.stop * scale)
