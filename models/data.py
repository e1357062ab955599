"""Images to learn from: a folder of files or a Zarr store in, sharp crops [3, y, x] in [0, 1] out.

Which images are for validation follows from their names alone, so it never moves; which crop comes when follows from
the seed and a number, so a run can go on where it was killed.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from .config import Config
from .errors import DataError
from .rasters import SUFFIXES, Raster, UnusableError, open_raster

BLOCK = 1024
"""Side of the parts that rasters larger than twice this are cut into, each a site of its own."""

TOLERANCE = 1.1
"""Images up to this factor coarser than `gsd` are taken as they are."""

ATTEMPTS = 100
"""Crops tried before a data set counts as unreadable, or as empty of data."""

_YEAR = re.compile(r"(19|20)\d{2}")


class DataConfig(Config):
    """What is read, and how it is varied."""

    bands: tuple[str, str, str] = ("red", "green", "blue")
    """Three channels. A file whose bands have no names holds red, green, blue and, fourth, nir."""
    gsd: Annotated[float, Field(gt=0)] | None = None
    """Metres a pixel: finer images are averaged to it, coarser ones left out. None takes pixels as they are."""
    white: Annotated[float, Field(gt=0)] | None = None
    """The number that becomes 1, after a file's own scale and offset; needed for all but plain 8-bit images."""
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


@dataclass(frozen=True)
class _Part:
    """A raster, or one block of a large one, in the raster's own pixels."""

    raster: Raster
    row: int
    col: int
    height: int
    width: int
    factor: float
    """Own pixels a pixel of what is given out; 1 where nothing is averaged."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of what is given out."""
        return int(self.height / self.factor + 1e-6), int(self.width / self.factor + 1e-6)


class Images:
    """The images of one split, in the order of their names."""

    def __init__(self, folder: Path, split: Literal["train", "validation"], config: DataConfig, crop: int) -> None:
        """`folder`: a folder of images, searched through, or a Zarr store. Images smaller than `crop` are skipped.

        Raises DataError where nothing is left of the split.
        """
        self.folder, self.config, self.crop_size = folder, config, crop
        self.skipped: list[Skipped] = []
        self._parts: list[_Part] = []
        self._cache: OrderedDict[int, NDArray[np.float32]] = OrderedDict()
        self._cached = 0
        paths = _paths(folder)
        for path in paths:
            try:
                raster = open_raster(path, config.bands, config.white)
                self._parts += self._usable(raster, split)
            except UnusableError as reason:
                self.skipped.append(Skipped(path, str(reason)))
        if not self._parts:
            reasons = "".join(f"; {each.path} {each.reason}" for each in self.skipped[:1])
            raise DataError(
                f"{folder} has no image for {split} among {len(paths)} files, {len(self.skipped)} of them skipped"
                f"{reasons}: give more PNG, JPEG or GeoTIFF images, or a Zarr store"
            )

    def __len__(self) -> int:
        return len(self._parts)

    def names(self) -> list[str]:
        """Of each image, its path below the folder."""
        return [str(part.raster.path.relative_to(self.folder.parent)) for part in self._parts]

    def image(self, index: int) -> NDArray[np.float32]:
        """A whole image [3, y, x] in [0, 1], at `gsd` where that is set; NaN without data. Raises UnusableError."""
        known = self._cache.get(index)
        if known is not None:
            self._cache.move_to_end(index)
            return known
        part = self._parts[index]
        data = np.clip(part.raster.read(part.row, part.col, part.height, part.width), 0, 1)
        if part.factor != 1:
            height, width = part.size
            down, across = _averaging(part.height, height, part.factor), _averaging(part.width, width, part.factor)
            data = np.einsum("ij,cjk,lk->cil", down, data, across, optimize=True).astype(np.float32)
        self._cache[index] = data
        self._cached += data.nbytes
        while self._cached > self.config.cache_mb << 20:
            self._cached -= self._cache.popitem(last=False)[1].nbytes
        return data

    def draw(self, rng: np.random.Generator) -> NDArray[np.float32]:
        """A crop [3, crop, crop] of an image, both drawn by `rng`, turned as the settings say.

        A file that turns out to be damaged is named on standard error, once, and another one is taken, as is another
        crop where data are missing. Raises DataError where that does not help.
        """
        for _ in range(ATTEMPTS):
            index = int(rng.integers(len(self._parts)))
            height, width = self._parts[index].size
            row, col = (int(rng.integers(side - self.crop_size + 1)) for side in (height, width))
            turns = int(rng.integers(8))
            try:
                image = self.image(index)
            except UnusableError as reason:
                self._skip(index, reason)
                continue
            crop = image[:, row : row + self.crop_size, col : col + self.crop_size]
            if np.isfinite(crop).all():
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
            try:
                image = self.image(index)
            except UnusableError as reason:
                self._skip(index, reason)
                continue
            row, col = ((side - self.crop_size) // 2 for side in image.shape[1:])
            crop = image[:, row : row + self.crop_size, col : col + self.crop_size]
            if np.isfinite(crop).all():
                found.append(np.ascontiguousarray(crop))
        if not found:
            raise DataError(f"{self.folder}: no image of the split can be read: look at the images")
        return found

    def _usable(self, raster: Raster, split: str) -> Iterator[_Part]:
        """The raster's parts of the split. Raises UnusableError where none is large enough or fine enough."""
        factor = 1.0
        if self.config.gsd is not None:
            if raster.gsd is None:
                raise UnusableError("does not say how large its pixels are, and data.gsd asks for metres")
            factor = self.config.gsd / raster.gsd
            if factor < 1 / TOLERANCE:
                raise UnusableError(f"has pixels of {raster.gsd:g} m, coarser than {self.config.gsd:g} m")
            # Hardly any averaging would only blur.
            factor = 1.0 if factor < TOLERANCE else factor
        parts = list(_parts(raster, factor))
        parts = [(site, part) for site, part in parts if min(part.size) >= self.crop_size]
        if not parts:
            size = f"{round(raster.width / factor)} x {round(raster.height / factor)}"
            raise UnusableError(f"is smaller than a crop ({size} against {self.crop_size} pixels)")
        for site, part in parts:
            if (_share(site) < self.config.validation) == (split == "validation"):
                yield part

    def _skip(self, index: int, reason: UnusableError) -> None:
        path = self._parts[index].raster.path
        if path not in {each.path for each in self.skipped}:
            self.skipped.append(Skipped(path, str(reason)))
            sys.stderr.write(f"{path} {reason}: skipped\n")


class Batches(Dataset[Tensor]):
    """Item n is batch n of this process: [batch, 3, crop, crop], a function of (seed, n, rank) alone."""

    def __init__(self, images: Images, batch: int, seed: int, rank: int = 0) -> None:
        self.images, self.batch, self.seed, self.rank = images, batch, seed, rank

    def __getitem__(self, n: int) -> Tensor:
        rng = np.random.default_rng((self.seed, n, self.rank))
        return torch.from_numpy(np.stack([self.images.draw(rng) for _ in range(self.batch)]))


def site_of(path: Path) -> str:
    """What a file shows: its name without a year between underscores, so that all years of a place stay together."""
    parts = path.stem.split("_")
    kept = [part for part in parts if not _YEAR.fullmatch(part)]
    return "_".join(kept or parts)


def _share(site: str) -> float:
    """Where in [0, 1) a site falls; those below the share of validation are held out."""
    return int.from_bytes(hashlib.sha256(site.encode()).digest()[:8]) / 2**64


def _paths(folder: Path) -> list[Path]:
    """Image files and stores below a folder, sorted; the folder itself where it is a store."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: give one of images, or a Zarr store")
    if folder.suffix == ".zarr":
        return [folder]
    found = []
    for path in folder.rglob("*"):
        inside = any(parent.suffix == ".zarr" for parent in path.relative_to(folder).parents)
        if not inside and (path.suffix == ".zarr" or (path.suffix.lower() in SUFFIXES and path.is_file())):
            found.append(path)
    return sorted(found)


def _parts(raster: Raster, factor: float) -> Iterator[tuple[str, _Part]]:
    """The raster whole, or in blocks where it is large; each with the name of its site."""
    site = site_of(raster.path)
    if max(raster.height, raster.width) <= 2 * BLOCK:
        yield site, _Part(raster, 0, 0, raster.height, raster.width, factor)
        return
    for row in range(0, raster.height, BLOCK):
        for col in range(0, raster.width, BLOCK):
            height, width = min(BLOCK, raster.height - row), min(BLOCK, raster.width - col)
            yield f"{site}/{row}/{col}", _Part(raster, row, col, height, width, factor)


def _averaging(before: int, after: int, factor: float) -> NDArray[np.float32]:
    """[after, before]: row i averages the pixels that [i, i + 1] * factor covers, by the share that it covers."""
    starts = np.arange(after)[:, None] * factor
    pixels = np.arange(before)[None, :]
    covered = np.minimum(starts + factor, pixels + 1) - np.maximum(starts, pixels)
    return np.asarray(np.clip(covered, 0, 1) / factor, np.float32)


def _turned(crop: NDArray[np.float32], turns: int, augment: str) -> NDArray[np.float32]:
    """`turns` in 0..7: the lowest bit mirrors left and right, the others turn by 90 degrees, if that is wanted."""
    crop = crop[..., ::-1] if turns & 1 else crop
    return np.rot90(crop, turns >> 1, (1, 2)) if augment == "dihedral" else crop
