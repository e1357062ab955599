"""What holds a mosaic to its scene: pixels of both in, pixels out that the instrument would have seen as the scene.

An instrument does not average over its pixels: it sees light of their neighbours too. Where A is a band's response,
sampled at the centres of its pixels, and y the scene, what a network says, x, becomes

    x + A^T G (y - A x),

where G = Q g Q^T is an inverse of A A^T = Q diag(l) Q^T that yields where what is left may be noise: with L, the l of a
constant,

    g = 1 / (l + (s / d) (L - l) / L).

It is Wiener's filter for a network whose error has the power d at every frequency, under noise of power s, but for the
last factor, by which a constant is always met in full. Both powers are read from what is left, where they add up to
E (Q^T (y - A x))^2 = d l + s, with s no more than the noise that the sensor is required to stay below: a scene without
noise is met in full, and where a network has left nothing but noise, nothing is put back. Students are trained through
this step. It is float32, a pure function of the tile, and separable: one matrix for rows, one for columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from .base.radiometry import ADD_OFFSET, DN_MAX, DN_MIN, SCALE_FACTOR, from_network, to_network
from .networks.precision import full_precision
from .sensors.response import Response

ROUNDS = 8
"""Of the weighted least squares that find the powers; later ones move them by less than a hundredth."""
RATIOS = 1e-3, 10.0
"""Of s to d L, the least and the most: below, eigenvalues are all but divided by; above, nothing but means is met."""


class Consistency(Protocol):
    """How mosaics are held to scenes, both in stored numbers, float32."""

    def tiles(self, sr: Tensor, lr: Tensor, scale: int, bands: Sequence[str], valid: Tensor | None) -> Tensor:
        """Tiles corrected, each by itself: `sr` [tile, band, n * scale, n * scale], `lr` [tile, band, n, n], without
        nodata.

        `valid` [tile, band, n, n]: where `lr` is the scene's own and not what stands in for nodata; None where all is.
        """

    def chunk(self, sr: Tensor, lr: Tensor, scale: int) -> Tensor:
        """The last word on blended tiles, which brings them into 1..65535: the same shapes, of any sides."""


@dataclass(frozen=True)
class SensorConsistency:
    """The mosaic, seen as the sensor sees, is the scene within the sensor's noise."""

    responses: Mapping[str, Response]
    """By the names of the bands."""

    def tiles(self, sr: Tensor, lr: Tensor, scale: int, bands: Sequence[str], valid: Tensor | None) -> Tensor:
        return hold(sr, lr, scale, [self.responses[band] for band in bands], valid)

    def chunk(self, sr: Tensor, lr: Tensor, scale: int) -> Tensor:
        """Moves the blocks that leave the range, and no other: a pixel's number is the same whatever lies elsewhere."""
        least, most = sr.aminmax()
        if DN_MIN <= least and most <= DN_MAX:
            return sr
        sr = sr.clone()
        blocks = sr.unflatten(-1, (-1, scale)).unflatten(-3, (-1, scale)).transpose(-2, -3)  # [band, h, w, s, s]
        beyond = (blocks.amin((-1, -2)) < DN_MIN) | (blocks.amax((-1, -2)) > DN_MAX)
        these = blocks[beyond]
        blocks[beyond] = _around(these.mean((-1, -2), keepdim=True).clamp(DN_MIN, DN_MAX), these, scale)
        return sr


@dataclass(frozen=True)
class MeanConsistency:
    """Every scale x scale block mean of the mosaic is the scene's pixel, which no sensor sees."""

    def tiles(self, sr: Tensor, lr: Tensor, scale: int, bands: Sequence[str], valid: Tensor | None) -> Tensor:
        """Adds a smooth (bilinear) field. Adding each block's error as a constant would leave the grid of the blocks as
        steps in the picture, and a third of the gain (bicubic x2 on 0.6 m imagery: +0.50 dB instead of +0.66).
        """
        up, inverse = _bilinear(lr.shape[-1], scale, sr.device)
        error = lr - functional.avg_pool2d(sr, scale)
        return sr + up @ (inverse @ error @ inverse.T) @ up.T

    def chunk(self, sr: Tensor, lr: Tensor, scale: int) -> Tensor:
        return _around(lr, sr, scale)


def hold(sr: Tensor, lr: Tensor, scale: int, responses: Sequence[Response], valid: Tensor | None = None) -> Tensor:
    """Correct `sr` [n, band, h * scale, w * scale] towards the scene `lr` [n, band, h, w], both in stored numbers.

    `responses`: of each band. `valid` [n, band, h, w]: which pixels tell noise from error; None for all. Float32, on
    the device of `sr`, whose gradients pass. Nothing is clipped.
    """
    with full_precision(sr.device):
        sr, lr = sr.float(), lr.float()
        ratios = {response.ratio for response in responses}
        if len(ratios) == 1:
            return _correction(sr, lr, scale, responses, valid).add_(sr)
        held = torch.empty_like(sr)
        for ratio in ratios:
            of = [index for index, response in enumerate(responses) if response.ratio == ratio]
            theirs = None if valid is None else valid[:, of]
            held[:, of] = sr[:, of] + _correction(sr[:, of], lr[:, of], scale, [responses[k] for k in of], theirs)
        return held


def hold_values(image: Tensor, low: Tensor, scale: int, responses: Sequence[Response]) -> Tensor:
    """`hold` of what a network says and of what it was given, both in the network's range, and so the result."""
    return to_network(hold(from_network(image), from_network(low), scale, responses).clamp(DN_MIN, DN_MAX))


def _correction(sr: Tensor, lr: Tensor, scale: int, responses: Sequence[Response], valid: Tensor | None) -> Tensor:
    """A^T G (y - A x) of bands whose pixels are equally large."""
    rows, cols = (_lens(tuple(responses), pixels, scale, sr.device) for pixels in lr.shape[-2:])
    seen = lr if rows.reads is None or cols.reads is None else rows.reads @ lr @ cols.reads.mT
    left = seen - _along(cols.sees, _down(rows.sees, sr))
    inner = rows.vectors.mT @ left @ cols.vectors
    share = rows.shares[:, :, None] * cols.shares[:, None, :]
    with torch.no_grad():
        dark, slope = lr.new_tensor([response.noise() for response in responses]).T
        power, part, level = inner.square(), torch.ones_like(dark), seen.mean((-2, -1))
        if valid is not None:
            # What stands in for nodata repeats the noise of its edge, which would pass for ground.
            ratio = responses[0].ratio
            told = valid.unflatten(-1, (-1, ratio)).unflatten(-3, (-1, ratio)).all(-1).all(-2).to(left)
            part = told.mean((-2, -1)).clamp(min=1e-6)
            power = (rows.vectors.mT @ (told * left) @ cols.vectors).square()
            level = (told * seen).mean((-2, -1)) / part
        signal = (level * SCALE_FACTOR + ADD_OFFSET).clamp(min=0)
        yields = noise_ratio(power, share, part * (dark + slope * signal) / SCALE_FACTOR**2)[..., None, None]
        gain = 1 / (share + yields * (1 - share).clamp(min=0))
    yielded = rows.vectors @ (gain * inner) @ cols.vectors.mT
    return _down(rows.spreads, _along(cols.spreads, yielded))


def noise_ratio(power: Tensor, share: Tensor, limit: Tensor) -> Tensor:
    """s / d, where E `power` [n, band, h, w] = d `share` [band, h, w] + s, and s is at most `limit` [n, band].

    Powers are those of Gaussian numbers, whose spread is as large as their mean: least squares weighted by it, in turn
    with the means that they find, lead to the likeliest s and d.
    """

    def mean(x: Tensor) -> Tensor:
        return x.mean((-2, -1))

    d = mean(power)
    least = 1e-6 * d + 1e-12  # a tile without any error is met as it is
    s = torch.minimum(d, limit)
    for _ in range(ROUNDS):
        weight = 1 / (d[..., None, None] * share + (s + least)[..., None, None]).square()
        # Weights span many orders of magnitude; what is fitted does not change with their unit.
        weight = weight / weight.mean((-2, -1), keepdim=True)
        w1, w2 = mean(weight * share), mean(weight * share.square())
        p0, p1 = mean(weight * power), mean(weight * power * share)
        s = ((w2 * p0 - w1 * p1) / (w2 - w1 * w1)).clamp(min=0)
        s = torch.minimum(s, limit)
        d = torch.maximum((p1 - s * w1) / w2, least)
    return (s / d).clamp(*RATIOS)


class _Band(NamedTuple):
    """Rows of a matrix [band, row, column] that is 0 far from its diagonal."""

    columns: slice
    """Where any of them is not 0."""
    part: Tensor
    """[band, row, column]: these columns."""


class _Lens(NamedTuple):
    """How bands are seen along one axis, of `pixel`s of the scene and `sample`s of the mosaic."""

    sees: list[_Band]
    """A [band, own pixel, sample]."""
    shares: Tensor
    """The eigenvalues of A A^T over that of a constant [band, own pixel]."""
    vectors: Tensor
    """Q [band, own pixel, own pixel]: a column an eigenvector."""
    spreads: list[_Band]
    """A^T over the eigenvalue of a constant [band, sample, own pixel]."""
    reads: Tensor | None
    """The band's own pixels from the scene's [band, own pixel, pixel]; None where they are the same."""


BLOCK = 12
"""Own pixels whose rows are multiplied at once: a response reaches over three, so that the rest would be zeros."""


@lru_cache(maxsize=32)
def _lens(responses: tuple[Response, ...], pixels: int, scale: int, device: torch.device) -> _Lens:
    """Worked out in float64."""

    def there(tensor: Tensor) -> Tensor:
        return tensor.to(device, torch.float32)

    sees = torch.stack([torch.from_numpy(response.matrix(pixels, scale)) for response in responses])
    values, vectors = torch.linalg.eigh(sees @ sees.mT)
    ratio = responses[0].ratio
    constant = 1 / (scale * ratio)
    reads = None
    if ratio > 1:
        reads = there(torch.stack([torch.from_numpy(response.reads(pixels)) for response in responses]))
    spreads = _banded(there(sees.mT / constant), BLOCK * scale * ratio)
    return _Lens(_banded(there(sees), BLOCK), there(values / constant), there(vectors), spreads, reads)


def _banded(matrix: Tensor, rows: int) -> list[_Band]:
    """So many rows at once."""
    bands = []
    for part in matrix.split(rows, -2):
        touched = part.ne(0).flatten(0, 1).any(0).nonzero()
        columns = slice(int(touched.min()), int(touched.max()) + 1)
        bands.append(_Band(columns, part[..., columns].contiguous()))
    return bands


def _down(matrix: list[_Band], image: Tensor) -> Tensor:
    """The matrix [band, row, y] times images [n, band, y, x]."""
    return torch.cat([part @ image[..., columns, :] for columns, part in matrix], -2)


def _along(matrix: list[_Band], image: Tensor) -> Tensor:
    """Images [n, band, y, x] times the transposed matrix [band, column, x]."""
    return torch.cat([image[..., columns] @ part.mT for columns, part in matrix], -1)


@lru_cache(maxsize=8)
def _bilinear(pixels: int, scale: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Bilinear upsampling as a matrix [pixels * scale, pixels], and the inverse of its block mean [pixels, pixels]."""
    identity = torch.eye(pixels, dtype=torch.float64)
    up = functional.interpolate(identity[None], scale_factor=scale, mode="linear")[0].T
    inverse = torch.linalg.inv(up.reshape(pixels, scale, pixels).mean(1))
    return up.to(device, torch.float32), inverse.to(device, torch.float32)


def _around(means: Tensor, sr: Tensor, scale: int) -> Tensor:
    """Make block means of `sr` [band, h * scale, w * scale] equal `means` [band, h, w] exactly, within 1..65535.

    Each block is shifted to its mean and, where a value would leave the valid range, shrunk towards the mean by the
    largest factor that keeps it inside: shrinking leaves the mean where it is, clipping would not.
    """
    band, h, w = means.shape
    blocks = sr.reshape(band, h, scale, w, scale)
    mean = means[:, :, None, :, None]
    detail = blocks - blocks.mean((2, 4), keepdim=True)
    low, high = detail.amin((2, 4), keepdim=True), detail.amax((2, 4), keepdim=True)
    room_below, room_above = mean - DN_MIN, DN_MAX - mean
    factor = torch.minimum(room_below / -low.clamp(max=-1e-6), room_above / high.clamp(min=1e-6)).clamp(0, 1)
    return (mean + factor * detail).reshape(sr.shape)
