"""How an instrument sees through one band: ground on a finer grid in, the band's pixels out; and how noisy they are.

Everything between the ground and a pixel (optics, the detector's aperture, motion during integration) is one Gaussian a
band and axis, whose modulation at the Nyquist frequency of the band's own grid is the published system MTF; the grid
then samples points at the centres of its pixels. No box of a pixel is added: the measured MTF contains the detector's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

REACH = 4
"""Widths of a Gaussian that its taps reach: beyond lie 6e-5 of it."""
SHOT_SHARE = 0.8
"""Share of the noise's variance at the reference radiance that grows with the signal; the rest is there in the dark.

A choice: MSI's model is alpha^2 + beta * signal, whose terms differ by band and detector, most of it photon noise.
"""


@dataclass(frozen=True)
class Response:
    """Of one band."""

    mtf: float
    """System modulation transfer at the Nyquist frequency of its pixels, in (0, 1)."""
    snr: float
    """Ratio of signal to noise at the reference radiance."""
    reference: float
    """The reference radiance as reflectance under a sun overhead: pi L / E."""

    ratio: int = 1
    """Pixels of a scene along a side of one of the band's own: 2 where those of 20 m were interpolated to 10 m."""

    @property
    def reach(self) -> int:
        """Scene pixels on each side of a pixel of the band that it sees light of."""
        return math.ceil(REACH * self.sigma) * self.ratio

    @property
    def sigma(self) -> float:
        """Width of the Gaussian, in pixels of the band."""
        return sigma_of(self.mtf)

    def noise(self, shot_share: float = SHOT_SHARE) -> tuple[float, float]:
        """The noise's variance, a line in reflectance: its value in the dark, and its slope."""
        at_reference = (self.reference / self.snr) ** 2
        return at_reference * (1 - shot_share), at_reference * shot_share / self.reference

    def matrix(self, pixels: int, scale: int) -> NDArray[np.float64]:
        """What it makes of a line of ground: [pixels / ratio, pixels * scale], rows of sum 1.

        `pixels` of a scene, a multiple of `ratio`, with `scale` samples of the ground each. Beyond its ends the ground
        goes on as it ends.
        """
        import numpy as np

        own, scale = pixels // self.ratio, scale * self.ratio
        weights = taps(scale * self.sigma, scale)
        firsts = np.arange(own)[:, None] * scale + (scale - len(weights)) // 2
        samples = np.clip(firsts + np.arange(len(weights)), 0, own * scale - 1)
        matrix = np.zeros((own, own * scale))
        np.add.at(matrix, (np.arange(own)[:, None], samples), weights)
        return matrix

    def reads(self, pixels: int) -> NDArray[np.float64]:
        """The band's own pixels from those of a scene: [pixels / ratio, pixels], the inverse of linear interpolation.

        The least squares of it: what was interpolated comes back exactly. A scene's first pixel begins one of the
        band's own, as in every tile of Sentinel-2's grid.
        """
        import numpy as np

        places = (np.arange(pixels) + 0.5) / self.ratio - 0.5
        own = np.eye(pixels // self.ratio)
        return np.asarray(np.linalg.pinv(np.stack([np.interp(places, np.arange(len(own)), line) for line in own], 1)))


def sigma_of(mtf: float) -> float:
    """Width, in pixels of a grid, of the Gaussian whose transform at that grid's Nyquist frequency is `mtf`.

    exp(-2 pi^2 sigma^2 f^2) = mtf at f = 1/2 cycle a pixel.
    """
    return math.sqrt(-2 * math.log(mtf)) / math.pi


def taps(width: ArrayLike, scale: int) -> NDArray[np.float64]:
    """Gaussians of `width` samples [...] around the centre of a pixel of `scale` samples: [..., k], each of sum 1.

    k has the parity of `scale`: with it, a pixel's centre, (scale - 1) / 2 samples from its first, is the taps' middle.
    """
    import numpy as np

    widths = np.asarray(width, np.float64)[..., None]
    count = scale % 2 + 2 * max(math.ceil(REACH * widths.max()), scale // 2)
    weights = np.exp(-0.5 * ((np.arange(count) - (count - 1) / 2) / widths) ** 2)
    return np.asarray(weights / weights.sum(-1, keepdims=True))
