"""The published degradation: sharp photographs in [0, 1] go in, small, blurred, noisy, compressed ones come out.

Real-ESRGAN's second-order chain (section 3 of its paper) with the milder ranges SlimDiffSR was trained with: twice
blur, resize, noise, JPEG, then a resize to the small size and a ringing filter, before or after the last JPEG. Those
ranges were published for x4; x8 takes the same with twice the reduction, which is inferred.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from rsup.models.base.settings import Config
from rsup.models.sensors.response import Response

from .blur import KernelConfig, blur, draw_bell, draw_sinc
from .draws import Draws, PositiveRange, Probability, Range, low_size, ordered
from .jpeg import jpeg, luma

_Quality = Annotated[int, Field(ge=1, le=100)]
Qualities = Annotated[tuple[_Quality, _Quality], AfterValidator(ordered)]
"""Lowest and highest JPEG quality of a uniform draw; both are possible."""


class FirstStage(Config):
    """Blur, resize, noise, JPEG, each with the ranges its strength is drawn from."""

    blur_probability: Probability = 1
    kernel: KernelConfig = KernelConfig()
    sigma: PositiveRange = (0.2, 1.5)
    """Width of bell-shaped kernels, in pixels."""
    sinc_probability: Probability = 0.1
    """How often the kernel is a ringing one."""
    resize_shares: tuple[float, float, float] = (0.2, 0.7, 0.1)
    """How often the image grows, shrinks, stays as it is."""
    resize: PositiveRange = (0.3, 1.5)
    """Factors of the edges; growing draws above 1, shrinking below."""
    gaussian_probability: Probability = 0.5
    """How often noise is Gaussian; else it is Poisson noise."""
    gaussian_sigma: Range = (1, 15)
    """Standard deviation of Gaussian noise, in 255ths."""
    poisson_scale: Range = (0.05, 2)
    """Factor of Poisson noise."""
    gray_probability: Probability = 0.4
    """How often the three channels share one noise."""
    jpeg_quality: Qualities = (60, 95)


class SecondStage(FirstStage):
    """The same for what is already degraded; the resize is relative to the small size the chain ends at."""

    blur_probability: Probability = 0.5
    sigma: PositiveRange = (0.2, 1)
    resize_shares: tuple[float, float, float] = (0.3, 0.4, 0.3)
    resize: PositiveRange = (0.6, 1.2)
    gaussian_sigma: Range = (1, 12)
    poisson_scale: Range = (0.05, 1)
    jpeg_quality: Qualities = (60, 100)


class PublishedDegradation(Config):
    """Calling it degrades a batch; every image draws its own strengths, so a batch holds many kinds of damage."""

    kind: Literal["published"] = "published"
    first: FirstStage = FirstStage()
    second: SecondStage = SecondStage()
    final_sinc_probability: Probability = 0.8

    @property
    def responses(self) -> tuple[Response, ...]:
        """No sensor sees like this."""
        return ()

    def __call__(self, high: Tensor, scale: int, generator: torch.Generator) -> Tensor:
        """[n, 3, h, w] in [0, 1] -> [n, 3, h / scale, w / scale] in [0, 1], whole 255ths, on the same device.

        `generator` lives on the CPU. Edges that `scale` does not divide raise RecipeError.
        """
        draws, size = Draws(generator), low_size(high, scale)
        fields = draws.fields(high.device)
        # One by one, because every image passes through sizes of its own.
        return torch.stack([self._degrade(image.float(), size, draws, fields) for image in high])

    def _degrade(self, image: Tensor, size: tuple[int, int], draws: Draws, fields: torch.Generator) -> Tensor:
        image = _noisy(_resized(_blurred(image, self.first, draws), self.first, None, draws), self.first, draws, fields)
        image = jpeg(image, draws.integer(*self.first.jpeg_quality))
        image = _resized(_blurred(image, self.second, draws), self.second, size, draws)
        image = _noisy(image, self.second, draws, fields)
        ringing = (
            draw_sinc(self.second.kernel, draws, math.pi / 3) if draws.chance(self.final_sinc_probability) else None
        )
        quality = draws.integer(*self.second.jpeg_quality)
        if draws.chance(0.5):
            image = jpeg(_finished(image, size, ringing, draws), quality)
        else:
            image = _finished(jpeg(image, quality), size, ringing, draws)
        return (image.clamp(0, 1) * 255).round() / 255


def _blurred(image: Tensor, stage: FirstStage, draws: Draws) -> Tensor:
    if not draws.chance(stage.blur_probability):
        return image
    if draws.chance(stage.sinc_probability):
        return blur(image, draw_sinc(stage.kernel, draws))
    return blur(image, draw_bell(stage.kernel, stage.sigma, draws))


def _interpolated(image: Tensor, size: tuple[int, int], draws: Draws) -> Tensor:
    """`image` [3, h, w] at `size` by a drawn method.

    None of them smooths before it shrinks, except area: aliasing is part of the published degradation. The size, not
    the factor, is given to the library, so that the outer edges of both images coincide and nothing is shifted.
    """
    mode = ("area", "bilinear", "bicubic")[draws.index((1, 1, 1))]
    aligned = None if mode == "area" else False
    return F.interpolate(image[None], size, mode=mode, align_corners=aligned)[0]


def _resized(image: Tensor, stage: FirstStage, reference: tuple[int, int] | None, draws: Draws) -> Tensor:
    """Grown or shrunk by a factor of `reference`, or of the image's own size; kept means factor 1."""
    low, high = stage.resize
    factor = (draws.uniform(1, max(high, 1)), draws.uniform(min(low, 1), 1), 1.0)[draws.index(stage.resize_shares)]
    h, w = reference or image.shape[1:]
    return _interpolated(image, (max(int(h * factor), 1), max(int(w * factor), 1)), draws)


def _noisy(image: Tensor, stage: FirstStage, draws: Draws, fields: torch.Generator) -> Tensor:
    gray = draws.chance(stage.gray_probability)
    if draws.chance(stage.gaussian_probability):
        shape = (1 if gray else image.shape[0], *image.shape[1:])
        noise = torch.randn(shape, generator=fields, device=image.device)
        return (image + draws.uniform(*stage.gaussian_sigma) / 255 * noise).clamp(0, 1)
    noise = _poisson(luma(image) if gray else image, fields)
    return (image + draws.uniform(*stage.poisson_scale) * noise).clamp(0, 1)


def _poisson(image: Tensor, fields: torch.Generator) -> Tensor:
    """Photon noise of `image` [c, h, w] in [0, 1], of mean 0.

    White counts as many photons as the image has different 8-bit values, rounded up to a power of two (Real-ESRGAN's
    rule): an image of few tones is taken for one that was badly lit.
    """
    levels = (image.clamp(0, 1) * 255).round()
    # Marked in a table, not counted by `unique`, which would wait for the device.
    seen = torch.zeros(256, device=image.device).scatter_(0, levels.long().flatten(), 1.0)
    photons = torch.exp2(seen.sum().log2().ceil())
    clean = levels / 255
    return torch.poisson(clean * photons, generator=fields) / photons - clean


def _finished(image: Tensor, size: tuple[int, int], ringing: Tensor | None, draws: Draws) -> Tensor:
    small = _interpolated(image, size, draws)
    return small if ringing is None else blur(small, ringing)
