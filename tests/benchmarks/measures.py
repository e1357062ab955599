"""Figures of a super-resolved image that only tests and benchmarks take; stored numbers in, numbers out."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsup.models.base.radiometry import NODATA
from rsup.pipeline.mosaics import quality


def seam_ratio(image: NDArray[Any], seam_rows: Sequence[int], seam_cols: Sequence[int]) -> float:
    """Mean |step| from one pixel to the next across tile borders over the same mean elsewhere; 1 = no seam.

    `image` is [..., y, x]. Seam k lies between pixels k - 1 and k. Steps to or from nodata do not count. NaN
    where no step is left on a seam, or all others are 0.
    """
    across: list[NDArray[Any]] = []
    elsewhere: list[NDArray[Any]] = []
    for axis, seams in ((-2, seam_rows), (-1, seam_cols)):
        steps = np.abs(np.diff(image.astype(np.float64), axis=axis))
        valid = image != NODATA
        both = np.logical_and(*(np.delete(valid, end, axis) for end in (0, -1)))
        on_seam = np.zeros(steps.shape[axis], bool)
        on_seam[[k - 1 for k in seams if 0 < k <= on_seam.size]] = True
        mask = np.expand_dims(on_seam, -1) if axis == -2 else on_seam
        across.append(steps[both & mask])
        elsewhere.append(steps[both & ~mask])
    numerator, denominator = np.concatenate(across), np.concatenate(elsewhere)
    if not (numerator.size and denominator.any()):
        return float("nan")
    return float(numerator.mean() / denominator.mean())


def psnr(a: NDArray[Any], b: NDArray[Any], data_range: float) -> float:
    """Peak signal-to-noise ratio of two images of one shape, in dB; infinite where they are equal."""
    squares = (a.astype(np.float64) - b.astype(np.float64)) ** 2
    return quality.psnr(float(squares.sum()), squares.size, data_range)
