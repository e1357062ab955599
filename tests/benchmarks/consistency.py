"""Which inverse holds a mosaic best to its scene, as a Markdown table; run by hand.

`python tests/benchmarks/consistency.py SENTINEL2 --scale 4 [--model M]`, some ten minutes on a core.

Real scenes, made `scale` times coarser by a sensor whose MTF is off by some amount from what the correction takes it
for, with more noise or less, are restored by a network and by bicubic interpolation ("classical"), and corrected in
several ways. Figures are mean and least gain in PSNR over plain bicubic interpolation, dB, of red, green and blue
together.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from real_scenes import bare, decibels
from scipy.ndimage import binary_erosion
from sentinel2_scenes import Scene, read_scene, sources
from torch import Tensor

from rsup.models.base.radiometry import ADD_OFFSET, NODATA, SCALE_FACTOR
from rsup.models.consistency import noise_ratio
from rsup.models.degradation.sensor import SensorDegradation
from rsup.models.sensors.response import Response
from rsup.models.sensors.sentinel2 import SENTINEL2
from rsup.models.upscaler import load
from rsup.pipeline.mosaics.tiles import fill_nodata

CONDITIONS = {
    "no noise": (0.0, 0.0),
    "noise 0.6": (0.0, 0.6),
    "noise 1": (0.0, 1.0),
    "noise 2": (0.0, 2.0),
    "MTF - 0.05, noise 1": (-0.05, 1.0),
    "MTF + 0.05, noise 1": (0.05, 1.0),
    "MTF - 0.08, noise 1": (-0.08, 1.0),
    "MTF + 0.08, noise 1": (0.08, 1.0),
}
"""What is added to every band's MTF, and the noise over that of the requirement."""

Gain = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Share of the constant's eigenvalue [y, x], power of what is left [y, x], limit of the noise's -> what it is divided
by, over the constant's eigenvalue."""


def plain(weight: float) -> Gain:
    """The same ridge at every frequency."""
    return lambda share, power, limit: share + weight


def weighted(weight: float) -> Gain:
    """A ridge that vanishes towards a constant."""
    return lambda share, power, limit: share + weight * (1 - share).clamp(min=0)


def wiener(known: float | None) -> Gain:
    """That ridge, by the power of what is left: of noise that is `known`, over the requirement's, or found in it."""

    def gain(share: Tensor, power: Tensor, limit: Tensor) -> Tensor:
        if known is None:
            ratio = noise_ratio(power[None, None], share[None], limit[None, None])[0, 0]
        else:
            noise = limit * known
            ratio = noise / ((power.mean() - noise) / share.mean()).clamp(min=1e-9)
        return share + ratio.clamp(1e-3, 10) * (1 - share).clamp(min=0)

    return gain


VARIANTS: dict[str, Gain] = {
    "ridge 0.03": plain(0.03),
    "ridge 0.1": plain(0.1),
    "ridge 0.3": plain(0.3),
    "weighted 0.03": weighted(0.03),
    "weighted 0.1": weighted(0.1),
    "weighted 0.3": weighted(0.3),
    "Wiener, noise as required": wiener(1.0),
    "Wiener, half of its power": wiener(0.5),
    "Wiener, noise found": wiener(None),
}


def corrected(sr: NDArray[np.float32], lr: NDArray[np.uint16], scale: int, response: Response, gain: Gain) -> Tensor:
    """One band, [y * scale, x * scale] by [y, x]; written out beside the library's, float64."""
    rows, cols = (torch.from_numpy(response.matrix(side, scale)) for side in lr.shape)
    (down, q), (across, p) = (torch.linalg.eigh(each @ each.T) for each in (rows, cols))
    x, y = torch.from_numpy(sr.astype(np.float64)), torch.from_numpy(lr.astype(np.float64))
    left = q.T @ (y - rows @ x @ cols.T) @ p
    share = down[:, None] * across * scale**2
    dark, slope = response.noise()
    limit = (dark + slope * (y.mean() * SCALE_FACTOR + ADD_OFFSET).clamp(min=0)) / SCALE_FACTOR**2
    return x + rows.T @ q @ (left * scale**2 / gain(share, left.square(), limit)) @ p.T @ cols


def coarser(scene: Scene, scale: int, shift: float, level: float) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """The scene as the sensor would see it, and where to judge."""
    bands, dn = scene.source.bands, scene.dn
    sensor = SensorDegradation(bands=bands, mtf_spread=(shift, shift), noise_level=(level, level))  # type: ignore[arg-type]
    ground = torch.from_numpy(fill_nodata(dn).astype(np.float32))[None] * SCALE_FACTOR + ADD_OFFSET
    low = (sensor(ground, scale, torch.Generator().manual_seed(0))[0] - ADD_OFFSET) / SCALE_FACTOR
    height, width = low.shape[1:]
    whole = (dn != NODATA).all(0).reshape(height, scale, width, scale).all((1, 3))
    judged = binary_erosion(whole, np.ones((3, 3)), iterations=2)
    return low.round().numpy().astype(np.uint16), judged.repeat(scale, 0).repeat(scale, 1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="SENTINEL2")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--model", default="default")
    options = parser.parse_args()
    scale = options.scale
    models = {"classical": load("bicubic", scale), "network": load(options.model, scale)}
    scenes = [read_scene(options.folder, source).cut(512) for source in sources(options.folder)]
    sys.stdout.write(f"| x{scale} | {' | '.join(CONDITIONS)} |\n|{' --- |' * (len(CONDITIONS) + 1)}\n")
    gains: dict[tuple[str, str], dict[str, list[float]]] = {}
    for condition, (shift, level) in CONDITIONS.items():
        for scene in scenes:
            low, judged = coarser(scene, scale, shift, level)
            bands, truth = scene.source.bands, scene.dn
            planes = list(range(len(bands)))[:3]
            base = decibels(bare(low, bands, models["classical"]), truth, planes, judged)
            for name, model in models.items():
                image = bare(low, bands, model)[planes]
                made = {"alone": image}
                for variant, gain in VARIANTS.items():
                    each = zip(image, low[planes], bands[:3], strict=True)
                    made[variant] = np.stack(
                        [corrected(sr, lr, scale, SENTINEL2.response(band), gain).numpy() for sr, lr, band in each]
                    )
                for variant, result in made.items():
                    found = decibels(result, truth, planes, judged) - base
                    gains.setdefault((name, variant), {}).setdefault(condition, []).append(found)
        sys.stderr.write(condition + "\n")
    for (name, variant), by in gains.items():
        cells = [f"{fmean(by[condition]):.2f} / {min(by[condition]):.2f}" for condition in CONDITIONS]
        sys.stdout.write(f"| {name}, {variant} | {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
