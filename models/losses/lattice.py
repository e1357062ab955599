"""A lattice of dots at the pitch of the scene's pixels: what networks that enlarge leave in pictures, and how strong.

It is of the period `scale` down and across, so its power lies at multiples of 1 / scale cycles a pixel, where ground
has no more than at the frequencies around. What is measured is the power there over that of the neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .spectrum import windowed_fft
from .terms import at_least_float32

_NEAR, _FAR = 2, 3
"""Neighbours, in steps of the transform: a Hann window spreads a spike over one step to each side."""
SHORTEST = 2 * _FAR + 1
"""Least pixels of the scene a side: with fewer, neighbours of one multiple are those of the next."""
SQUARE = SHORTEST + 1
"""Pixels of the scene a side of what the term looks at."""
CHANCE = 0.5963
"""Mean of log(1 + spike / surroundings) where there is no lattice: power of noise is exponential, and the integral of
log(1 + x) exp(-x) is e E1(1)."""


def spikes(planes: Tensor, scale: int) -> tuple[Tensor, Tensor]:
    """Power [..., k] at the k = scale^2 - 1 multiples of 1 / scale cycles a pixel of [..., y, x], and the mean of the
    neighbours'. Sides are multiples of `scale`, of at least SHORTEST times that; ValueError for others.
    """
    height, width = planes.shape[-2:]
    if height % scale or width % scale or min(height, width) < SHORTEST * scale:
        raise ValueError(f"{height} x {width} pixels are no {SHORTEST} x {SHORTEST} of {scale} x {scale}")
    power = windowed_fft(planes).abs().square()
    at = torch.arange(scale)
    rows, columns = (each.flatten()[1:] for each in torch.meshgrid(at, at, indexing="ij"))
    rows, columns = rows * (height // scale), columns * (width // scale)
    steps = torch.arange(-_FAR, _FAR + 1)
    down, right = (each.flatten() for each in torch.meshgrid(steps, steps, indexing="ij"))
    around = torch.maximum(down.abs(), right.abs()) >= _NEAR
    down, right = down[around], right[around]
    neighbours = power[..., (rows[:, None] + down) % height, (columns[:, None] + right) % width]
    return power[..., rows, columns], neighbours.mean(-1)


def lattice(image: Tensor, scale: int) -> Tensor:
    """Spikes of [n, band, h, w] beyond chance: in squares of SQUARE x SQUARE pixels of the scene, and over the whole.

    max(0, log(1 + spike / around) - CHANCE)^2, its mean over bands and multiples in squares, over bands over the whole;
    the sum of both. In squares, for a smooth field has a lattice of its own beside a town that has none, and at every
    multiple by itself: a weave that is plain to see has its power at two or three of them, and many have less than
    chance gives. Over the whole, for a lattice of a fiftieth of the ground's contrast is lost in one square, and plain
    where the eye or a transform sees a hundred; of all multiples together, or with the few images of a batch what
    chance gives would be paid for, which took all texture from fields within a thousand steps.

    The logarithm is a mean over images and squares: without it a few flat squares, whose surroundings are next to
    nothing, would be all that counts. What is less than chance costs nothing: were fewer still better, the cheapest
    band would be one without any detail, which is what became of near infrared. What is left beside the last whole
    square, or pixel of the scene, is not looked at. ValueError for images smaller than a square.
    """
    side = SQUARE * scale
    height, width = (length // scale * scale for length in image.shape[-2:])
    if min(height, width) < side:
        raise ValueError(f"{image.shape[-2]} x {image.shape[-1]} pixels hold no square of {side}")
    image = at_least_float32(image)
    squares = image.unfold(-2, side, side).unfold(-2, side, side)
    seen = _found(squares, scale).mean((0, 2, 3)), _found(image[..., :height, :width], scale).mean((0, 2))
    return torch.stack([(each - CHANCE).relu().square().mean() for each in seen]).sum()


def _found(planes: Tensor, scale: int) -> Tensor:
    """log(1 + spike / around), [..., y, x] -> [..., k]. The surroundings get no gradient: they would be raised."""
    there, around = spikes(planes, scale)
    # A flat plane has neither.
    return (there / (around.detach() + torch.finfo(torch.float32).eps)).log1p()
