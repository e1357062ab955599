"""Power by spatial frequency: what an image holds at each scale, wherever in the image it is.

The mean is taken off and a Hann window laid over the image, for an image is not periodic and its edges would ring
through all frequencies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def windowed_fft(planes: Tensor) -> Tensor:
    """Real planes [..., y, x] -> their 2-D Fourier transforms [..., y, x], unnormalised, under the window."""
    down, right = (
        torch.sin(math.pi * (torch.arange(n, dtype=planes.dtype, device=planes.device) + 0.5) / n).square()
        for n in planes.shape[-2:]
    )
    centred = planes - planes.mean((-2, -1), keepdim=True)
    transforms: Tensor = torch.fft.fft2(centred * down[:, None] * right)
    return transforms


def radial_spectrum(planes: Tensor) -> Tensor:
    """[..., y, x] -> mean power in rings of k = 1 .. n // 2 cycles a side, [..., k], of the central n x n squares."""
    side = min(planes.shape[-2:])
    top, left = ((length - side) // 2 for length in planes.shape[-2:])
    power = windowed_fft(planes[..., top : top + side, left : left + side]).abs().square().flatten(-2)
    cycles = torch.fft.fftfreq(side, 1 / side, dtype=torch.float64, device=planes.device)
    ring = torch.hypot(cycles[:, None], cycles).round().long().flatten()
    counts = torch.bincount(ring)
    sums = power.new_zeros(*power.shape[:-1], len(counts)).index_add(-1, ring, power)
    return (sums / counts)[..., 1 : side // 2 + 1]
