"""Figures that both halves take, one of tensors and one of arrays without torch: each against float64 written out."""

from __future__ import annotations

import math
from collections.abc import Callable

import measures
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rsup.models.base.radiometry import ADD_OFFSET, SCALE_FACTOR
from rsup.models.metrics import image as metrics
from rsup.pipeline.mosaics import quality

Image = NDArray[np.float64]
HALVES = ["tensors", "arrays"]


def tensor(image: NDArray[np.generic]) -> torch.Tensor:
    return torch.from_numpy(image.astype(np.float64))


PSNR: dict[str, Callable[[Image, Image], float]] = {
    "tensors": lambda image, truth: metrics.psnr(tensor(image), tensor(truth), 0),
    "arrays": lambda image, truth: measures.psnr(image, truth, 1.0),
}
"""In dB, of two planes [y, x] in [0, 1]."""

ANGLE: dict[str, Callable[[Image, Image], float]] = {
    "tensors": lambda image, truth: metrics.spectral_angle(
        metrics.reflectance(tensor(image)), metrics.reflectance(tensor(truth))
    ),
    "arrays": lambda image, truth: float(quality.spectral_angles(image, truth, 1).mean()),  # type: ignore[arg-type]
}
"""Mean in degrees, of two images in DN [band, y, x]."""

BLOCKS: dict[str, Callable[[NDArray[np.uint16], NDArray[np.uint16], int], float]] = {
    "tensors": lambda fine, coarse, scale: metrics.block_mean_error(tensor(fine), tensor(coarse), scale),
    "arrays": lambda fine, coarse, scale: float(quality.block_errors(fine, coarse, scale).mean()),
}
"""Mean |block mean - coarse pixel| in DN."""


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("scatter", [0.3, 0.01, 1e-6])
def test_psnr_is_that_of_the_mean_square(half: str, scatter: float) -> None:
    rng = np.random.default_rng(3)
    truth = rng.random((40, 30))
    image = truth + scatter * rng.standard_normal(truth.shape)
    mean = math.fsum((a - b) ** 2 for a, b in zip(image.ravel(), truth.ravel(), strict=True)) / truth.size
    assert PSNR[half](image, truth) == pytest.approx(-10 * math.log10(mean), abs=1e-4)
    assert PSNR[half](truth + 0.01, truth) == pytest.approx(40, abs=1e-4)
    assert PSNR[half](truth, truth) == math.inf


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("degrees", [0.0, 1e-6, 0.5, 30.0, 90.0])
def test_spectra_turned_by_an_angle_lie_at_it(half: str, degrees: float) -> None:
    """Red and green turned into each other; brightness differs and must not matter."""
    angle = math.radians(degrees)
    truth = np.broadcast_to(np.array([0.3, 0, 0])[:, None, None], (3, 4, 5))
    image = np.broadcast_to(np.array([2 * math.cos(angle), 2 * math.sin(angle), 0])[:, None, None], (3, 4, 5))
    ours, theirs = ((each - ADD_OFFSET) / SCALE_FACTOR for each in (image, truth))
    assert ANGLE[half](ours, theirs) == pytest.approx(degrees, abs=1e-9)


@pytest.mark.parametrize("half", HALVES)
def test_spectral_angle_by_the_cross_product(half: str) -> None:
    ours, theirs = np.random.default_rng(4).integers(1200, 6000, (2, 3, 8, 12)).astype(np.float64)
    angles = []
    for a, b in zip(ours.reshape(3, -1).T, theirs.reshape(3, -1).T, strict=True):
        a, b = a * SCALE_FACTOR + ADD_OFFSET, b * SCALE_FACTOR + ADD_OFFSET
        angles.append(math.degrees(math.atan2(math.hypot(*np.cross(a, b)), math.fsum(a * b))))
    assert ANGLE[half](ours, theirs) == pytest.approx(math.fsum(angles) / len(angles), rel=1e-12)


@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_block_means_block_by_block(half: str, scale: int) -> None:
    rng = np.random.default_rng(5)
    fine = rng.integers(1, 65536, (3, 8 * scale, 12 * scale)).astype(np.uint16)
    coarse = rng.integers(1, 65536, (3, 8, 12)).astype(np.uint16)
    errors = []
    for band, row, col in np.ndindex(coarse.shape):
        block = fine[band, row * scale : (row + 1) * scale, col * scale : (col + 1) * scale]
        errors.append(abs(math.fsum(block.ravel()) / scale**2 - float(coarse[band, row, col])))
    assert BLOCKS[half](fine, coarse, scale) == pytest.approx(math.fsum(errors) / len(errors), rel=1e-12)
    flat = coarse.repeat(scale, 1).repeat(scale, 2)
    assert BLOCKS[half](flat, coarse, scale) == 0
