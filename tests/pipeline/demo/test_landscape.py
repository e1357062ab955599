"""The made landscape: one value a place, and values that real country has."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rsup.pipeline.demo.landscape import ORIGIN, Landscape
from rsup.pipeline.demo.noise import SmoothNoise, mix, normal, uniform
from rsup.pipeline.demo.spectra import BANDS

WATER, VEGETATION, BARE = 6, 4, 5


def grid(side: int, step: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x, y of side x side points around the landscape's origin."""
    offsets = (np.arange(side) - side / 2 + 0.5) * step
    x, y = np.meshgrid(ORIGIN[0] + offsets, ORIGIN[1] - offsets)
    return x, y


@pytest.fixture(scope="module")
def country() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """2.5 km squared, a point every 10 m."""
    return Landscape(3).sample(*grid(256, 10.0))


def test_a_point_has_one_value_however_the_landscape_is_cut() -> None:
    landscape, (x, y) = Landscape(3), grid(640, 1.25)
    whole, classes = landscape.sample(x, y)
    for rows, columns in ((slice(0, 100), slice(0, 640)), (slice(300, 301), slice(211, 212))):
        part, part_classes = landscape.sample(x[rows, columns], y[rows, columns])
        np.testing.assert_array_equal(part, whole[:, rows, columns])
        np.testing.assert_array_equal(part_classes, classes[rows, columns])
    order = np.random.default_rng(0).permutation(x.size)
    shuffled, _ = landscape.sample(x.ravel()[order][None], y.ravel()[order][None])
    np.testing.assert_array_equal(shuffled[:, 0], whole.reshape(len(BANDS), -1)[:, order])


def test_the_seed_makes_another_country(country: tuple[NDArray[np.float32], NDArray[np.uint8]]) -> None:
    other, _ = Landscape(4).sample(*grid(256, 10.0))
    assert np.corrcoef(other[3].ravel(), country[0][3].ravel())[0, 1] < 0.3


def test_reflectances_are_those_of_june_in_europe(
    country: tuple[NDArray[np.float32], NDArray[np.uint8]],
) -> None:
    reflectance, classes = country
    red, green, blue, nir, swir = reflectance
    assert 0 < reflectance.min() and reflectance.max() < 0.8
    shares = {code: float((classes == code).mean()) for code in (WATER, VEGETATION, BARE)}
    assert 0.01 < shares[WATER] < 0.25 and shares[VEGETATION] > 0.4 and 0.03 < shares[BARE] < 0.5
    assert sum(shares.values()) == pytest.approx(1)
    index = (nir - red) / (nir + red)
    assert np.median(index[classes == VEGETATION]) > 0.5
    assert np.median(index[classes == WATER]) < 0
    assert np.percentile(nir[classes == WATER], 90) < 0.06
    # Visible bands go together, the near infrared goes its own way.
    assert np.corrcoef(red.ravel(), green.ravel())[0, 1] > 0.9
    assert abs(np.corrcoef(red.ravel(), nir.ravel())[0, 1]) < 0.5
    assert np.median(swir[classes == BARE]) > np.median(swir[classes == VEGETATION])


def test_the_truth_has_detail_that_ten_metres_cannot_show() -> None:
    reflectance, _ = Landscape(3).sample(*grid(640, 1.25))
    means = reflectance.reshape(len(BANDS), 80, 8, 80, 8).mean(axis=(2, 4))
    lost = reflectance - np.kron(means, np.ones((1, 8, 8)))
    assert (lost.std(axis=(1, 2)) > 0.1 * reflectance.std(axis=(1, 2))).all()


def test_smooth_noise_has_zero_mean_unit_variance_and_its_wavelength() -> None:
    x, y = (axis.astype(np.float32) for axis in np.meshgrid(np.arange(1500.0), np.arange(1500.0)))
    noise = SmoothNoise(1)(x, y, 10.0, 2)
    assert abs(noise.mean()) < 0.02 and noise.std() == pytest.approx(1, abs=0.02)
    power = np.abs(np.fft.rfft2(noise)) ** 2
    frequency = np.hypot(np.fft.fftfreq(1500)[:, None], np.fft.rfftfreq(1500))
    assert power[frequency > 1 / 10].sum() < 0.02 * power.sum()


def test_hashes_are_uniform_normal_and_tell_negative_places_apart() -> None:
    bits = mix(np.arange(-500, 500)[:, None], np.arange(-500, 500), 7)
    draws = uniform(bits, 1)
    assert draws.min() >= 0 and draws.max() < 1
    counts, _ = np.histogram(draws, 100, (0, 1))
    # Chi square with 99 degrees of freedom: mean 99, standard deviation 14.
    assert ((counts - 1e4) ** 2 / 1e4).sum() < 99 + 5 * 14
    assert abs(np.corrcoef(draws.ravel(), uniform(bits, 2).ravel())[0, 1]) < 0.005
    assert abs(np.corrcoef(draws[1:].ravel(), draws[:-1].ravel())[0, 1]) < 0.005
    numbers = normal(bits)
    assert abs(numbers.mean()) < 0.005 and numbers.std() == pytest.approx(1, abs=0.005)
    assert (numbers**4).mean() == pytest.approx(3, abs=0.05)
