"""What a model does on real Sentinel-2 scenes, as Markdown tables; run by hand.

`python tests/benchmarks/real_scenes.py SENTINEL2 [--model4 M] [--model8 M] [--json FILE]`, some ten minutes on a core.

Two questions. Against a truth (Wald's protocol): the scene, made `scale` times coarser by the sensor's own MTF, is to
be restored; by the bare network on the whole image, and by what `rsup upscale` makes of the network and of bicubic
interpolation. At full resolution, where there is no truth: the mosaic as the sensor sees it against the scene, seams,
and texture where there should be little; how much of it there is in truth is told by the restored scenes.
What misses the figure that is wanted bears a star.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from measures import psnr, seam_ratio
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from sentinel2_scenes import LEAST, Scene, read_scene, sources

from rsup.models.base.radiometry import ADD_OFFSET, NODATA, SCALE_FACTOR, from_network, to_network
from rsup.models.consistency import SensorConsistency
from rsup.models.degradation.sensor import SensorDegradation
from rsup.models.metrics import image as metrics
from rsup.models.sensors.sentinel2 import SENTINEL2
from rsup.models.upscaler import Upscaler, load
from rsup.pipeline.lattice import Window
from rsup.pipeline.mosaics.check import figures_of
from rsup.pipeline.mosaics.chunk import upscale_chunk
from rsup.pipeline.mosaics.passes import passes, tiling_of
from rsup.pipeline.mosaics.tiles import Tiles, fill_nodata

WALD, FULL = 512, 192
"""Most pixels a side of a scene that is made coarser and restored, and of one that is enlarged as it is."""
PEAK, BRIGHT = 10_000, 4000
"""DN: what counts as the peak of PSNR, an interval of 1 in reflectance; and reflectance 0.3."""
GAIN, SEAM, TEXTURE = 0.5, 0.02, 1.5
"""Wanted: dB over bicubic at least; a seam's distance from 1 and texture over bicubic's at most."""
NOISE = {"no noise": (0.0, 0.0), "noise as the sensor's": (0.6, 2.0)}
SURFACES = ("water", "cloud", "snow")
SIDE = 8
"""Output pixels of the windows whose variance is texture."""

DN = NDArray[np.uint16]


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, metavar="SENTINEL2")
    parser.add_argument("--model4", default="default")
    parser.add_argument("--model8", default="default")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names = {4: options.model4, 8: options.model8}
    scenes = [read_scene(options.folder, source) for source in sources(options.folder)]
    result: dict[str, Any] = {"scenes": [about(scene) for scene in scenes]}
    show("Scenes", result["scenes"])
    for scale, name in names.items():
        model, bicubic = load(name, scale), load("bicubic", scale)
        title = f"{model.descriptor.name} ({model.descriptor.sha256[:8]}) x{scale}"
        for noise, level in NOISE.items():
            rows, surfaces = [], []
            for scene in scenes:
                progress(f"{title}, {noise}: {scene.source.name}")
                gains, textures = restored(scene.cut(WALD), model, bicubic, level)
                rows.append({"scene": scene.source.name, **gains})
                if any(textures.values()):
                    surfaces.append({"scene": scene.source.name, **textures})
            result[f"x{scale}, {noise}"], result[f"x{scale}, {noise}, texture"] = rows, surfaces
            show(
                f"{title} from {10 * scale} m to 10 m, {noise}: dB",
                [*rows, *summary(rows)],
                below=dict.fromkeys(("product", "product, dark", "nir, product"), GAIN),
            )
            show(f"{title}, {noise}: texture over classical's, the product's and the truth's", surfaces)
        rows = []
        for scene in scenes:
            if scene.source.full:
                progress(f"{title}, full resolution: {scene.source.name}")
                rows.append({"scene": scene.source.name, **enlarged(scene.cut(FULL), model, bicubic)})
        result[f"x{scale}, full resolution"] = rows
        show(f"{title} from 10 m to {10 / scale:g} m", rows, above=TEXTURE, around=SEAM)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


def about(scene: Scene) -> dict[str, Any]:
    """What was assumed of a scene, and what is used of it."""
    source = scene.source
    return {
        "scene": source.name,
        "added to its numbers": source.add,
        "because": source.why,
        "pixels": "{} x {}".format(*scene.dn.shape[1:]),
        "restored": "{} x {}".format(*scene.cut(WALD).dn.shape[1:]),
        "enlarged": "{} x {}".format(*scene.cut(FULL).dn.shape[1:]) if source.full else None,
        "note": source.note,
    }


def restored(
    scene: Scene, model: Upscaler, bicubic: Upscaler, noise: tuple[float, float]
) -> tuple[dict[str, float | None], dict[str, float | None]]:
    """Wald's protocol on one scene; PSNR in dB of plain bicubic interpolation, and gains over it.

    `network` is the network alone, `product` what `rsup upscale` makes of it, and `classical` what it makes of bicubic
    interpolation: the sensor's equation without any network. Second, of each surface, the variance (see `texture`) of
    product and truth over that of classical.

    Without "nir" the bands are red, green and blue together, or the only one. `dark` leaves out what reflects more than
    0.3 and its surroundings: one cloud outweighs the land around it. NDVI: root mean square of the error.
    """
    scale, bands = model.descriptor.scale, scene.source.bands
    low, judged = coarser(scene.dn, bands, scale, noise)
    variants: dict[str, NDArray[np.generic]] = {
        "bicubic": bare(low, bands, bicubic),
        "network": bare(low, bands, model),
        "classical": product(low, bands, bicubic),
        "product": product(low, bands, model),
    }
    visible = [bands.index(band) for band in bands if band != "nir"]
    figures = {name: decibels(image, scene.dn, visible, judged) for name, image in variants.items()}
    found: dict[str, float | None] = {"bicubic": figures["bicubic"]}
    found |= {name: figures[name] - figures["bicubic"] for name in ("network", "classical", "product")}
    found["product over classical"] = figures["product"] - figures["classical"]
    found |= dict.fromkeys(("product, dark", "nir, classical", "nir, product"))
    found |= dict.fromkeys(f"NDVI, {name}" for name in ("bicubic", "classical", "product"))
    dark = judged & binary_erosion((scene.dn[visible] <= BRIGHT).all(0), np.ones((3, 3)), iterations=scale)
    if dark.sum() >= LEAST:
        ours, theirs = (decibels(variants[name], scene.dn, visible, dark) for name in ("product", "bicubic"))
        found["product, dark"] = ours - theirs
    if "nir" in bands:
        nir = {name: decibels(image, scene.dn, [bands.index("nir")], judged) for name, image in variants.items()}
        truth = ndvi(scene.dn, bands)
        for name in ("classical", "product"):
            found[f"nir, {name}"] = nir[name] - nir["bicubic"]
        for name in ("bicubic", "classical", "product"):
            found[f"NDVI, {name}"] = float(np.sqrt(((ndvi(variants[name], bands) - truth)[judged] ** 2).mean()))
    textures: dict[str, float | None] = {}
    surfaces = scene.surfaces()
    smooth, made, truth = (image[visible] for image in (variants["classical"], variants["product"], scene.dn))
    for name in SURFACES:
        inside = surfaces[name] & judged if name in surfaces else None
        theirs = texture(smooth, inside, 1)
        for whose, image in (("product", made), ("truth", truth)):
            textures[f"{name}, {whose}"] = ratio(texture(image, inside, 1), theirs)
    return found, textures


def ndvi(image: NDArray[np.generic], bands: Sequence[str]) -> NDArray[np.float64]:
    """Of stored numbers [band, y, x]; see `metrics.ndvi`."""
    nir, red = (torch.from_numpy(image[bands.index(band)].astype(np.float64)) for band in ("nir", "red"))
    return metrics.ndvi(nir, red).numpy()


def coarser(dn: DN, bands: Sequence[str], scale: int, noise: tuple[float, float]) -> tuple[DN, NDArray[np.bool_]]:
    """Stored numbers [band, y, x] as MSI would see them `scale` times coarser, and where to judge [y, x].

    Judged is what lies two coarse pixels, the reach of the MTF, away from the border and from missing data.
    """
    sensor = SensorDegradation(bands=tuple(bands), mtf_spread=(0, 0), noise_level=noise)  # type: ignore[arg-type]
    ground = torch.from_numpy(fill_nodata(dn).astype(np.float32))[None] * SCALE_FACTOR + ADD_OFFSET
    seen = sensor(ground, scale, torch.Generator().manual_seed(0))[0]
    low = ((seen - ADD_OFFSET) / SCALE_FACTOR).round().numpy().astype(np.uint16)
    height, width = low.shape[1:]
    whole = (dn != NODATA).all(0).reshape(height, scale, width, scale).all((1, 3))
    judged = binary_erosion(whole, np.ones((3, 3)), iterations=2)
    return np.where(whole, low, NODATA).astype(np.uint16), judged.repeat(scale, 0).repeat(scale, 1)


def bare(low: DN, bands: Sequence[str], model: Upscaler) -> NDArray[np.float32]:
    """The network on the whole image at once, and nothing after it: stored numbers [band, y * scale, x * scale]."""
    planes: dict[str, NDArray[np.float32]] = {}
    for step in passes(bands, bands, model.descriptor.bands):
        stack = fill_nodata(low[[bands.index(band) for band in step.inputs]])
        made = from_network(model(torch.from_numpy(to_network(stack))[None]))[0].numpy()
        planes |= {band: made[channel] for channel, band in step.outputs}
    return np.stack([planes[band] for band in bands])


def product(low: DN, bands: Sequence[str], model: Upscaler, corner: int | None = None) -> DN:
    """What `rsup upscale` makes of a scene whose north-west pixel has row and column `corner` of the lattice.

    None: the corner that lets a small scene lie in one tile.
    """
    tiling = tiling_of(model.descriptor)
    corner = tiling.halo + tiling.overlap if corner is None else corner
    window = Window(corner, corner, *low.shape[1:])

    def read(names: Sequence[str], wanted: Window) -> DN:
        out = np.zeros((len(names), wanted.height, wanted.width), np.uint16)
        common = wanted.intersect(window)
        assert common is not None
        rows, cols = common.within(window)
        out[(slice(None), *common.within(wanted))] = [low[bands.index(name), rows, cols] for name in names]
        return out

    sensor = SensorConsistency({band: SENTINEL2.response(band) for band in bands})
    with Tiles(model, sensor) as tiles:
        (made,) = upscale_chunk(read, bands, window, bands, tiles)
    return made


def enlarged(scene: Scene, model: Upscaler, bicubic: Upscaler) -> dict[str, float | None]:
    """The product at full resolution, all bands together.

    seen: root mean square of scene - A mosaic in units of the sensor's noise; bias: 99th percentile of its means over
    32 x 32 scene pixels, DN. seam: see `seams`. Surfaces: root mean variance of windows of 8 x 8 output pixels, DN, and
    the variance's ratio to that of classical.
    """
    scale, bands, low = model.descriptor.scale, scene.source.bands, scene.dn
    made, smooth = product(low, bands, model, 0), product(low, bands, bicubic, 0)
    figures = figures_of([(made, low, Window(0, 0, *low.shape[1:]))], [SENTINEL2.response(b) for b in bands], scale)
    found: dict[str, float | None] = {
        "seen": figures.get("sensor_rms"),
        "bias": figures.get("sensor_bias_p99"),
        "seam": seams(made, low, bands, model),
    }
    surfaces = scene.surfaces()
    for name in SURFACES:
        ours, theirs = (texture(image, surfaces.get(name), scale) for image in (made, smooth))
        found[f"{name}, DN"] = None if ours is None else float(np.sqrt(ours))
        found[f"{name}, ratio"] = ratio(ours, theirs)
    return found


def seams(made: DN, low: DN, bands: Sequence[str], model: Upscaler) -> float:
    """How much higher steps across the borders of tiles are than they would be without the border; 1 = no seam.

    Borders are where ramps begin and end. The seam figure of `made`, the product whose corner is 0, over that of the
    same ground cut into other tiles: neither what the scene has there nor the borders of its pixels count then.
    """
    scale, tiling = model.descriptor.scale, tiling_of(model.descriptor)
    moved = product(low, bands, model, (tiling.stride + tiling.overlap) // 2)
    tiles = tiling.tiles(Window(0, 0, *low.shape[1:]))
    rows, cols = (
        sorted({(start + at) * scale for start in starts for at in (tiling.halo, tiling.halo + tiling.overlap)})
        for starts in ({tile.row for tile in tiles}, {tile.col for tile in tiles})
    )
    return seam_ratio(made, rows, cols) / seam_ratio(moved, rows, cols)


def texture(image: NDArray[np.generic], surface: NDArray[np.bool_] | None, scale: int) -> float | None:
    """Mean variance (DN squared) of the windows of SIDE x SIDE pixels of [band, y, x] wholly on `surface`."""
    if surface is None:
        return None
    bands, height, width = image.shape
    shape = (height // SIDE, SIDE, width // SIDE, SIDE)
    inside = surface.repeat(scale, 0).repeat(scale, 1).reshape(shape).all((1, 3))
    variance = image.reshape(bands, *shape).astype(np.float64).var((2, 4))
    return float(variance[:, inside].mean()) if inside.any() else None


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """One variance over another; None where either is missing, or there is none."""
    return None if ours is None or not theirs else ours / theirs


def decibels(image: NDArray[np.generic], truth: DN, planes: list[int], judged: NDArray[np.bool_]) -> float:
    """PSNR in dB over some planes of [band, y, x], where `judged` [y, x] says so."""
    return psnr(image[planes][:, judged], truth[planes][:, judged], PEAK)


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and least of every column."""
    kinds: tuple[tuple[str, Callable[[list[float]], float]], ...] = (("mean", fmean), ("least", min))
    columns = {
        key: values
        for key in rows[0]
        if key != "scene" and (values := [row[key] for row in rows if row[key] is not None])
    }
    return [
        {"scene": f"**{name}**"}
        | {key: kind(columns[key]) if key in columns else None for key in rows[0] if key != "scene"}
        for name, kind in kinds
    ]


def show(
    title: str,
    rows: list[dict[str, Any]],
    below: dict[str, float] | None = None,
    above: float | None = None,
    around: float | None = None,
) -> None:
    """A Markdown table; a star for columns of `below` that lie below, for ratios above, for seams not around 1."""

    def cell(key: str, value: Any) -> str:
        if not isinstance(value, float):
            return "" if value is None else str(value)
        missed = (
            (below is not None and key in below and value < below[key])
            or (above is not None and key.endswith("ratio") and value > above)
            or (around is not None and key == "seam" and abs(value - 1) > around)
        )
        digits = 3 if key in ("seam", "bias") or key.startswith("NDVI") else 2
        return f"{value:.{digits}f}" + "*" * missed

    if not rows:
        return  # no scene of this kind in the folder
    lines = [f"\n### {title}\n", " | ".join(rows[0]), " | ".join("---" for _ in rows[0])]
    lines += [" | ".join(cell(key, value) for key, value in row.items()) for row in rows]
    sys.stdout.write("\n".join(f"| {line} |" if " | " in line else line for line in lines) + "\n")
    sys.stdout.flush()


def progress(line: str) -> None:
    """Say on standard error what is at work."""
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    main()
