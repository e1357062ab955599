"""Made clouds: their fields against the law they are drawn by, and what they do to the ground."""

import math

import pytest
import torch

from rsup.models.degradation.clouds import _fractal, clouded
from rsup.models.degradation.draws import Draws


def draws(seed: int) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("roughness", [1.5, 3.0])
def test_amplitude_falls_with_frequency(roughness: float) -> None:
    side = 256
    window = torch.hann_window(side, periodic=False)
    power = torch.zeros(side, side)
    for seed in range(20):
        field = _fractal(torch.zeros(3, side, side), roughness, torch.Generator().manual_seed(seed))
        assert abs(float(field.mean())) < 1e-5 and float(field.std()) == pytest.approx(1, abs=1e-5)
        power += torch.fft.fft2(field * window[:, None] * window).abs().square()
    frequency = torch.fft.fftfreq(side, 1 / side)
    ring = torch.hypot(frequency[:, None], frequency).round().long()
    means = [float(power[ring == k].mean()) for k in (8, 64)]
    slope = math.log(means[1] / means[0]) / math.log(8)
    assert slope == pytest.approx(-2 * roughness, abs=0.25)


def test_a_cloud_brightens_dark_ground_and_hides_what_is_under_it() -> None:
    generator = torch.Generator().manual_seed(0)
    ground = 0.05 + 0.1 * torch.rand(3, 64, 64, generator=generator)
    cover = []
    for seed in range(60):
        image = clouded(ground, draws(seed))
        assert image.shape == ground.shape and image.isfinite().all() and image.min() >= 0 and image.max() < 2
        # One opacity and one brightness a place: where the bands' differences are all gone, so is the ground.
        opacity = 1 - (image[0] - image[1]) / (ground[0] - ground[1])
        known = (ground[0] - ground[1]).abs() > 0.02
        assert opacity[known].min() > -1e-3 and opacity[known].max() < 1 + 1e-3
        expected = (image - (1 - opacity) * ground)[:, known]
        torch.testing.assert_close(expected[0], expected[2], atol=1e-3, rtol=0)
        cover.append(float(opacity[known].mean()))
    assert min(cover) < 0.2 and max(cover) > 0.8
    assert torch.equal(clouded(ground, draws(1)), clouded(ground, draws(1)))
