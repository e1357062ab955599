"""Make docs/naip.jpg and docs/sentinel2.jpg again: real ground at 10 m, interpolated, and by the shipped students.

`python docs/ground.py IMAGERY [OUT]` reads `hr/naip_ca_0.6m` and `sentinel2/mol_L1C_10m` in IMAGERY (CONTRIBUTING.md,
Tests) and writes both into OUT (docs), in a minute or two. Mosaics are what `rsup upscale` makes of the same numbers;
panels of one place have one stretch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from rsup.models.base.radiometry import ADD_OFFSET, SCALE_FACTOR
from rsup.models.data.images import DataConfig, Images
from rsup.models.metrics.judge import WHITE
from rsup.models.upscaler import load
from rsup.pipeline.mosaics.pictures import Stretch

sys.path.append(str(Path(__file__).parents[1] / "tests/benchmarks"))
from real_scenes import bare, coarser, product
from sentinel2_scenes import read_scene, sources

Panels = dict[str, NDArray[Any]]
"""Stored numbers [band, y, x] of the same ground, in the order of BANDS, by what is written above them."""
Shade = Callable[[NDArray[Any]], NDArray[np.uint8]]
"""[band, y, x] -> [y, x, band], what is to be seen."""

BANDS = ("red", "green", "blue", "nir")
SCALE = 8
SITES = "riverside_2020_46", "riverside_2020_52", "chico_2018_99"
"""Of the held-out ones: a park and a road; a railway, a yard and a school; houses and trees, where less is won."""
NOISE = 1.0, 1.0
"""As required of the sensor."""
CORNER, SIDE, MARGIN = (652, 188), 64, 16
"""Of what is shown of Mol, in scene pixels: a canal, works and fields; and how much around it is upscaled with it."""
GAP, LABEL = 8, 30
"""Pixels between panels, and above them."""


def main(imagery: Path, out: Path) -> None:
    """Write both pictures."""
    out.mkdir(parents=True, exist_ok=True)
    sharp = Images(imagery / "hr/naip_ca_0.6m", "validation", DataConfig(bands=BANDS, gsd=10 / SCALE), crop=120)
    sites = {Path(name).stem: index for index, name in enumerate(sharp.names())}
    save([(simulated(sharp.image(sites[site])), photograph) for site in SITES], 8, 240, out / "naip.jpg")
    panels = scene(imagery / "sentinel2")
    save([(panels, Stretch.of(panels["x8, 1.25 m"][:3]))], 3, 512, out / "sentinel2.jpg")


def simulated(image: NDArray[np.float32]) -> Panels:
    """Of ground [band, y, x] in [0, 1] at 1.25 m, seen by the sensor at 10 m."""
    height, width = (side // SCALE * SCALE for side in image.shape[1:])
    reflectance = image[:, :height, :width] * WHITE
    truth = ((reflectance - ADD_OFFSET) / SCALE_FACTOR).round().astype(np.uint16)
    low, _ = coarser(truth, BANDS, SCALE, NOISE)
    return enlarged(low) | {"truth, 1.25 m": truth}


def scene(folder: Path) -> Panels:
    """Of Mol as Sentinel-2 saw it."""
    (source,) = (source for source in sources(folder) if source.name == "mol L1C")
    rows, cols = (slice(start - MARGIN, start + SIDE + MARGIN) for start in CORNER)
    panels = enlarged(read_scene(folder, source).dn[:, rows, cols])
    del panels["classical, 1.25 m"]
    return {name: inner(panel) for name, panel in panels.items()}


def enlarged(low: NDArray[np.uint16]) -> Panels:
    """A scene, and all that is made of it."""
    bicubic = load("bicubic", SCALE)
    students = {
        f"{name}x{scale}, {10 / scale:g} m": load(family, scale)
        for scale in (4, SCALE)
        for name, family in (("", "faithful"), ("sharp ", "sharp"))
    }
    return {
        "10 m": low,
        "bicubic, 1.25 m": bare(low, BANDS, bicubic).round().astype(np.uint16),
        "classical, 1.25 m": product(low, BANDS, bicubic),
    } | {name: product(low, BANDS, student) for name, student in students.items()}


def inner(panel: NDArray[Any]) -> NDArray[Any]:
    """Without the margin."""
    margin = MARGIN * panel.shape[1] // (SIDE + 2 * MARGIN)
    return panel[:, margin:-margin, margin:-margin]


def photograph(dn: NDArray[Any]) -> NDArray[np.uint8]:
    """[band, y, x] -> [y, x, band] as NAIP itself looks."""
    shade = ((dn * SCALE_FACTOR + ADD_OFFSET) / WHITE).clip(0, 1)
    return (255 * shade + 0.5).astype(np.uint8).transpose(1, 2, 0)


def save(places: list[tuple[Panels, Shade]], columns: int, side: int, path: Path) -> None:
    """Panels `side` pixels wide, as many a row as `columns` says; each pixel of theirs is a square."""
    font = ImageFont.load_default(24)
    tiles = [(name, shade(panel[:3])) for panels, shade in places for name, panel in panels.items()]
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (side + GAP) - GAP, rows * (side + LABEL + GAP) - GAP), "white")
    for place, (name, tile) in enumerate(tiles):
        x, y = place % columns * (side + GAP), place // columns * (side + LABEL + GAP)
        ImageDraw.Draw(sheet).text((x, y), name, "black", font)
        sheet.paste(Image.fromarray(tile).resize((side, side), Image.Resampling.NEAREST), (x, y + LABEL))
    sheet.save(path, quality=70, subsampling=0, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent)
