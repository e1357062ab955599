"""Repeatable randomness of place: coordinates in, smooth noise or hashed uniform numbers out.

All depends on the seed and the coordinates alone, so a landscape is the same however it is cut.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NODES = 512
_OVERSAMPLING = 4
# Mean square of a cubic B-spline over its support, an axis: what smoothing leaves of white noise's variance.
_VARIANCE_LEFT = 151 / 315


def mix(*keys: NDArray[Any] | int) -> NDArray[np.uint32]:
    """Hash whole numbers (arrays that broadcast, negative ones as well) to 32 well mixed bits."""
    state = np.zeros(1, np.uint32)
    for key in keys:
        value = np.asarray(key).astype(np.int64).astype(np.uint32)
        state = (state ^ value) * np.uint32(0x9E3779B1)
        state = (state ^ (state >> np.uint32(15))) * np.uint32(0x85EBCA77)
        state = state ^ (state >> np.uint32(13))
    return state


def uniform(bits: NDArray[np.uint32], draw: int) -> NDArray[np.float32]:
    """The draw-th independent number in [0, 1) of each hash."""
    scrambled = (bits ^ np.uint32(draw * 0x68E31DA4 & 0xFFFFFFFF)) * np.uint32(0xB5297A4D)
    scrambled = (scrambled ^ (scrambled >> np.uint32(14))) * np.uint32(0x27D4EB2F)
    return ((scrambled ^ (scrambled >> np.uint32(15))) >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def normal(bits: NDArray[np.uint32]) -> NDArray[np.float32]:
    """One standard normal number for each hash (Box and Muller's transform)."""
    radius = np.sqrt(-2 * np.log1p(-uniform(bits, 1)))
    return np.asarray(radius * np.cos(np.float32(2 * np.pi) * uniform(bits, 2)), np.float32)


class SmoothNoise:
    """Noise of zero mean and unit variance, smooth at its wavelength, periodic after 512 of them."""

    def __init__(self, seed: int) -> None:
        table = np.random.default_rng(seed).standard_normal((_NODES, _NODES)).astype(np.float32)
        for axis in (0, 1):
            table = _spline_upsampled(table, axis)
        self._table = table / np.float32(_VARIANCE_LEFT)

    def __call__(
        self, x: NDArray[np.float32], y: NDArray[np.float32], wavelength: float, layer: int
    ) -> NDArray[np.float32]:
        """Noise at x, y (metres, any one shape); `layer` turns and shifts the pattern."""
        angle = 2.399963 * layer + 0.4  # the golden angle: no two layers line up
        step = _OVERSAMPLING / wavelength
        u = (np.cos(angle) * step) * x + (np.sin(angle) * step) * y + 977.3 * layer
        v = (np.cos(angle) * step) * y - (np.sin(angle) * step) * x + 331.7 * layer
        coordinates = np.stack([v, u])
        return np.asarray(ndimage.map_coordinates(self._table, coordinates, np.float32, order=1, mode="grid-wrap"))


def _spline_upsampled(table: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Cubic B-spline with `table` as its periodic coefficients, _OVERSAMPLING times finer along `axis`."""
    shape = list(table.shape)
    shape[axis] *= _OVERSAMPLING
    out = np.empty(shape, np.float32)
    for phase in range(_OVERSAMPLING):
        t = phase / _OVERSAMPLING
        taps = (
            (1 - t) ** 3 / 6,
            (3 * t**3 - 6 * t**2 + 4) / 6,
            (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
            t**3 / 6,
        )
        index: list[slice] = [slice(None), slice(None)]
        index[axis] = slice(phase, None, _OVERSAMPLING)
        out[tuple(index)] = sum(np.float32(tap) * np.roll(table, 1 - k, axis) for k, tap in enumerate(taps))
    return out
