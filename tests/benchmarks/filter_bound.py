"""What the best filter could gain over bicubic interpolation; run by hand.

`python tests/benchmarks/filter_bound.py IMAGES`. Every validation image is enlarged bicubically and passed through the
radially symmetric filter that is best for this very image, fitted to its truth: no sharpening or smoothing that is the
same everywhere and in all directions gains more. What is lost where that is little is not blur: aliasing and noise.
"""

import math
import statistics
import sys
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from rsup.models.base.radiometry import WHITE
from rsup.models.data.images import DataConfig, Images
from rsup.models.degradation.pairs import RadiometryConfig, make_pair
from rsup.models.degradation.real_esrgan import PublishedDegradation
from rsup.models.degradation.sensor import SensorDegradation
from rsup.models.metrics.image import luma
from rsup.models.networks.interpolation import interpolator
from rsup.models.training.task import seeded

CASES: tuple[tuple[Literal["published", "sentinel2"], int, float | None, int], ...] = (
    ("published", 4, None, 256),
    ("published", 8, None, 256),
    ("sentinel2", 4, None, 256),
    ("sentinel2", 8, None, 256),
    ("sentinel2", 4, 2.5, 56),
    ("sentinel2", 8, 1.25, 112),
)
"""Degradation, scale, metres of a pixel of the truth (None: as it is), pixels a side."""
RING = 2
"""Cycles a side in a ring of frequencies that share one factor."""


def main(folder: Path) -> None:
    """Print the mean gain in dB of every case."""
    for kind, scale, gsd, side in CASES:
        images = Images(folder, "validation", DataConfig(gsd=gsd), side).centres(1000)
        gains = [gain(torch.from_numpy(image), scale, kind, number) for number, image in enumerate(images)]
        size = "as it is" if gsd is None else f"{gsd} m"
        sys.stdout.write(f"{kind:10} x{scale} {size:8}  {statistics.fmean(gains):.2f} dB over {len(gains)} images\n")


def gain(sharp: Tensor, scale: int, kind: Literal["published", "sentinel2"], seed: int) -> float:
    """dB of luma that the best filter gains on one image [3, y, x] in [0, 1]."""
    degradation = PublishedDegradation() if kind == "published" else SensorDegradation()
    radiometry = RadiometryConfig(kind="photograph" if kind == "published" else "reflectance", span=(WHITE, WHITE))
    low, high = make_pair(sharp[None], scale, degradation, radiometry, seeded(seed))
    ours, truth = (torch.fft.fft2(luma(each[0].double())) for each in (interpolator("bicubic", scale)(low), high))
    side = truth.shape[-1]
    cycles = torch.fft.fftfreq(side, 1 / side)
    ring = (torch.hypot(cycles[:, None], cycles) / RING).round().long()
    shared = torch.bincount(ring.flatten(), (ours.conj() * truth).real.flatten())
    power = torch.bincount(ring.flatten(), ours.abs().square().flatten())
    best = (shared / power)[ring] * ours
    return 10 * math.log10(float((ours - truth).abs().square().sum() / (best - truth).abs().square().sum()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
