"""The places of a scene's pixel: detail at output size in, detail out that favours none of them.

Pixel shuffling gives each of a scene pixel's scale x scale places weights of its own, and what these do not agree in
stands in the picture as a lattice of dots at the pitch of the scene's pixels. Ground does not know where these begin:
over many of them each place has the same mean.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from .precision import full_precision

REACH = 12
"""Pixels of the scene to each side over which means are taken. Of a lattice that is the same over so many nothing is
left; of ground, with 25 x 25 pixels of the scene, a 625th of the power at the lattice's frequencies and close by."""


def balanced(detail: Tensor, scale: int, share: float = 1.0) -> Tensor:
    """Detail [n, band, h * scale, w * scale] over an interpolation of the scene, float32, without what its places have
    each by itself: `share` of the mean of each over the pixels of the scene around, less that of all places.

    At borders of what there is. Where means are of few pixels, much of them is ground; hence the share. Means over a
    scene's pixel stay as they are. Detail and not the image: a slope is no lattice.
    """
    with full_precision(detail.device):
        places = F.pixel_unshuffle(detail.float(), scale).unflatten(1, (-1, scale**2))
        apart = (places - places.mean(2, keepdim=True)).flatten(1, 2)
        down, along = (_around(length, detail.device) for length in apart.shape[-2:])
        return detail - share * F.pixel_shuffle(down @ apart @ along.T, scale)


def _around(length: int, device: torch.device) -> Tensor:
    """Means over what lies within REACH, as a matrix [length, length]."""
    at = torch.arange(length, device=device)
    near = ((at[:, None] - at).abs() <= REACH).float()
    return near / near.sum(1, keepdim=True)
