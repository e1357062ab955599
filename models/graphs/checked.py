"""Whether a graph computes what PyTorch does: tiles of made ground in, the largest difference out, in stored numbers.

And engines that were started only after they had been asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rsup.models.base.errors import ModelError
from rsup.models.base.radiometry import DN_ZERO, from_network, to_network

from .engines import ENGINES
from .program import Traced, as_onnx, program

if TYPE_CHECKING:
    from rsup.models.registry import ModelDescriptor

    from .engines import Run

LIMIT = 0.5
"""Stored numbers by which a graph may be off: then no number of a mosaic moves by more than one."""


def made_tiles(model: ModelDescriptor, count: int) -> Tensor:
    """Network values [count, band, tile, tile]: fields of 16, 4 and 1 pixels, here and there as bright as clouds."""
    draw = torch.Generator().manual_seed(0)
    numbers = torch.full((count, len(model.bands), model.tile, model.tile), float(DN_ZERO))
    for side, height in ((16, 2500), (4, 1000), (1, 300)):
        fields = torch.rand(count, len(model.bands), *[-(-model.tile // side)] * 2, generator=draw)
        fields = fields + 3 * (fields > 0.95) * (side == 16)
        numbers += (
            height * fields.repeat_interleave(side, 2).repeat_interleave(side, 3)[..., : model.tile, : model.tile]
        )
    return to_network(numbers)


def deviation(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference in stored numbers between two images, and uncertainties, of the same tiles; may be NaN."""
    if not all(output.isfinite().all() for output in found):  # of an image, clipping would hide it
        return math.nan
    (image, *more), (other, *others) = found, expected
    apart = [from_network(image) - from_network(other), *(a - b for a, b in zip(more, others, strict=True))]
    return max(float(each.abs().max()) for each in apart)


def check(found: Sequence[Tensor], expected: Sequence[Tensor], what: str) -> float:
    """The deviation; raises ModelError where it is more than LIMIT."""
    apart = deviation(found, expected)
    if not apart <= LIMIT:
        raise ModelError(
            f"{what} is up to {apart:.3g} stored numbers away from PyTorch, and {LIMIT:g} is allowed: update PyTorch "
            "and the package that ran it, or go on with PyTorch"
        )
    return apart


def engine(name: str, traced: Traced, model: ModelDescriptor, callers: int) -> Run:
    """The model in the engine of that name, for so many callers at once; raises ModelError where `check` does."""
    # Whoever asks may be in inference mode, whose tensors cannot be written down.
    with torch.inference_mode(False), torch.no_grad():
        tile = made_tiles(model, 1)
        expected = traced(tile)
        graph = as_onnx(program(traced, model), {})
    run = ENGINES[name].start(graph, callers)
    check([torch.from_numpy(output) for output in run(tile.numpy())], expected, f"{model.name} in {name}")
    return run
