"""The sky of one datatake: clouds and their shadows, over reflectance and over scene classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .canvas import SHADOW_EAST, SHADOW_NORTH
from .landscape import ORIGIN
from .noise import SmoothNoise

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLOUD_SHADOW, CLOUD_MEDIUM, CLOUD_HIGH = 3, 8, 9
"""Codes of Sentinel-2's scene classification (SCL)."""

_OCTAVES = ((900.0, 1.0), (430.0, 0.55), (210.0, 0.30), (100.0, 0.16), (45.0, 0.08))
_HEIGHT = 700.0  # metres from the ground to the clouds
_BRIGHT = {"red": 0.72, "green": 0.73, "blue": 0.74, "nir": 0.76, "swir16": 0.45}
_SHADE = {
    "red": 0.35,
    "green": 0.40,
    "blue": 0.48,
    "nir": 0.30,
    "swir16": 0.28,
}  # skylight's share of the light


@dataclass(frozen=True)
class Sky:
    """Clouds over x, y (metres in landscape.CRS): where the noise exceeds `threshold`."""

    noise: SmoothNoise
    threshold: float

    @classmethod
    def over(cls, seed: int, cover: float, bounds: tuple[float, float, float, float]) -> Sky:
        """A sky with clouds over the share `cover` (0..1) of `bounds` (west, south, east, north)."""
        west, south, east, north = bounds
        x, y = np.meshgrid(np.arange(west, east, 25.0), np.arange(south, north, 25.0))
        noise = SmoothNoise(seed)
        return cls(noise, float(np.quantile(_billows(noise, x, y), 1 - cover)))

    def opacity(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
        """Share of the ground's light that the clouds above x, y hide, 0..1."""
        depth = (_billows(self.noise, x, y) - np.float32(self.threshold)) / np.float32(0.35)
        return np.asarray(np.clip(depth, 0, 1), np.float32)

    def shadow(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
        """Share of the direct sunlight that clouds keep from the ground at x, y, 0..1."""
        return self.opacity(x - _HEIGHT * SHADOW_EAST, y - _HEIGHT * SHADOW_NORTH)

    def veil(
        self, band: str, ground: NDArray[np.float32], x: NDArray[np.float64], y: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Reflectance of `band` seen from above, of `ground` ([y, x]) at x, y under this sky."""
        opacity = self.opacity(x, y)
        lit = ground * (1 - self.shadow(x, y) * np.float32(1 - _SHADE[band]))
        return lit * (1 - opacity) + opacity * np.float32(_BRIGHT[band]) * (np.float32(0.6) + np.float32(0.4) * opacity)

    def classes(self, scl: NDArray[np.uint8], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Scene classes of the ground ([y, x]) with the clouds and shadows at x, y entered."""
        opacity, shadow = self.opacity(x, y), self.shadow(x, y)
        scl = np.where(shadow > 0.02, CLOUD_SHADOW, scl)
        scl = np.where(opacity > 0.02, CLOUD_MEDIUM, scl)
        return np.where(opacity > 0.6, CLOUD_HIGH, scl).astype(np.uint8)


def _billows(noise: SmoothNoise, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float32]:
    """Noise of several octaves at x, y."""
    east, north = (x - ORIGIN[0]).astype(np.float32), (y - ORIGIN[1]).astype(np.float32)
    octaves = (weight * noise(east, north, length, n) for n, (length, weight) in enumerate(_OCTAVES))
    return np.asarray(sum(octaves), np.float32)
