"""Each term against its closed form, computed anew in float64 numpy."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from rsup.models.base.intervals import WIDER
from rsup.models.base.radiometry import to_network
from rsup.models.losses import adversarial
from rsup.models.losses import terms as losses


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def gaussian_mmd2(p: float, q: float, shift: float, sigma: float, d: int) -> float:
    """Eq. 16 of N(0, p^2 I) and N(shift e1, q^2 I) in closed form (a Gaussian integral for each term)."""

    def term(variance: float, mean: float) -> float:
        total = sigma**2 + variance
        return float((sigma**2 / total) ** (d / 2) * np.exp(-(mean**2) / (2 * total)))

    return term(2 * p**2, 0) + term(2 * q**2, 0) - 2 * term(p**2 + q**2, shift)


def test_l1_is_the_mean_absolute_difference() -> None:
    a, b = draw(2, 3, 5, 7), draw(2, 3, 5, 7, seed=1)
    assert losses.l1(a, b).item() == pytest.approx(np.abs(a.numpy() - b.numpy()).mean(), rel=1e-12)
    assert losses.l1(a, a).item() == 0


def test_frequency_is_numpys_and_knows_a_cosine() -> None:
    a, b = draw(2, 3, 8, 12), draw(2, 3, 8, 12, seed=1)
    expected = np.abs(np.fft.fft2((a - b).numpy(), norm="ortho")).mean()
    assert losses.frequency(a, b).item() == pytest.approx(expected, rel=1e-12)
    # A cosine of amplitude A has two coefficients of A sqrt(h w) / 2, so the mean modulus is A / sqrt(h w).
    wave = 0.7 * torch.cos(2 * torch.pi * 3 * torch.arange(16, dtype=torch.float64) / 16).expand(1, 1, 16, 16)
    assert losses.frequency(wave, torch.zeros_like(wave)).item() == pytest.approx(0.7 / 16, rel=1e-12)


def test_frequency_punishes_blur_more_than_l1_does() -> None:
    truth = draw(1, 3, 32, 32)
    blurred = torch.nn.functional.avg_pool2d(truth, 3, 1, 1)
    grey = truth + 0.5
    by_pixel = losses.l1(blurred, truth) / losses.l1(grey, truth)
    by_band = losses.frequency(blurred, truth) / losses.frequency(grey, truth)
    assert by_band > 10 * by_pixel


def test_frequency_has_a_gradient_where_images_agree() -> None:
    image = draw(1, 1, 8, 8).requires_grad_()
    losses.frequency(image, image.detach()).backward()
    assert image.grad is not None and bool(image.grad.isfinite().all())


def test_spectrum_is_of_logarithms_band_by_band() -> None:
    """Twice the contrast is four times the power at every scale: ln 4 in each ring, whatever the image."""
    image = draw(2, 3, 32, 32)
    assert losses.spectrum(2 * image, image).item() == pytest.approx(np.log(4), rel=1e-4)
    alone = image[:, :1]
    other = torch.cat([2 * alone[:1], alone[1:]])
    assert losses.spectrum(other, alone).item() == pytest.approx(np.log(4) / 2, rel=1e-4)
    assert losses.spectrum(image.flip(-1), image).item() == pytest.approx(0, abs=1e-12)


def test_power_that_bands_do_not_share_costs_what_their_differences_have() -> None:
    """Grey noise for a truth, noise of each band's own for an image: as much power, and that of the differences doubled
    where the truth has none but the rounding's.
    """
    generator = torch.Generator().manual_seed(2)
    grey, coloured = (torch.randn(8, n, 64, 64, generator=generator, dtype=torch.float64) for n in (1, 3))
    rounding = (2 / 255) ** 2 / 12
    expected = np.log((2 * 0.1**2 + rounding) / rounding)  # in three of six planes
    assert losses.spectrum(0.1 * coloured, 0.1 * grey.expand(-1, 3, -1, -1)).item() == pytest.approx(
        expected / 2, rel=0.05
    )
    assert losses.spectrum(0.1 * coloured[:, :1], 0.1 * grey).item() < 0.1 * expected


def test_spectrum_forgives_what_rounding_to_8_bits_changes() -> None:
    ramp = torch.linspace(-0.5, 0.5, 64, dtype=torch.float64).expand(1, 1, 64, 64)
    rounded = ((ramp + 1) * 127.5).round() / 127.5 - 1
    assert losses.spectrum(rounded, ramp).item() < 1
    assert losses.spectrum(torch.zeros(1, 1, 64, 64), torch.ones(1, 1, 64, 64)).item() == 0


def test_spectrum_raises_the_power_that_l1_leaves_out() -> None:
    """A gain learned on noise that the input does not tell: L1 alone drives it to 0, this term to the truth's power."""
    generator = torch.Generator().manual_seed(0)
    truth, guess = (0.1 * torch.randn(4, 3, 32, 32, generator=generator) for _ in range(2))
    gain = torch.tensor(0.3, requires_grad=True)
    slopes = [torch.autograd.grad(term(gain * guess, truth), gain)[0] for term in (losses.l1, losses.spectrum)]
    assert slopes[0] > 0 > slopes[1]
    with torch.no_grad():
        assert losses.spectrum(guess, truth) < 0.3 * losses.spectrum(0.3 * guess, truth)


def test_spectrum_has_a_gradient_where_images_are_flat_or_agree() -> None:
    image = torch.zeros(1, 1, 16, 16).requires_grad_()
    for truth in (image.detach(), draw(1, 1, 16, 16).float()):
        (slope,) = torch.autograd.grad(losses.spectrum(image, truth), image)
        assert bool(slope.isfinite().all())


def test_uncertainty_is_equation_5_element_by_element() -> None:
    mean, s, truth = draw(2, 4, 3, 5), draw(2, 4, 3, 5, seed=1), draw(2, 4, 3, 5, seed=2)
    total = sum(
        np.exp(-si) * (z - m) ** 2 + 3 * si
        for m, si, z in zip(mean.flatten().numpy(), s.flatten().numpy(), truth.flatten().numpy(), strict=True)
    )
    assert losses.uncertainty(mean, s, truth).item() == pytest.approx(total / (2 * mean.numel()), rel=1e-12)


def test_uncertainty_is_least_at_a_third_of_the_squared_error() -> None:
    error = torch.tensor([0.3, 1.0, 4.0], dtype=torch.float64)
    s = (error.square() / 3).log().requires_grad_()
    losses.uncertainty(torch.zeros_like(error), s, error).backward()
    assert s.grad is not None
    torch.testing.assert_close(s.grad, torch.zeros_like(error), atol=1e-12, rtol=0)


def test_total_variation_of_a_ramp_is_its_squared_slopes() -> None:
    y, x = torch.meshgrid(torch.arange(5.0), torch.arange(9.0), indexing="ij")
    ramp = (0.03 * y - 0.02 * x).expand(2, 1, 5, 9)
    assert losses.total_variation(ramp).item() == pytest.approx(0.03**2 + 0.02**2, rel=1e-5)
    assert losses.total_variation(torch.full((1, 1, 4, 4), 0.5)).item() == 0


def test_total_variation_does_not_grow_with_the_crop() -> None:
    field = draw(1, 1, 16, 16)
    periodic = torch.cat([field, field.flip(-1)], -1)
    assert losses.total_variation(periodic).item() == pytest.approx(losses.total_variation(field).item(), rel=0.05)


@pytest.mark.parametrize("bandwidth", [1.3, None])
def test_mmd2_is_equation_16_pair_by_pair(bandwidth: float | None) -> None:
    x, y = draw(2, 6, 5), 0.4 + draw(2, 9, 5, seed=1)
    for i, result in enumerate(losses.mmd2(x, y, bandwidth).tolist()):
        p, q = x[i].numpy(), y[i].numpy()
        pooled = np.concatenate([p, q])
        pairs = np.sort([np.sum((a - b) ** 2) for a in pooled for b in pooled])
        variance = bandwidth**2 if bandwidth else pairs[(len(pairs) - 1) // 2]

        def mean(us: np.ndarray, vs: np.ndarray, variance: float = variance) -> float:
            return float(np.mean([np.exp(-np.sum((u - v) ** 2) / (2 * variance)) for u in us for v in vs]))

        assert result == pytest.approx(mean(p, p) + mean(q, q) - 2 * mean(p, q), rel=1e-10)


def test_mmd2_of_two_gaussians_is_their_integral() -> None:
    x, y = draw(4000, 3), 1.5 * draw(4000, 3, seed=1)
    y[:, 0] += 0.8
    closed = gaussian_mmd2(1.0, 1.5, 0.8, sigma=2.0, d=3)
    assert losses.mmd2(x, y, 2.0).item() == pytest.approx(closed, rel=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mmd2_of_a_set_with_itself_is_exactly_zero_and_grows_with_a_shift(dtype: torch.dtype) -> None:
    x = draw(64, 32, dtype=dtype) + 100
    assert losses.mmd2(x, x.clone()).item() == 0
    near, far = losses.mmd2(x, x + 0.1).item(), losses.mmd2(x, x + 1.0).item()
    assert 0 < near < far < 2


def test_mmd2_keeps_its_digits_far_from_the_origin() -> None:
    x, y = draw(32, 8), draw(32, 8, seed=1)
    here = losses.mmd2(x, y).item()
    away = losses.mmd2((x + 1000).float(), (y + 1000).float()).item()
    assert away == pytest.approx(here, abs=1e-4)


def test_mmd2_of_equal_samples_has_a_finite_gradient() -> None:
    x = torch.ones(8, 4, requires_grad=True)
    losses.mmd2(x, torch.ones(8, 4)).backward()
    assert x.grad is not None and bool((x.grad == 0).all())


def test_mmd2_gradient_takes_the_bandwidth_for_a_constant() -> None:
    x, y = draw(5, 3).requires_grad_(), draw(6, 3, seed=1)
    (by_median,) = torch.autograd.grad(losses.mmd2(x, y), x)
    pooled = torch.cat([x, y]).detach()
    sigma = torch.cdist(pooled, pooled).square().median().sqrt().item()
    (by_number,) = torch.autograd.grad(losses.mmd2(x, y, sigma), x)
    torch.testing.assert_close(by_median, by_number)
    assert torch.autograd.gradcheck(lambda a: losses.mmd2(a, y, sigma), (x,))


def test_gan_terms_are_binary_cross_entropy_with_smoothed_targets() -> None:
    real, fake = [draw(2, 1), draw(3, 4, seed=1)], [draw(2, 1, seed=2), draw(3, 4, seed=3)]

    def entropy(logits: list[Tensor], target: float) -> float:
        heads = []
        for head in logits:
            p = 1 / (1 + np.exp(-head.numpy()))
            heads.append(np.mean(-target * np.log(p) - (1 - target) * np.log(1 - p)))
        return float(np.mean(heads))

    assert adversarial.discriminator_gan(real, fake).item() == pytest.approx(entropy(real, 0.8) + entropy(fake, 0.0))
    assert adversarial.generator_gan(fake).item() == pytest.approx(entropy(fake, 0.8))


def test_a_generator_gains_nothing_beyond_real() -> None:
    logit = torch.tensor([[np.log(0.8 / 0.2)]], requires_grad=True)
    adversarial.generator_gan([logit]).backward()
    assert logit.grad is not None and abs(logit.grad.item()) < 1e-7


def test_terms_are_exact_under_autocast() -> None:
    a, b = draw(2, 3, 8, 8, dtype=torch.float32), draw(2, 3, 8, 8, seed=1, dtype=torch.float32)
    x, y = a.flatten(2), b.flatten(2)

    def terms() -> list[torch.Tensor]:
        pairwise = [term(a, b) for term in (losses.l1, losses.frequency, losses.spectrum)]
        return [*pairwise, losses.mmd2(x, y), losses.total_variation(a)]

    plain = terms()
    with torch.autocast("cpu", torch.bfloat16):
        reduced = terms()
    for one, other in zip(plain, reduced, strict=True):
        assert torch.equal(one, other)


def test_decibels_are_those_of_each_plane() -> None:
    """A tenth of the network's range of 2 is -14 dB, on dim ground as on bright; planes count alike."""
    truth = torch.full((2, 4, 16, 16), -0.5)
    off = truth.clone()
    off[0] += 0.2
    off[1, :2] -= 0.02
    # And two planes that are met exactly are known to the rounding of stored numbers.
    step = float(to_network(torch.tensor(2001.0)) - to_network(torch.tensor(2000.0)))
    wanted = (4 * 20 * math.log10(0.2) + 2 * 20 * math.log10(0.02) + 2 * 10 * math.log10(step**2 / 12)) / 8
    assert float(losses.decibels(off, truth)) == pytest.approx(wanted, abs=0.01)


def test_intervals_are_best_where_they_hold_their_shares_of_the_errors() -> None:
    """One width cannot hold both shares of Gaussian errors; of errors whose quantiles stand as these do it is both."""
    generator = torch.Generator().manual_seed(0)
    # |error| = 100 * share ** k has its quantiles at powers: k puts that of 0.95 at WIDER times that of 0.683.
    k = math.log(WIDER) / math.log(0.95 / 0.683)
    errors = 100 * torch.rand(100_000, generator=generator) ** k
    widths = 100 * 0.683**k * torch.linspace(0.8, 1.2, 81)
    found = torch.stack([losses.intervals(errors, each.expand_as(errors)) for each in widths])
    best = widths[found.argmin()]
    assert float((errors < best).float().mean()) == pytest.approx(0.683, abs=0.005)
    assert float((errors < WIDER * best).float().mean()) == pytest.approx(0.95, abs=0.005)


def test_intervals_are_two_pinball_losses() -> None:
    """A share of what lies over the quantile and the rest of what lies under, of logarithms, written out."""
    size, width = np.array([1.0, 10.0, 100.0]), 20.0
    logs = np.log(size + 0.25)
    wanted = 0.0
    for share, said in ((0.683, math.log(width)), (0.95, math.log(2.5 * width))):
        wanted += sum(share * (each - said) if each > said else (1 - share) * (said - each) for each in logs) / 3
    errors = torch.tensor([-1.0, 10.0, -100.0])
    assert float(losses.intervals(errors, torch.full((3,), width))) == pytest.approx(wanted, rel=1e-6)


def test_decibels_pull_as_hard_on_a_small_error_as_on_a_large_one() -> None:
    truth = to_network(torch.full((2, 1, 8, 8), 2000.0))
    image = to_network(torch.stack([torch.full((1, 8, 8), 2010.0), torch.full((1, 8, 8), 2500.0)])).requires_grad_()
    losses.decibels(image, truth).backward()
    assert image.grad is not None
    small, large = image.grad.abs().mean((1, 2, 3))
    assert float(small / large) == pytest.approx(50, rel=0.02)


def test_hinge_terms_are_their_definitions() -> None:
    """Means a head first: a head of few positions counts as one of many."""
    real = [torch.tensor([2.0, 0.5]), torch.tensor([[-1.0]])]
    fake = [torch.tensor([-3.0, 0.0]), torch.tensor([[0.5]])]
    of_real, of_fake = (0.25 + 2) / 2, (0.5 + 1.5) / 2
    assert adversarial.discriminator_hinge(real, fake).item() == pytest.approx(of_real + of_fake)
    assert adversarial.generator_hinge(fake).item() == pytest.approx(-(-1.5 + 0.5) / 2)
