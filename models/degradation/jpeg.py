"""What JPEG compression does to an image: RGB in [0, 1] goes in, the decoded RGB comes out, on the image's device.

The baseline codec without its lossless half: 8-bit YCbCr, chroma at half resolution (4:2:0), 8x8 cosine transform,
quantisation by the tables of ITU-T T.81 annex K scaled by a quality as libjpeg does, and back. Written out because
torchvision's encoder keeps chroma at full resolution on CUDA and halves it on the CPU: one image would be degraded
in two ways. It also takes one quality a call, and makes the host wait for the device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

LUMA_TABLE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""ITU-T T.81 table K.1, [vertical frequency, horizontal frequency]."""
CHROMA_TABLE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
"""ITU-T T.81 table K.2."""
LUMA = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in Y (ITU-R BT.601)."""


def quantisation(table: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    """Steps [8, 8] of a table at a quality from 1 to 100: 50 is the table itself, 100 is all ones."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((torch.tensor(table) * percent + 50) // 100).clamp(1, 255).float()


def _cosines() -> Tensor:
    """The orthonormal cosine transform [frequency, sample] of 8 samples."""
    k, i = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    basis = torch.cos((2 * i + 1) * k * math.pi / 16) / 2
    return torch.where(k == 0, math.sqrt(1 / 8), basis).float()


def _quantised(plane: Tensor, steps: Tensor) -> Tensor:
    """A plane [h, w], 0..255, edges multiples of 8, after its blocks' frequencies were rounded to `steps`."""
    h, w = plane.shape
    cosines, steps = _cosines().to(plane.device), steps.to(plane.device)
    blocks = plane.reshape(h // 8, 8, w // 8, 8).permute(0, 2, 1, 3) - 128
    frequencies = torch.round(cosines @ blocks @ cosines.T / steps) * steps
    back = cosines.T @ frequencies @ cosines + 128
    return back.permute(0, 2, 1, 3).reshape(h, w).round().clamp(0, 255)


def luma(image: Tensor) -> Tensor:
    """Y [1, h, w] of RGB [3, h, w], in the same range."""
    return (image * image.new_tensor(LUMA)[:, None, None]).sum(0, keepdim=True)


def jpeg(image: Tensor, quality: int) -> Tensor:
    """RGB [3, h, w] in [0, 1] (beyond is clipped, rounded to 8 bits) -> the same after JPEG at `quality`, 1 to 100."""
    h, w = image.shape[1:]
    rgb = (image.float().clamp(0, 1) * 255).round()
    # Two 8x8 blocks of luma stand over one of chroma, so edges are filled up to a multiple of 16, as encoders do.
    rgb = F.pad(rgb[None], (0, -w % 16, 0, -h % 16), mode="replicate")[0]
    red, green, blue = rgb
    y = luma(rgb)[0]
    chroma = torch.stack([(blue - y) / 1.772, (red - y) / 1.402]) + 128
    half = F.avg_pool2d(chroma.round().clamp(0, 255)[None], 2)[0].round()
    y = _quantised(y.round(), quantisation(LUMA_TABLE, quality))
    half = torch.stack([_quantised(plane, quantisation(CHROMA_TABLE, quality)) for plane in half])
    cb, cr = F.interpolate(half[None], scale_factor=2, mode="bilinear", align_corners=False)[0] - 128
    r, b = y + 1.402 * cr, y + 1.772 * cb
    g = (y - LUMA[0] * r - LUMA[2] * b) / LUMA[1]
    return (torch.stack([r, g, b]).round().clamp(0, 255) / 255)[:, :h, :w]
