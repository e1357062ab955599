"""Convolutions and linear maps for inference on a CPU: weights cast once, what follows them done in the same pass.

oneDNN, which PyTorch runs convolutions with, can apply a ReLU and add a second map before a result leaves the cache;
PyTorch's own modules write the result, read it and write it again. On one core that pass, into memory that the system
has to find first, costs as much as the convolution. Maps are channels_last throughout.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

ONEDNN = torch.ops.mkldnn

Then = Literal["none", "relu"]


def folds(precision: torch.dtype) -> bool:
    """Whether this machine's oneDNN computes in that type."""
    if not torch.backends.mkldnn.is_available():
        return False
    return precision == torch.float32 or (precision == torch.bfloat16 and bool(ONEDNN._is_mkldnn_bf16_supported()))


def constant(tensor: Tensor, precision: torch.dtype) -> Tensor:
    """A copy that nothing learns from, in that type; kernels with their channels last."""
    made = tensor.detach().to(precision, copy=True)
    return made.contiguous(memory_format=torch.channels_last) if made.ndim == 4 else made.contiguous()


class Conv(nn.Module):
    """`conv`, then ReLU or nothing, in `precision`: [n, c, h, w] -> [n, out, h', w']."""

    def __init__(self, conv: nn.Conv2d, precision: torch.dtype, then: Then = "none") -> None:
        super().__init__()
        self.precision, self.then = precision, then
        self.weight = constant(conv.weight, precision)
        self.bias = None if conv.bias is None else constant(conv.bias, precision)
        assert conv.groups == 1 and conv.padding_mode == "zeros"
        self.shape = list(conv.padding), list(conv.stride), list(conv.dilation), conv.groups

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.precision)
        out: Tensor = ONEDNN._convolution_pointwise(x, self.weight, self.bias, *self.shape, self.then, [], "")
        return out

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """`other` is added before the ReLU; it has the result's shape."""
        then = None if self.then == "none" else self.then
        out: Tensor = ONEDNN._convolution_pointwise.binary(
            x.to(self.precision), other, self.weight, self.bias, *self.shape, "add", 1.0, then, [], ""
        )
        return out


class First(nn.Module):
    """`conv` of an image, which is not rounded, its result in `precision` (precision.py says why): as `unrounded`."""

    def __init__(self, conv: nn.Conv2d, precision: torch.dtype) -> None:
        super().__init__()
        self.conv, self.precision = Conv(conv, torch.float32), precision

    def forward(self, image: Tensor) -> Tensor:
        made: Tensor = self.conv(image)
        return made.to(self.precision)


class Linear(nn.Module):
    """`linear` in `precision`: [..., c] -> [..., out]."""

    def __init__(self, weight: Tensor, bias: Tensor | None, precision: torch.dtype) -> None:
        super().__init__()
        self.precision = precision
        self.weight = constant(weight, precision)
        self.bias = None if bias is None else constant(bias, precision)

    @classmethod
    def of(cls, linear: nn.Linear, precision: torch.dtype) -> Linear:
        """The same map."""
        return cls(linear.weight, linear.bias, precision)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = ONEDNN._linear_pointwise(x.to(self.precision), self.weight, self.bias, "none", [], "")
        return out

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """`other`, of the result's shape, is added."""
        out: Tensor = ONEDNN._linear_pointwise.binary(x.to(self.precision), other, self.weight, self.bias, "add")
        return out


class Doubled(nn.Module):
    """`conv`, 3x3 with padding 1, of each position four times: [n, c, h, w] -> [n, out, 2h, 2w].

    A position of the result sees two by two positions of `x`, whose weights are sums of the kernel's: a transposed
    convolution of stride 2 with four by four weights, 4 products for 9, and no enlarged map. Zeros beyond the border
    are those of the enlarged map.
    """

    def __init__(self, conv: nn.Conv2d, precision: torch.dtype) -> None:
        super().__init__()
        assert conv.kernel_size == (3, 3) and conv.padding == (1, 1) and conv.stride == (1, 1)
        # A kernel turned by half a circle, and spread over a block of two by two.
        turned = conv.weight.detach().double().flip(2, 3).transpose(0, 1)
        spread = torch.zeros(*turned.shape[:2], 4, 4, dtype=turned.dtype, device=turned.device)
        for row in (0, 1):
            for col in (0, 1):
                spread[..., row : row + 3, col : col + 3] += turned
        self.precision = precision
        self.weight = constant(spread, precision)
        self.bias = None if conv.bias is None else constant(conv.bias, precision)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.conv_transpose2d(x.to(self.precision), self.weight, self.bias, 2, 1)
        return out
