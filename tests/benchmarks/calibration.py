"""Whether a student knows how far its mosaics are off, as a Markdown table and a reliability plot; run by hand.

`python tests/benchmarks/calibration.py IMAGES SENTINEL2 [--scale 4] [--model FILE] [--plot FILE.svg] [--limit N]`

A pixel's interval is its value and so many of its standard deviations to either side; under Gaussian errors of these
deviations, 1 of them holds 68.3 % of the truth and 1.96 hold 95 %. Counted are all pixels and bands together: of
held-out images under the sensor, as they are and at the true size of the student's pixels, and of real scenes that were
made coarser and restored, where the two pixels next to a border are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from real_scenes import NOISE, SURFACES, WALD, coarser
from sentinel2_scenes import BANDS, read_scene, sources

from rsup.models.base.radiometry import from_network, to_network
from rsup.models.consistency import hold
from rsup.models.data.images import DataConfig
from rsup.models.data.measured import splits_of, whole_images
from rsup.models.degradation.pairs import RadiometryConfig, make_pair
from rsup.models.degradation.sensor import SensorDegradation
from rsup.models.metrics.judge import WHITE
from rsup.models.upscaler import Upscaler, load
from rsup.pipeline.mosaics.tiles import fill_nodata

NOMINAL = (0.5, 0.683, 0.8, 0.9, 0.95, 0.99)
"""Shares that intervals should hold; the second and the fifth are those of 1 and of 1.96 deviations."""
GSD = 10.0
EDGE = 2
"""Low-resolution pixels at a border that do not count."""

Ratios = NDArray[np.float32]
"""Errors over the deviations that were said of them."""


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("scenes", type=Path, metavar="SENTINEL2")
    parser.add_argument("--scale", type=int, choices=(4, 8), default=4)
    parser.add_argument("--model", default="default")
    parser.add_argument("--plot", type=Path, help="SVG file")
    parser.add_argument("--limit", type=int, default=24, help="most images")
    options = parser.parse_args()
    model = load(options.model, options.scale)
    if not model.descriptor.uncertainty:
        sys.exit(f"{model.descriptor.name} does not say how far it is off: give a student that was trained to")
    found: dict[str, Ratios] = {}
    for name, gsd in (("images as they are", None), (f"images at {GSD / options.scale:g} m", GSD / options.scale)):
        found[name] = np.concatenate(list(of_images(model, options.images, gsd, options.limit)))
    for noise, level in NOISE.items():
        found |= of_scenes(model, options.scenes, f"scenes, {noise}", level)
    rows = {name: [float((np.abs(ratios) < z(share)).mean()) for share in NOMINAL] for name, ratios in found.items()}
    sys.stdout.write("| | " + " | ".join(f"{share:.1%}" for share in NOMINAL) + " | RMS |\n")
    sys.stdout.write("|---|" + "---:|" * (len(NOMINAL) + 1) + "\n")
    for name, shares in rows.items():
        cells = " | ".join(f"{share:.1%}" for share in shares)
        sys.stdout.write(f"| {name} | {cells} | {np.sqrt((found[name].astype(np.float64) ** 2).mean()):.2f} |\n")
    if options.plot:
        whole = {name: shares for name, shares in rows.items() if name.count(",") < 2}
        options.plot.write_text(plot(whole, f"{model.descriptor.name}: how much of the truth intervals hold"))


def z(share: float) -> float:
    """Deviations to either side that hold a share of Gaussian numbers."""
    return NormalDist().inv_cdf((1 + share) / 2)


def of_images(model: Upscaler, folder: Path, gsd: float | None, limit: int) -> Iterator[Ratios]:
    """Of held-out images, degraded by the sensor."""
    scale, sensor = model.descriptor.scale, SensorDegradation(bands=BANDS)  # type: ignore[arg-type]
    splits = splits_of(folder, DataConfig(bands=BANDS, gsd=gsd), {}, every=False)  # type: ignore[arg-type]
    total = min(limit, sum(map(len, splits)))
    settings = RadiometryConfig(kind="reflectance", span=(WHITE, WHITE))
    for number, (_, sharp) in enumerate(whole_images(splits, total, scale)):
        low, high = make_pair(sharp[None], scale, sensor, settings, torch.Generator().manual_seed(number))
        image, deviation = both(model, low, from_network(low))
        inside = slice(EDGE * scale, -EDGE * scale)
        yield ((from_network(high) - image) / deviation)[0, :, inside, inside].flatten().numpy()


def of_scenes(model: Upscaler, folder: Path, title: str, noise: tuple[float, float]) -> dict[str, Ratios]:
    """Of real scenes of four bands, all together and by surface."""
    scale, found = model.descriptor.scale, dict[str, list[Ratios]]()
    for source in sources(folder):
        if source.bands != BANDS:
            continue
        scene = read_scene(folder, source).cut(WALD)
        low, judged = coarser(scene.dn, BANDS, scale, noise)
        filled = torch.from_numpy(fill_nodata(low).astype(np.float32))[None]
        image, deviation = both(model, to_network(filled), filled)
        ratios = ((torch.from_numpy(scene.dn.astype(np.float32)) - image[0]) / deviation[0]).numpy()
        found.setdefault(title, []).append(ratios[:, judged].ravel())
        for surface, mask in scene.surfaces().items():
            found.setdefault(f"{title}, {surface}", []).append(ratios[:, judged & mask].ravel())
    order = (title, *(f"{title}, {surface}" for surface in SURFACES))
    return {name: np.concatenate(found[name]) for name in order if name in found}


def both(model: Upscaler, low: torch.Tensor, dn: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The image, held to `dn`, and its deviation, in stored numbers [1, band, y, x]."""
    image, deviation = model(low, uncertainty=True).chunk(2, 1)
    responses = SensorDegradation(bands=BANDS).responses  # type: ignore[arg-type]
    return hold(from_network(image), dn, model.descriptor.scale, responses), deviation


def plot(rows: dict[str, list[float]], title: str) -> str:
    """Shares that intervals hold over those that they should, as SVG."""
    side, left, top = 320, 56, 36
    colours = ("#1b6ca8", "#7bb3d6", "#b5541c", "#e0a458")

    def at(x: float, y: float) -> str:
        return f"{left + side * (x - 0.4) / 0.6:.1f},{top + side * (1 - (y - 0.4) / 0.6):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + side + 250}" height="{top + side + 56}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="100%" height="100%" fill="white"/><text x="{left}" y="22">{title}</text>',
        f'<rect x="{left}" y="{top}" width="{side}" height="{side}" fill="none" stroke="#999"/>',
        f'<polyline points="{at(0.4, 0.4)} {at(1, 1)}" stroke="#999" stroke-dasharray="4 4"/>',
    ]
    for tick in (0.4, 0.6, 0.8, 1.0):
        x, y = at(tick, tick).split(",")
        parts.append(f'<text x="{x}" y="{top + side + 18}" text-anchor="middle">{tick:.0%}</text>')
        parts.append(f'<text x="{left - 8}" y="{float(y) + 4:.1f}" text-anchor="end">{tick:.0%}</text>')
    parts.append(f'<text x="{left + side / 2}" y="{top + side + 40}" text-anchor="middle">share wanted</text>')
    for number, ((name, shares), colour) in enumerate(zip(rows.items(), colours, strict=False)):
        points = " ".join(at(share, held) for share, held in zip(NOMINAL, shares, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = top + 20 + 22 * number
        parts.append(f'<rect x="{left + side + 16}" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{left + side + 34}" y="{y}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    main()
