"""Figures of one super-resolved image against its truth: tensors in, plain numbers out.

Images are [3, y, x], red, green, blue or what stands for them. Those that are looked at lie in [0, 1]; those that are
measured are stored numbers (DN, see radiometry.py). All arithmetic is float64, on the device of the tensors.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
    visual_information_fidelity,
)

from rsup.models.base.radiometry import ADD_OFFSET, SCALE_FACTOR
from rsup.models.losses.lattice import SHORTEST, spikes
from rsup.models.losses.spectrum import radial_spectrum, windowed_fft

_GAUSSIAN = 11
"""Side of SSIM's window, sigma 1.5 (Wang et al. 2004)."""

_COARSEST = 41
"""Side that the coarsest of VIF's four scales takes."""


def eight_bits(image: Tensor) -> Tensor:
    """[0, 1], whatever lies beyond is cut, to the nearest of 256 levels: the image as it would be saved."""
    return (image.double().clamp(0, 1) * 255).round() / 255


def luma(image: Tensor) -> Tensor:
    """[..., 3, y, x] in [0, 1] -> [..., y, x] in 16..235: Y of YCbCr by ITU-R BT.601, not rounded."""
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64, device=image.device)
    return 16 + torch.einsum("...cyx,c->...yx", image.double(), weights)


def psnr_y(image: Tensor, truth: Tensor, border: int) -> float:
    """Peak signal-to-noise ratio of the luma, in dB; infinite for equal images.

    The peak is 255 although luma ends at 235, and `border` pixels are cut off each side: both as the field does, which
    makes the numbers comparable. The paper computes it "on the Y channel" and says no more.
    """
    ours, theirs = (_cut(luma(each), border) for each in (image, truth))
    return float(peak_signal_noise_ratio(ours, theirs, data_range=255.0))


def psnr(plane: Tensor, truth: Tensor, border: int) -> float:
    """Peak signal-to-noise ratio of one band [y, x] in [0, 1], in dB, without `border` pixels on each side."""
    ours, theirs = (_cut(each.double(), border) for each in (plane, truth))
    return float(peak_signal_noise_ratio(ours, theirs, data_range=1.0))


def ssim_y(image: Tensor, truth: Tensor, border: int) -> float:
    """Structural similarity of the luma (Wang et al. 2004) over the places where the window fits wholly, peak 255."""
    ours, theirs = (_cut(luma(each), border)[None, None] for each in (image, truth))
    _, full = structural_similarity_index_measure(
        ours, theirs, sigma=1.5, kernel_size=_GAUSSIAN, data_range=255.0, return_full_image=True
    )
    # torchmetrics reflects the image at its border and averages over that too.
    return float(_cut(full, _GAUSSIAN // 2).mean())


def vif_y(image: Tensor, truth: Tensor, border: int) -> float | None:
    """Visual information fidelity of the luma, in pixels (Sheikh and Bovik 2006): 1 for equal images; None for small
    ones.

    How much of the truth's information, as statistics of natural scenes have it, the image still carries at four
    scales; 0 for noise and for a flat image. No network is in it, and more contrast than the truth's can pass 1.
    """
    ours, theirs = (_cut(luma(each), border)[None, None] for each in (image, truth))
    return float(visual_information_fidelity(ours, theirs)) if min(ours.shape[-2:]) >= _COARSEST else None


def reflectance_error(dn: Tensor, truth: Tensor) -> float:
    """Mean |error| of two images in DN, in reflectance."""
    return float((dn.double() - truth.double()).abs().mean()) * SCALE_FACTOR


def ndvi(nir: Tensor, red: Tensor) -> Tensor:
    """(nir - red) / (nir + red) of stored numbers; a reflectance below a thousandth counts as that."""
    near, visible = (reflectance(each).clamp(min=1e-3) for each in (nir, red))
    return (near - visible) / (near + visible)


def spectral_angle(image: Tensor, truth: Tensor) -> float:
    """Degrees between the pixels' spectra, averaged: the spectral angle mapper of Kruse et al. 1993.

    A common factor does not matter, an offset does: give reflectance, or brightness. A black pixel has no spectrum and
    does not count; NaN where there is no other.
    """
    a, b = (each.double().flatten(1) for each in (image, truth))
    lengths = torch.stack([a.norm(dim=0), b.norm(dim=0)])
    seen = (lengths > 0).all(0)
    u, v = a[:, seen] / lengths[0, seen], b[:, seen] / lengths[1, seen]
    # Exact for small angles, where arccos of the dot product loses half its digits.
    angles = 2 * torch.atan2((u - v).norm(dim=0), (u + v).norm(dim=0))
    return math.degrees(float(angles.mean()))


def reflectance(dn: Tensor) -> Tensor:
    """Stored numbers -> reflectance, float64."""
    return dn.double() * SCALE_FACTOR + ADD_OFFSET


def block_mean_error(dn: Tensor, low: Tensor, scale: int) -> float:
    """Mean |mean of every scale x scale block of `dn` - the pixel of `low` it came from|, in DN."""
    return float((F.avg_pool2d(dn.double(), scale) - low.double()).abs().mean())


def spectrum_rmse(image: Tensor, truth: Tensor) -> float:
    """RMSE between the natural logarithms of the two lumas' radial power spectra; 0 = equal detail at every scale.

    Not a number where an image has no power at all in some ring (a constant one).
    """
    ours, theirs = (radial_spectrum(luma(each)).log() for each in (image, truth))
    return float((ours - theirs).square().mean().sqrt())


def spectrum_db(image: Tensor, truth: Tensor, scale: int) -> float:
    """RMSE in decibels between the two lumas' radial power spectra above the scene's Nyquist frequency, 0.5 / scale.

    Not a number where an image has no power at all in some ring there.
    """
    ours, theirs = (radial_spectrum(luma(each)) for each in (image, truth))
    first = min(image.shape[-2:]) // (2 * scale)  # ring k is at index k - 1
    return 10 * float((ours[first:].log10() - theirs[first:].log10()).square().mean().sqrt())


def acutance(image: Tensor, truth: Tensor) -> float:
    """Mean length of the luma's gradient, by differences of neighbours, over the truth's: 1 = edges as steep as there.

    Noise and dots count as edges. Not a number where the truth is flat.
    """
    lengths = []
    for plane in (luma(image), luma(truth)):
        lengths.append(torch.hypot(plane.diff(dim=0)[:, :-1], plane.diff(dim=1)[:-1]).mean())
    return float(lengths[0] / lengths[1])


def lattice_db(image: Tensor, truth: Tensor, scale: int) -> float:
    """How much more of a lattice of the scene's pixels the image has than the truth, in decibels.

    Of the luma's power at multiples of 1 / scale cycles a pixel over that around them. Not a number where the scene has
    fewer than SHORTEST pixels a side, or a plane is flat.
    """
    if min(image.shape[-2:]) < SHORTEST * scale:
        return math.nan
    there, around = zip(*(spikes(luma(each), scale) for each in (image, truth)), strict=True)
    ours, theirs = (float((a / b).mean().log10()) for a, b in zip(there, around, strict=True))
    return 10 * (ours - theirs)


def displacement(image: Tensor, truth: Tensor, scale: int) -> tuple[float, float]:
    """How far `image` lies below and to the right of `truth`, in pixels: phase correlation, in steps of 0.001.

    Of the lumas, through a Hann window, and in the frequencies that survived the loss of resolution by `scale` alone:
    finer ones are the network's invention, whose phase says nothing. Whitened by half: phases alone are lost in the
    noise of a degraded image (four times the scatter), and amplitudes alone are held back by the window.
    """
    ours, theirs = (windowed_fft(luma(each)) for each in (image, truth))
    cross = ours * theirs.conj()
    fy, fx = (torch.fft.fftfreq(n, dtype=torch.float64, device=cross.device) for n in cross.shape)
    known = torch.hypot(fy[:, None], fx) <= 0.5 / scale
    cross = torch.where(known, cross / cross.abs().clamp(min=torch.finfo(torch.float64).tiny).sqrt(), 0)
    peak = int(torch.fft.ifft2(cross).real.argmax())
    at = [_signed(peak // cross.shape[1], cross.shape[0]), _signed(peak % cross.shape[1], cross.shape[1])]
    for step in (0.1, 0.01, 0.001):
        # The inverse transform between the pixels, on a grid of 21 x 21 around the best place so far.
        grid = torch.arange(-10, 11, dtype=torch.float64, device=cross.device) * step
        down, right = (
            torch.exp(2j * math.pi * (place + grid)[:, None] * f) for place, f in zip(at, (fy, fx), strict=True)
        )
        best = int((down @ cross @ right.T).real.argmax())
        at = [at[0] + float(grid[best // len(grid)]), at[1] + float(grid[best % len(grid)])]
    return at[0], at[1]


def _signed(index: int, length: int) -> float:
    return float(index if index <= length // 2 else index - length)


def _cut(image: Tensor, border: int) -> Tensor:
    return image[..., border : image.shape[-2] - border, border : image.shape[-1] - border]
