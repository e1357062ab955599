"""A model on images whose truth is known: a folder of sharp images in, figures and a page of crops out.

Every validation image is degraded once, as training degrades it, enlarged by the model, by bicubic interpolation and by
whatever else is to stand beside them, and all are measured against the image itself.
"""

from __future__ import annotations

import hashlib
import os
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .base.errors import ArgumentError, DataError
from .base.progress import Progress
from .base.radiometry import WHITE
from .consistency import hold_values
from .data.images import Bands, DataConfig, Images
from .data.measured import TILE, splits_of, whole_images
from .degradation.pairs import RadiometryConfig, make_pair
from .degradation.real_esrgan import PublishedDegradation
from .degradation.sensor import RESPONSES, BandName, SensorDegradation
from .metrics.judge import FIGURES, Figures, Judge, Radiometry, mean_of
from .metrics.page import BASELINE, CROPS, Row, crops_of, summary_of, write_comparison
from .networks.architectures import parameters
from .sensors.response import Response
from .upscaler import ENGINES, Upscaler, chosen, load

Enlarge = Callable[[Tensor], Tensor]
"""Images [1, band, y, x] in [-1, 1] -> [1, band, y * scale, x * scale]; an Upscaler is one."""

CLASSICAL = "classical"
"""The name of bicubic interpolation behind the step that holds a mosaic to its scene."""

REPEATS = 5


@dataclass(frozen=True)
class EvaluateRequest:
    """What is to be evaluated, on what."""

    model: str
    """A name, `default`, or a weights file."""
    data: Path
    """Folder of sharp images, or a Zarr store."""
    scale: int
    degradation: str
    """`published`, or the sensor's name."""
    radiometry: Radiometry | None = None
    """How images become the network's values; None: photograph with `published`, reflectance with a sensor."""
    gsd: float | None = None
    """Metres a pixel that finer images are averaged to, above 0; None: pixels as they are."""
    white: float | None = None
    """The number that counts as white, above 0; needed for images of more than 8 bits. The sensor sees white as a
    reflectance of WHITE: by that number, images that are reflectances keep theirs."""
    bands: Bands | None = None
    """What the channels are given; None: the bands the model was made for."""
    every: bool = False
    """Every image, not those of the validation split alone: for folders that nothing was trained on."""
    limit: int | None = None
    """Most images, spread evenly."""
    seed: int = 0
    """Of the degradation."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    page: Path | None = None
    """Folder for the page of crops."""
    niqe_parameters: Path | None = None
    """NIQE's pristine model, an npz; see `niqe.load_pristine`."""


def evaluate(
    request: EvaluateRequest,
    progress: Progress = lambda done, total, note="": None,
    beside: Mapping[str, Enlarge] | None = None,
) -> dict[str, Any]:
    """Figures of the model, averaged over the images; beside them bicubic's (`bicubic`), unless the model is that.

    Where a sensor degrades, the model's image is held to what it sees, as by `rsup upscale`, and a second baseline
    stands beside: bicubic interpolation held as well (`classical`), the sensor's equation without a network.

    Besides FIGURES: ms_per_tile (median time of a 512 x 512 output tile; on the CPU on one core), niqe_truth, model,
    sha256, parameters, scale, degradation, radiometry, bands, device, images (how many), skipped (path and reason of
    each), notes (a sentence by figure that is None, or not of all images), page (its path, or None), and `beside`: the
    same figures of further callables by name, which are given the same images on the model's device.

    Raises ModelError for the model and its device, ArgumentError for an engine, DataError for the images and bands.
    """
    if request.device in ENGINES:  # which take tiles of one size, and images here have any
        raise ArgumentError(f"--device {request.device}: measure on auto, cpu, cuda or cuda:N")
    upscaler = load(request.model, request.scale, chosen(request.device))
    name, bands = upscaler.descriptor.name, request.bands or upscaler.descriptor.bands
    # To interpolation all bands are alike, however many.
    if upscaler.descriptor.kind == "student" and len(bands) != len(upscaler.descriptor.bands):
        raise DataError(f"{name} takes {len(upscaler.descriptor.bands)} bands, not {len(bands)}: name as many")
    judge = Judge(request.scale, _radiometry(request), bands, upscaler.device, request.niqe_parameters)
    reading = DataConfig.model_validate({"bands": bands, "gsd": request.gsd, "white": request.white})
    degradation = _degradation(request, reading)
    models = _models(upscaler, judge, degradation, beside or {})
    splits = splits_of(request.data, reading, judge.notes, every=request.every)
    judged = _judged(request, models, splits, degradation, judge, upscaler.device, progress)

    notes = dict(judge.notes)
    means: dict[str, dict[str, Any]] = {
        key: mean_of(judged.figures[key], notes)
        | judge.whole(key)
        | {"ms_per_tile": _milliseconds(model, request.scale, len(bands), upscaler.device)}
        for key, model in models.items()
    }
    result: dict[str, Any] = {
        "model": name,
        "sha256": upscaler.descriptor.sha256,
        "parameters": parameters(upscaler.network),
        "scale": request.scale,
        "degradation": request.degradation,
        "radiometry": judge.radiometry,
        "bands": list(bands),
        "device": str(upscaler.device),
        "images": len(judged.truths),
        **means[name],
        "niqe_truth": mean_of(judged.truths, {})["niqe"],
    }
    result |= {key: means[key] for key in (CLASSICAL, BASELINE) if key in means and key != name}
    if beside:
        result["beside"] = {key: means[key] for key in beside}
    page = _write_page(request, name, result, judged.rows)
    return {**result, "skipped": _skipped(splits), "notes": notes, "page": str(page) if page else None}


def _models(
    upscaler: Upscaler,
    judge: Judge,
    degradation: PublishedDegradation | SensorDegradation,
    beside: Mapping[str, Enlarge],
) -> dict[str, Enlarge]:
    """All that are measured, by name, in their order."""
    name, scale = upscaler.descriptor.name, upscaler.descriptor.scale
    models: dict[str, Enlarge] = {**beside, name: upscaler}
    bicubic = upscaler if name == BASELINE else load(BASELINE, scale, str(upscaler.device))
    # A photograph has no numbers for the sensor's noise to be known in.
    if degradation.responses and judge.radiometry == "reflectance":
        models[name] = held(models[name], scale, degradation.responses)
        models[CLASSICAL] = held(bicubic, scale, degradation.responses)
    models[BASELINE] = bicubic
    return models


def held(model: Enlarge, scale: int, responses: Sequence[Response]) -> Enlarge:
    """A model with the step behind it that holds its images to what the sensor sees, whose bands have `responses`."""
    return lambda low: hold_values(model(low), low, scale, responses)


def _radiometry(request: EvaluateRequest) -> Radiometry:
    return request.radiometry or ("photograph" if request.degradation == "published" else "reflectance")


def _write_page(request: EvaluateRequest, name: str, result: dict[str, Any], rows: Sequence[Row]) -> Path | None:
    """The page of crops, where one is asked for; its path."""
    if not request.page:
        return None
    plain = re.sub(r"[^\w.-]", "_", name)
    page = request.page / f"evaluate-{plain}-x{request.scale}-{request.degradation}.html"
    title = f"{name}, \u00d7{request.scale}, {request.degradation}"
    write_comparison(page, title, summary_of(result), rows)
    return page


def _skipped(splits: Sequence[Images]) -> list[dict[str, str]]:
    """Each image that could not be used, once, and why."""
    reasons = {str(each.path): each.reason for images in splits for each in images.skipped}
    return [{"path": path, "reason": reason} for path, reason in reasons.items()]


class _Judged(NamedTuple):
    figures: dict[str, list[Figures]]
    """Of each image, by model."""
    truths: list[Figures]
    rows: list[Row]
    """For the page."""


def _judged(
    request: EvaluateRequest,
    models: Mapping[str, Enlarge],
    splits: Sequence[Images],
    degradation: PublishedDegradation | SensorDegradation,
    judge: Judge,
    device: torch.device,
    progress: Progress,
) -> _Judged:
    """Each image degraded once, enlarged by every model, and measured against itself."""
    judged = _Judged({key: [] for key in models}, [], [])
    settings = RadiometryConfig(kind=judge.radiometry, span=(WHITE, WHITE))
    number = sum(map(len, splits))
    total = min(request.limit or number, number)
    for title, sharp in whole_images(splits, total, request.scale):
        generator = _generator(request.seed, title)
        low, high = make_pair(sharp.to(device)[None], request.scale, degradation, settings, generator)
        made = {key: model(low).clamp(-1, 1) for key, model in models.items()}
        for key, image in made.items():
            judged.figures[key].append(judge(image[0], high[0], low[0], key))
        judged.truths.append({"niqe": judge.niqe(high[0])})
        if request.page and len(judged.rows) < CROPS:
            judged.rows.append(crops_of(title, request.scale, judge, low, made, high))
        progress(len(judged.truths), total)
    return judged


def _degradation(request: EvaluateRequest, reading: DataConfig) -> PublishedDegradation | SensorDegradation:
    if request.degradation == "published":
        return PublishedDegradation()
    known: dict[str, BandName] = {name: name for name in RESPONSES}
    try:
        bands = tuple(known[band.lower()] for band in reading.bands)
    except KeyError as error:
        raise DataError(
            f"the sensor's {error.args[0]} is not known: give bands among {', '.join(known)}, or another degradation"
        ) from None
    return SensorDegradation(bands=bands)


def _generator(seed: int, title: str) -> torch.Generator:
    """By name: an image is degraded alike whatever else lies in the folder, and wherever that lies."""
    digest = hashlib.sha256(os.fsencode(f"{seed}/{Path(title).name}")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _milliseconds(model: Enlarge, scale: int, bands: int, device: torch.device) -> float:
    side = TILE // scale
    tile = torch.rand(1, bands, side, side, generator=torch.Generator().manual_seed(0)).to(device) * 2 - 1
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        model(tile)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[1:])  # the first one also fetches kernels and memory


def table(result: Mapping[str, Any]) -> str:
    """The result of `evaluate` as lines for people: the model, its baselines and the truth beside each other."""
    columns: dict[str, Mapping[str, Any]] = {result["model"]: result, **result.get("beside", {})}
    columns |= {name: result[name] for name in (CLASSICAL, BASELINE) if name in result}
    columns["truth"] = {"niqe": result["niqe_truth"]}
    width = max(12, *(len(name) + 2 for name in columns))
    lines = [
        f"{result['model']} x{result['scale']}, {result['degradation']} degradation, {result['radiometry']}: "
        f"{result['images']} images, {len(result['skipped'])} skipped, {result['parameters']:,} parameters",
        " " * 18 + "".join(f"{name:>{width}}" for name in columns),
    ]
    for figure in (*FIGURES, "ms_per_tile"):
        cells = (column.get(figure) for column in columns.values())
        shown = ("-" if cell is None else f"{cell:.4f}" if abs(cell) < 10 else f"{cell:.2f}" for cell in cells)
        lines.append(f"{figure:18}" + "".join(f"{cell:>{width}}" for cell in shown))
    lines += [f"{figure}: {sentence}" for figure, sentence in result["notes"].items()]
    lines += [f"skipped {each['path']}: {each['reason']}" for each in result["skipped"]]
    if result["page"]:
        lines.append(f"page: {result['page']}")
    return "\n".join(lines)
