"""The network of residual shifting: noisy latent, conditioning latent and step in, an estimate of the clean latent out.

diffusers' UNet2DModel by its parts, so that its encoder can be run alone and its last convolution in full precision.
"""

from __future__ import annotations

from typing import Annotated, Any

from diffusers.models.unets.unet_2d import UNet2DModel
from pydantic import Field, model_validator
from torch import Tensor, nn

from rsup.models.base.settings import Config
from rsup.models.networks.precision import full_precision, unrounded

_Width = Annotated[int, Field(ge=4, le=4096)]
_Count = Annotated[int, Field(ge=1, le=64)]


class DenoiserConfig(Config):
    """A UNet with the level widths of ResShift's paper; its Swin transformers are convolutions here."""

    channels: Annotated[tuple[_Width, ...], Field(min_length=2, max_length=6)] = (160, 320, 320, 640)
    """Width of each level, finest first."""
    blocks: _Count = 2
    """Residual blocks a level on the way down; one more on the way up."""
    attention_levels: Annotated[int, Field(ge=0)] = 1
    """How many of the coarsest levels attend to themselves; the middle always does."""
    head_channels: _Count = 32
    """Width of an attention head."""
    groups: _Count = 32
    """Groups of each group normalisation."""

    @model_validator(mode="after")
    def _widths_divide(self) -> DenoiserConfig:
        if self.attention_levels > len(self.channels):
            raise ValueError(f"{self.attention_levels} of {len(self.channels)} levels cannot attend")
        for i, width in enumerate(self.channels):
            attends = i >= len(self.channels) - max(1, self.attention_levels)
            if width % self.groups or (attends and width % self.head_channels):
                raise ValueError(
                    f"a width of {width} is no multiple of {self.groups} groups and heads of {self.head_channels}"
                )
        return self

    @property
    def multiple(self) -> int:
        """Sides of a latent must be multiples of this many positions."""
        return int(2 ** (len(self.channels) - 1))


class Denoiser(nn.Module):
    """Inputs [n, inputs, h, w] and steps [n] -> [n, channels, h, w], zero everywhere while it is untrained.

    h and w are multiples of `config.multiple`. Autocast is respected but for the first and last convolutions.
    """

    def __init__(self, config: DenoiserConfig, inputs: int, channels: int) -> None:
        super().__init__()
        levels, attending = len(config.channels), config.attention_levels
        kinds = [("Attn" if i >= levels - attending else "") for i in range(levels)]
        self.unet: Any = UNet2DModel(
            in_channels=inputs,
            out_channels=channels,
            block_out_channels=config.channels,
            layers_per_block=config.blocks,
            down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
            up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
            attention_head_dim=config.head_channels,
            norm_num_groups=config.groups,
        )
        nn.init.zeros_(self.unet.conv_out.weight)
        nn.init.zeros_(self.unet.conv_out.bias)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        hidden, skips, embedding = self._encode(x, t)
        for block in self.unet.up_blocks:
            count = len(block.resnets)
            hidden = block(hidden, tuple(skips[-count:]), embedding)
            del skips[-count:]
        hidden = self.unet.conv_act(self.unet.conv_norm_out(hidden))
        with full_precision(x.device):
            out: Tensor = self.unet.conv_out(hidden.to(x.dtype))
        return out

    def features(self, x: Tensor, t: Tensor) -> Tensor:
        """What the encoder and the middle make of the inputs: [n, config.channels[-1], h / multiple, w / multiple]."""
        return self._encode(x, t)[0]

    def _encode(self, x: Tensor, t: Tensor) -> tuple[Tensor, list[Tensor], Tensor]:
        embedding: Tensor = self.unet.time_embedding(self.unet.time_proj(t).to(x.dtype))
        hidden: Tensor = unrounded(self.unet.conv_in, x)
        skips = [hidden]
        for block in self.unet.down_blocks:
            hidden, states = block(hidden, embedding)
            skips += states
        hidden = self.unet.mid_block(hidden, embedding)
        return hidden, skips, embedding
