"""The balance of a scene pixel's places: lattices go, ground stays."""

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from torch.nn import functional as F  # noqa: N812

from rsup.models.losses.lattice import spikes
from rsup.models.networks.phases import REACH, balanced


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [4, 8])
def test_what_all_pixels_of_the_scene_have_alike_goes(scale: int) -> None:
    pixels = noise(2, 3, 40, 30).repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    dots = noise(2, 3, scale, scale, seed=1)
    dots = (dots - dots.mean((2, 3), keepdim=True)).repeat(1, 1, 40, 30)
    torch.testing.assert_close(balanced(pixels + dots, scale), pixels, rtol=0, atol=1e-5)
    torch.testing.assert_close(balanced(pixels + dots, scale, 0.75), pixels + 0.25 * dots, rtol=0, atol=1e-5)


@pytest.mark.parametrize("scale", [4, 8])
def test_it_is_the_mean_over_the_pixels_around_of_those_there_are(scale: int) -> None:
    detail = noise(1, 2, 45 * scale, 31 * scale).double()
    places = detail.numpy().reshape(2, 45, scale, 31, scale).transpose(0, 2, 4, 1, 3)
    apart = places - places.mean((1, 2), keepdims=True)
    size = 2 * REACH + 1
    axes = {"size": (1, 1, 1, size, size), "mode": "constant"}
    means = uniform_filter(apart, **axes) / uniform_filter(np.ones_like(apart), **axes)
    wanted = (places - means).transpose(0, 3, 1, 4, 2).reshape(detail.shape)
    with torch.autocast("cpu", torch.bfloat16):
        made = balanced(detail.float(), scale)
    np.testing.assert_allclose(made.numpy(), wanted, atol=1e-5)


def test_of_ground_without_a_lattice_next_to_nothing_is_lost() -> None:
    detail = noise(1, 1, 400, 400)
    made = balanced(detail, 4)
    torch.testing.assert_close(F.avg_pool2d(made, 4), F.avg_pool2d(detail, 4), rtol=0, atol=1e-6)
    assert 0 < (made - detail).square().mean() < 1 / 500


def test_a_lattice_that_comes_and_goes_is_no_stronger_than_what_is_around_it() -> None:
    """As strong as the ground's texture in half of the picture, and none in the other."""
    dots = noise(1, 1, 4, 4, seed=1).repeat(1, 1, 100, 100)
    dots[..., :200] = 0
    there, around = spikes(balanced(noise(1, 1, 400, 400) + dots, 4), 4)
    assert (there / around).mean() < 2
    there, around = spikes(noise(1, 1, 400, 400) + dots, 4)
    assert (there / around).mean() > 20
