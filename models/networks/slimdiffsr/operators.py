"""The student's three light operators: feature maps in, feature maps out, no state but their weights.

They stand where the Stable Diffusion UNet has a residual block's first 3x3 convolution (FSC), its second one (DSC)
and self-attention (QGAM). Attribute names are those of the published checkpoints, so that weights map one to one.
Source: SlimDiffSR, section 3.3.3, figures 8 and 9, equations 14 and 15.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name every PyTorch reader knows


def _depthwise(channels: int, kernel: tuple[int, int]) -> nn.Conv2d:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels, bias=False)


class FixedGate(nn.Module):
    """The same weights for every image: [n, c, h, w] -> [n, sources], whatever the numbers."""

    def __init__(self, sources: int) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.zeros(sources))

    def forward(self, x: Tensor) -> Tensor:
        return self.level.sigmoid().expand(len(x), -1)


class MeanGate(nn.Sequential):
    """Weights by the mean of each channel over all positions: [n, c, h, w] -> [n, sources]."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.mean((2, 3))
        for layer in self:
            x = layer(x)
        return x


def _gate(channels: int, hidden: int, sources: int, local: bool) -> nn.Module:
    if local:
        return FixedGate(sources)
    return MeanGate(nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, sources), nn.Sigmoid())


def level_of(gate: nn.Module) -> Tensor:
    """The `level` of a fixed gate that weighs every image as `gate` weighs one of nothing: [sources]."""
    assert isinstance(gate, MeanGate)
    *layers, _ = gate  # but for the sigmoid
    first = next(gate.parameters())
    with torch.no_grad():
        level: Tensor = nn.Sequential(*layers)(first.new_zeros(1, first.shape[1]))[0]
    return level


def _weights(gate: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """One scalar a sample and source, each [n, 1, 1, 1], of maps `x` [n, c, h, w]."""
    weights: Tensor = gate(x)
    # Under autocast the sigmoid may be float32 while the maps are not; a float32 factor would widen every map.
    return weights.to(x.dtype)[:, :, None, None, None].unbind(1)


class FSC(nn.Module):
    """Frequency-separable convolution: [n, channels, h, w] -> [n, out_channels, h, w].

    `local`: its branches are weighed alike in every image, and no position sees beyond its neighbours.
    """

    def __init__(self, channels: int, out_channels: int, *, local: bool = False) -> None:
        super().__init__()
        self.low_branch = nn.Sequential(_depthwise(channels, (3, 3)))
        self.high_branch = nn.Sequential(_depthwise(channels, (3, 3)))
        self.mlp = _gate(channels, 8, 2, local)
        self.bottleneck = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels // 4, out_channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        g_low, g_high = _weights(self.mlp, x)
        low: Tensor = self.low_branch(x)
        high: Tensor = self.high_branch(x - low)
        mixed: Tensor = self.bottleneck(torch.addcmul(g_low * low, g_high, high))
        return mixed


class DSC(nn.Module):
    """Direction-separable convolution: [n, channels, h, w] -> the same shape; `local` as in FSC."""

    def __init__(self, channels: int, *, local: bool = False) -> None:
        super().__init__()
        self.h_conv = nn.Sequential(_depthwise(channels, (3, 1)))
        self.v_conv = nn.Sequential(_depthwise(channels, (1, 3)))
        self.mlp = _gate(channels, channels // 8, 3, local)
        self.conv_reduce = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.conv_expand = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        g_h, g_hv, g_v = _weights(self.mlp, x)
        h: Tensor = self.h_conv(x)
        # The published sum is g_h H(x) + g_hv V(H(x)) + g_v V(x). V is linear without bias, so one V serves both terms.
        mixed = torch.addcmul(self.v_conv(torch.addcmul(g_hv * h, g_v, x)), g_h, h)
        out: Tensor = self.conv_expand(self.conv_reduce(mixed))
        return out


class QGAM(nn.Module):
    """Query-driven global aggregation: tokens [n, length, channels] -> the same shape, in time linear in length.

    `queries` learned tokens gather from all tokens (equation 14), then every token reads from them (equation 15).
    """

    def __init__(self, channels: int, queries: int, squeeze: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(queries, channels))
        nn.init.normal_(self.query, std=channels**-0.5)
        self.q_proj = nn.Linear(channels, squeeze, bias=False)
        self.k_proj = nn.Linear(channels, squeeze, bias=False)
        self.v_proj = nn.Linear(channels, squeeze, bias=False)
        self.q_proj_c = nn.Linear(channels, squeeze, bias=False)
        self.k_proj_c = nn.Linear(squeeze, squeeze, bias=False)
        self.v_proj_c = nn.Linear(squeeze, squeeze, bias=False)
        self.out_proj = nn.Linear(squeeze, channels)
        # The published network divides by the root of the full width in both attentions, not of the squeezed one.
        self.scale = channels**-0.5

    def forward(self, x: Tensor) -> Tensor:
        query: Tensor = self.q_proj(self.query).expand(x.shape[0], -1, -1)
        context = F.scaled_dot_product_attention(query, self.k_proj(x), self.v_proj(x), scale=self.scale)
        spread = F.scaled_dot_product_attention(
            self.q_proj_c(x), self.k_proj_c(context), self.v_proj_c(context), scale=self.scale
        )
        out: Tensor = self.out_proj(spread)
        return out
