"""Figures that say how faithful and how seamless a super-resolved image is; arrays in, numbers out, no I/O.

Images are stored numbers (uint16, 0 = nodata) [band, y, x], or a single plane [y, x] where that is said; `lr`
is the 10 m image and `sr` the same ground with `scale` times as many pixels a side.
"""

from __future__ import annotations

from math import inf, log10

import numpy as np
from numpy.typing import NDArray

from rsup.models.base.radiometry import ADD_OFFSET, NODATA, SCALE_FACTOR


def block_means(sr: NDArray[np.number], scale: int) -> NDArray[np.float64]:
    """Mean of every scale x scale block [band, y / scale, x / scale]; NaN where a block holds nodata."""
    bands, height, width = sr.shape
    blocks = sr.reshape(bands, height // scale, scale, width // scale, scale)
    means = blocks.mean(axis=(2, 4), dtype=np.float64)
    means[(blocks == NODATA).any(axis=(2, 4))] = np.nan
    return np.asarray(means)


def block_errors(sr: NDArray[np.uint16], lr: NDArray[np.uint16], scale: int) -> NDArray[np.float64]:
    """|block mean of `sr` - `lr`| in DN for every valid pixel and band, as a flat array.

    A pixel that is valid in `lr` but not wholly valid in `sr` would hide a loss, and counts with its full DN.
    """
    errors = np.abs(np.nan_to_num(block_means(sr, scale)) - lr)
    return np.asarray(errors[lr != NODATA])


def spectral_angles(sr: NDArray[np.number], lr: NDArray[np.uint16], scale: int) -> NDArray[np.float64]:
    """Degrees between the spectra (in reflectance) of block means and LR pixels; valid ones only, flat.

    The spectral angle mapper of Kruse et al., Remote Sensing of Environment 44, 1993.
    """
    means = block_means(sr, scale)
    valid = (lr != NODATA).all(axis=0) & ~np.isnan(means).any(axis=0)
    a = means[:, valid] * SCALE_FACTOR + ADD_OFFSET
    b = lr[:, valid] * SCALE_FACTOR + ADD_OFFSET
    # Of unit vectors: exact for small angles, where arccos of the dot product loses half its digits.
    u, v = (x / np.maximum(np.linalg.norm(x, axis=0), np.finfo(float).tiny) for x in (a, b))
    angle = 2 * np.arctan2(np.linalg.norm(u - v, axis=0), np.linalg.norm(u + v, axis=0))
    return np.asarray(np.degrees(angle))


def psnr(squares: float, count: int, peak: float) -> float:
    """Peak signal-to-noise ratio in dB of `count` errors whose squares add up to `squares`; infinite where those are 0.

    Of sums, not of images: mosaics are read part by part.
    """
    return 10 * log10(peak**2 * count / squares) if squares else inf
