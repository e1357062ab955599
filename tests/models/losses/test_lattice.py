"""A lattice of dots against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.special import exp1
from torch import Tensor

from rsup.models.losses.lattice import CHANCE, SQUARE, lattice, spikes
from rsup.models.networks.interpolation import interpolator


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def dots(scale: int, side: int) -> Tensor:
    """1 on one pixel of every scale x scale, 0 elsewhere."""
    plane = torch.zeros(side, side, dtype=torch.float64)
    plane[1::scale, 2::scale] = 1
    return plane


@pytest.mark.parametrize("scale", [4, 8])
def test_spikes_of_dots_have_their_power(scale: int) -> None:
    """Dots of height 1 are waves of 1 / scale^2 at every multiple; the window's mean is a quarter of the pixels."""
    side = 16 * scale
    there, around = spikes(dots(scale, side), scale)
    assert there.shape == (scale**2 - 1,)
    torch.testing.assert_close(there, torch.full_like(there, (side**2 / 4 / scale**2) ** 2), rtol=1e-6, atol=0)
    assert float(around.max()) < 1e-9 * float(there.min())


def test_dots_on_noise_have_the_ratio_that_both_powers_give() -> None:
    """Noise of variance 1 has (3 / 8)^2 n^2 everywhere, dots of height d have d^2 (n^2 / 4 / 16)^2 more at spikes."""
    side, height = 512, 0.2
    there, around = spikes(noise(8, side, side) + height * dots(4, side), 4)
    expected = 1 + height**2 * (side**2 / 64) ** 2 / ((3 / 8) ** 2 * side**2)
    assert float(there.mean() / around.mean()) == pytest.approx(expected, rel=0.15)


def excess(height: float, side: int) -> float:
    """What squares of `side` pixels of noise of variance 1 have beyond chance with dots that stand out by far, x4."""
    return math.log(height**2 * (side**2 / 64) ** 2 / ((3 / 8) ** 2 * side**2)) - CHANCE


def test_the_term_is_nothing_for_noise_and_squared_logarithms_for_a_lattice() -> None:
    plain = noise(64, 3, 64, 64)
    assert pytest.approx(float(math.e * exp1(1)), abs=1e-4) == CHANCE
    # Means over 256 squares and 64 wholes, and surroundings, a few steps of the transform, that vary too.
    assert float(lattice(plain, 4)) < 0.1**2
    height = 4.0
    expected = excess(height, 4 * SQUARE) ** 2 + excess(height, 64) ** 2
    assert float(lattice(plain + height * dots(4, 64), 4)) == pytest.approx(expected, rel=0.1)
    one_band = plain + torch.tensor([height, 0, 0])[:, None, None] * dots(4, 64)
    assert float(lattice(one_band, 4)) == pytest.approx(expected / 3, rel=0.1)


def test_a_lattice_too_faint_for_a_square_is_seen_over_the_whole() -> None:
    """Dots that have 0.14 of the noise's power at a multiple in a square have 36 times it in 16 x 16 squares."""
    ground, height = noise(4, 1, 512, 512), 0.28
    assert math.exp(excess(height, 4 * SQUARE) + CHANCE) < 0.15
    expected = excess(height, 512) ** 2
    assert float(lattice(ground + height * dots(4, 512), 4)) == pytest.approx(expected, rel=0.15)
    assert float(lattice(ground, 4)) < 0.02 * expected


def test_a_weave_at_one_multiple_beside_rough_ground_is_seen() -> None:
    """Stripes 4 pixels apart on a quarter of an image that is smooth there: one multiple and its mirror, of 15."""
    ground = noise(16, 1, 64, 64)
    ground[..., :32, :32] *= 1e-3
    stripes = torch.zeros(64, 64, dtype=torch.float64)
    stripes[:32, :32] = torch.cos(torch.arange(32) * math.pi / 2)
    # cos has (n^2 / 4 / 2)^2 at each of its two places; the other three squares are noise.
    power = (0.1 * 32**2 / 8) ** 2 / ((3 / 8) ** 2 * 32**2 * 1e-6)
    expected = (math.log(power) - CHANCE) / 4
    assert float(lattice(ground + 0.1 * stripes, 4)) == pytest.approx(expected**2 * 2 / 15, rel=0.15)


def test_detail_costs_nothing_beside_none() -> None:
    """Bicubic enlarging leaves nothing at the multiples, and next to nothing around them."""
    smooth = interpolator("bicubic", 4)(noise(16, 1, 16, 16).float())
    (detailed := smooth + 0.1 * noise(16, 1, 64, 64).float()).requires_grad_()
    there, around = spikes(smooth, 4)
    assert float((there / around).log1p().mean()) < CHANCE / 2
    assert float(lattice(smooth, 4)) == 0
    assert float(lattice(detailed, 4).detach()) < 0.1**2


def test_the_term_takes_the_lattice_away() -> None:
    image = (noise(4, 3, 64, 64) + dots(4, 64)).requires_grad_()
    before = lattice(image, 4)
    (gradient,) = torch.autograd.grad(before, image)
    assert float(lattice(image.detach() - 0.1 * gradient / gradient.abs().max(), 4)) < float(before.detach())
    pattern = torch.stack([gradient.mean((0, 1))[16:48, 16:48][y::4, x::4].mean() for y in range(4) for x in range(4)])
    assert int(pattern.argmax()) == 1 * 4 + 2


def test_a_flat_plane_has_none() -> None:
    image = torch.full((1, 3, 32, 32), 0.3, requires_grad=True)
    term = lattice(image, 4)
    term.backward()  # type: ignore[no-untyped-call]
    assert (
        float(term.detach()) == pytest.approx(0, abs=1e-9)
        and image.grad is not None
        and bool(image.grad.isfinite().all())
    )


@pytest.mark.parametrize("shape", [(30, 32), (24, 32)])
def test_sides_that_hold_no_lattice_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="pixels are no"):
        spikes(torch.zeros(*shape), 4)
    with pytest.raises(ValueError, match="hold no square of 32"):
        lattice(torch.zeros(1, 1, 28, 64), 4)
