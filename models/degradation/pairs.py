"""Sharp images in [0, 1] in, pairs to learn from out: degraded and sharp, both in the network's range.

What 1 means is the radiometry's to say: white of a photograph, or a reflectance drawn anew for every image.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from rsup.models.base.radiometry import ADD_OFFSET, SCALE_FACTOR, to_network
from rsup.models.base.settings import Config

from .clouds import clouded
from .draws import Draws, PositiveRange, Probability, Range
from .glints import glinting
from .real_esrgan import PublishedDegradation
from .sensor import SensorDegradation

Degradation = Annotated[PublishedDegradation | SensorDegradation, Field(discriminator="kind")]
"""How the small image comes about: settings that are called as `(high, scale, generator)`."""


class RadiometryConfig(Config):
    """How images in [0, 1] become the network's values in [-1, 1]."""

    kind: Literal["photograph", "reflectance"] = "photograph"
    """photograph: 2x - 1, as the paper does; reflectance: the map every scene goes through before the network."""
    span: PositiveRange = (0.25, 0.6)
    """Reflectance at 1 above that at 0, drawn for each image.

    Most land lies under 0.25 in red, green and blue, bright soil and roofs under 0.6, and one photograph may show
    either: a network that has seen only one span would know absolute brightness from texture. A sensor needs
    reflectance for its noise, whatever the kind.
    """
    floor: Range = (0, 0)
    """Reflectance at 0, drawn for each image.

    With a small span, a high floor makes snow, cloud and salt of the same images, a low one water: places of little
    contrast, which photographs of towns do not show, and where the noise is what there is to see.
    """
    glints: Probability = 0.0
    """Share of the images that are given glints (glints.py); for the sensor alone."""
    clouds: Probability = 0.0
    """Share of the images that are given a cloud (clouds.py), over the glints; for the sensor alone."""
    permuted: Probability = 0.0
    """Share of the images whose bands are put in an order drawn anew before the sensor sees them: what a network knows
    of one band then serves the others, and few scenes give many; for the sensor alone."""
    alone: Probability = 0.0
    """Share of the images of which one band stands in for all, or the first for the last, with its noise: so a network
    is given scenes that lack bands."""


def make_pair(
    high01: Tensor,
    scale: int,
    degradation: PublishedDegradation | SensorDegradation,
    radiometry: RadiometryConfig,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """[n, band, h, w] in [0, 1] -> (low [n, band, h / scale, w / scale], high) in [-1, 1], on the same device.

    The published degradation is one of three bands: of a fourth it makes the first once more. The same state of
    `generator`, which lives on the CPU, gives the same pair. RecipeError where `scale` does not divide the edges.
    """
    draws = Draws(generator)
    span, floor = (
        torch.tensor([[[[draws.uniform(*limits)]]] for _ in high01], dtype=torch.float32).to(high01.device)
        for limits in (radiometry.span, radiometry.floor)
    )
    if isinstance(degradation, SensorDegradation):
        ground = high01 * span + floor
        if radiometry.permuted:
            ground = torch.stack(
                [each[draws.order(len(each))] if draws.chance(radiometry.permuted) else each for each in ground]
            )
        for share, add in ((radiometry.glints, glinting), (radiometry.clouds, clouded)):
            ground = torch.stack([add(each, draws) if draws.chance(share) else each for each in ground])
        high01, low = ((each - floor) / span for each in (ground, degradation(ground, scale, generator)))
    else:
        low = degradation(high01[:, :3], scale, generator)
        low, high01 = (torch.cat([each[:, :3], each[:, : high01.shape[1] - 3]], 1) for each in (low, high01))
    if radiometry.alone:
        both = zip(low, high01, strict=True)
        pairs = [_alone(*each, draws) if draws.chance(radiometry.alone) else each for each in both]
        low, high01 = (torch.stack(each) for each in zip(*pairs, strict=True))
    if radiometry.kind == "photograph":
        # A sensor's noise leaves [0, 1] at its ends; a photograph's 8 bits do not.
        return (2 * low.float() - 1).clamp(-1, 1), (2 * high01.float() - 1).clamp(-1, 1)
    low, high = (to_network((each * span + floor - ADD_OFFSET) / SCALE_FACTOR) for each in (low, high01))
    return low, high


def _alone(low: Tensor, high: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """One image [band, h, w] and its truth, of one band alone, or with the first in the place of the last."""
    band = draws.integer(0, len(low))
    if band == len(low):
        low, high = (torch.cat([each[:-1], each[:1]]) for each in (low, high))
        return low, high
    return low[band].expand_as(low), high[band].expand_as(high)
