"""Sentinel-2 seen from finer imagery: reflectance on a grid `scale` times finer goes in, what MSI would give comes out.

Finer pixels are taken for the ground itself, which each band sees as its `Response` says; their own aperture lowers its
modulation by another 2.5 % at x4 and 0.6 % at x8, within the spread drawn here. Noise and the steps of the product come
last.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from rsup.models.base.errors import RecipeError
from rsup.models.base.radiometry import ADD_OFFSET, DN_MAX, DN_MIN, SCALE_FACTOR
from rsup.models.base.settings import Config
from rsup.models.sensors.response import SHOT_SHARE, Response, sigma_of, taps
from rsup.models.sensors.sentinel2 import SENTINEL2

from .draws import Draws, Probability, Range, low_size

BandName = Literal["blue", "green", "red", "nir"]


RESPONSES: dict[BandName, Response] = {
    name: response for name in get_args(BandName) if (response := SENTINEL2.band(name).response) is not None
}
"""Of the bands whose response is published."""


class SensorDegradation(Config):
    """Calling it images a batch with MSI; every image draws its own sharpness and noise level."""

    kind: Literal["sentinel2"] = "sentinel2"
    bands: tuple[BandName, ...] = ("red", "green", "blue")
    """What the channels are, in their order."""
    mtf_spread: Range = (-0.04, 0.04)
    """Added to every band's MTF, drawn for each image and axis.

    Covers what differs between detectors, the two satellites, along and across the track, and the resampling to UTM.
    """
    noise_level: Range = (0.6, 2)
    """Factor of the noise's standard deviation, drawn for each image.

    Below 1, because the instruments do better than required of them; up to 2, because noise is one of radiance: a sun
    at 30 degrees gives half of it, and the correction of the atmosphere divides by its transmission.
    """
    shot_share: Probability = SHOT_SHARE
    """Share of the noise's variance at the reference radiance that grows with the signal."""

    @property
    def responses(self) -> tuple[Response, ...]:
        """Of `bands`, before anything is drawn."""
        return tuple(RESPONSES[band] for band in self.bands)

    def __call__(self, high: Tensor, scale: int, generator: torch.Generator) -> Tensor:
        """Reflectance [n, c, h, w] -> reflectance [n, c, h / scale, w / scale], multiples of 1e-4, on the same device.

        `c` is the number of `bands`; `generator` lives on the CPU. RecipeError where channels and bands differ in
        number, or where `scale` does not divide the edges.
        """
        if high.shape[1] != len(self.bands):
            names = ", ".join(self.bands)
            raise RecipeError(f"Images of {high.shape[1]} channels cannot be imaged in the bands {names}: name each.")
        low_size(high, scale)  # refuses edges that do not divide
        draws = Draws(generator)
        across, along, level = (
            torch.tensor([draws.uniform(*limits) for _ in high])
            for limits in (self.mtf_spread, self.mtf_spread, self.noise_level)
        )
        low = _sampled(high.float(), self._taps(across, scale), scale)
        low = _sampled(low.mT, self._taps(along, scale), scale).mT
        noise = torch.randn(low.shape, generator=draws.fields(low.device), device=low.device)
        low = low + level.to(low)[:, None, None, None] * self._deviation(low) * noise
        dn = torch.round((low - ADD_OFFSET) / SCALE_FACTOR).clamp(DN_MIN, DN_MAX)
        return dn * SCALE_FACTOR + ADD_OFFSET

    def _taps(self, spread: Tensor, scale: int) -> Tensor:
        """Kernels [n, c, k] along one axis, in pixels of the fine grid."""
        mtfs = [[RESPONSES[band].mtf + float(s) for band in self.bands] for s in spread]
        # A spread wider than the band's MTF leaves a blur, not an error.
        return torch.from_numpy(taps([[scale * sigma_of(min(max(m, 0.02), 0.98)) for m in row] for row in mtfs], scale))

    def _deviation(self, reflectance: Tensor) -> Tensor:
        """Standard deviation of the noise at `reflectance` [n, c, h, w], before the image's own level."""
        noise = reflectance.new_tensor([RESPONSES[band].noise(self.shot_share) for band in self.bands])
        dark, slope = noise.T[:, :, None, None]
        variance: Tensor = dark + slope * reflectance.clamp(min=0)
        return variance.sqrt()


def _sampled(image: Tensor, taps: Tensor, scale: int) -> Tensor:
    """Every row of [n, c, h, w] weighed by its plane's taps [n, c, k] at the coarse pixels: [n, c, h, w / scale]."""
    n, c, h, w = image.shape
    border = (taps.shape[-1] - scale) // 2
    padded = F.pad(image, (border, border, 0, 0), mode="replicate")
    # Planes as channels, because each has taps of its own.
    kernels = taps.to(image).reshape(n * c, 1, 1, -1)
    sampled = F.conv2d(padded.reshape(1, n * c, h, -1), kernels, stride=(1, scale), groups=n * c)
    return sampled.reshape(n, c, h, w // scale)
