"""A sharp student beside the faithful one of its scale, on what both restore of the same images; run by hand.

`python tests/benchmarks/sharp.py IMAGES SENTINEL2 --scale 4 [--model sharp] [--page FOLDER]`

IMAGES are finer than 1.25 m and have red, green, blue and nir, such as NAIP's; measured is their validation split at
the size that the product's pixels have, and as they are. SENTINEL2 holds the scenes of sentinel2_scenes.py; those
that no student was trained on are made coarser, at the reflectances that they have, and restored. Both students are
measured as the product has them, behind the step that holds mosaics to their scenes, under the sensor's noise.
`--page`: 24 crops of the first set beside each other.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import rasterio
from rasterio.transform import from_origin
from sentinel2_scenes import BANDS, Scene, read_scene, sources

from rsup.models.base.radiometry import ADD_OFFSET, NODATA, SCALE_FACTOR, WHITE
from rsup.models.degradation.sensor import SensorDegradation
from rsup.models.evaluate import EvaluateRequest, evaluate, held
from rsup.models.metrics.page import CROPS
from rsup.models.registry import FAITHFUL
from rsup.models.upscaler import load

TRAINED = "fortmckay", "433D", "dsen2", "czech 208874", "czech 233723", "czech 246341", "czech 254570"
"""How the names of the scenes begin that students were trained on."""
SIDE = 512
"""Most pixels a side of a scene."""
WANTED: dict[str, dict[int, tuple[str, float]]] = {
    "frechet_lite1": {4: ("of it", 0.35), 8: ("of it", 0.40)},
    "spectrum_db": {4: ("of it", 0.35), 8: ("of it", 0.35)},
    "feature_lite1": {4: ("of it", 0.90), 8: ("of it", 0.92)},
    "feature_lite2": {4: ("of it", 0.90), 8: ("of it", 0.92)},
    "psnr_y": {4: ("lower", 0.9), 8: ("lower", 0.9)},
    "lattice_db": {4: ("over the truth's", 2.0), 8: ("over the truth's", 2.0)},
}
"""At most, of what the faithful student has, by scale; lattice_db is over the truth's already."""
ALSO = "ssim_y", "vif_y", "acutance", "sam_deg", "ndvi_rmse", "block_mean_dn"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("scenes", type=Path)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--model", default="sharp")
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    request = EvaluateRequest(options.model, options.images, options.scale, "sentinel2", bands=BANDS, device="cpu")
    true_size = replace(request, gsd=10 / options.scale)
    with tempfile.TemporaryDirectory() as name:
        write_scenes(options.scenes, Path(name))
        show(f"at {10 / options.scale:g} m", true_size)
        show("as they are", request)
        show("Sentinel-2 scenes made coarser", replace(request, data=Path(name), every=True, white=WHITE))
    if options.page:
        say(compared(replace(true_size, limit=CROPS, page=options.page))["page"])


def compared(request: EvaluateRequest) -> dict[str, Any]:
    """What `evaluate` says of the model, with the faithful student beside it."""
    responses = SensorDegradation(bands=BANDS).responses
    faithful = held(load(FAITHFUL, request.scale), request.scale, responses)
    return evaluate(request, beside={FAITHFUL: faithful})


def show(title: str, request: EvaluateRequest) -> None:
    """A table of both and what is wanted."""
    result = compared(request)
    faithful, classical, bicubic = (result[key] for key in ("beside", "classical", "bicubic"))
    faithful = faithful[FAITHFUL]
    say(f"\n{result['model']} ({result['sha256'][:8]}), {result['images']} images, {title}\n")
    say("| | bicubic | classical | faithful | sharp | | wanted at most |\n|---|---|---|---|---|---|---|")
    for key in (*WANTED, *ALSO):
        ours, theirs = result[key], faithful[key]
        how, most = WANTED[key][request.scale] if key in WANTED else ("", None)
        seen = {"lower": theirs - ours, "over the truth's": ours}.get(how, ours / theirs)
        cells = [f"{each[key]:.4g}" for each in (bicubic, classical, faithful, result)]
        verdict = "" if most is None else f"{most:g} {how}" + ("" if seen <= most else " **missed**")
        say(f"| {key} | {' | '.join(cells)} | {seen:.3g} | {verdict} |")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def write_scenes(folder: Path, out: Path) -> None:
    """The scenes that were kept from training, as GeoTIFF."""
    for source in sources(folder):
        if not source.name.startswith(TRAINED):
            write(read_scene(folder, source).cut(SIDE), out / f"{source.name.replace(' ', '-')}.tif")


def write(scene: Scene, path: Path) -> None:
    """As the product's scenes are: stored numbers, with scale and offset."""
    bands, height, width = scene.dn.shape
    profile = {"driver": "GTiff", "dtype": "uint16", "count": bands, "height": height, "width": width}
    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_000_000, 10, 10), "nodata": NODATA}
    with rasterio.open(path, "w", **profile, **place) as target:
        target.write(scene.dn)
        target.scales, target.offsets = (SCALE_FACTOR,) * bands, (ADD_OFFSET,) * bands
        target.descriptions = scene.source.bands


if __name__ == "__main__":
    main()
