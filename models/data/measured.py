"""Images to measure a model on: whole ones and not crops, each by a title of its own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from rsup.models.base.errors import DataError

from .images import SHORTEST, DataConfig, Images, Skipped
from .rasters import UnusableError

SMALLEST = 32
"""Side, in output pixels, under which an image is no image: SSIM's window and a border of 8 have to fit."""
TILE = 512
"""Side of the output tile whose time is measured, and the largest side of an image that is judged whole."""


def splits_of(folder: Path, reading: DataConfig, notes: dict[str, str], *, every: bool) -> list[Images]:
    """The validation split, or with `every` all splits; all as well where none is for validation, which a note says.

    Raises DataError where there is no image at all.
    """
    found: list[Images] = []
    problems: list[DataError] = []
    splits: tuple[Literal["validation", "train"], ...] = ("validation", "train")
    for split in splits:
        try:
            found.append(Images(folder, split, reading, math.ceil(SMALLEST / SHORTEST)))
        except DataError as error:
            problems.append(error)
        if found and not every:
            break
    if not found:
        raise problems[0]
    if problems and not every:
        notes["images"] = "none falls into the validation split, so all were measured; training may have seen them"
    return found


def whole_images(splits: Sequence[Images], count: int, scale: int) -> Iterator[tuple[str, Tensor]]:
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
            image = middle(torch.from_numpy(images.image(index)), TILE)
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


def middle(image: Tensor, side: int) -> Tensor:
    """At most `side` pixels each way, around the centre of [..., y, x]."""
    top, left = (max(0, length - side) // 2 for length in image.shape[-2:])
    return image[..., top : top + side, left : left + side]
