"""A projected discriminator: images and the scenes they were made of in, logits of being real out, a map a depth.

Small heads on EfficientNet-Lite0's maps: what a network of features already sees need not be learned against the
generator. Source: Sauer et al. 2021, Projected GANs Converge Faster, without the random mixing of its maps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils.parametrizations import spectral_norm

from .sight import Sight

BACKBONE = "efficientnet-lite0"
"""What settings call it."""


class ProjectedDiscriminator(nn.Module):
    """Images [n, 3 or more, h, w] in [-1, 1], `known` of their scenes -> logits [n, 1, h / 2^k, w / 2^k], k = 1..4.

    It sees three channels, through `sight`; the scene tells it what may be there. What is frozen is no part of what is
    saved.
    """

    def __init__(self, width: int, sight: Sight) -> None:
        super().__init__()
        self.sight = sight
        self.heads = nn.ModuleList(_head(2 * channels, width) for channels in sight.widths)

    @torch.no_grad()
    def known(self, scene: Tensor) -> list[Tensor]:
        """What is told of enlarged scenes [n, 3 or more, h, w] in [-1, 1], once for all images judged by it."""
        return self._seen(scene)

    def forward(self, image: Tensor, known: Sequence[Tensor]) -> list[Tensor]:
        pairs = (torch.cat(pair, 1) for pair in zip(self._seen(image), known, strict=True))
        return [head(pair) for head, pair in zip(self.heads, pairs, strict=True)]

    def _seen(self, image: Tensor) -> list[Tensor]:
        """Maps of vectors of one length: heads of bounded slope need inputs of one size, whatever the depth."""
        return [_unit(each) for each in self.sight(image)]


def _unit(maps: Tensor) -> Tensor:
    """Vectors of the length that as many numbers of variance 1 have."""
    unit: Tensor = F.normalize(maps, dim=1, eps=1e-8)
    return unit * math.sqrt(maps.shape[1])


def _head(channels: int, width: int) -> nn.Sequential:
    """[n, channels, h, w] -> [n, 1, h, w]; spectral normalisation bounds how fast logits can change."""
    return nn.Sequential(
        spectral_norm(nn.Conv2d(channels, width, 1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(width, width, 3, padding=1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(width, width, 3, padding=1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(width, 1, 1)),
    )
