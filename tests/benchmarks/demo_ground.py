"""Whether the demonstration's ground behaves as real ground does, as a Markdown table; run by hand.

`python tests/benchmarks/demo_ground.py IMAGES [--windows N]`, minutes on a core.

Windows of the made landscape and held-out aerial images (IMAGES: the collection at 0.6 m), both at the true size of the
output's pixels and seen by Sentinel-2 with its noise, are enlarged by bicubic interpolation, classical (bicubic
interpolation behind the step that holds mosaics to their scenes) and the shipped student. Given is PSNR over bicubic
interpolation, in reflectance, over red, green and blue, and the spread of the ground.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from rsup.models.base.radiometry import ADD_OFFSET, SCALE_FACTOR, WHITE, from_network
from rsup.models.consistency import hold
from rsup.models.data.images import DataConfig
from rsup.models.data.measured import splits_of, whole_images
from rsup.models.degradation.pairs import RadiometryConfig, make_pair
from rsup.models.degradation.sensor import SensorDegradation
from rsup.models.upscaler import Upscaler, load
from rsup.pipeline.demo.landscape import ORIGIN, Landscape

BANDS = ("red", "green", "blue", "nir")
SIDE, EDGE = 480.0, 20.0
"""Metres: of a window of the landscape, and what does not count along its border."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--scale", type=int, choices=(4, 8), action="append")
    options = parser.parse_args()
    sys.stdout.write("| ground | bicubic, dB | classical | product | spread of red |\n|---|---:|---:|---:|---:|\n")
    for scale in options.scale or (4, 8):
        student, bicubic = load("default", scale), load("bicubic", scale)
        for name, grounds in (
            ("aerial images", of_images(options.images, scale)),
            ("made landscape", of_landscape(scale, options.windows)),
        ):
            rows = [measure(ground, number, student, bicubic) for number, ground in enumerate(grounds)]
            cells = [fmean(column) for column in zip(*rows, strict=True)]
            sys.stdout.write(
                f"| {name}, x{scale} | {cells[0]:.2f} | {cells[1]:+.2f} | {cells[2]:+.2f} | {cells[3]:.3f} |\n"
            )
            sys.stdout.flush()


def of_images(folder: Path, scale: int) -> Iterator[Tensor]:
    """Held-out images at the true size, in reflectance [1, band, y, x]."""
    config = DataConfig(bands=BANDS, gsd=10 / scale)  # type: ignore[arg-type]
    splits = splits_of(folder, config, {}, every=False)
    for _, sharp in whole_images(splits, sum(map(len, splits)), scale):
        yield sharp[None] * WHITE


def of_landscape(scale: int, count: int) -> Iterator[Tensor]:
    """Windows of the made landscape, averaged over the output's pixels, in reflectance [1, band, y, x]."""
    landscape, rng = Landscape(1), np.random.default_rng(0)
    step = 0.625
    offsets = (np.arange(int(SIDE / step)) + 0.5) * step
    for _ in range(count):
        west, north = rng.uniform(-4000, 4000, 2)
        x, y = np.meshgrid(ORIGIN[0] + west + offsets, ORIGIN[1] + north - offsets)
        reflectance = torch.from_numpy(landscape.sample(x, y)[0][:4].copy())[None]
        yield torch.nn.functional.avg_pool2d(reflectance, round(10 / scale / step))


def measure(ground: Tensor, number: int, student: Upscaler, bicubic: Upscaler) -> tuple[float, float, float, float]:
    """PSNR of bicubic interpolation, what classical and the product gain over it, and the ground's spread."""
    scale, sensor = student.descriptor.scale, SensorDegradation(bands=BANDS)  # type: ignore[arg-type]
    height, width = (side // (2 * scale) * 2 * scale for side in ground.shape[-2:])
    settings = RadiometryConfig(kind="reflectance", span=(1.0, 1.0))
    chance = torch.Generator().manual_seed(number)
    low, high = make_pair(ground[..., :height, :width].float(), scale, sensor, settings, chance)
    dn, truth = from_network(low), from_network(high)
    plain = from_network(bicubic(low))
    images = [plain, *(hold(image, dn, scale, sensor.responses) for image in (plain, from_network(student(low))))]
    edge = round(EDGE * scale / 10)
    inside = slice(edge, -edge)
    found = [psnr(image[:, :3, inside, inside], truth[:, :3, inside, inside]) for image in images]
    spread = float((truth[:, 0] * SCALE_FACTOR + ADD_OFFSET).std())
    return found[0], found[1] - found[0], found[2] - found[0], spread


def psnr(image: Tensor, truth: Tensor) -> float:
    """In dB, of stored numbers against a peak of reflectance 1."""
    return float(-10 * ((image - truth) * SCALE_FACTOR).square().mean().log10())


if __name__ == "__main__":
    main()
