"""The denoiser against diffusers' UNet2DModel, whose parts it runs."""

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from rsup.models.networks.resshift.denoiser import Denoiser, DenoiserConfig

TINY = DenoiserConfig(channels=(8, 16), blocks=1, head_channels=8, groups=4)


def test_it_is_diffusers_unet() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(TINY, 7, 3)
    nn.init.normal_(denoiser.unet.conv_out.weight)
    x, t = torch.randn(2, 7, 16, 8), torch.tensor([0, 14])
    with torch.no_grad():
        torch.testing.assert_close(denoiser(x, t), denoiser.unet(x, t).sample, rtol=0, atol=1e-4)


def test_untrained_it_gives_zero_and_its_encoder_does_not() -> None:
    denoiser = Denoiser(TINY, 7, 3)
    x, t = torch.randn(1, 7, 16, 8), torch.tensor([3])
    assert not denoiser(x, t).any()
    features = denoiser.features(x, t)
    assert features.shape == (1, 16, 16 // TINY.multiple, 8 // TINY.multiple)
    assert features.any()


def test_under_autocast_the_last_convolution_is_exact() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(TINY, 6, 3)
    nn.init.normal_(denoiser.unet.conv_out.weight)
    nn.init.constant_(denoiser.unet.conv_out.bias, 1.001)
    denoiser.unet.conv_out.weight.data.zero_()
    with torch.autocast("cpu", torch.bfloat16):
        result = denoiser(torch.randn(1, 6, 8, 8), torch.tensor([0]))
    assert result.dtype == torch.float32
    # bfloat16 knows 1 and 1.0078.
    torch.testing.assert_close(result, torch.full_like(result, 1.001))


def test_the_default_is_about_the_papers_size() -> None:
    with torch.device("meta"):
        denoiser = Denoiser(DenoiserConfig(), 6, 3)
    assert 100e6 < sum(tensor.numel() for tensor in denoiser.parameters()) < 130e6


@pytest.mark.parametrize(
    "wrong",
    [{"channels": (30, 64)}, {"attention_levels": 5}, {"channels": (32, 48), "groups": 16, "head_channels": 32}],
)
def test_widths_that_do_not_divide_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        DenoiserConfig.model_validate(wrong)
