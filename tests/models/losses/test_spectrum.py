"""Power by spatial frequency against closed forms and against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rsup.models.losses.spectrum import radial_spectrum
from rsup.models.metrics import image as metrics


def hann(n: int) -> NDArray[np.float64]:
    return np.asarray(np.sin(np.pi * (np.arange(n) + 0.5) / n) ** 2)


def by_numpy(square: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean power of [n, n] where the distance from zero frequency rounds to 1 .. n / 2."""
    n = len(square)
    power = np.abs(np.fft.fft2((square - square.mean()) * np.outer(hann(n), hann(n)))) ** 2
    cycles = np.fft.fftfreq(n, 1 / n)
    ring = np.rint(np.hypot(cycles[:, None], cycles))
    return np.array([power[ring == k].mean() for k in range(1, n // 2 + 1)])


def test_a_wave_has_its_one_frequency() -> None:
    x = (torch.arange(128, dtype=torch.float64) + 0.5) / 128
    wave = 50 + torch.cos(2 * torch.pi * 16 * x).expand(128, 128)
    power = radial_spectrum(wave)
    assert power.shape == (64,)
    assert int(power.argmax()) + 1 == 16
    assert power[:12].max() < 1e-3 * power.max() and power[20:].max() < 1e-3 * power.max()
    near = {"rtol": 1e-6, "atol": 1e-6 * power.max().item()}
    torch.testing.assert_close(radial_spectrum(3 * wave), 9 * power, **near)
    torch.testing.assert_close(radial_spectrum(wave.mT), power, **near)


def test_white_noise_is_flat_at_its_variance() -> None:
    noise = torch.from_numpy(np.random.default_rng(1).normal(0, 2, (256, 256)))
    energy = (np.outer(hann(256), hann(256)) ** 2).sum()
    assert radial_spectrum(noise)[40:].mean().item() == pytest.approx(4 * energy, rel=0.03)


@pytest.mark.parametrize("n", [64, 81])
def test_rings_are_those_of_numpy(n: int) -> None:
    planes = np.random.default_rng(2).random((2, 3, n, n)).cumsum(-1)
    found = radial_spectrum(torch.from_numpy(planes))
    expected = [[by_numpy(plane) for plane in image] for image in planes]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9)


def test_what_is_not_square_is_cut_to_its_central_square() -> None:
    plane = torch.from_numpy(np.random.default_rng(3).random((64, 100)))
    torch.testing.assert_close(radial_spectrum(plane), radial_spectrum(plane[:, 18:82]))


def test_rmse_of_logarithms_is_that_of_numpy() -> None:
    """Of spectra whose ratio differs from ring to ring, where a mean of another kind would be another number."""
    truth = torch.from_numpy(np.random.default_rng(4).random((3, 64, 64)).cumsum(-1))
    for width in (2, 3, 5):
        image = torch.nn.functional.avg_pool2d(truth, width, 1, width // 2)[:, :64, :64]
        logs = [np.log(by_numpy(metrics.luma(each).numpy())) for each in (image, truth)]
        expected = np.sqrt(np.mean((logs[0] - logs[1]) ** 2))
        assert metrics.spectrum_rmse(image, truth) == pytest.approx(expected, rel=1e-9)
        assert expected > 1.01 * np.abs(logs[0] - logs[1]).mean()
