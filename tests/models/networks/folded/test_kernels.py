"""Kernels against PyTorch's own modules in float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from rsup.models.networks.folded.kernels import Conv, Doubled, Linear, folds

CONVOLUTIONS = [
    nn.Conv2d(5, 12, 3, padding=1),
    nn.Conv2d(8, 16, 1, bias=False),
    nn.Conv2d(8, 8, 3, stride=2, padding=1),
    nn.Conv2d(8, 8, 3, padding=2, dilation=2),
]


def map_of(channels: int, height: int = 10, width: int = 14) -> torch.Tensor:
    image = torch.randn(2, channels, height, width, generator=torch.manual_seed(channels))
    return image.contiguous(memory_format=torch.channels_last)


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("conv", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("then", ["none", "relu"])
def test_a_convolution_and_what_follows(conv, then):
    x = map_of(conv.in_channels)
    plain = F.conv2d(
        x.double(),
        conv.weight.double(),
        None if conv.bias is None else conv.bias.double(),
        conv.stride,
        conv.padding,
        conv.dilation,
    )
    ends = F.relu if then == "relu" else nn.Identity()
    folded = Conv(conv, torch.float32, then)
    torch.testing.assert_close(folded(x).double(), ends(plain), rtol=0, atol=1e-5)
    other = torch.randn(plain.shape).contiguous(memory_format=torch.channels_last)
    before = other.clone()
    torch.testing.assert_close(folded.plus(x, other).double(), ends(plain + other), rtol=0, atol=1e-5)
    assert torch.equal(other, before)
    assert folded(x).is_contiguous(memory_format=torch.channels_last)


def test_a_linear_map_and_what_is_added():
    linear, x = nn.Linear(12, 20), torch.randn(2, 7, 12)
    plain, other = F.linear(x.double(), linear.weight.double(), linear.bias.double()), torch.randn(2, 7, 20)
    folded = Linear.of(linear, torch.float32)
    torch.testing.assert_close(folded(x).double(), plain, rtol=0, atol=1e-5)
    torch.testing.assert_close(folded.plus(x, other).double(), plain + other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_an_enlargement_and_a_convolution_are_one(bias):
    """At the border too, and to the last digits: the sums of weights are exact in float64."""
    conv, x = nn.Conv2d(6, 9, 3, padding=1, bias=bias).double(), map_of(6, 5, 7).double()
    plain = conv(F.interpolate(x, scale_factor=2.0))
    torch.testing.assert_close(Doubled(conv, torch.float64)(x), plain, rtol=0, atol=1e-12)


def test_what_is_made_is_a_copy():
    conv = nn.Conv2d(4, 4, 3, padding=1)
    folded, x = Conv(conv, torch.float32), map_of(4)
    before = folded(x)
    conv.weight.mul_(2)
    assert torch.equal(folded(x), before)


def test_types_that_no_kernel_is_for():
    assert not folds(torch.float16) and not folds(torch.float64)
