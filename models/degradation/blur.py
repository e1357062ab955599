"""Blur kernels of synthetic degradation: settings and choices go in, square kernels that sum to one come out.

Bell-shaped kernels depend on the Mahalanobis distance of a pixel from the centre; the ringing ones are ideal circular
low-pass filters. Source: Real-ESRGAN, sections 3.1 (generalised and plateau kernels: Liu et al. 2020) and 3.3 (sinc).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from rsup.models.base.settings import Config

from .draws import Counts, Draws, PositiveRange, Range


class KernelShares(Config):
    """How often each shape is drawn, relative to the others; anisotropic ones have two widths and a direction."""

    isotropic: float = 0.45
    anisotropic: float = 0.25
    generalised_isotropic: float = 0.12
    generalised_anisotropic: float = 0.03
    plateau_isotropic: float = 0.12
    plateau_anisotropic: float = 0.03


class KernelConfig(Config):
    """Which kernels are drawn; their width is the stage's."""

    size: Counts = (7, 21)
    """Smallest and largest edge in pixels, both odd; every odd edge between them is as likely."""
    shares: KernelShares = KernelShares()
    generalised_beta: PositiveRange = (0.5, 2)
    """Shape of generalised Gaussians: below 1 pointed, above 1 flat. Half of the draws lie on each side of 1."""
    plateau_beta: PositiveRange = (1, 1.5)
    """Shape of plateau kernels, drawn the same way."""


def squared_distance(size: int, sigma: tuple[float, float], angle: float) -> Tensor:
    """Squared Mahalanobis distance [size, size] from the centre, float64.

    `sigma` are the widths in pixels along and across the direction `angle` (radians, from x towards y).
    """
    offsets = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    return (along / sigma[0]) ** 2 + (across / sigma[1]) ** 2


def gaussian(distance2: Tensor, beta: float = 1) -> Tensor:
    """exp(-d^(2 beta) / 2), normalised; beta = 1 is the Gaussian."""
    return _normalised(torch.exp(-0.5 * distance2**beta))


def plateau(distance2: Tensor, beta: float) -> Tensor:
    """1 / (1 + d^(2 beta)), normalised: half of its peak at distance 1."""
    return _normalised(1 / (1 + distance2**beta))


def sinc(size: int, cutoff: float) -> Tensor:
    """The ideal low-pass filter [size, size] that keeps frequencies below `cutoff` (radians a pixel), float64.

    Its tails ring, as over-sharpened images do. cutoff J1(cutoff r) / (2 pi r) at distance r; cutoff^2 / 4 pi at 0.
    """
    r = squared_distance(size, (1, 1), 0).sqrt()
    ring = cutoff * torch.special.bessel_j1(cutoff * r) / (2 * math.pi * r.clamp(min=1e-9))
    return _normalised(torch.where(r == 0, cutoff**2 / (4 * math.pi), ring))


def _normalised(kernel: Tensor) -> Tensor:
    return kernel / kernel.sum()


def draw_size(config: KernelConfig, draws: Draws) -> int:
    """An odd edge length in pixels."""
    return 2 * draws.integer(config.size[0] // 2, config.size[1] // 2) + 1


def draw_bell(config: KernelConfig, sigma: Range, draws: Draws) -> Tensor:
    """A kernel of one of the shapes, widths within `sigma` pixels, [size, size], float64."""
    size = draw_size(config, draws)
    family, anisotropic = divmod(draws.index(list(config.shares.model_dump().values())), 2)
    widths = (draws.uniform(*sigma),) * 2
    angle = 0.0
    if anisotropic:
        widths, angle = (widths[0], draws.uniform(*sigma)), draws.uniform(-math.pi, math.pi)
    distance2 = squared_distance(size, widths, angle)
    if family == 0:
        return gaussian(distance2)
    low, high = config.generalised_beta if family == 1 else config.plateau_beta
    beta = draws.uniform(min(low, 1), 1) if draws.chance(0.5) else draws.uniform(1, max(high, 1))
    return gaussian(distance2, beta) if family == 1 else plateau(distance2, beta)


def draw_sinc(config: KernelConfig, draws: Draws, lowest: float | None = None) -> Tensor:
    """A ringing kernel, [size, size], float64; `lowest` is the least cutoff (radians a pixel).

    A small kernel cannot hold the long waves of a low cutoff: without `lowest` it is pi/3 under 13 pixels, else pi/5.
    """
    size = draw_size(config, draws)
    least = lowest or (math.pi / 3 if size < 13 else math.pi / 5)
    return sinc(size, draws.uniform(least, math.pi))


def blur(image: Tensor, kernel: Tensor) -> Tensor:
    """Convolve every plane of `image` [c, h, w] with `kernel` [k, k], k odd; the edge pixel goes on beyond the border.

    Repeating the edge, unlike mirroring, works for images smaller than the kernel. Done by Fourier transform: on a CPU
    a twentieth of the time of the library's convolution, which is made for many channels.
    """
    (h, w), border = image.shape[-2:], kernel.shape[-1] - 1
    padded = F.pad(image[None], (border // 2,) * 4, mode="replicate")[0]
    # Few sizes with small factors: transforms of any other size are slow, and CUDA plans each size anew.
    size = [-(-(edge + border) // 32) * 32 for edge in (h, w)]
    spectrum = torch.fft.rfft2(padded, s=size) * torch.fft.rfft2(kernel.to(image), s=size)
    blurred: Tensor = torch.fft.irfft2(spectrum, s=size)
    return blurred[..., border : border + h, border : border + w]
