"""The parts of Stable Diffusion and TAESD that a student keeps as they are, under the names of diffusers' tensors.

Written out here because diffusers' own import the whole of diffusers, transformers and peft with them: 8 s of every
command and worker before its first tile. The tests hold each to diffusers' module: names, first numbers, results.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

_CUDA_BATCH, _CUDA_ELEMENTS = 64, 2**31
"""From where CUDA's nearest-neighbour kernel for channels_last fails (diffusers issue 984, PyTorch issue 141831)."""


class TinyBlock(nn.Module):
    """TAESD's residual block: three 3x3 convolutions and a ReLU over the sum, [n, c, h, w] -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second, third = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(3))
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


def tiny_encoder(channels: int, latent: int, blocks: tuple[int, ...]) -> nn.Sequential:
    """TAESD's layers from an image [n, 3, h, w] in [0, 1] to [n, latent, h/2^k, w/2^k], k = len(blocks) - 1."""
    layers: list[nn.Module] = []
    for level, count in enumerate(blocks):
        if level:
            layers.append(nn.Conv2d(channels, channels, 3, stride=2, padding=1, bias=False))
        else:
            layers.append(nn.Conv2d(3, channels, 3, padding=1))
        layers += [TinyBlock(channels) for _ in range(count)]
    return nn.Sequential(*layers, nn.Conv2d(channels, latent, 3, padding=1))


def tiny_decoder(channels: int, latent: int, blocks: tuple[int, ...]) -> nn.Sequential:
    """TAESD's layers back from a latent to an image; its clamp of the latent's range is not among them."""
    layers: list[nn.Module] = [nn.Conv2d(latent, channels, 3, padding=1), nn.ReLU()]
    for level, count in enumerate(blocks):
        if level:
            layers += [nn.Upsample(scale_factor=2), nn.Conv2d(channels, channels, 3, padding=1, bias=False)]
        layers += [TinyBlock(channels) for _ in range(count)]
    return nn.Sequential(*layers, nn.Conv2d(channels, 3, 3, padding=1))


class Downsample(nn.Module):
    """A 3x3 convolution of stride 2: [n, c, h, w] -> [n, c, h/2, w/2]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class Upsample(nn.Module):
    """Each position four times, then a 3x3 convolution: [n, c, h, w] -> [n, c, 2h, 2w]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) >= _CUDA_BATCH or 4 * x.numel() >= _CUDA_ELEMENTS:
            x = x.contiguous()
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2.0))
        return out


class SelfAttention(nn.Module):
    """Multi-head attention of tokens to each other: [n, length, channels] -> the same shape.

    `heads` divides `channels`.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        # A list, for its tensors' names: diffusers has a dropout after it.
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, tokens: Tensor) -> Tensor:
        q, k, v = (
            to(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2) for to in (self.to_q, self.to_k, self.to_v)
        )
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
        out: Tensor = self.to_out[0](attended)
        return out


class GEGLU(nn.Module):
    """A linear map gated by the GELU of another one: [..., channels] -> [..., width]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, -1)
        gated: Tensor = value * F.gelu(gate)
        return gated


class FeedForward(nn.Module):
    """GEGLU to four times the width, and a linear map back: [..., channels] -> the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The identity keeps the tensors' names: diffusers has a dropout there.
        self.net = nn.Sequential(GEGLU(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out
