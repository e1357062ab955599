"""The instrument: the 1.25 m truth in, what Sentinel-2 would have measured on its 10 m and 20 m pixels out.

A band's modulation transfer function (MTF) is a Gaussian (optics, detector, resampling) times the box of its
pixel; the Gaussian is as wide as the MTF measured at the Nyquist frequency asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, pi, sqrt
from typing import TYPE_CHECKING

import numpy as np
from pyproj import Transformer
from scipy.special import ndtr

from rsup.models.sensors import SENSORS
from rsup.models.sensors.demo_responses import DEMO_RESPONSES
from rsup.pipeline.lattice import GSD, Window

from .canvas import BARE, SAMPLE, VEGETATION, WATER
from .landscape import CRS, Landscape
from .noise import mix, normal
from .spectra import BANDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

FINE = int(GSD / SAMPLE)
"""Truth samples along one 10 m pixel."""

SENSOR = SENSORS["sentinel2"]
"""What the archive is made to look like."""
BAND_GSD = {band: SENSOR.band(band).gsd for band in BANDS}
"""Pixel of each band, metres."""
CLASSES_GSD = SENSOR.band("scl").gsd
"""Pixel of the scene classes, metres; the coarsest there is."""

_HALO = 40 // GSD  # 10 m pixels of truth around a block: four standard deviations of the widest Gaussian


def gaussian_sigma(band: str) -> float:
    """Standard deviation (metres) of the Gaussian that gives `band` its MTF with its pixel's box.

    At Nyquist a box has MTF 2 / pi, a Gaussian exp(-(pi sigma / GSD)^2 / 2).
    """
    return BAND_GSD[band] / pi * sqrt(-2 * log(DEMO_RESPONSES[band].mtf * pi / 2))


def response(band: str, pixels: int) -> NDArray[np.float32]:
    """Weights [pixel, sample] of the truth's samples in a run of `pixels` pixels of `band`, along one axis.

    The samples start _HALO * GSD metres before the first pixel and end as far after the last; rows sum to 1.
    """
    pixel, sigma = BAND_GSD[band], gaussian_sigma(band)
    samples = round((pixels * pixel + 2 * _HALO * GSD) / SAMPLE)
    position = (np.arange(samples) + 0.5) * SAMPLE - _HALO * GSD
    distance = position - (np.arange(pixels)[:, np.newaxis] + 0.5) * pixel
    weights = ndtr((distance + pixel / 2) / sigma) - ndtr((distance - pixel / 2) / sigma)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


@dataclass(frozen=True)
class Block:
    """One square of ground: the truth and what the instrument makes of it, without noise."""

    window: Window
    truth: NDArray[np.float32]
    """Reflectance [band, y, x], FINE samples a pixel, bands as in spectra.BANDS."""
    measured: dict[str, NDArray[np.float32]]
    """Reflectance [y, x] of each band on its own pixels."""
    scl: NDArray[np.uint8]
    """Commonest scene class of each 20 m pixel, [y, x]."""


def look(landscape: Landscape, window: Window, crs: str) -> Block:
    """Measure `window` of the lattice of `crs`; what a pixel measures does not depend on the window.

    Even edges keep 20 m pixels whole. Raises ValueError where an edge of the window is odd.
    """
    window.in_pixels_of(CLASSES_GSD)  # refused before anything is sampled
    x, y = pixel_centres(window.grow(_HALO), SAMPLE, crs)
    reflectance, scl = landscape.sample(x, y)
    measured = {}
    for band, values in zip(BANDS, reflectance, strict=True):
        pixels = window.in_pixels_of(BAND_GSD[band])
        rows, columns = response(band, pixels.height), response(band, pixels.width)
        measured[band] = rows @ values @ columns.T
    inner = slice(_HALO * FINE, -_HALO * FINE)
    return Block(window, reflectance[:, inner, inner], measured, _commonest(scl[inner, inner]))


def pixel_centres(window: Window, side: float, crs: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x, y in landscape.CRS of the centres of `side` metre pixels of `window`, on the lattice of `crs`; both [y, x]."""
    west, _, _, north = window.bounds
    rows, columns = (np.arange(round(length * window.gsd / side)) + 0.5 for length in (window.height, window.width))
    x, y = np.meshgrid(west + columns * side, north - rows * side)
    if crs != CRS:
        x, y = Transformer.from_crs(crs, CRS, always_xy=True).transform(x, y)
    return x, y


def noise(band: str, window: Window, salt: int, reflectance: NDArray[np.float32]) -> NDArray[np.float32]:
    """Measuring noise of `band` at `reflectance` [y, x] on `window`, which counts the band's own pixels: shot noise.

    Its standard deviation is 1 / SNR at the reference and grows with the root of the signal.
    Hashed from each pixel's place and `salt` (the datatake): two products of one datatake share it.
    """
    rows = np.arange(window.row, window.stop_row)[:, np.newaxis]
    columns = np.arange(window.col, window.stop_col)
    bits, seen = mix(rows, columns, salt, BANDS.index(band)), DEMO_RESPONSES[band]
    return np.asarray(normal(bits) * np.sqrt(np.clip(reflectance, 0, None) * seen.reference) / seen.snr, np.float32)


def _commonest(scl: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The commonest class in each square of 2 x 2 pixels of 10 m."""
    side = 2 * FINE
    height, width = (length // side for length in scl.shape)
    squares = scl.reshape(height, side, width, side)
    classes = np.array([VEGETATION, BARE, WATER], np.uint8)
    counts = np.stack([(squares == code).sum(axis=(1, 3)) for code in classes])
    return np.asarray(classes[counts.argmax(axis=0)])
