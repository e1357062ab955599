"""The student's operators and blocks for inference: the same functions in fewer passes over memory.

Each class is made from a module of `slimdiffsr` and a type, and gives what that module gives, but for roundings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rsup.models.networks.slimdiffsr.blocks import GEGLU, FeedForward, TinyBlock, Upsample
from rsup.models.networks.slimdiffsr.operators import DSC, FSC, QGAM, FixedGate, MeanGate
from rsup.models.networks.slimdiffsr.unet import ResidualBlock, Transformer, TransformerBlock

from .kernels import Conv, Doubled, Linear, constant

_NUMBERS = 1024 * 2560
"""Of a feed-forward's inner width, over the tokens that pass it at once: two such maps stay near the processor."""


def _means(x: Tensor) -> Tensor:
    """Of each channel over all positions, [n, c, h, w] -> [n, c]; a product with ones is faster than a sum."""
    positions = x.permute(0, 2, 3, 1).flatten(1, 2)
    count = positions.shape[1]
    return (positions.new_ones(1, count) @ positions)[:, 0] / count


def _depthwise(x: Tensor, kernels: Tensor) -> Tensor:
    """[n, c, h, w] with 3x3 kernels [n, c * 9] of each image's own -> [n, c, h, w]."""
    n, channels = x.shape[:2]
    kernels = kernels.to(x.dtype).view(n, channels, 1, 3, 3)
    parts = (F.conv2d(x[i : i + 1], kernels[i], padding=1, groups=channels) for i in range(n))
    return next(parts) if n == 1 else torch.cat(list(parts))


class _Gate(nn.Module):
    """Weights of an image's sources, in float32: [n, c, h, w] -> [n, sources]."""

    def __init__(self, gate: nn.Module, precision: torch.dtype) -> None:
        super().__init__()
        self.fixed = isinstance(gate, FixedGate)
        if isinstance(gate, FixedGate):
            self.level = constant(gate.level, torch.float32).sigmoid()
        else:
            assert isinstance(gate, MeanGate)
            first, _, second, _ = gate
            assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
            self.first, self.second = Linear.of(first, precision), Linear.of(second, precision)

    def forward(self, x: Tensor) -> Tensor:
        if self.fixed:
            return self.level.expand(len(x), -1)
        level: Tensor = self.second(F.relu(self.first(_means(x))))
        return level.float().sigmoid()


class FoldedFSC(nn.Module):
    """FSC: the high branch's gate is in its kernel, the low one's in the sum."""

    def __init__(self, whole: FSC, precision: torch.dtype) -> None:
        super().__init__()
        self.gate = _Gate(whole.mlp, precision)
        low, high = whole.low_branch[0], whole.high_branch[0]
        assert isinstance(low, nn.Conv2d) and isinstance(high, nn.Conv2d)
        self.low = constant(low.weight, precision)
        self.high = constant(high.weight, torch.float32).flatten()
        reduce, _, expand = whole.bottleneck
        assert isinstance(reduce, nn.Conv2d) and isinstance(expand, nn.Conv2d)
        self.reduce, self.expand = Conv(reduce, precision, "relu"), Conv(expand, precision)

    def forward(self, x: Tensor) -> Tensor:
        g_low, g_high = self.gate(x).split(1, 1)
        low = F.conv2d(x, self.low, padding=1, groups=x.shape[1])
        mixed = _depthwise(x - low, g_high * self.high)
        mixed.addcmul_(low, g_low.to(x.dtype)[:, :, None, None])
        out: Tensor = self.expand(self.reduce(mixed))
        return out


class FoldedDSC(nn.Module):
    """DSC: its three directions are one 3x3 kernel of each image's own.

    V(H(x)) too, at the border as well: H runs along columns and V along rows, so that H of the zeros which V sees
    beside the image is 0.
    """

    def __init__(self, whole: DSC, precision: torch.dtype) -> None:
        super().__init__()
        self.gate = _Gate(whole.mlp, precision)
        first, second = whole.h_conv[0], whole.v_conv[0]
        assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)
        # [c, 3, 1] and [c, 1, 3]
        h, v = first.weight.detach()[:, 0].double(), second.weight.detach()[:, 0].double()
        directions = F.pad(h, (1, 1)), h * v, F.pad(v, (0, 0, 1, 1))
        self.kernels = torch.stack(directions).flatten(1).float()
        self.reduce, self.expand = Conv(whole.conv_reduce, precision), Conv(whole.conv_expand, precision)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """`other` is added to what DSC gives."""
        # Not as a matrix product, whose factors autocast would round.
        mixed = _depthwise(x, (self.gate(x)[:, :, None] * self.kernels).sum(1))
        return self.expand.plus(self.reduce(mixed), other)


class FoldedQGAM(nn.Module):
    """QGAM, and the tokens it is added to: its queries are known, and its three maps of the tokens are one."""

    def __init__(self, whole: QGAM, precision: torch.dtype) -> None:
        super().__init__()
        self.scale = whole.scale
        query = whole.query.detach() @ whole.q_proj.weight.detach().T
        self.query = constant(query, precision)
        self.maps = Linear(
            torch.cat([each.weight.detach() for each in (whole.k_proj, whole.v_proj, whole.q_proj_c)]), None, precision
        )
        self.k_proj_c, self.v_proj_c = Linear.of(whole.k_proj_c, precision), Linear.of(whole.v_proj_c, precision)
        self.out_proj = Linear.of(whole.out_proj, precision)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """`other` is added to what QGAM gives."""
        keys, values, asked = self.maps(x).chunk(3, -1)
        query = self.query.expand(len(x), -1, -1)
        context = F.scaled_dot_product_attention(query, keys, values, scale=self.scale)
        spread = F.scaled_dot_product_attention(asked, self.k_proj_c(context), self.v_proj_c(context), scale=self.scale)
        return self.out_proj.plus(spread, other)


class FoldedFeedForward(nn.Module):
    """The GEGLU feed-forward, and the tokens it is added to, some tokens at a time."""

    def __init__(self, whole: FeedForward, precision: torch.dtype) -> None:
        super().__init__()
        first, _, last = whole.net
        assert isinstance(first, GEGLU) and isinstance(last, nn.Linear)
        halves = zip(first.proj.weight.chunk(2), first.proj.bias.chunk(2), strict=True)
        self.value, self.gate = (Linear(weight, bias, precision) for weight, bias in halves)
        self.last = Linear.of(last, precision)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """`other` is added to what the feed-forward gives."""
        step = _NUMBERS // len(self.gate.weight)
        parts = []
        for tokens, others in zip(x.split(step, 1), other.split(step, 1), strict=True):
            gate = torch.ops.aten.gelu_(self.gate(tokens))
            parts.append(self.last.plus(self.value(tokens).mul_(gate), others))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


class FeedForwardInParts(nn.Module):
    """The GEGLU feed-forward, some tokens at a time, with every number rounded where the module rounds it."""

    def __init__(self, whole: FeedForward, precision: torch.dtype) -> None:
        super().__init__()
        first, _, last = whole.net
        assert isinstance(first, GEGLU) and isinstance(last, nn.Linear)
        self.first, self.last = Linear.of(first.proj, precision), Linear.of(last, precision)

    def forward(self, x: Tensor) -> Tensor:
        parts = []
        for tokens in x.split(_NUMBERS // len(self.first.weight), 1):
            value, gate = self.first(tokens).chunk(2, -1)
            parts.append(self.last(F.gelu(gate).mul_(value)))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


class FoldedTransformerBlock(nn.Module):
    """Attention and feed-forward, each added to its tokens."""

    def __init__(self, whole: TransformerBlock, precision: torch.dtype) -> None:
        super().__init__()
        self.local = whole.local
        if not self.local:
            self.norm1 = whole.norm1
            attends = whole.attn1
            self.attn1 = FoldedQGAM(attends, precision) if isinstance(attends, QGAM) else _Added(attends)
        self.norm3 = whole.norm3
        self.ff = FoldedFeedForward(whole.ff, precision)

    def forward(self, tokens: Tensor) -> Tensor:
        if not self.local:
            tokens = self.attn1(self.norm1(tokens), tokens)
        out: Tensor = self.ff(self.norm3(tokens), tokens)
        return out


class _Added(nn.Module):
    """A module as it is, and what it is added to."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        out: Tensor = self.module(x) + other
        return out


class FoldedTransformer(nn.Module):
    """The transformer between its linear projections, added to its map."""

    def __init__(self, whole: Transformer, precision: torch.dtype) -> None:
        super().__init__()
        self.norm = whole.norm
        self.proj_in, self.proj_out = Linear.of(whole.proj_in, precision), Linear.of(whole.proj_out, precision)
        (block,) = whole.transformer_blocks
        assert isinstance(block, TransformerBlock)
        self.block = FoldedTransformerBlock(block, precision)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        tokens = self.proj_in(self.norm(x).permute(0, 2, 3, 1).flatten(1, 2))
        out: Tensor = self.proj_out.plus(self.block(tokens), x.permute(0, 2, 3, 1).flatten(1, 2))
        return out.view(n, h, w, c).permute(0, 3, 1, 2)


class FoldedResidualBlock(nn.Module):
    """Norm, SiLU, FSC, norm, SiLU, DSC, added to the map or its 1x1 convolution."""

    def __init__(self, whole: ResidualBlock, precision: torch.dtype) -> None:
        super().__init__()
        self.norm1, self.norm2 = whole.norm1, whole.norm2
        first, second, shortcut = whole.conv1, whole.conv2, whole.conv_shortcut
        self.conv1 = Conv(first, precision) if isinstance(first, nn.Conv2d) else FoldedFSC(first, precision)
        self.conv2 = Conv(second, precision) if isinstance(second, nn.Conv2d) else FoldedDSC(second, precision)
        self.conv_shortcut: nn.Module = Conv(shortcut, precision) if isinstance(shortcut, nn.Conv2d) else shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x), inplace=True))
        y = F.silu(self.norm2(y), inplace=True)
        other: Tensor = self.conv_shortcut(x)
        out: Tensor = self.conv2(y, other) if isinstance(self.conv2, FoldedDSC) else self.conv2.plus(y, other)
        return out


class FoldedTinyBlock(nn.Module):
    """TAESD's block: two convolutions with their ReLU, and a third with the map added before its."""

    def __init__(self, whole: TinyBlock, precision: torch.dtype) -> None:
        super().__init__()
        convolutions = (layer for layer in whole.conv if isinstance(layer, nn.Conv2d))
        self.first, self.second, self.third = (Conv(each, precision, "relu") for each in convolutions)

    def forward(self, x: Tensor) -> Tensor:
        return self.third.plus(self.second(self.first(x)), x)


class FoldedUpsample(nn.Module):
    """Each position four times and a 3x3 convolution, in one."""

    def __init__(self, whole: Upsample, precision: torch.dtype) -> None:
        super().__init__()
        self.conv = Doubled(whole.conv, precision)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out
