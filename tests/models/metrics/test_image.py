"""Figures against numpy in float64, closed forms and known shifts."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d

from rsup.models.base.radiometry import ADD_OFFSET, SCALE_FACTOR
from rsup.models.metrics import image as metrics


def picture(seed=0, height=96, width=80):
    """Structure at several scales, in [0, 1]."""
    noise = np.random.default_rng(seed).normal(size=(3, height, width))
    image = sum(gaussian_filter(noise, (0, s, s), mode="wrap") * s for s in (0.7, 2, 6))
    return torch.from_numpy((0.5 + 0.2 * image / image.std()).clip(0, 1))


def luma_by_numpy(image):
    r, g, b = image.numpy() * 255
    return 16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255


def ssim_by_numpy(a, b):
    """Wang's SSIM with the sums written out, the window inside the image alone."""
    at = np.arange(11) - 5.0
    window = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    window /= window.sum()

    def mean(x):
        return convolve2d(x, window, mode="valid")

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    return float(np.mean((2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))))


def vif_by_scipy(a, b):
    """Sheikh and Bovik's sums written out: what each scale tells of b through a, over what it tells of b itself."""
    told = whole = 0.0
    for scale in range(4):
        side = 2 ** (4 - scale) + 1
        at = np.arange(side) - (side - 1) / 2
        window = np.exp(-(at[:, None] ** 2 + at**2) / (2 * (side / 5) ** 2))
        window /= window.sum()

        def mean(x, window=window):
            return convolve2d(x, window, mode="valid")

        if scale:
            a, b = mean(a)[::2, ::2], mean(b)[::2, ::2]
        va, vb = mean(a * a) - mean(a) ** 2, mean(b * b) - mean(b) ** 2
        gain = np.maximum((mean(a * b) - mean(a) * mean(b)) / vb, 0)
        left = np.where(gain > 0, va - gain**2 * vb, va)
        told += np.log2(1 + gain**2 * vb / (left + 2)).sum()
        whole += np.log2(1 + vb / 2).sum()
    return told / whole


def test_luma_ends_where_video_does():
    ends = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    np.testing.assert_allclose(metrics.luma(ends).ravel(), [16, 235], atol=1e-12)


@pytest.mark.parametrize("border", [4, 8])
def test_fidelity_equals_numpy(border):
    truth = picture()
    image = metrics.eight_bits(truth + 0.05 * torch.randn(truth.shape, generator=torch.manual_seed(1)))
    a, b = (luma_by_numpy(each)[border:-border, border:-border] for each in (image, truth))
    expected = 10 * np.log10(255**2 / np.mean((a - b) ** 2))
    assert metrics.psnr_y(image, truth, border) == pytest.approx(expected, abs=1e-4)
    error = (image - truth)[1, border:-border, border:-border].numpy()
    expected = -10 * np.log10(np.mean(error**2))
    assert metrics.psnr(image[1], truth[1], border) == pytest.approx(expected, abs=1e-4)
    assert metrics.ssim_y(image, truth, border) == pytest.approx(ssim_by_numpy(a, b), abs=1e-6)
    assert 0.3 < metrics.ssim_y(image, truth, border) < 0.98
    assert metrics.vif_y(image, truth, border) == pytest.approx(vif_by_scipy(a, b), rel=1e-6)
    assert 0.2 < vif_by_scipy(a, b) < 0.9


def test_known_values():
    grey = torch.full((3, 40, 40), 0.5, dtype=torch.float64)
    # 219 of the 255 levels lie between black and white, so a step of 0.1 is one of 21.9.
    assert metrics.psnr_y(grey + 0.1, grey, 4) == pytest.approx(20 * math.log10(255 / 21.9), abs=1e-5)
    assert metrics.psnr_y(grey, grey, 4) == math.inf
    assert metrics.ssim_y(picture(), picture(), 4) == pytest.approx(1, abs=1e-9)
    assert metrics.vif_y(picture(), picture(), 4) == pytest.approx(1, abs=1e-6)
    assert metrics.vif_y(grey, picture()[:, :40, :40], 0) is None  # too small for the coarsest scale
    # Of two constants only the means count.
    a, b, c1 = 125.5, 147.4, 2.55**2
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    assert metrics.ssim_y(grey + 0.1, grey, 4) == pytest.approx(expected, abs=1e-6)


def test_the_border_does_not_count():
    truth = picture()
    spoilt = truth.clone()
    spoilt[:, :4], spoilt[:, -4:], spoilt[..., :4], spoilt[..., -4:] = 0, 1, 1, 0
    assert metrics.psnr_y(spoilt, truth, 4) == math.inf
    assert metrics.ssim_y(spoilt, truth, 4) == pytest.approx(1, abs=1e-9)
    assert metrics.psnr_y(spoilt, truth, 3) < 40


def test_eight_bits_is_what_a_file_keeps():
    image = torch.tensor([-0.2, 0.0, 0.3, 0.5 + 1e-9, 1.0, 1.7])
    np.testing.assert_array_equal(metrics.eight_bits(image) * 255, [0, 0, 77, 128, 255, 255])


def test_black_pixels_have_no_spectral_angle():
    image, truth = picture(0, 40, 40) + 0.1, picture(1, 40, 40) + 0.1
    expected = metrics.spectral_angle(image[:, 10:], truth[:, 10:])
    truth[:, :10] = 0
    assert metrics.spectral_angle(image, truth) == pytest.approx(expected, abs=1e-12) != 0
    assert math.isnan(metrics.spectral_angle(image, torch.zeros_like(truth)))


def test_reflectance_error_of_an_offset():
    dn = torch.full((3, 4, 4), 3000.0)
    assert metrics.reflectance_error(dn + 250, dn) == pytest.approx(250 * SCALE_FACTOR)
    np.testing.assert_allclose(metrics.reflectance(dn), 3000 * SCALE_FACTOR + ADD_OFFSET)


@pytest.mark.parametrize("gain", [0.5, 1.0, 0.9])
def test_spectrum_rmse_of_a_gain(gain):
    """All frequencies gain^2 in power: the logarithms differ by 2 ln(gain) everywhere."""
    image = picture()
    assert metrics.spectrum_rmse(image * gain, image) == pytest.approx(2 * abs(math.log(gain)), abs=1e-9)


def test_spectrum_rmse_grows_with_blur():
    truth = picture()
    blurred = [torch.from_numpy(gaussian_filter(truth.numpy(), (0, s, s))) for s in (0.5, 1.0, 2.0)]
    found = [metrics.spectrum_rmse(image, truth) for image in blurred]
    assert found == sorted(found) and found[0] > 0


def test_a_constant_has_no_spectrum():
    assert not math.isfinite(metrics.spectrum_rmse(torch.full((3, 64, 64), 0.5), picture(0, 64, 64)))


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-5, 1)])
@pytest.mark.parametrize("scale", [4, 8])
def test_displacement_by_whole_pixels(shift, scale):
    """The window onto the ground moves up by what the content then lies lower."""
    ground = picture(2, 280, 300)
    down, right = shift
    truth, moved = (ground[:, 10 - y : 266 - y, 10 - x : 266 - x] for y, x in ((0, 0), (down, right)))
    found = metrics.displacement(moved, truth, scale)
    np.testing.assert_allclose(found, shift, atol=0.12)


@pytest.mark.parametrize("shift", [(0.5, 0.0), (-0.25, 1.4), (0.0, -0.01)])
def test_displacement_by_parts_of_a_pixel(shift):
    """Shifted in the frequency domain, where a periodic image moves exactly; then blurred, as networks blur."""
    truth = picture(5, 256, 256)
    f = np.fft.fftfreq(256)
    ramp = np.exp(-2j * np.pi * (f[:, None] * shift[0] + f * shift[1]))
    moved = np.fft.ifft2(np.fft.fft2(truth.numpy()) * ramp).real
    moved = gaussian_filter(moved, (0, 1.5, 1.5), mode="wrap")
    found = metrics.displacement(torch.from_numpy(moved), truth, 4)
    np.testing.assert_allclose(found, shift, atol=0.02)


def test_spectrum_db_counts_above_the_scenes_nyquist_alone():
    """A gain g is 20 log10 g in every ring; a slow wave, of 8 cycles under a Nyquist of 16, changes none of them."""
    image = picture(0, 128, 128)
    assert metrics.spectrum_db(image * 2, image, 4) == pytest.approx(20 * math.log10(2), abs=1e-9)
    wave = torch.cos(2 * math.pi * 8 * (torch.arange(128, dtype=torch.float64) + 0.5) / 128)
    assert metrics.spectrum_db(image + wave, image, 4) < 0.1 < metrics.spectrum_rmse(image + wave, image)


def test_acutance_of_a_gain_and_of_a_blurred_edge():
    """Of a ramp over w pixels the gradients add up to the step whatever w, and a wave's fall with its amplitude."""
    image = picture(0)
    assert metrics.acutance(image * 0.5, image) == pytest.approx(0.5)
    at = torch.arange(64, dtype=torch.float64)
    edges = [((at - 32) / w + 0.5).clamp(0, 1).expand(3, 64, 64) for w in (1, 8)]
    assert metrics.acutance(edges[1], edges[0]) == pytest.approx(1)
    wave = (0.5 + 0.25 * torch.cos(2 * math.pi * at / 8)).expand(3, 64, 64)
    soft = torch.from_numpy(gaussian_filter(wave.numpy(), (0, 0, 2.0), mode="wrap"))
    # A Gaussian leaves a wave exp(-(2 pi f s)^2 / 2); scipy's is cut at four deviations.
    assert metrics.acutance(soft, wave) == pytest.approx(math.exp(-((2 * math.pi / 8 * 2) ** 2) / 2), rel=1e-2)


def test_acutance_of_nothing_is_no_number():
    assert not math.isfinite(metrics.acutance(picture(), torch.full((3, 96, 80), 0.5)))


def test_lattice_db_is_the_power_of_dots_over_the_truths():
    """Noise of deviation s in the luma has (3 / 8)^2 n^2 s^2, dots of height d have d^2 (n^2 / 64)^2 more at spikes."""
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 512, 512))).expand(3, -1, -1)
    dots = torch.zeros(512, 512, dtype=torch.float64)
    dots[::4, ::4] = 0.5
    ratio = 1 + 0.25 * (512**2 / 64) ** 2 / ((3 / 8) ** 2 * 512**2)
    assert metrics.lattice_db(noise + dots, noise, 4) == pytest.approx(10 * math.log10(ratio), abs=2)
    assert metrics.lattice_db(noise.roll((1, 3), (1, 2)), noise, 4) == pytest.approx(0, abs=1)
    assert math.isnan(metrics.lattice_db(noise[:, :24, :24], noise[:, :24, :24], 4))
