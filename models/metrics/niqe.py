"""NIQE, a quality without a reference: how far an image's statistics lie from those of pristine photographs.

In: a luma plane, and the parameters of the pristine model, a file that the user fetches. Out: one number, lower is
better, about 2 to 12. Source: Mittal, Soundararajan, Bovik, "Making a completely blind image quality analyzer", IEEE
Signal Processing Letters 20, 2013, and where the letter is silent what the pristine parameters were computed with.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from scipy.special import gamma

from rsup.models.base.errors import ModelError
from rsup.models.base.regular import check_file
from rsup.models.networks.interpolation import cubic

Array = NDArray[np.float64]

BLOCK = 96
"""Side of the blocks whose statistics are taken; half as many pixels at half resolution."""
SCALES = 2
FEATURES = 18 * SCALES
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))
"""Offsets (down, right) of the pixel each pixel is multiplied with."""

LARGEST = 1 << 20
"""Bytes of the pristine model, unpacked; it has 1,332 numbers."""

_SHAPES = np.arange(0.2, 10.001, 0.001)
_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))
"""(E|x|)^2 / E[x^2] of generalised Gaussians of those shapes; it grows with the shape."""


@dataclass(frozen=True)
class Pristine:
    """The Gaussian that pristine photographs' features follow: mean [36], covariance [36, 36]."""

    mean: Array
    covariance: Array


def load_pristine(path: Path) -> Pristine:
    """Read an npz with `mu_pris_param` and `cov_pris_param`; raises ModelError where it is none."""
    try:
        check_file(path)
        with np.load(path, allow_pickle=False) as file:
            if sum(entry.file_size for entry in file.zip.infolist()) > LARGEST:
                raise ValueError("it unpacks to more than such parameters can be")
            mean, covariance = (np.asarray(file[name], np.float64) for name in ("mu_pris_param", "cov_pris_param"))
    except Exception as error:  # a damaged archive makes the reader fail in any way at all
        raise ModelError(
            f"{path} cannot be read as NIQE's parameters: give the npz with mu_pris_param and cov_pris_param"
        ) from error
    if mean.size != FEATURES or covariance.shape != (FEATURES, FEATURES):
        raise ModelError(f"{path} does not describe NIQE's {FEATURES} features: give niqe_pris_params.npz")
    return Pristine(mean.ravel(), covariance)


def niqe(plane: Array, pristine: Pristine) -> float | None:
    """Luma [y, x] in 0..255 -> NIQE; None where fewer than two blocks of 96 x 96 pixels hold anything but one colour.

    Equation 10 of the letter. Every block counts: the letter picks sharp ones for the pristine model alone.
    """
    found = features(plane)
    if len(found) < 2:
        return None
    apart = found.mean(0) - pristine.mean
    spread = (np.cov(found, rowvar=False) + pristine.covariance) / 2
    return float(np.sqrt(apart @ np.linalg.pinv(spread) @ apart))


def features(plane: Array) -> Array:
    """[blocks, 36]: 18 numbers a block at full resolution, then at half; flat blocks, which have none, are left out."""
    rows, cols = (length // BLOCK for length in plane.shape)
    plane = plane[: rows * BLOCK, : cols * BLOCK]
    if not plane.size:
        return np.empty((0, FEATURES))
    columns = []
    for k in range(SCALES):
        if k:
            plane = halved(plane)
        side = BLOCK >> k
        blocks = normalised(plane).reshape(rows, side, cols, side).swapaxes(1, 2).reshape(-1, side, side)
        columns.append(_statistics(blocks))
    both = np.concatenate(columns, axis=1)
    return np.asarray(both[np.isfinite(both).all(1)])


def normalised(plane: Array) -> Array:
    """(I - mean) / (deviation + 1), both under a 7 x 7 Gaussian of sigma 7/6 with repeated edges (Equation 1)."""
    taps = np.exp(-0.5 * (np.arange(-3, 4) / (7 / 6)) ** 2)
    taps /= taps.sum()

    def smooth(image: Array) -> Array:
        for axis in (0, 1):
            image = correlate1d(image, taps, axis, mode="nearest")
        return image

    mean = smooth(plane)
    deviation = np.sqrt(np.abs(smooth(plane * plane) - mean * mean))
    return np.asarray((plane - mean) / (deviation + 1))


def halved(plane: Array) -> Array:
    """Half the pixels a side, which are even in number: Keys' cubic, stretched twice against aliasing."""
    taps = cubic(np.arange(-3.5, 4) / 2) / 2
    for axis in (0, 1):
        # origin -1 puts the middle of the 8 taps between pixel 2i and pixel 2i + 1; scipy's `reflect` repeats the edge.
        plane = correlate1d(plane, taps, axis, mode="reflect", origin=-1).take(range(0, plane.shape[axis], 2), axis)
    return plane


def asymmetric_gaussian(x: Array) -> tuple[Array, Array, Array]:
    """[..., n] samples -> shape, left and right width [...] of the generalised Gaussian that fits, by moments.

    Lasmar, Stitou and Berthoumieu, ICIP 2009. Not finite where a side has no samples.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        left, right = (
            np.sqrt((x * x * side).sum(-1) / side.sum(-1)) for side in ((x < 0).astype(float), (x > 0).astype(float))
        )
        skew = left / right
        ratio = np.abs(x).mean(-1) ** 2 / (x * x).mean(-1)
        ratio = ratio * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
        shape = np.interp(ratio, _RATIOS, _SHAPES)
        width = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * width, right * width


def _statistics(blocks: Array) -> Array:
    """[n, side, side] normalised -> [n, 18]: the pixels' shape and width, and four numbers of each product."""
    flat = blocks.reshape(len(blocks), -1)
    shape, left, right = asymmetric_gaussian(flat)
    columns = [shape, (left + right) / 2]
    for offset in NEIGHBOURS:
        # Rolled: a block's last pixels meet its first ones, as in what the pristine parameters were computed with.
        products = blocks * np.roll(blocks, offset, axis=(1, 2))
        shape, left, right = asymmetric_gaussian(products.reshape(len(blocks), -1))
        columns += [shape, (right - left) * gamma(2 / shape) / gamma(1 / shape), left, right]
    return np.stack(columns, axis=1)
