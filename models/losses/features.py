"""Feature distance: how far two images are apart for EfficientNet-Lite. It is not LPIPS: no head was fitted to people.

It measures alignment: detail of the right power in the wrong place costs more than none.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rsup.models.networks.sight import Sight

from .terms import at_least_float32


def feature_distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """Mean over depths and positions of |a - b|^2 of vectors of length 1: maps [n, c, h, w] of two images -> scalar.

    From 0, for equal directions, over 2, for what has nothing in common, to 4.
    """
    terms = []
    for a, b in zip(ours, theirs, strict=True):
        a, b = (F.normalize(at_least_float32(each), dim=1, eps=1e-8) for each in (a, b))
        terms.append((a - b).square().sum(1).mean())
    return torch.stack(terms).mean()


class FeatureDistance(nn.Module):
    """Two image batches [n, 3 or more, h, w] in [-1, 1] -> `feature_distance` of their first three channels, a scalar.

    Frozen; gradients flow to the images, also beyond [-1, 1].
    """

    def __init__(self, sight: Sight) -> None:
        super().__init__()
        self.sight = sight

    def forward(self, image: Tensor, truth: Tensor) -> Tensor:
        return feature_distance(self.sight(image), self.sight(truth))
