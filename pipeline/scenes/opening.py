"""Opening a scene: a path in, a `Scene` out that keeps the contract, or a SceneError with the line that it breaks."""

from __future__ import annotations

import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rsup.models.base.errors import SceneError
from rsup.models.base.progress import say
from rsup.models.base.radiometry import ADD_OFFSET, DN_ZERO, NODATA, SCALE_FACTOR
from rsup.models.sensors import first_light
from rsup.pipeline.lattice import Window, snap

from . import remedies
from . import store as store_scene
from . import tiff as tiff_scene
from .attributes import SceneAttributes, interval
from .foreign.numbers import BRIGHT, HOW, LOOKS, Said
from .remote import ScenePath, main_object
from .scene import Scene

NOTHING = Said()
LOOK = (4, 128)
"""A coarse look at a scene: so many squares each way, of so many pixels a side."""
DARKEST = 900
"""A reflectance of -0.01: darker ground is seen in places, and not nearly everywhere."""
TWICE, MOST = 0.01, 0.99
"""A scale below which numbers of 0 to 1, scaled already, make no image: so much of it is then the same."""
BLANK = 0.001
"""Share of pixels that are 0 in every band from which 0 may be nodata: shade and water are so here and there."""
DOUBTED = 0.95
"""Share of negative reflectances from which a scene is doubted: water and shadow have many, none has nearly all."""


def open_scene(path: str | ScenePath, said: Said = NOTHING) -> Scene:
    """Open a Zarr store or GeoTIFF, check it against the scene contract line by line, and take a coarse look at it.

    `said`: what the user says of its numbers. Raises SceneError, naming the broken line and the remedy.
    """
    path = Path(path) if isinstance(path, str) else path
    is_store = _is_store(path) if isinstance(path, Path) else main_object(path) and path.is_dir()
    described = (store_scene if is_store else tiff_scene).describe(path, said)
    try:
        words = {key: value for key, value in described.words.items() if key != "aoi" or is_store}
        attributes = SceneAttributes.model_validate(words)
        aoi = _aoi(path, attributes.aoi, described.window)
    except ValidationError as error:
        raise SceneError(
            f"{path}: its aoi is not [west, south, east, north] in metres; do without: {remedies.forget_aoi(path)}"
        ) from error
    scene = Scene(
        path,
        described.crs,
        described.window,
        aoi,
        described.bands,
        {
            "items": [item.model_dump(exclude_none=True) for item in attributes.items],
            "left_out": [item.model_dump(exclude_none=True) for item in attributes.left_out],
        },
        described.layers,
        described.classes,
        described.origin,
        interval(described.words) or _since_launch(path),
        described.numbers,
    )
    return _looked_at(scene, said)


def _is_store(path: Path) -> bool:
    """Whether it is a folder. Raises SceneError for what is neither that nor a file that can be read."""
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode):
            path.open("rb").close()
    except FileNotFoundError:
        raise SceneError(f"{path} does not exist: give a scene store made by `rsup fetch`, or a GeoTIFF") from None
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or error
        raise SceneError(f"{path} cannot be opened ({words}): check its name and who may read it") from error
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        raise SceneError(f"{path} is a pipe or a device; give a scene store made by `rsup fetch`, or a GeoTIFF")
    return stat.S_ISDIR(found.st_mode)


def _aoi(path: ScenePath, bounds: list[float] | None, window: Window) -> Window:
    if bounds is None:
        return window
    west, south, east, north = bounds
    aoi = snap((west, south, east, north)).intersect(window)
    if aoi is None:
        raise SceneError(
            f"{path}: its aoi ({', '.join(f'{edge:g}' for edge in bounds)}) lies outside its pixels; "
            f"do without: {remedies.forget_aoi(path)}"
        )
    return aoi


def _since_launch(path: ScenePath) -> tuple[datetime, datetime] | None:
    """From any sensor's first light to the file's last change: the scene is no younger. None for a clock set back."""
    if isinstance(path, Path):
        files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
        seconds = max(file.stat().st_mtime for file in files)
    else:
        seconds = main_object(path).modified.timestamp()
    changed = datetime.fromtimestamp(int(seconds), UTC)
    return (first_light(), changed) if changed > first_light() else None


def _looked_at(scene: Scene, said: Said) -> Scene:
    """The scene, without a classification that says nothing; refused where its numbers can be no reflectance.

    A picture or numbers of another kind under the words of the contract are reflectances around -0.1. Dark water may be
    negative nearly everywhere, but only just.
    """
    times, side = LOOK
    classified, numbers, blank = False, [], [0]
    nothing = _zero_that_may_be_nothing(scene, said)
    for row in range(times):
        for col in range(times):
            place = _square(scene.aoi, row, col, times, side)
            try:
                data = scene._numbers(list(scene.layers), place)
                numbers.append(data[data != NODATA])
                blank.append(0 if nothing is None else int((data == nothing).all(axis=0).sum()))
                if scene.classes is not None and not classified:
                    classes = scene._numbers([scene.classes], place)[0]
                    classified = bool((classes != 0)[(data != NODATA).any(axis=0)].any())
            except SceneError as error:
                if error.__cause__ is None:
                    raise
                # Damaged, which is for the chunk to say that needs it: the others can be done.
    valid = np.concatenate(numbers) if numbers else np.zeros(0, np.uint16)
    foreign = [numbers for numbers in scene.numbers if numbers is not None]
    if valid.size and foreign:
        if (bright := float(np.median(valid)) * SCALE_FACTOR + ADD_OFFSET) > BRIGHT:
            raise SceneError(
                f"{scene.path}: half of its numbers, {foreign[0]}, are a reflectance of {bright:.3g} or more, which "
                f"nothing has (0 to 1); {HOW}"
            )
        # Numbers of 0 to 1 under a scale of 0.0001 are all nearly 0, beside what the offset adds.
        apart = np.abs(valid.astype(np.int32) - foreign[0].of_nothing)
        if foreign[0].scale < TWICE and np.quantile(apart, MOST) <= 2:
            raise SceneError(
                f"{scene.path}: its numbers, {foreign[0]}, are all the same reflectance, as where they were scaled "
                "already and would be a second time; say --input-scale 1 --input-offset 0 where they are reflectance"
            )
        if (share := sum(blank) * len(scene.layers) / valid.size) > BLANK:
            raise SceneError(
                f"{scene.path}: {share:.1%} of its pixels are 0 in every band, and nothing says whether 0 stands for "
                "nothing: say --input-nodata 0 where it does, and --input-nodata nan where it is a reflectance"
            )
        if foreign[0].by == LOOKS:
            say(f"{scene.path}: its numbers have no scale, and are read as the reflectance that they look like")
    if valid.size >= 100:
        if np.mean(valid < DARKEST) > DOUBTED:
            raise SceneError(
                f"{scene.path}: its reflectance is below {DARKEST * SCALE_FACTOR + ADD_OFFSET:g} nearly everywhere "
                f"(median {np.median(valid) * SCALE_FACTOR + ADD_OFFSET:.3f}): its numbers are not "
                "reflectance * 10000 + 1000, whatever it says of them; give the bands themselves"
            )
        if np.mean(valid < DN_ZERO) > DOUBTED:
            say(f"{scene.path}: its reflectance is below 0 nearly everywhere; are its numbers what it says of them?")
    return scene if classified or scene.classes is None else replace(scene, classes=None)


def _zero_that_may_be_nothing(scene: Scene, said: Said) -> NDArray[np.uint16] | None:
    """The stored number [band, 1, 1] of 0, where nobody says whether 0 is nodata: floats, with NaN for it or none."""
    numbers = [each for each in scene.numbers if each is not None]
    if said.nodata is not None or len(numbers) < len(scene.layers) or any(map(np.isfinite, numbers[0].nodata)):
        return None
    return np.array([each.of_nothing for each in numbers], np.uint16)[:, None, None]


def _square(area: Window, row: int, col: int, times: int, side: int) -> Window:
    """One of times x times squares spread over an area, smaller ones where it is small."""
    height, width = min(side, -(-area.height // times)), min(side, -(-area.width // times))
    top = area.row + (area.height - height) * row // (times - 1)
    left = area.col + (area.width - width) * col // (times - 1)
    return replace(area, row=top, col=left, height=height, width=width)
