"""The second head of a compact student: its features and its low-resolution image in, how far its image may be off out.

It stays away from output size, where convolutions take most of a student's time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rsup.models.base.intervals import DETAIL
from rsup.models.base.radiometry import from_network

FLAT = 5.0
"""Stored numbers that the surroundings of a pixel differ by at least."""
WIDTH = 32
"""Channels of its layers."""
DILATIONS = (1, 2, 4)
"""Of its 3 x 3 convolutions: together they see 15 x 15 pixels. Whether ground is of small things, as in towns, or of
large ones decides how much of it a student can know, and takes surroundings to see."""
LOG2_E = math.log2(math.e)
"""Turns natural logarithms into powers of two."""


class Doubt(nn.Module):
    """How far the image may be off, which is by more the more its surroundings differ.

    Features [n, channels, h, w] and the low-resolution image [n, bands, h, w] -> in stored numbers
    [n, bands, h * DETAIL, w * DETAIL]; models/base/intervals.py says which share of errors lies within. Untrained it
    says the mean difference of the 5 x 5 pixels around.
    """

    def __init__(self, channels: int, bands: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        coming = channels + bands
        for dilation in DILATIONS:
            layers += [nn.Conv2d(coming, WIDTH, 3, padding=dilation, dilation=dilation), nn.SiLU()]
            coming = WIDTH
        self.surroundings = nn.Sequential(*layers)
        self.last = nn.Conv2d(WIDTH, bands * DETAIL**2, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.constant_(self.last.bias, 0)  # type: ignore[arg-type]

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        contrast = contrast_of(image)
        told = self.last(self.surroundings(torch.cat([features, contrast.log().to(features.dtype)], 1)))
        return widths_of(told, contrast)


def widths_of(told: Tensor, contrast: Tensor) -> Tensor:
    """Multiples of `contrast` [n, bands, h, w]: their logarithms [n, bands * DETAIL^2, h, w] ->
    [n, bands, h * DETAIL, w * DETAIL].
    """
    # exp, on a CPU in a quarter of its time; of the shares alone: a power's error grows with its exponent.
    shares = (F.pixel_shuffle(told.float().contiguous(), DETAIL) * LOG2_E).exp2_()
    return shares * F.interpolate(contrast, scale_factor=DETAIL)


def of_pixels(widths: Tensor, scale: int) -> Tensor:
    """What `Doubt` says [n, bands, h * DETAIL, w * DETAIL], of each pixel: [n, bands, h * scale, w * scale]."""
    return F.interpolate(widths, scale_factor=scale // DETAIL)


def contrast_of(image: Tensor) -> Tensor:
    """Mean absolute difference of the 5 x 5 pixels around each from their mean, in stored numbers, and FLAT."""

    def around(x: Tensor) -> Tensor:
        # Row by row, then column by column: a tenth of what pooling takes on a CPU.
        height, width = x.shape[-2:]
        padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
        along = torch.stack([padded[..., k : k + width] for k in range(5)]).sum(0)
        return torch.stack([along[..., k : k + height, :] for k in range(5)]).sum(0) / 25

    dn = from_network(image.contiguous())  # plane by plane, and so what is made of it
    return around((dn - around(dn)).abs()) + FLAT
