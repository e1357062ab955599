"""Whether a student knows how far its mosaics are off, as a Markdown table and a reliability plot; run by hand.

`python tests/benchmarks/calibration.py IMAGES SENTINEL2 [--scale 4] [--model FILE] [--plot FILE.svg] [--limit N]`

A pixel's interval is its value and so many times its uncertainty to either side (models/base/intervals.py: 1 is to hold
68.3 % of the truth, WIDER 95 %). Counted are all pixels and bands together: of
held-out images under the sensor, as they are and at the true size of the student's pixels, and of real scenes that were
made coarser and restored, where the two pixels next to a border are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from real_scenes import NOISE, SURFACES, WALD, coarser
from sentinel2_scenes import BANDS, read_scene, sources

from rsup.models.base.intervals import SHARES, WIDER
from rsup.models.base.radiometry import WHITE, from_network, to_network
from rsup.models.consistency import hold
from rsup.models.data.images import DataConfig
from rsup.models.data.measured import splits_of, whole_images
from rsup.models.degradation.pairs import RadiometryConfig, make_pair
from rsup.models.degradation.sensor import SensorDegradation
from rsup.models.networks.doubt import of_pixels
from rsup.models.upscaler import Upscaler, load
from rsup.pipeline.mosaics.tiles import fill_nodata

FACTORS = (0.5, 1.0, 1.5, 2.0, WIDER, 4.0)
"""Times the uncertainty; the second and the fifth are those that have a share to hold."""
SLACK = (0.04, 0.02)
"""How far the shares held may be from those wanted."""
GSD = 10.0
EDGE = 2
"""Low-resolution pixels at a border that do not count."""

Ratios = NDArray[np.float32]
"""Errors over the uncertainty that was said of them."""


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
    rows = {name: [float((np.abs(ratios) < factor).mean()) for factor in FACTORS] for name, ratios in found.items()}
    sys.stdout.write("| | " + " | ".join(f"{factor:g}" for factor in FACTORS) + " | 68.3% within | 95% within |\n")
    sys.stdout.write("|---|" + "---:|" * (len(FACTORS) + 2) + "\n")
    for name, shares in rows.items():
        cells = " | ".join(f"{share:.1%}" for share in shares)
        reached = " | ".join(f"{np.quantile(np.abs(found[name]), share):.2f}" for share in SHARES.values())
        sys.stdout.write(f"| {name} | {cells} | {reached} |\n")
    if options.plot:
        whole = {name: ratios for name, ratios in found.items() if name.count(",") < 2}
        options.plot.write_text(plot(whole, f"{model.descriptor.name}: how much of the truth lies within"))


def of_images(model: Upscaler, folder: Path, gsd: float | None, limit: int) -> Iterator[Ratios]:
    """Of held-out images, degraded by the sensor."""
    scale, sensor = model.descriptor.scale, SensorDegradation(bands=BANDS)  # type: ignore[arg-type]
    splits = splits_of(folder, DataConfig(bands=BANDS, gsd=gsd), {}, every=False)  # type: ignore[arg-type]
    total = min(limit, sum(map(len, splits)))
    settings = RadiometryConfig(kind="reflectance", span=(WHITE, WHITE))
    for number, (_, sharp) in enumerate(whole_images(splits, total, scale)):
        low, high = make_pair(sharp[None], scale, sensor, settings, torch.Generator().manual_seed(number))
        image, width = both(model, low, from_network(low))
        inside = slice(EDGE * scale, -EDGE * scale)
        yield ((from_network(high) - image) / width)[0, :, inside, inside].flatten().numpy()


def of_scenes(model: Upscaler, folder: Path, title: str, noise: tuple[float, float]) -> dict[str, Ratios]:
    """Of real scenes of four bands, all together and by surface."""
    scale, found = model.descriptor.scale, dict[str, list[Ratios]]()
    for source in sources(folder):
        if source.bands != BANDS:
            continue
        scene = read_scene(folder, source).cut(WALD)
        low, judged = coarser(scene.dn, BANDS, scale, noise)
        filled = torch.from_numpy(fill_nodata(low).astype(np.float32))[None]
        image, width = both(model, to_network(filled), filled)
        ratios = ((torch.from_numpy(scene.dn.astype(np.float32)) - image[0]) / width[0]).numpy()
        found.setdefault(title, []).append(ratios[:, judged].ravel())
        for surface, mask in scene.surfaces().items():
            found.setdefault(f"{title}, {surface}", []).append(ratios[:, judged & mask].ravel())
    order = (title, *(f"{title}, {surface}" for surface in SURFACES))
    return {name: np.concatenate(found[name]) for name in order if name in found}


def both(model: Upscaler, low: torch.Tensor, dn: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The image, held to `dn`, and how far it may be off, in stored numbers [1, band, y, x]."""
    image, widths = model.outputs(low, uncertainty=True)
    responses = SensorDegradation(bands=BANDS).responses  # type: ignore[arg-type]
    scale = model.descriptor.scale
    return hold(from_network(image), dn, scale, responses), of_pixels(widths, scale)


def plot(found: dict[str, Ratios], title: str) -> str:
    """Shares of the truth over how many times the uncertainty hold them, as SVG; bars are what is wanted."""
    width, height, left, top, last = 420, 320, 56, 36, 4.0
    colours = ("#1b6ca8", "#7bb3d6", "#b5541c", "#e0a458")

    def at(factor: float, share: float) -> tuple[float, float]:
        return left + width * factor / last, top + height * (1 - share)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 250}" height="{top + height + 56}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="100%" height="100%" fill="white"/><text x="{left}" y="22">{title}</text>',
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#999"/>',
    ]
    for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        y = at(0, share)[1]
        parts.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    for factor in (0.0, 1.0, 2.0, 3.0, 4.0):
        x = at(factor, 0)[0]
        parts.append(f'<text x="{x:.1f}" y="{top + height + 18}" text-anchor="middle">{factor:g}</text>')
    parts.append(
        f'<text x="{left + width / 2}" y="{top + height + 40}" text-anchor="middle">times the uncertainty</text>'
    )
    for number, ((name, ratios), colour) in enumerate(zip(found.items(), colours, strict=False)):
        factors = np.linspace(0, last, 81)
        held = np.searchsorted(np.sort(np.abs(ratios)), factors) / len(ratios)
        points = " ".join("{:.1f},{:.1f}".format(*at(*pair)) for pair in zip(factors, held, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        y = top + 20 + 22 * number
        parts.append(f'<rect x="{left + width + 16}" y="{y - 10}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{left + width + 34}" y="{y}">{name}</text>')
    for (factor, share), slack in zip(SHARES.items(), SLACK, strict=True):
        (x, low), (_, high) = at(factor, share - slack), at(factor, share + slack)
        parts.append(f'<path d="M{x - 7:.1f} {low:.1f}h14M{x - 7:.1f} {high:.1f}h14M{x:.1f} {low:.1f}V{high:.1f}" '
                     'stroke="#222" stroke-width="2"/>')  # fmt: skip
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    main()
