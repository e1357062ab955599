"""NIQE against a slow second implementation, generalised Gaussians of known shape, Pillow, and real images."""

import numpy as np
import pytest
from PIL import Image
from places import SHARED
from scipy.ndimage import gaussian_filter
from scipy.optimize import brentq
from scipy.signal import convolve2d
from scipy.special import gamma
from scipy.stats import gennorm

from rsup.models.base.errors import ModelError
from rsup.models.metrics import niqe

PARAMETERS = SHARED / "data/weights/metrics/niqe_pris_params.npz"


def picture(seed=0, height=200, width=310):
    noise = np.random.default_rng(seed).normal(size=(height, width))
    image = sum(gaussian_filter(noise, s) * s for s in (0.5, 1.5, 4))
    return np.round((128 + 40 * image / image.std()).clip(0, 255))


def pristine(seed=1):
    """Parameters of the right shape: a spread that can be inverted."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(36, 36))
    return niqe.Pristine(rng.normal(size=36) + 1, root @ root.T / 36)


def slow_fit(x):
    """One block's asymmetric generalised Gaussian, its shape by root finding."""
    left = np.sqrt(np.mean([v * v for v in x if v < 0]))
    right = np.sqrt(np.mean([v * v for v in x if v > 0]))
    g = left / right
    r = np.mean(np.abs(x)) ** 2 / np.mean(np.square(x)) * (g**3 + 1) * (g + 1) / (g * g + 1) ** 2
    shape = brentq(lambda a: gamma(2 / a) ** 2 / gamma(1 / a) / gamma(3 / a) - r, 0.2, 10)
    unit = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * unit, right * unit


def slow_half(plane):
    """Antialiased cubic by its definition: the kernel of support 4, evaluated at every distance."""

    def kernel(d):
        d = abs(d) / 2
        near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
        return (near if d <= 1 else far if d < 2 else 0) / 2

    n = len(plane)
    matrix = np.zeros((n // 2, n))
    for i in range(n // 2):
        for k in range(2 * i - 6, 2 * i + 9):
            mirrored = -1 - k if k < 0 else 2 * n - 1 - k if k >= n else k
            matrix[i, mirrored] += kernel(k - (2 * i + 0.5))
    return matrix @ plane


def slow_niqe(plane, model):
    plane = plane[: len(plane) // 96 * 96, : plane.shape[1] // 96 * 96]
    window = np.exp(-sum(np.square(np.mgrid[-3:4, -3:4])) / (2 * (7 / 6) ** 2))
    window /= window.sum()
    found = []
    for side in (96, 48):
        padded = np.pad(plane, 3, mode="edge")
        mean = convolve2d(padded, window, mode="valid")
        power = convolve2d(padded**2, window, mode="valid")
        flat = (plane - mean) / (np.sqrt(abs(power - mean**2)) + 1)
        rows = []
        for top in range(0, len(plane), side):
            for left in range(0, plane.shape[1], side):
                block = flat[top : top + side, left : left + side]
                shape, a, b = slow_fit(block.ravel())
                row = [shape, (a + b) / 2]
                for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
                    at = np.indices(block.shape)
                    other = block[(at[0] - down) % side, (at[1] - right) % side]
                    shape, a, b = slow_fit((block * other).ravel())
                    row += [shape, (b - a) * gamma(2 / shape) / gamma(1 / shape), a, b]
                rows.append(row)
        found.append(rows)
        plane = slow_half(slow_half(plane).T).T
    found = np.concatenate(found, axis=1)
    apart = found.mean(0) - model.mean
    return np.sqrt(apart @ np.linalg.inv((np.cov(found.T) + model.covariance) / 2) @ apart)


def test_equals_the_slow_way():
    model = pristine()
    assert niqe.niqe(picture(), model) == pytest.approx(slow_niqe(picture(), model), rel=1e-5)


def test_halving_is_pillows():
    image = np.random.default_rng(3).uniform(0, 255, (192, 96))
    padded = Image.fromarray(np.pad(image, 8, mode="symmetric").astype(np.float32))
    theirs = np.asarray(padded.resize((56, 104), Image.Resampling.BICUBIC))[4:-4, 4:-4]
    np.testing.assert_allclose(niqe.halved(image), theirs, atol=1e-4)


@pytest.mark.parametrize("shape", [0.7, 1.0, 2.0, 4.0])
def test_a_known_shape_is_found(shape):
    """Samples at equal steps of probability: the distribution itself, nearly."""
    x = gennorm.ppf((np.arange(200_000) + 0.5) / 200_000, shape, scale=0.8)
    found = niqe.asymmetric_gaussian(x[None])
    np.testing.assert_allclose([part[0] for part in found], [shape, 0.8, 0.8], rtol=5e-3)
    # An asymmetric one has its sides in the ratio of their widths.
    wide = np.concatenate(
        [
            gennorm.ppf(np.linspace(0, 0.5, 150_000, endpoint=False)[1:], shape, scale=2.4),
            gennorm.ppf(np.linspace(0.5, 1, 50_000, endpoint=False)[1:], shape, scale=0.8),
        ]
    )
    found = niqe.asymmetric_gaussian(wide[None])
    np.testing.assert_allclose([part[0] for part in found], [shape, 2.4, 0.8], rtol=1e-2)


def test_normalised_has_no_mean_and_unit_size():
    flat = niqe.normalised(np.full((96, 96), 77.0))
    np.testing.assert_allclose(flat, 0, atol=1e-6)
    busy = niqe.normalised(np.random.default_rng(5).normal(128, 40, (96, 96)))
    assert abs(busy.mean()) < 0.02 and 0.8 < busy.std() < 1.1


def test_what_is_too_small_or_flat_has_no_quality():
    model = pristine()
    assert niqe.niqe(picture(0, 191, 191), model) is None
    assert niqe.niqe(picture(0, 60, 60), model) is None
    assert niqe.niqe(np.full((192, 192), 20.0), model) is None
    half_flat = picture(0, 192, 288)
    half_flat[:, :100] = 20
    assert len(niqe.features(half_flat)) == 4
    assert niqe.niqe(half_flat, model) is not None


def test_a_file_that_is_something_else(tmp_path):
    path = tmp_path / "niqe.npz"
    np.savez(path, mu_pris_param=np.zeros(35), cov_pris_param=np.eye(36))
    with pytest.raises(ModelError, match="36 features"):
        niqe.load_pristine(path)
    np.savez(path, mu=np.zeros(36))
    with pytest.raises(ModelError, match="mu_pris_param"):
        niqe.load_pristine(path)
    path.write_bytes(b"\x93no")
    with pytest.raises(ModelError, match="cannot be read"):
        niqe.load_pristine(path)
    with pytest.raises(ModelError, match="absent.npz"):
        niqe.load_pristine(tmp_path / "absent.npz")


@pytest.mark.skipif(not PARAMETERS.exists(), reason="NIQE's parameters are not here")
def test_real_images_sharp_is_better_than_blurred_or_noisy():
    import rasterio

    model = niqe.load_pristine(PARAMETERS)
    files = sorted((SHARED / "data/hr/naip_ca_0.6m").glob("*.tif"))[::40]
    rng = np.random.default_rng(6)
    scores = []
    for file in files:
        with rasterio.open(file) as source:
            r, g, b = source.read([1, 2, 3]).astype(float)
        plane = np.round(16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255)
        versions = (plane, gaussian_filter(plane, 1.5), (plane + rng.normal(0, 15, plane.shape)).clip(0, 255))
        scores.append([niqe.niqe(each, model) for each in versions])
    sharp, blurred, noisy = np.array(scores).T
    assert ((sharp > 2) & (sharp < 12)).all()
    assert (blurred > sharp).all() and (noisy > sharp).all()
