"""Images to learn from: a folder of files or a Zarr store in, sharp crops [band, y, x] in [0, 1] out.

Which images are for validation follows from their names alone, so it never moves; which crop comes when follows from
the seed and a number, so a run can go on where it was killed. What is in the files is rasters.py's and blocks.py's.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray
from pydantic import Field

from rsup.models.base.errors import DataError
from rsup.models.base.settings import Config

from .blocks import Block, blocks_of
from .rasters import SUFFIXES, UnusableError, open_raster

Bands = tuple[str, str, str] | tuple[str, str, str, str]

SHORTEST = 0.9
"""Of the side of a crop, the least that an image must have. What is missing is mirrored: averaging to a coarser pixel
leaves whole collections just short of a round number."""

ATTEMPTS = 100
"""Crops tried before a data set counts as unreadable, or as empty of data."""


class DataConfig(Config):
    """What is read, and how it is varied."""

    bands: Bands = ("red", "green", "blue")
    """Channels, by the names that a file gives its bands. A file without names holds red, green, blue and, fourth, nir.
    A single gray band stands for all colours, and the first of `bands` for a fourth that a file lacks."""
    gsd: Annotated[float, Field(gt=0)] | None = None
    """Metres a pixel: finer images are averaged to it, coarser ones left out. None takes pixels as they are."""
    white: Annotated[float, Field(gt=0)] | None = None
    """The number that becomes 1, after a file's own scale and offset; in plain 8-bit images it is 255, whatever this
    says."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of the sites that is held out."""
    augment: Literal["flip", "dihedral"] = "flip"
    """`flip`: left and right, as the paper does; `dihedral`: all eight turns and mirrors, for which a view from above
    has no preference but that of the shadows."""
    cache_mb: Annotated[int, Field(ge=0)] = 1024
    """Decoded images that each reading process keeps."""


@dataclass(frozen=True)
class Skipped:
    """A file that gives no image."""

    path: Path
    reason: str


class Images:
    """The images of one split, in the order of their names."""

    def __init__(self, folder: Path, split: Literal["train", "validation"], config: DataConfig, crop: int) -> None:
        """`folder`: a folder of images, searched through, or a Zarr store.

        Images with a side below SHORTEST * `crop` are skipped. Raises DataError where nothing is left of the split.
        """
        self.folder, self.config, self.crop_size = folder, config, crop
        self.skipped: list[Skipped] = []
        self._blocks: list[Block] = []
        self._cache: LRUCache[int, NDArray[np.float32]] = LRUCache(config.cache_mb << 20, attrgetter("nbytes"))
        paths = _paths(folder)
        for path in paths:
            try:
                usable = self._usable(path)
            except UnusableError as reason:
                self.skipped.append(Skipped(path, str(reason)))
                continue
            self._blocks += [part for part in usable if (part.share < config.validation) == (split == "validation")]
        if not self._blocks:
            reasons = "".join(f" (the first: {each.path} {each.reason})" for each in self.skipped[:1])
            raise DataError(
                f"{folder} has no image for {split} among {len(paths)} files, {len(self.skipped)} of them skipped"
                f"{reasons}: give more PNG, JPEG or GeoTIFF images or a Zarr store, or set data.validation, now "
                f"{config.validation:g}"
            )

    def __len__(self) -> int:
        return len(self._blocks)

    def names(self) -> list[str]:
        """Of each image, its path from the folder's name on; the blocks of a large one share it."""
        return [str(part.raster.path.relative_to(self.folder.parent)) for part in self._blocks]

    def image(self, index: int) -> NDArray[np.float32]:
        """A whole image [band, y, x] in [0, 1], at `gsd` where that is set; NaN without data. Raises UnusableError."""
        known = self._cache.get(index)
        if known is None:
            known = self._blocks[index].read()
            with suppress(ValueError):  # an image larger than the whole cache
                self._cache[index] = known
        return known

    def draw(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """A crop [band, crop, crop] of an image, both drawn by `rng`, turned as the settings say.

        A file that turns out to be damaged is named on standard error, once, and another one is taken, as is another
        crop where data are missing. Raises DataError where that does not help.
        """
        for _ in range(ATTEMPTS):
            index = int(rng.integers(len(self._blocks)))
            row, col = (int(rng.integers(max(0, side - self.crop_size) + 1)) for side in self._blocks[index].size)
            turns = int(rng.integers(8))
            crop = self._crop(index, row, col)
            if crop is not None:
                return np.ascontiguousarray(_turned(crop, turns, self.config.augment))
        raise DataError(f"{self.folder}: {ATTEMPTS} crops in a row were unreadable or lack data: look at the images")

    def centres(self, count: int) -> list[NDArray[np.float32]]:
        """Crops from the middle of up to `count` images, spread evenly over the split; raises DataError for none."""
        found: list[NDArray[np.float32]] = []
        order = np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int)
        # The others stand by for those that are damaged.
        for index in dict.fromkeys([*order.tolist(), *range(len(self))]):
            if len(found) == len(order):
                break
            row, col = (max(0, side - self.crop_size) // 2 for side in self._blocks[index].size)
            crop = self._crop(index, row, col)
            if crop is not None:
                found.append(np.ascontiguousarray(crop))
        if not found:
            raise DataError(f"{self.folder}: no image of the split can be read: look at the images")
        return found

    def _usable(self, path: Path) -> list[Block]:
        """The blocks of a file that are large enough; raises UnusableError where none is."""
        least = SHORTEST * self.crop_size
        found = blocks_of(open_raster(path, self.config.bands, self.config.white), self.config.gsd)
        usable = [part for part in found if min(part.size) >= least]
        if not usable:
            height, width = max(part.size for part in found)
            raise UnusableError(f"is smaller than a crop ({height} x {width} against {self.crop_size} pixels)")
        return usable

    def _crop(self, index: int, row: int, col: int) -> NDArray[np.float32] | None:
        """[band, crop, crop] from `row`, `col` on; mirrored at the lower and right edge where the image ends too early.

        None where data are missing, or where the file turns out to be damaged, which is said on standard error, once.
        """
        try:
            image = self.image(index)
        except UnusableError as reason:
            path = self._blocks[index].raster.path
            if path not in {each.path for each in self.skipped}:
                self.skipped.append(Skipped(path, str(reason)))
                sys.stderr.write(f"{path} {reason}: skipped\n")
            return None
        crop = image[:, row : row + self.crop_size, col : col + self.crop_size]
        if not np.isfinite(crop).all():
            return None
        down, across = (self.crop_size - side for side in crop.shape[1:])
        return np.pad(crop, ((0, 0), (0, down), (0, across)), "reflect") if down or across else crop


def _paths(folder: Path) -> list[Path]:
    """Image files and stores below a folder, through links too, sorted; the folder itself where it is a store."""
    if not os.path.isdir(folder):
        raise DataError(f"{folder} is no folder: give one of images, or a Zarr store")
    if folder.suffix == ".zarr":
        return [folder]
    found: list[Path] = []
    entered: set[str] = set()
    for root, folders, files in os.walk(folder, followlinks=True):
        here, real = Path(root), os.path.realpath(root)
        if real in entered:  # by another link, or round in a circle
            folders.clear()
            continue
        entered.add(real)
        found += [here / name for name in files if Path(name).suffix.lower() in SUFFIXES]
        found += [here / name for name in folders if name.endswith(".zarr")]
        # A store holds a file for every chunk: it is not searched.
        folders[:] = sorted(name for name in folders if not name.endswith(".zarr"))
    return sorted(found)


def _turned(crop: NDArray[np.float32], turns: int, augment: str) -> NDArray[np.float32]:
    """`turns` in 0..7: the lowest bit mirrors left and right, the others turn by 90 degrees, if that is wanted."""
    crop = crop[..., ::-1] if turns & 1 else crop
    return np.rot90(crop, turns >> 1, (1, 2)) if augment == "dihedral" else crop
