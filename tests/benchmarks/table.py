"""Every model side by side on validation images, as Markdown tables; run by hand.

`python tests/benchmarks/table.py IMAGES [--baselines FOLDER] [--model FILE ...] [--scale 4] [--limit N] [--json FILE]`

IMAGES are finer than 1.25 m and have red, green, blue and nir, such as NAIP's. Measured are bicubic and Lanczos
interpolation, the networks of `baselines.py` whose weights lie in FOLDER, the student that comes with rsup and every
FILE, all on the same degraded images and, for the time, on one thread of this machine. Under the sensor, classical is
bicubic interpolation behind the step that holds mosaics to their scenes, and students are measured as the product has
them, behind that step too, and alone. NIQE wants its parameters in RSUP_NIQE_PARAMETERS.
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from baselines import baselines

from rsup.models.base.errors import RsupError
from rsup.models.degradation.sensor import SensorDegradation
from rsup.models.evaluate import Enlarge, EvaluateRequest, evaluate, held
from rsup.models.metrics.judge import FIGURES, Radiometry
from rsup.models.networks.architectures import parameters
from rsup.models.registry import DEFAULT, descriptor_of
from rsup.models.upscaler import load
from rsup.models.weights_file import read_header

GSD = 10.0
"""Metres a Sentinel-2 pixel."""
BANDS = ("red", "green", "blue", "nir")
COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "psnr_y": ("PSNR-Y, dB", "{:.2f}".format),
    "psnr_4": ("nir, dB", "{:.2f}".format),
    "ssim_y": ("SSIM-Y", "{:.3f}".format),
    "niqe": ("NIQE", "{:.2f}".format),
    "feature_lite1": ("features (Lite1)", "{:.3f}".format),
    "feature_lite2": ("features (Lite2)", "{:.3f}".format),
    "frechet_lite1": ("Frechet (Lite1)", "{:.2f}".format),
    "spectrum_rmse": ("spectrum RMSE", "{:.3f}".format),
    "spectrum_db": ("spectrum, dB", "{:.1f}".format),
    "acutance": ("acutance", "{:.2f}".format),
    "lattice_db": ("lattice, dB", "{:.1f}".format),
    "sam_deg": ("SAM, deg", "{:.2f}".format),
    "ndvi_rmse": ("NDVI RMSE", "{:.4f}".format),
    "ms_per_tile": ("ms a tile", "{:.0f}".format),
    "parameters": ("parameters, M", lambda number: f"{number / 1e6:.2f}" if number else "-"),
}
OF_THE_SENSOR = ("psnr_4", "ndvi_rmse")
"""What the published degradation, of three bands, says nothing of."""


def main() -> None:
    """Measure, then print."""
    parser = argparse.ArgumentParser(description="Every model side by side on validation images.")
    parser.add_argument("images", type=Path)
    parser.add_argument("--baselines", type=Path, help="folder of rlfn_x4.pth, carn_m.pth and carn_light.onnx")
    parser.add_argument("--model", type=Path, action="append", default=[], help="a weights file; may be given again")
    parser.add_argument("--scale", type=int, choices=(4, 8), help="one scale alone")
    parser.add_argument("--limit", type=int, help="most images")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    options = parser.parse_args()
    try:
        measured = [run for scale in (4, 8) if options.scale in (None, scale) for run in measure(options, scale)]
    except RsupError as error:
        sys.exit(str(error))
    for line in dict.fromkeys(line for run in measured for line in run["left_out"]):
        sys.stderr.write(f"{line}\n")
    sys.stdout.write("\n".join(markdown(run) for run in measured))
    if options.json:
        options.json.write_text(json.dumps(measured, indent=2) + "\n")


def measure(options: argparse.Namespace, scale: int) -> list[dict[str, Any]]:
    """Every setting at one scale: `title`, `columns`, and what `side_by_side` finds."""
    name = os.environ.get("RSUP_NIQE_PARAMETERS")
    plain = EvaluateRequest(
        "bicubic", options.images, scale, "published", bands=BANDS, limit=options.limit, device="cpu",
        niqe_parameters=Path(name) if name else None,
    )  # fmt: skip
    sensor = dataclasses.replace(plain, degradation="sentinel2")
    true = GSD / scale
    settings = {
        "published degradation, pixels as they are": plain,
        "sentinel2 degradation, pixels as they are": sensor,
        f"sentinel2 degradation, {true:g} m": dataclasses.replace(sensor, gsd=true),
    }
    return [
        {
            "title": f"x{scale}, {title}",
            "columns": [each for each in COLUMNS if request is not plain or each not in OF_THE_SENSOR],
            **side_by_side(request, options, f"x{scale}, {title}"),
        }
        for title, request in settings.items()
    ]


def side_by_side(request: EvaluateRequest, options: argparse.Namespace, title: str) -> dict[str, Any]:
    """One setting: `images`, their number; `rows`, figures by model; `left_out`, a sentence for each row that lacks."""
    found, left_out = [], ["the networks of others are left out: name their folder with --baselines"]
    if options.baselines:
        found, left_out = baselines(options.baselines, request.scale)
    radiometry: Radiometry = "photograph" if request.degradation == "published" else "reflectance"
    own = {"lanczos": "lanczos", descriptor_of(DEFAULT, request.scale).name: DEFAULT}
    # The folder, for every run calls its weights alike.
    files = {f"{file.resolve().parent.name}/{file.stem}": file for file in options.model}
    left_out += [f"{name} is left out: there is no {file}" for name, file in files.items() if not file.exists()]
    headers = {name: read_header(file)[0] for name, file in files.items() if file.exists()}
    left_out += [
        f"{name} is left out: it takes {', '.join(h.bands)}" for name, h in headers.items() if h.bands != BANDS
    ]
    fit = [name for name, header in headers.items() if (header.scale, header.bands) == (request.scale, BANDS)]
    own |= {name: str(files[name]) for name in fit}
    upscalers = {name: load(model, request.scale) for name, model in own.items()}
    models: dict[str, Enlarge] = {each.name: each.seen(radiometry) for each in found}
    count = {"classical": 0} | {each.name: each.parameters for each in found}
    for name, upscaler in upscalers.items():
        models[name], count[name] = upscaler, parameters(upscaler.network)
        if request.degradation != "published" and upscaler.descriptor.kind == "student":
            responses = SensorDegradation(bands=BANDS).responses
            alone = f"{name}, network alone"
            models |= {alone: upscaler, name: held(upscaler, request.scale, responses)}
            count[alone] = count[name]

    def progress(done: int, total: int) -> None:
        sys.stderr.write(f"\r{title}: {done}/{total} images" + "\n" * (done == total))

    result = evaluate(request, progress, models)
    for name in ("images", "niqe") & result["notes"].keys():
        sys.stderr.write(f"{name}: {result['notes'][name]}\n")
    measured = result["beside"] | {name: result[name] for name in ("classical",) if name in result}
    rows: dict[str, dict[str, Any]] = {
        "truth": {"niqe": result["niqe_truth"]},
        "bicubic": {**numbers(result), "parameters": 0},
    }
    for name in ("lanczos", "classical", *(each.name for each in found), *own, *measured):
        if name in measured:
            rows.setdefault(name, {**numbers(measured[name]), "parameters": count[name]})
    return {"images": result["images"], "rows": rows, "left_out": left_out}


def numbers(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Of what `evaluate` says of a model, its figures."""
    return {name: figures[name] for name in (*FIGURES, "ms_per_tile")}


def markdown(run: Mapping[str, Any]) -> str:
    """One table; a figure that is missing is a dash."""
    shown = {name: COLUMNS[name] for name in run["columns"]}
    lines = [f"**{run['title']}** ({run['images']} images)", ""]
    lines.append("| | " + " | ".join(heading for heading, _ in shown.values()) + " |")
    lines.append("|---|" + "---:|" * len(shown))
    for model, figures in run["rows"].items():
        if all(figures.get(name) is None for name in shown):
            continue  # the truth, without NIQE
        cells = ("-" if figures.get(name) is None else form(figures[name]) for name, (_, form) in shown.items())
        lines.append(f"| {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
