"""The student's UNet: a feature map or a latent in, the same size out, without time and without text.

Stable Diffusion 2.1's UNet with its deep half and its heavy operators replaced, or kept where a switch of
`StudentConfig` says so. Tensor names are diffusers', so that a teacher's weights can be copied by name.
Source: SlimDiffSR, section 3.3, and the authors' inference code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from .blocks import Downsample, FeedForward, SelfAttention, Upsample
from .config import LATENT, StudentConfig
from .operators import DSC, FSC, QGAM


class PixelNorm(nn.Module):
    """Normalisation over the channels of each position alone: [n, c, h, w] -> the same shape.

    What lies elsewhere in the image does not enter: a network trained on small crops sees what it knows in large tiles,
    and a cloud at a tile's far end does not change the ground at this one, as it does through a group's statistics.
    """

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__()
        self.num_channels, self.eps = channels, eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        # Views, not copies, where the feature map is channels_last.
        y = F.layer_norm(x.permute(0, 2, 3, 1), (self.num_channels,), self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)


def _norm(channels: int, eps: float, config: StudentConfig) -> nn.Module:
    return nn.GroupNorm(config.unet_groups, channels, eps) if config.norm == "group" else PixelNorm(channels, eps)


class ResidualBlock(nn.Module):
    """Stable Diffusion's residual block without time, its convolutions replaced: [n, c, h, w] -> [n, out, h, w]."""

    def __init__(self, channels: int, out_channels: int, config: StudentConfig) -> None:
        super().__init__()
        self.norm1 = _norm(channels, 1e-5, config)
        self.conv1 = (
            FSC(channels, out_channels, local=config.local)
            if config.fsc
            else nn.Conv2d(channels, out_channels, 3, padding=1)
        )
        self.norm2 = _norm(out_channels, 1e-5, config)
        self.conv2 = (
            DSC(out_channels, local=config.local) if config.dsc else nn.Conv2d(out_channels, out_channels, 3, padding=1)
        )
        self.conv_shortcut = nn.Conv2d(channels, out_channels, 1) if channels != out_channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        y = self.conv2(F.silu(self.norm2(y)))
        out: Tensor = self.conv_shortcut(x) + y
        return out


def _self_attention(channels: int, config: StudentConfig) -> nn.Module:
    """Stable Diffusion's own; where a narrow student is no multiple of a head's width, fewer and wider heads."""
    heads = max(1, channels // config.head_channels)
    while channels % heads:
        heads -= 1
    return SelfAttention(channels, heads)


class TransformerBlock(nn.Module):
    """Attention (QGAM; none where `local`) and a GEGLU feed-forward, a residual around each: [n, length, channels].

    Stable Diffusion's cross-attention is gone: there is no text.
    """

    def __init__(self, channels: int, config: StudentConfig) -> None:
        super().__init__()
        self.local = config.local
        if not self.local:
            self.norm1 = nn.LayerNorm(channels)
            self.attn1 = (
                QGAM(channels, config.queries, config.squeeze) if config.qgam else _self_attention(channels, config)
            )
        self.norm3 = nn.LayerNorm(channels)
        self.ff = FeedForward(channels)

    def forward(self, tokens: Tensor) -> Tensor:
        if not self.local:
            tokens = tokens + self.attn1(self.norm1(tokens))
        out: Tensor = tokens + self.ff(self.norm3(tokens))
        return out


class Transformer(nn.Module):
    """One transformer block between linear projections, a residual around all: [n, c, h, w] -> the same shape."""

    def __init__(self, channels: int, config: StudentConfig) -> None:
        super().__init__()
        self.norm = _norm(channels, 1e-6, config)
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


def _attentions(count: int, channels: int, attends: bool, config: StudentConfig) -> nn.ModuleList:
    """One a residual block; Stable Diffusion's coarsest level has none."""
    return nn.ModuleList(Transformer(channels, config) if attends else nn.Identity() for _ in range(count))


class DownLevel(nn.Module):
    """One level on the way down; gives each residual block's result and the downsampled map, if any.

    [n, channels, h, w] -> a list of [n, out_channels, h, w] and, unless it is the last, one of half the sides.
    """

    def __init__(self, channels: int, out_channels: int, *, last: bool, attends: bool, config: StudentConfig) -> None:
        super().__init__()
        widths = [channels] + [out_channels] * (config.blocks - 1)
        self.resnets = nn.ModuleList(ResidualBlock(width, out_channels, config) for width in widths)
        self.attentions = _attentions(len(widths), out_channels, attends, config)
        self.downsamplers = nn.ModuleList([] if last else [Downsample(out_channels)])

    def forward(self, x: Tensor) -> list[Tensor]:
        states: list[Tensor] = []
        for resnet, attention in zip(self.resnets, self.attentions, strict=True):
            x = attention(resnet(x))
            states.append(x)
        for sampler in self.downsamplers:
            states.append(sampler(x))
        return states


class MidBlock(nn.Module):
    """Stable Diffusion's middle, between the ways down and up of a UNet that keeps all levels.

    [n, channels, h, w] -> the same shape.
    """

    def __init__(self, channels: int, config: StudentConfig) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(channels, channels, config) for _ in range(2))
        self.attentions = _attentions(1, channels, True, config)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.resnets
        for attention in self.attentions:
            x = attention(first(x))
        out: Tensor = second(x)
        return out


class UpLevel(nn.Module):
    """One level on the way up; each residual block also sees one skipped map of the way down."""

    def __init__(
        self, widths: list[int], out_channels: int, *, last: bool, attends: bool, config: StudentConfig
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(ResidualBlock(width, out_channels, config) for width in widths)
        self.attentions = _attentions(len(widths), out_channels, attends, config)
        self.upsamplers = nn.ModuleList([] if last else [Upsample(out_channels)])

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """`skips`: one map a residual block, in the order of use."""
        for resnet, attention, skip in zip(self.resnets, self.attentions, skips, strict=True):
            x = attention(resnet(torch.cat([x, skip], 1)))
        for sampler in self.upsamplers:
            x = sampler(x)
        return x


class SlimUNet(nn.Module):
    """Feature map [n, levels[0], h, w] -> the same shape; between its own ends, [n, 4, h, w] -> [n, 4, h, w].

    Where the convolutions towards the autoencoder are fused, it runs from after conv_in to after conv_norm_out and
    SiLU, and has neither conv_in nor conv_out. h and w are multiples of 2 to the number of downsamplers.
    """

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.blocks = config.blocks
        channels = config.levels
        inputs = (channels[0], *channels[:-1])
        final = len(channels) - 1
        attends = [config.sap or i != final for i in range(len(channels))]
        self.conv_in = nn.Identity() if config.fused else nn.Conv2d(LATENT, channels[0], 3, padding=1)
        self.down_blocks = nn.ModuleList(
            DownLevel(inputs[i], channels[i], last=i == final, attends=attends[i], config=config)
            for i in range(len(channels))
        )
        below = config.deep_channels if config.sap else channels[-1]
        self.mid_block = ResidualBlock(channels[-1], below, config) if config.sap else MidBlock(below, config)

        skips = [channels[0]]
        for i, width in enumerate(channels):
            skips += [width] * (config.blocks + (i != final))
        self.up_blocks = nn.ModuleList()
        for i in reversed(range(len(channels))):
            widths = []
            for _ in range(config.blocks + 1):
                widths.append(below + skips.pop())
                below = channels[i]
            self.up_blocks.append(UpLevel(widths, below, last=i == 0, attends=attends[i], config=config))
        self.conv_norm_out = _norm(channels[0], 1e-5, config)
        self.conv_out = nn.Identity() if config.fused else nn.Conv2d(channels[0], LATENT, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skips = [self.conv_in(x)]
        for down in self.down_blocks:
            skips += down(skips[-1])
        x = self.mid_block(skips[-1])
        for up in self.up_blocks:
            taken = [skips.pop() for _ in range(self.blocks + 1)]
            x = up(x, taken)
        out: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return out
