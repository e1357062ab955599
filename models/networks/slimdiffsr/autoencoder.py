"""The student's halves around the UNet: image to feature map or latent at an eighth of its size, and back.

Either TAESD (2.4 M) or Stable Diffusion's KL autoencoder (83.7 M), as a chain of modules whose tensor names are
diffusers'. Without the convolutions at the 4-channel latent where those are fused with the UNet's (SlimDiffSR,
section 3.3.1); with them, down to a latent of 4 channels, where they are not.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from .blocks import tiny_decoder, tiny_encoder
from .config import LATENT, StudentConfig

ENCODER_BLOCKS = (1, 3, 3, 3)
DECODER_BLOCKS = (3, 3, 3, 1)
"""TAESD's residual blocks a resolution, finest first and coarsest first."""

KL_LAYERS = 2
"""Residual blocks a level of the KL encoder; one more in the decoder."""

KL_SCALING = 0.18215
"""Factor between Stable Diffusion's KL latent and the one its UNet was trained on (unit variance)."""


class Scale(nn.Module):
    """Multiplies by a constant, whatever the shape."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def kl_widths(config: StudentConfig) -> tuple[int, ...]:
    """Widths of the KL autoencoder, finest first: Stable Diffusion's 128, 256, 512, 512 beside TAESD's 64."""
    return tuple(config.autoencoder_channels * factor for factor in (2, 4, 8, 8))


def latent_width(config: StudentConfig) -> int:
    """Channels of the feature map that is handed to the first fused convolution and taken from the second."""
    return config.autoencoder_channels if config.autoencoder == "taesd" else kl_widths(config)[-1]


def encoder(config: StudentConfig) -> nn.Sequential:
    """Image [n, 3, h, w] in [-1, 1] -> feature map [n, latent_width, h/8, w/8], or [n, 4, h/8, w/8] without fusion."""
    if config.autoencoder == "taesd":
        # Slicing keeps the published layer numbers in the tensor names. TAESD's range scaling and tanh clamp are left
        # behind, as the published student does; without fusion too, so that the comparison is of the convolutions
        # alone.
        tiny = tiny_encoder(config.autoencoder_channels, LATENT, ENCODER_BLOCKS)
        return tiny[:-1] if config.fused else tiny

    from diffusers.models.autoencoders.vae import Encoder

    widths = kl_widths(config)
    whole = Encoder(3, LATENT, ("DownEncoderBlock2D",) * len(widths), widths, KL_LAYERS, config.groups)
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        conv_in=whole.conv_in,
        down_blocks=nn.Sequential(*whole.down_blocks),
        mid_block=whole.mid_block,
        conv_norm_out=whole.conv_norm_out,
        conv_act=whole.conv_act,
    )
    if not config.fused:
        parts["conv_out"] = whole.conv_out
        # The mean only: the other half of SD's quant_conv makes the log-variance, and nothing is sampled here.
        parts["quant_conv"] = nn.Conv2d(2 * LATENT, LATENT, 1)
        parts["scale"] = Scale(KL_SCALING)
    return nn.Sequential(parts)


def decoder(config: StudentConfig) -> nn.Sequential:
    """The way back of `encoder`, to an image [n, 3, h, w], not clamped; its last module is a convolution."""
    if config.autoencoder == "taesd":
        tiny = tiny_decoder(config.autoencoder_channels, LATENT, DECODER_BLOCKS)
        return tiny[1:] if config.fused else tiny

    from diffusers.models.autoencoders.vae import Decoder

    widths = kl_widths(config)
    whole = Decoder(LATENT, 3, ("UpDecoderBlock2D",) * len(widths), widths, KL_LAYERS, config.groups)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if not config.fused:
        parts["scale"] = Scale(1 / KL_SCALING)
        parts["post_quant_conv"] = nn.Conv2d(LATENT, LATENT, 1)
        parts["conv_in"] = whole.conv_in
    parts |= OrderedDict(
        mid_block=whole.mid_block,
        up_blocks=nn.Sequential(*whole.up_blocks),
        conv_norm_out=whole.conv_norm_out,
        conv_act=whole.conv_act,
        conv_out=whole.conv_out,
    )
    return nn.Sequential(parts)
