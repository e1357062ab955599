"""Clouds for training: reflectance without them in, the same ground partly under bright, soft veils out.

Aerial surveys fly under clear skies and satellites do not. A network that has only seen houses and fields takes the
soft edge of a cloud for a blurred sharp one, and sharpens it. What is made here is no picture of clouds: smooth fields
of any softness and brightness, which have in common with clouds what matters, that sharpening is wrong.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .draws import Draws

ROUGHNESS = (1.5, 3.0)
"""Fall of amplitude with frequency, f to minus this: from ragged to round."""
SOFTNESS = (0.2, 2.0)
"""Width of the edge from clear to opaque, in standard deviations of the field."""
BRIGHTNESS = (0.25, 1.0)
"""Reflectance of what is opaque."""


def clouded(reflectance: Tensor, draws: Draws) -> Tensor:
    """One image [c, h, w] with a veil drawn over it: transparent, opaque or anything between from place to place.

    Fractal noise cut at a drawn level gives the opacity; a second, fainter field the brightness of the opaque.
    """
    fields = draws.fields(reflectance.device)
    roughness = draws.uniform(*ROUGHNESS)
    cover, shade = (_fractal(reflectance, roughness, fields) for _ in range(2))
    opacity = torch.sigmoid((cover - draws.uniform(-1, 1)) * 4 / draws.uniform(*SOFTNESS))
    bright = draws.uniform(*BRIGHTNESS) * (1 + 0.1 * shade)
    return reflectance + opacity * (bright.clamp(min=0) - reflectance)


def _fractal(like: Tensor, roughness: float, fields: torch.Generator) -> Tensor:
    """Noise [h, w] of mean 0 and variance 1 whose amplitude falls with frequency; cut from a field twice the size.

    Twice, because the field is periodic and an image is not.
    """
    h, w = (2 * side for side in like.shape[-2:])
    white = torch.randn((h, w), generator=fields, device=like.device)
    fy, fx = torch.fft.fftfreq(h, device=like.device), torch.fft.rfftfreq(w, device=like.device)
    frequency = torch.hypot(fy[:, None], fx)
    frequency[0, 0] = math.inf
    field = torch.fft.irfft2(torch.fft.rfft2(white) * frequency**-roughness, s=(h, w))
    field = field[: h // 2, : w // 2]
    standard: Tensor = (field - field.mean()) / field.std().clamp(min=1e-6)
    return standard
