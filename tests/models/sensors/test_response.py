"""How a band sees, against closed forms, torch's interpolation and the sensor that makes training pairs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rsup.models.degradation.sensor import RESPONSES, SensorDegradation
from rsup.models.sensors.response import Response, sigma_of, taps
from rsup.models.sensors.sentinel2 import SENTINEL2


@pytest.mark.parametrize("mtf", [0.1, 0.26, 0.5])
@pytest.mark.parametrize("scale", [4, 5, 8])
def test_taps_have_the_mtf_at_nyquist(mtf: float, scale: int) -> None:
    """The transform of the taps at half a cycle a pixel, which is 1 / (2 scale) of a sample."""
    weights = taps(scale * sigma_of(mtf), scale)
    assert len(weights) % 2 == scale % 2 and weights.sum() == pytest.approx(1)
    places = np.arange(len(weights)) - (len(weights) - 1) / 2
    assert (weights * np.cos(math.pi * places / scale)).sum() == pytest.approx(mtf, abs=2e-4)


def test_taps_of_several_widths_are_each_of_sum_one() -> None:
    weights = taps([[1.0, 2.0], [3.0, 4.0]], 4)
    np.testing.assert_allclose(weights.sum(-1), 1)
    alone = taps(1.0, 4)
    margin = (weights.shape[-1] - len(alone)) // 2
    np.testing.assert_allclose(weights[0, 0, margin:-margin], alone, rtol=1e-3)


@pytest.mark.parametrize("scale", [4, 8])
def test_the_matrix_is_the_sensor_of_the_training_pairs(scale: int) -> None:
    ground = torch.rand(1, 4, 12 * scale, 20 * scale, generator=torch.Generator().manual_seed(0)) * 0.4
    names = ("blue", "green", "red", "nir")
    sensor = SensorDegradation(bands=names, mtf_spread=(0, 0), noise_level=(0, 0))
    seen = sensor(ground, scale, torch.Generator().manual_seed(0))[0].numpy()
    for plane, fine, name in zip(seen, ground[0].numpy(), names, strict=True):
        rows, cols = (RESPONSES[name].matrix(pixels, scale) for pixels in (12, 20))
        np.testing.assert_allclose(
            rows @ fine @ cols.T, plane, atol=0.6e-4
        )  # it rounds to 1e-4, and its taps reach as far for the widest


def test_noise_at_the_reference_is_what_the_snr_says() -> None:
    response = Response(mtf=0.25, snr=150, reference=0.2)
    dark, slope = response.noise()
    assert math.sqrt(dark + slope * 0.2) == pytest.approx(0.2 / 150)
    assert response.noise(0)[1] == 0 and response.noise(1)[0] == 0


def test_own_pixels_come_back_from_those_interpolated_to_the_scene() -> None:
    own = torch.rand(1, 1, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scene = torch.nn.functional.interpolate(own, scale_factor=2, mode="linear")[0, 0].numpy()
    response = Response(mtf=0.3, snr=100, reference=0.1, ratio=2)
    np.testing.assert_allclose(response.reads(32) @ scene, own[0, 0].numpy(), atol=1e-12)


def test_a_band_of_20_m_sees_from_the_middle_of_its_own_pixels() -> None:
    """A ramp of the ground: each pixel shows its middle, whatever the blur."""
    response = Response(mtf=0.3, snr=100, reference=0.1, ratio=2)
    matrix = response.matrix(40, 4)
    assert matrix.shape == (20, 160)
    np.testing.assert_allclose(matrix.sum(1), 1)
    seen = matrix @ (np.arange(160) + 0.5)
    np.testing.assert_allclose(seen[3:-3], (np.arange(20) * 8 + 4)[3:-3], atol=1e-9)


def test_every_band_of_sentinel_2_has_a_response_of_its_own_grid() -> None:
    for band in SENTINEL2.bands:
        assert band.response is not None and band.response.ratio == band.gsd // 10
        assert 0.2 < band.response.mtf < 0.4
