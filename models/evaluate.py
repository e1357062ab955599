"""A model on images whose truth is known: a folder of sharp images in, figures and a page of crops out.

Every validation image is degraded once, as training degrades it, enlarged by the model, by bicubic interpolation and by
whatever else is to stand beside them, and all are measured against the image itself.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from .base.errors import DataError
from .data.images import SHORTEST, DataConfig, Images, Skipped
from .data.rasters import UnusableError
from .degradation.pairs import RadiometryConfig, make_pair
from .degradation.real_esrgan import PublishedDegradation
from .degradation.sensor import RESPONSES, BandName, SensorDegradation
from .metrics import image as metrics
from .metrics.judge import FIGURES, WHITE, Figures, Judge, Radiometry
from .metrics.page import Row, write_comparison
from .networks.slimdiffsr.student import parameters
from .upscaler import load

Progress = Callable[[int, int], None]
Enlarge = Callable[[Tensor], Tensor]
"""Images [1, 3, y, x] in [-1, 1] -> [1, 3, y * scale, x * scale]; an Upscaler is one."""

BASELINE = "bicubic"
SMALLEST = 32
"""Side, in output pixels, under which an image is no image: SSIM's window and a border of 8 have to fit."""
TILE = 512
"""Side of the output tile whose time is measured, and the largest side of an image that is judged whole."""
REPEATS = 5
CROPS, CROP = 8, 192
"""Rows of the page, and the side of their crops in output pixels."""


@dataclass(frozen=True)
class EvaluateRequest:
    """What is to be evaluated, on what."""

    model: str
    """A name, `default`, or a weights file."""
    data: Path
    """Folder of sharp images, or a Zarr store."""
    scale: int
    degradation: Literal["published", "sentinel2"]
    radiometry: Radiometry | None = None
    """How images become the network's values; None: photograph with `published`, reflectance with `sentinel2`."""
    gsd: float | None = None
    """Metres a pixel that finer images are averaged to, above 0; None: pixels as they are."""
    white: float | None = None
    """The number that counts as white, above 0; needed for images of more than 8 bits."""
    bands: tuple[str, str, str] | None = None
    """What the three channels are given; None: the bands the model was made for."""
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
    progress: Progress = lambda done, total: None,
    beside: Mapping[str, Enlarge] | None = None,
) -> dict[str, Any]:
    """Figures of the model, averaged over the images; beside them bicubic's (`bicubic`), unless the model is that.

    Besides FIGURES: ms_per_tile (median time of a 512 x 512 output tile; on the CPU on one core), niqe_truth, model,
    sha256, parameters, scale, degradation, radiometry, bands, device, images (how many), skipped (path and reason of
    each), notes (a sentence by figure that is None, or not of all images), page (its path, or None), and `beside`: the
    same figures of further callables by name, which are given the same images on the model's device.

    Raises ModelError for the model and its device, DataError for the images and bands.
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if request.device == "auto" else request.device
    upscaler = load(request.model, request.scale, device)
    name = upscaler.descriptor.name
    models: dict[str, Enlarge] = {**(beside or {}), name: upscaler}
    if name != BASELINE:
        models[BASELINE] = load(BASELINE, request.scale, device)
    radiometry: Radiometry = request.radiometry or (
        "photograph" if request.degradation == "published" else "reflectance"
    )
    judge = Judge(request.scale, radiometry, upscaler.device, request.niqe_parameters)

    found: dict[str, list[Figures]] = {key: [] for key in models}
    truths: list[Figures] = []
    rows: list[Row] = []
    red, green, blue = request.bands or upscaler.descriptor.bands
    reading = DataConfig(bands=(red, green, blue), gsd=request.gsd, white=request.white)
    degradation = _degradation(request, reading)
    settings = RadiometryConfig(kind=radiometry, span=(WHITE, WHITE))
    splits = _splits(request, reading, judge.notes)
    number = sum(map(len, splits))
    total = min(request.limit or number, number)
    for title, sharp in _whole(splits, total, request.scale):
        generator = _generator(request.seed, title)
        low, high = make_pair(sharp.to(upscaler.device)[None], request.scale, degradation, settings, generator)
        made = {key: model(low).clamp(-1, 1) for key, model in models.items()}
        for key, image in made.items():
            found[key].append(judge(image[0], high[0], low[0]))
        truths.append({"niqe": judge.niqe(high[0])})
        if request.page and len(rows) < CROPS:
            rows.append(_row(title, request.scale, judge, low, made, high))
        progress(len(truths), total)

    notes = dict(judge.notes)
    means: dict[str, dict[str, Any]] = {
        key: {**_mean(found[key], notes), "ms_per_tile": _milliseconds(model, request.scale, upscaler.device)}
        for key, model in models.items()
    }
    result: dict[str, Any] = {
        "model": name,
        "sha256": upscaler.descriptor.sha256,
        "parameters": parameters(upscaler.network),
        "scale": request.scale,
        "degradation": request.degradation,
        "radiometry": radiometry,
        "bands": [red, green, blue],
        "device": str(upscaler.device),
        "images": len(truths),
        **means[name],
        "niqe_truth": _mean(truths, {})["niqe"],
    }
    if name != BASELINE:
        result[BASELINE] = means[BASELINE]
    if beside:
        result["beside"] = {key: means[key] for key in beside}
    page = None
    if request.page:
        plain = re.sub(r"[^\w.-]", "_", name)
        page = request.page / f"evaluate-{plain}-x{request.scale}-{request.degradation}.html"
        write_comparison(page, f"{name}, \u00d7{request.scale}, {request.degradation}", _summary(result), rows)
    skipped = {str(each.path): each.reason for images in splits for each in images.skipped}
    listed = [{"path": path, "reason": reason} for path, reason in skipped.items()]
    return {**result, "skipped": listed, "notes": notes, "page": str(page) if page else None}


def table(result: Mapping[str, Any]) -> str:
    """The result of `evaluate` as lines for people: the model, bicubic and the truth beside each other."""
    columns: dict[str, Mapping[str, Any]] = {result["model"]: result, **result.get("beside", {})}
    if BASELINE in result:
        columns[BASELINE] = result[BASELINE]
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


def _splits(request: EvaluateRequest, reading: DataConfig, notes: dict[str, str]) -> list[Images]:
    """The images of the split or splits asked for; of all where none is for validation, which a note then says."""
    found: list[Images] = []
    problems: list[DataError] = []
    splits: tuple[Literal["validation", "train"], ...] = ("validation", "train")
    for split in splits:
        try:
            found.append(Images(request.data, split, reading, math.ceil(SMALLEST / SHORTEST)))
        except DataError as error:
            problems.append(error)
        if found and not request.every:
            break
    if not found:
        raise problems[0]
    if problems and not request.every:
        notes["images"] = "none falls into the validation split, so all were measured; training may have seen them"
    return found


def _whole(splits: Sequence[Images], count: int, scale: int) -> Iterator[tuple[str, Tensor]]:
    """Up to `count` images, spread evenly, by title; of large ones the middle.

    Those that cannot be used join their split's `skipped`. Raises DataError where that leaves none.
    """
    places, seen = [], Counter[str]()
    for images in splits:
        for index, name in enumerate(images.names()):
            # The blocks of a large file share its name.
            seen[name] += 1
            places.append((images, index, name if seen[name] == 1 else f"{name} ({seen[name]})"))
    order = np.linspace(0, len(places) - 1, count).round().astype(int).tolist()
    given = 0
    # The others stand by for those that cannot be used.
    for images, index, title in (places[k] for k in dict.fromkeys([*order, *range(len(places))])):
        try:
            image = _middle(torch.from_numpy(images.image(index)), TILE)
            if not image.isfinite().all():
                raise UnusableError("lacks data in its middle")
        except UnusableError as reason:
            images.skipped.append(Skipped(images.folder.parent / images.names()[index], str(reason)))
            continue
        height, width = (side // scale * scale for side in image.shape[1:])
        yield title, image[:, :height, :width]
        given += 1
        if given == count:
            return
    if not given:
        raise DataError(f"{splits[0].folder}: no image can be read: look at the images")


def _degradation(request: EvaluateRequest, reading: DataConfig) -> PublishedDegradation | SensorDegradation:
    if request.degradation == "published":
        return PublishedDegradation()
    known: dict[str, BandName] = {name: name for name in RESPONSES}
    try:
        first, second, third = (known[band.lower()] for band in reading.bands)
    except KeyError as error:
        raise DataError(
            f"the sensor's {error.args[0]} is not known: give bands among {', '.join(known)}, or another degradation"
        ) from None
    return SensorDegradation(bands=(first, second, third))


def _generator(seed: int, title: str) -> torch.Generator:
    """By name: an image is degraded alike whatever else lies in the folder, and wherever that lies."""
    digest = hashlib.sha256(os.fsencode(f"{seed}/{Path(title).name}")).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


def _mean(figures: Iterable[Figures], notes: dict[str, str]) -> Figures:
    """Over the images that have the figure; a note where they are not all."""
    found = list(figures)
    means: Figures = {}
    for name in found[0]:
        values = [value for each in found if (value := each[name]) is not None and math.isfinite(value)]
        means[name] = statistics.fmean(values) if values else None
        if len(values) < len(found) and name not in notes:
            reason = " (it takes 192 x 192 pixels that are not flat)" if name == "niqe" else ""
            notes[name] = f"{len(found) - len(values)} of {len(found)} images have none{reason}"
    return means


def _milliseconds(model: Enlarge, scale: int, device: torch.device) -> float:
    side = TILE // scale
    tile = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(device) * 2 - 1
    times = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        model(tile)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[1:])  # the first one also fetches kernels and memory


def _row(title: str, scale: int, judge: Judge, low: Tensor, made: Mapping[str, Tensor], high: Tensor) -> Row:
    """The middle of one image, small pixels repeated to the size of the others."""
    names = [BASELINE, *(name for name in made if name != BASELINE)]
    nearest = F.interpolate(low, scale_factor=scale, mode="nearest")
    views = {"low resolution": nearest, **{name: made[name] for name in names}, "truth": high}
    pictures = {caption: _picture(judge.shown(_middle(image[0], CROP))) for caption, image in views.items()}
    return Row(title, pictures)


def _picture(image: Tensor) -> NDArray[np.uint8]:
    return (metrics.eight_bits(image) * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()


def _middle(image: Tensor, side: int) -> Tensor:
    """At most `side` pixels each way, around the centre of [..., y, x]."""
    top, left = (max(0, length - side) // 2 for length in image.shape[-2:])
    return image[..., top : top + side, left : left + side]


def _summary(result: Mapping[str, Any]) -> str:
    shown = ("psnr_y", "ssim_y", "lpips", "niqe", "spectrum_rmse", "sam_deg")
    figures = ", ".join(f"{name} {result[name]:.4g}" for name in shown if result[name] is not None)
    return f"Means over {result['images']} images: {figures}. Pixels of the low resolution are shown as squares."
