"""The SlimDiffSR student: image in [-1, 1], already at output size, to image, in one pass without noise, text or time.

A shallow Stable Diffusion UNet with light operators, between the halves of TAESD. `StudentConfig()` is the published
network; x4 and x8 share it. Tensor names under `unet` are diffusers', so a teacher's weights can be copied by name.
Source: SlimDiffSR, section 3.3, and the authors' inference code.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.autoencoders.vae import DecoderTiny, EncoderTiny
from diffusers.models.downsampling import Downsample2D
from diffusers.models.upsampling import Upsample2D
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from .layers import DSC, FSC, QGAM

ENCODER_BLOCKS = (1, 3, 3, 3)
DECODER_BLOCKS = (3, 3, 3, 1)
"""TAESD's residual blocks a resolution, finest first and coarsest first."""

_Width = Annotated[int, Field(ge=8, le=4096)]
_Count = Annotated[int, Field(ge=1, le=64)]


class StudentConfig(BaseModel):
    """Widths and depths of the student; the defaults are the published network (55.975 M live parameters)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: Annotated[tuple[_Width, ...], Field(min_length=1, max_length=4)] = (320, 640)
    """Width of each kept UNet level, finest first."""
    deep_channels: _Width = 1280
    """Width of the one residual block that stands for the removed levels."""
    blocks: _Count = 2
    """Residual blocks a level on the way down; one more on the way up."""
    queries: _Count = 32
    """Learned tokens of each QGAM."""
    squeeze: _Width = 64
    """Width inside QGAM's attentions."""
    groups: _Count = 32
    """Groups of each group normalisation in the UNet."""
    autoencoder_channels: _Width = 64
    """Width of TAESD."""

    @model_validator(mode="after")
    def _widths_divide(self) -> StudentConfig:
        for width in (*self.channels, self.deep_channels):
            if width % self.groups or width % 8:
                raise ValueError(f"a width of {width} is no multiple of 8 and of {self.groups} groups")
        return self

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of this many output pixels (16 as published)."""
        return int(2 ** (len(ENCODER_BLOCKS) - 1 + len(self.channels) - 1))


class ResidualBlock(nn.Module):
    """Stable Diffusion's residual block without time, its convolutions replaced: [n, c, h, w] -> [n, out, h, w]."""

    def __init__(self, channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels, eps=1e-5)
        self.conv1 = FSC(channels, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=1e-5)
        self.conv2 = DSC(out_channels)
        self.conv_shortcut = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        out: Tensor = self.conv_shortcut(x) + y
        return out


class TransformerBlock(nn.Module):
    """QGAM and a GEGLU feed-forward, a residual around each: tokens [n, length, channels] -> the same shape."""

    def __init__(self, channels: int, config: StudentConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = QGAM(channels, config.queries, config.squeeze)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels, activation_fn="geglu")

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn1(self.norm1(tokens))
        out: Tensor = tokens + self.ff(self.norm3(tokens))
        return out


class Transformer(nn.Module):
    """One transformer block between linear projections, a residual around all: [n, c, h, w] -> the same shape."""

    def __init__(self, channels: int, config: StudentConfig) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(config.groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(channels, config)])
        self.proj_out = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        # A view, not a copy, where the feature map is channels_last.
        tokens: Tensor = self.proj_in(self.norm(x).permute(0, 2, 3, 1).flatten(1, 2))
        for block in self.transformer_blocks:
            tokens = block(tokens)
        y: Tensor = self.proj_out(tokens)
        n, c, h, w = x.shape
        return x + y.view(n, h, w, c).permute(0, 3, 1, 2)


class DownLevel(nn.Module):
    """One kept level on the way down; gives each residual block's result and the downsampled map, if any."""

    def __init__(self, channels: int, out_channels: int, *, last: bool, config: StudentConfig) -> None:
        super().__init__()
        widths = [channels] + [out_channels] * (config.blocks - 1)
        self.resnets = nn.ModuleList(ResidualBlock(width, out_channels, config.groups) for width in widths)
        self.attentions = nn.ModuleList(Transformer(out_channels, config) for _ in widths)
        # name="op", as diffusers' own blocks do: the default registers the convolution twice.
        samplers = [] if last else [Downsample2D(out_channels, use_conv=True, padding=1, name="op")]
        self.downsamplers = nn.ModuleList(samplers)

    def forward(self, x: Tensor) -> list[Tensor]:
        states: list[Tensor] = []
        for resnet, attention in zip(self.resnets, self.attentions, strict=True):
            x = attention(resnet(x))
            states.append(x)
        for sampler in self.downsamplers:
            states.append(sampler(x))
        return states


class UpLevel(nn.Module):
    """One kept level on the way up; each residual block also sees one skipped map of the way down."""

    def __init__(self, widths: list[int], out_channels: int, *, last: bool, config: StudentConfig) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(width, out_channels, config.groups) for width in widths)
        self.attentions = nn.ModuleList(Transformer(out_channels, config) for _ in widths)
        samplers = [] if last else [Upsample2D(out_channels, use_conv=True)]
        self.upsamplers = nn.ModuleList(samplers)

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """`skips`: one map a residual block, in the order of use."""
        for resnet, attention, skip in zip(self.resnets, self.attentions, skips, strict=True):
            x = attention(resnet(torch.cat([x, skip], 1)))
        for sampler in self.upsamplers:
            x = sampler(x)
        return x


class SlimUNet(nn.Module):
    """Feature map [n, channels[0], h, w] -> the same shape, from after conv_in to after conv_norm_out and SiLU."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.blocks = config.blocks
        channels = config.channels
        inputs = (channels[0], *channels[:-1])
        final = len(channels) - 1
        self.down_blocks = nn.ModuleList(
            DownLevel(inputs[i], channels[i], last=i == final, config=config) for i in range(len(channels))
        )
        self.mid_block = ResidualBlock(channels[-1], config.deep_channels, config.groups)

        skips = [channels[0]]
        for i, width in enumerate(channels):
            skips += [width] * (config.blocks + (i != final))
        self.up_blocks = nn.ModuleList()
        below = config.deep_channels
        for i in reversed(range(len(channels))):
            widths = []
            for _ in range(config.blocks + 1):
                widths.append(below + skips.pop())
                below = channels[i]
            self.up_blocks.append(UpLevel(widths, below, last=i == 0, config=config))
        self.conv_norm_out = nn.GroupNorm(config.groups, channels[0], eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        skips = [x]
        for down in self.down_blocks:
            skips += down(skips[-1])
        x = self.mid_block(skips[-1])
        for up in self.up_blocks:
            taken = [skips.pop() for _ in range(self.blocks + 1)]
            x = up(x, taken)
        return F.silu(self.conv_norm_out(x))


class Student(nn.Module):
    """Images [n, 3, h, w] in [-1, 1] at output size -> images of the same shape, not clamped.

    h and w are multiples of `config.multiple`. Autocast is respected but for the last convolution: its rounding would
    cost whole digital numbers.
    """

    def __init__(self, config: StudentConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or StudentConfig()
        width = config.autoencoder_channels
        widths = (width,) * len(ENCODER_BLOCKS)
        # TAESD without its 4-channel latent: slicing keeps the published layer numbers in the tensor names, and
        # leaves its range scaling and tanh clamp behind, as the paper's fused convolutions do.
        self.encoder = EncoderTiny(3, 4, ENCODER_BLOCKS, widths, act_fn="relu").layers[:-1]
        self.fuse_in = nn.Conv2d(width, config.channels[0], 3, padding=1)
        self.unet = SlimUNet(config)
        self.fuse_out = nn.Conv2d(config.channels[0], width, 3, padding=1)
        self.decoder = DecoderTiny(4, 3, DECODER_BLOCKS, widths, 2, act_fn="relu", upsample_fn="nearest").layers[1:]

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        multiple = self.config.multiple
        if height % multiple or width % multiple:
            raise ValueError(f"a {width} x {height} image: both sides must be multiples of {multiple} pixels")
        x: Tensor = self.fuse_out(self.unet(self.fuse_in(self.encoder(image))))
        *layers, last = self.decoder
        for layer in layers:
            x = layer(x)
        device = image.device.type
        exact = torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
        with exact:
            out: Tensor = last(x.to(image.dtype))
        return out


def parameters(network: nn.Module) -> int:
    """How many numbers the network holds; all of them are used."""
    return sum(tensor.numel() for tensor in network.parameters())
