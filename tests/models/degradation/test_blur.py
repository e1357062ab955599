"""Kernels against closed forms: sums, second moments, half-widths, pass bands; the blur against a direct sum."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve
from scipy.special import gamma
from torch import Tensor

from rsup.models.degradation.blur import (
    KernelConfig,
    blur,
    draw_bell,
    draw_sinc,
    draw_size,
    gaussian,
    plateau,
    sinc,
    squared_distance,
)
from rsup.models.degradation.draws import Draws


def moments(kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [2] and covariance [2, 2] in pixels, x before y, about the kernel's middle."""
    offsets = torch.arange(len(kernel), dtype=torch.float64) - (len(kernel) - 1) / 2
    y, x = torch.meshgrid(offsets, offsets, indexing="ij")
    points = torch.stack([x, y])
    mean = (points * kernel).sum((1, 2))
    return mean, torch.einsum("aij,bij,ij->ab", points, points, kernel)


def test_a_gaussian_has_the_covariance_it_was_asked_for() -> None:
    angle = 0.4
    kernel = gaussian(squared_distance(41, (3.0, 1.5), angle))
    c, s = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    expected = turn @ torch.diag(torch.tensor([9.0, 2.25], dtype=torch.float64)) @ turn.T
    mean, covariance = moments(kernel)
    assert abs(kernel.sum() - 1) < 1e-12
    torch.testing.assert_close(mean, torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(covariance, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_generalised_gaussians_have_their_closed_second_moment(beta: float) -> None:
    """E[r^2] of exp(-(r/s)^(2b) / 2) in the plane is s^2 2^(1/b) gamma(2/b) / gamma(1/b)."""
    sigma = 2.0
    kernel = gaussian(squared_distance(121, (sigma, sigma), 0), beta)
    _, covariance = moments(kernel)
    expected = sigma**2 * 2 ** (1 / beta) * gamma(2 / beta) / gamma(1 / beta)
    assert abs(float(covariance.trace()) / expected - 1) < 0.01


def test_a_plateau_is_flat_inside_and_half_of_its_peak_at_one_sigma() -> None:
    for beta in (1.0, 1.5):
        kernel = plateau(squared_distance(21, (4.0, 2.0), 0), beta)
        peak = kernel[10, 10]
        assert abs(float(kernel[10, 14] / peak) - 0.5) < 1e-12  # four pixels along x
        assert abs(float(kernel[12, 10] / peak) - 0.5) < 1e-12  # two along y
        assert abs(float(kernel[10, 12] / peak) - 1 / (1 + 0.5 ** (2 * beta))) < 1e-12


def test_sinc_keeps_low_frequencies_and_drops_high_ones() -> None:
    cutoff = 0.5 * math.pi
    kernel = sinc(201, cutoff).numpy()
    gain = np.abs(np.fft.fft2(kernel, (512, 512)))
    fy, fx = np.meshgrid(np.fft.fftfreq(512), np.fft.fftfreq(512), indexing="ij")
    radius = 2 * np.pi * np.hypot(fx, fy)
    assert abs(kernel.sum() - 1) < 1e-12
    assert np.abs(gain[radius < 0.8 * cutoff] - 1).max() < 0.1
    assert gain[(radius > 1.2 * cutoff) & (radius < np.pi)].max() < 0.1


def test_drawn_kernels_keep_to_the_published_ranges() -> None:
    config, draws = KernelConfig(), Draws(torch.Generator().manual_seed(1))
    sizes = Counter(draw_size(config, draws) for _ in range(1600))
    assert sorted(sizes) == [7, 9, 11, 13, 15, 17, 19, 21]
    assert all(abs(count - 200) < 60 for count in sizes.values())
    isotropic = 0
    for _ in range(1000):
        kernel = draw_bell(config, (0.2, 1.5), draws)
        assert abs(kernel.sum() - 1) < 1e-9 and kernel.min() >= 0
        assert kernel.shape[0] == kernel.shape[1] and 7 <= len(kernel) <= 21
        isotropic += torch.allclose(kernel, kernel.T, atol=1e-9)
    assert abs(isotropic / 1000 - 0.69) < 0.05  # .45 + .12 + .12
    for least in (None, math.pi / 3):
        kernel = draw_sinc(config, draws, least)
        assert abs(kernel.sum() - 1) < 1e-9 and kernel.min() < 0


def test_the_shares_choose_the_family() -> None:
    draws = Draws(torch.Generator().manual_seed(2))
    zeros = dict.fromkeys(KernelConfig().shares.model_dump(), 0.0)
    for name, reach in {"isotropic": 1e-9, "plateau_isotropic": 1e-3}.items():
        config = KernelConfig.model_validate({"size": (21, 21), "shares": zeros | {name: 1}})
        for _ in range(20):
            kernel = draw_bell(config, (1.0, 1.5), draws)
            edge = float(kernel[10, 0] / kernel[10, 10])
            # Ten pixels out a Gaussian of these widths is nothing, a plateau's hyperbolic tail is not.
            assert edge < 1e-9 if name == "isotropic" else edge > reach / 5


@pytest.mark.parametrize(("h", "w", "k"), [(40, 61, 21), (5, 3, 21), (33, 32, 7)])
def test_blur_is_the_direct_sum_with_repeated_edges(h: int, w: int, k: int) -> None:
    rng = np.random.default_rng(0)
    image, kernel = rng.random((3, h, w)), rng.random((k, k))
    expected = np.stack([convolve(plane, kernel, mode="nearest") for plane in image])
    out = blur(torch.from_numpy(image).float(), torch.from_numpy(kernel))
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-5)
