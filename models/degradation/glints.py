"""Glints for training: reflectance without them in, the same ground with a few small, very bright things out.

Roofs, greenhouses and solar panels that mirror the sun are brighter than any snow: reflectances of 2 and more in one or
two pixels. An aerial photograph's white hides them. A network that has never seen any turns them into rings, and a few
of them are most of a scene's squared error.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .draws import Draws

COUNT = (1, 6)
"""Things on an image."""
SIDES = (1.0, 24.0)
"""Sides of each, in pixels; small ones more often, in the ratio of the logarithms."""
BRIGHTNESS = (0.4, 3.0)
"""Reflectance of each, in the ratio of the logarithms."""
TINT = 0.15
"""Most that a band is brighter or darker than that."""


def glinting(reflectance: Tensor, draws: Draws) -> Tensor:
    """One image [c, h, w] with opaque rectangles on it, in any place and direction, each of one colour.

    A rectangle's edge is a pixel wide, as pixels average what they see: thinner things are fainter.
    """
    height, width = reflectance.shape[-2:]
    y = torch.arange(height, device=reflectance.device)[:, None]
    x = torch.arange(width, device=reflectance.device)
    for _ in range(draws.integer(*COUNT)):
        row, col, angle = draws.uniform(0, height), draws.uniform(0, width), draws.uniform(0, math.pi)
        sides = [_logarithmic(SIDES, draws) for _ in range(2)]
        down, right = y - row, x - col
        along, across = (down * math.sin(turn) + right * math.cos(turn) for turn in (angle, angle + math.pi / 2))
        cover = torch.ones_like(along)
        for distance, side in zip((along, across), sides, strict=True):
            cover = cover * ((side + 1) / 2 - distance.abs()).clamp(0, min(side, 1))
        bright = _logarithmic(BRIGHTNESS, draws)
        colour = [bright * (1 + draws.uniform(-TINT, TINT)) for _ in reflectance]
        reflectance = reflectance + cover * (torch.tensor(colour).to(reflectance)[:, None, None] - reflectance)
    return reflectance


def _logarithmic(limits: tuple[float, float], draws: Draws) -> float:
    """A number drawn evenly from the logarithms between `limits`."""
    return math.exp(draws.uniform(*map(math.log, limits)))
