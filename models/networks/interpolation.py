"""Classical interpolators as networks: low-resolution images [n, c, h, w] -> [n, c, h * scale, w * scale], float32.

Pixel centres stay aligned: output pixel i lies at (i + 1/2) / scale - 1/2 of the input. Beyond the border the edge
pixel is repeated. Values may overshoot the input's range; nothing is clamped.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from .precision import full_precision


def cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -1/2, of support 2.

    The value for which quadratics are reproduced exactly, and the one of GDAL and Pillow; PyTorch's own bicubic has
    a = -3/4, sharper but wrong already for a parabola. Source: Keys 1981, equation 15.
    """
    d = np.abs(distance)
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def lanczos(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """sinc(x) sinc(x / 3), of support 3; the kernel of GDAL and Pillow."""
    return np.where(np.abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0.0)


KERNELS = {"bicubic": (cubic, 2), "lanczos": (lanczos, 3)}
"""Kernel and support, in input pixels, by name."""


def phases(name: str, scale: int) -> NDArray[np.float64]:
    """Weights [scale, 2 * support + 1]: row p makes output k * scale + p from inputs k - support to k + support."""
    kernel, support = KERNELS[name]
    offsets = (np.arange(scale) + 0.5) / scale - 0.5
    weights = kernel(offsets[:, None] - np.arange(-support, support + 1))
    # Sampled Lanczos kernels do not sum to 1 exactly; a constant must stay one.
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float64)


class Interpolation(nn.Module):
    """Separable interpolation by a kernel of KERNELS, at any whole scale: [n, c, h, w] -> [n, c, h * s, w * s]."""

    taps: Tensor

    def __init__(self, name: str, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("taps", torch.from_numpy(phases(name, scale)).float())

    def forward(self, image: Tensor) -> Tensor:
        n, c, h, w = image.shape
        support, s = self.taps.shape[1] // 2, self.scale
        # Along a row each phase is one output channel of a convolution; interleaving the channels gives the pixels.
        rows = F.pad(image.reshape(n * c, 1, h, w), (support, support, 0, 0), mode="replicate")
        # A network in half precision is to be given the numbers it is given in full precision.
        with full_precision(image.device):
            rows = F.conv2d(rows, self.taps[:, None, None, :]).permute(0, 2, 3, 1).reshape(n * c, 1, h, w * s)
            both = F.pad(rows, (0, 0, support, support), mode="replicate")[:, 0]
            # Down a column the phases of an input row are a product with whole rows, which need not be interleaved: the
            # same sums in a third of a convolution's time.
            both = self.taps @ both.unfold(1, 2 * support + 1, 1).mT
        return both.reshape(n, c, h * s, w * s)


class Nearest(nn.Module):
    """Every pixel repeated `scale` times along both axes: [n, c, h, w] -> [n, c, h * scale, w * scale]."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, image: Tensor) -> Tensor:
        return image.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)


def interpolator(name: str, scale: int) -> nn.Module:
    """The network of a built-in name: nearest, bicubic or lanczos."""
    return Nearest(scale) if name == "nearest" else Interpolation(name, scale)
