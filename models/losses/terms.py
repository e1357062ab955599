"""The terms of training: tensors in, one scalar out, each with the number of its equation in the SlimDiffSR paper.

Every term is computed in float32 (or float64 where that comes in), autocast or not: squares and differences of close
numbers are what reduced precision loses first. LPIPS, which brings a network, is in `perceptual`.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from rsup.models.base.intervals import SHARES
from rsup.models.base.radiometry import STEP
from rsup.models.base.settings import Config
from rsup.models.networks.precision import full_precision

from .spectrum import radial_spectrum

PerceptualKind = Literal["lpips-vgg", "lpips-alex", "features", "frequency", "none"]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LossConfig(Config):
    """Weights of the reconstruction terms (Eq. 20) and of the teacher's regularisation (Eq. 22)."""

    l1: Weight = 1.0
    perceptual: PerceptualKind = "lpips-vgg"
    """`features` is the feature distance of EfficientNet-Lite0 (features.py), which comes with `rsup[sharp]`;
    `frequency` needs no weights: for trials, and for students too small to be worth LPIPS."""
    perceptual_weight: Weight = 2.5
    gan_weight: Weight = 0.25
    """0 trains without a discriminator."""
    spectrum_weight: Weight = 0.0
    """Weight of `spectrum`, which is not of the paper: the power that L1 leaves out, without a discriminator."""
    lattice_weight: Weight = 0.0
    """Weight of `lattice` (lattice.py), not of the paper: against dots at the pitch of the scene's pixels, which
    perceptual and adversarial terms leave in images."""
    decibels_weight: Weight = 0.0
    """Weight of `decibels`, which is not of the paper either: every image counts alike, however dim or flat."""
    tv_weight: Weight = 1.0
    """Weight of Eq. 21; the paper names none. With the mean over positions, neighbours that all differ by 0.1 cost
    0.02, as much as an L1 of 0.02: a map is kept smooth, and edges between fields stay cheap."""


def at_least_float32(x: Tensor) -> Tensor:
    """At least float32; gradients flow back in the type of `x`."""
    return x if x.dtype == torch.float64 else x.float()


def l1(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute difference (Eq. 20, first term): any equal shapes -> scalar."""
    return (at_least_float32(prediction) - at_least_float32(truth)).abs().mean()


def frequency(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean modulus of the difference of the orthonormal 2-D Fourier transforms: [..., h, w] twice -> scalar.

    Not of the paper: it stands in for LPIPS where no weights are. A blurred image lacks whole bands of coefficients,
    which costs more here than in a mean over pixels, where bands are small against the flat parts.
    """
    spectrum: Tensor = torch.fft.fft2(at_least_float32(prediction) - at_least_float32(truth), norm="ortho")
    return spectrum.abs().mean()


def spectrum(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean |difference| of the natural logarithms of radial power spectra: [..., band, n, n] in [-1, 1] -> scalar.

    After Durall et al. 2020 ("Watch your Up-Convolution", Eq. 8), with logarithms for their cross-entropy. Where phases
    cannot be told from the input, L1 is least without any power, and an image looks soft; this term asks for as much
    power in each ring of frequencies as the truth has, wherever it costs the other terms least. It asks that of every
    band, and of the difference of every two: power that bands do not share as the truth's do is coloured speckle.
    """
    one, other = torch.combinations(torch.arange(prediction.shape[-3], device=prediction.device)).unbind(-1)
    ours, theirs = (
        radial_spectrum(torch.cat([image, image[..., one, :, :] - image[..., other, :, :]], -3))
        for image in map(at_least_float32, (prediction, truth))
    )
    # The power of rounding to 8 bits: no ring of a flat image is known to less. A Hann window passes (3 / 8)^2 of it.
    rounding = (2 / 255) ** 2 / 12 * (3 / 8) ** 2 * prediction.shape[-1] ** 2
    return ((ours + rounding).log() - (theirs + rounding).log()).abs().mean()


def decibels(prediction: Tensor, truth: Tensor) -> Tensor:
    """Mean of 10 log10 of each plane's mean square difference: [n, band, h, w] in the network's range twice -> scalar.

    Less by one is a decibel of PSNR more, on a dark lake as on a town: L1 and squares would leave the lake alone, whose
    errors are small against theirs.
    """
    squares = (at_least_float32(prediction) - at_least_float32(truth)).square().mean((-2, -1))
    # No image is known to less than the rounding of stored numbers.
    return 10 * (squares + STEP**2 / 12).log10().mean()


def uncertainty(mean: Tensor, log_variance: Tensor, truth: Tensor) -> Tensor:
    """Negative log-posterior of an element-wise Gaussian under Jeffreys' prior (Eq. 5): three equal shapes -> scalar.

    `log_variance` is s = ln z_var. The least value for an error e lies at exp(s) = e^2 / 3. The mean runs over every
    element, which the paper takes for independent scalars.
    """
    mean, s, truth = at_least_float32(mean), at_least_float32(log_variance), at_least_float32(truth)
    return ((-s).exp() * (truth - mean).square() + 3 * s).mean() / 2


def intervals(error: Tensor, width: Tensor) -> Tensor:
    """How well intervals of these widths hold their shares of the errors: equal shapes, one unit -> scalar.

    The pinball losses of both quantiles (Koenker and Bassett 1978) of the logarithm of |error|, which are least where
    68.3 % of what looks alike lies within the width and 95 % within WIDER times that. In logarithms dim and bright
    ground, flat and rough, count alike, and an error counts for the side it lies on rather than for its size: under
    Gaussians, as Eq. 5 has them, a few large errors widen what is said of all others.
    """
    # Rounding alone is off by a quarter of a stored number on average; logarithms of less would rule the mean.
    size, said = (at_least_float32(error).abs() + 0.25).log(), at_least_float32(width).log()
    terms = []
    for factor, share in SHARES.items():
        over = size - (said + math.log(factor))
        terms.append(torch.maximum(share * over, (share - 1) * over).mean())
    return torch.stack(terms).sum()


def total_variation(alpha_bar: Tensor) -> Tensor:
    """Squared differences of neighbours, down and across (Eq. 21): maps [n, c, h, w], h and w at least 2 -> scalar.

    The paper writes squared norms; here each is a mean over its pairs of neighbours, so that the weight means the same
    whatever the crop and the batch.
    """
    maps = at_least_float32(alpha_bar)
    return maps.diff(dim=-2).square().mean() + maps.diff(dim=-1).square().mean()


def mmd2(x: Tensor, y: Tensor, bandwidth: float | None = None) -> Tensor:
    """Squared maximum mean discrepancy with k(a, b) = exp(-|a - b|^2 / (2 sigma^2)) (Eq. 16).

    Samples [..., m, d] and [..., k, d] -> one number for each of the leading positions [...].

    The biased V-statistic (Gretton et al. 2012, Eq. 5): never negative, and exactly 0 for a set against itself, so a
    student that matches its teacher is not pushed any further; the unbiased one is negative half of the time there.

    `bandwidth` is sigma; None takes sigma^2 = the median squared distance over all ordered pairs of the pooled samples,
    without gradient: the kernel then neither saturates nor flattens while features grow or shrink during training.
    """
    x, y = at_least_float32(x), at_least_float32(y)
    with full_precision(x.device):
        # Distances do not depend on the origin; near it, the expanded square below loses no digits.
        origin = torch.cat([x, y], -2).mean(-2, keepdim=True).detach()
        x, y = x - origin, y - origin
        xx, yy, xy = _squared_distances(x, x), _squared_distances(y, y), _squared_distances(x, y)
        if bandwidth is None:
            pairs = torch.cat([part.detach().flatten(-2) for part in (xx, yy, xy, xy)], -1)
            # Where all samples are equal, any positive bandwidth gives 0.
            variance = pairs.median(-1).values.clamp(min=1e-12)[..., None, None]
        else:
            variance = torch.tensor(bandwidth**2, dtype=x.dtype, device=x.device)
        xx, yy, xy = ((part / (-2 * variance)).exp().mean((-2, -1)) for part in (xx, yy, xy))
        return xx + yy - 2 * xy


def _squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """[..., m, d] and [..., k, d] -> [..., m, k]."""
    lengths = a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :]
    return (lengths - 2 * a @ b.transpose(-1, -2)).clamp(min=0)
