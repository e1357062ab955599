"""Pictures for the before/after page: which ground to show, how to make numbers visible, and the encoded images.

In: a scene and the mosaic made of it. Out: pairs of images over exactly the same ground, with one contrast
stretch for all of them. Nothing is random: equal stores give equal bytes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image

from rsup.models.base.radiometry import ADD_OFFSET, DN_MAX, NODATA, SCALE_FACTOR
from rsup.pipeline.lattice import Window
from rsup.pipeline.scenes.scene import Scene

from .store import array_of

OVERVIEW = 1024
"""Longest side of the overview's 10 m image, in pixels; coarser where the scene is larger."""
SHARP = 2048
"""Longest side of its super-resolved image."""
DETAIL = 512
"""Side of a detail's super-resolved image."""
DETAILS = 4
CANDIDATES = 32
"""Most places that are looked at in the choice of details."""
DARKEST = 40
"""Grey of what is valid and least in a map, which nodata is not."""
STRIP = 2**22
"""Scene pixels of a band that are averaged at once."""


@dataclass(frozen=True)
class BeforeAfter:
    """One piece of ground twice: stored numbers [band, y, x], nodata 0; `after` has a whole multiple of the pixels."""

    window: Window
    before: NDArray[np.uint16]
    after: NDArray[np.uint16]
    coarser: int = 1
    """Scene pixels that the side of a `before` pixel covers."""


@dataclass(frozen=True)
class Stretch:
    """Stored numbers -> brightness 0..255: a straight line a band between two percentiles, then gamma."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    GAMMA = 1.5
    BRIGHTEST = 0.35
    """Reflectance above which nothing counts: clouds must not leave the land black."""

    @classmethod
    def of(cls, image: NDArray[np.uint16]) -> Stretch:
        """From the valid pixels of `image` [band, y, x]."""
        valid = image[:, (image != NODATA).all(axis=0)]
        if not valid.size:
            return cls((0.0,) * len(image), (1.0,) * len(image))
        ceiling = (cls.BRIGHTEST - ADD_OFFSET) / SCALE_FACTOR
        low, high = np.percentile(np.minimum(valid, ceiling), (0.5, 99.0), axis=1)
        # A span of 0.02 reflectance at least: the noise of a calm lake is not worth a picture.
        high = np.maximum(high, low + 0.02 / SCALE_FACTOR)
        return cls(tuple(low.tolist()), tuple(high.tolist()))

    def __call__(self, image: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """[band, y, x] -> [y, x, band]; nodata is black."""
        shown = np.stack([table[band] for table, band in zip(self._tables, image, strict=True)], axis=-1)
        shown[(image == NODATA).any(axis=0)] = 0
        return shown

    @cached_property
    def _tables(self) -> NDArray[np.uint8]:
        """Of each band, the brightness of every number: powers of pixels would be most of what a page takes."""
        low, high = (np.array(end, np.float32)[:, None] for end in (self.low, self.high))
        shade = np.clip((np.arange(DN_MAX + 1, dtype=np.uint16) - low) / (high - low), 0, 1) ** (1 / self.GAMMA)
        return np.asarray((255 * shade + 0.5).astype(np.uint8))


def shown_bands(bands: Sequence[str]) -> tuple[str, ...]:
    """True colour where it is there, else the first three bands, else the first one (grey)."""
    true_colour = ("red", "green", "blue")
    if set(true_colour) <= set(bands):
        return true_colour
    return tuple(bands[:3]) if len(bands) >= 3 else tuple(bands[:1])


def overview(scene: Scene, store: Path, bands: Sequence[str]) -> BeforeAfter:
    """The whole of the mosaic, from the level of the pyramid that has the right size."""
    area, scale = scene.aoi, scale_of(scene, store)
    coarser = 1
    while max(area.height, area.width) > OVERVIEW * coarser:
        coarser *= 2
    before = averaged(scene, bands, area, coarser)
    finer = scale
    while finer > 1 and max(before.shape) * finer > SHARP:
        finer //= 2
    factor = scale * coarser // finer
    group = zarr.open_group(store, mode="r")
    level: Any = group if factor == 1 else group[str(factor)]
    sharp = np.stack([level[band][:] for band in bands])
    # The last 10 m pixel may be cut at the mosaic's edge; what it lacks is nodata.
    after = np.zeros((len(bands), before.shape[1] * finer, before.shape[2] * finer), np.uint16)
    after[:, : sharp.shape[1], : sharp.shape[2]] = sharp[:, : after.shape[1], : after.shape[2]]
    return BeforeAfter(area, before, after, coarser)


def details(scene: Scene, store: Path, bands: Sequence[str], stretch: Stretch, whole: BeforeAfter) -> list[BeforeAfter]:
    """Up to four squares where the scene has most detail and no nodata, best first and not side by side.

    `whole`: the overview, out of which they are cut where it has the scene's own pixels.
    """
    scale, area = scale_of(scene, store), scene.aoi

    def before(place: Window) -> NDArray[np.uint16]:
        return whole.before[:, *place.within(area)] if whole.coarser == 1 else scene.read(bands, place)

    size = min(DETAIL // scale, area.height, area.width)
    down, along = area.height // size, area.width // size
    picks = np.unique(np.linspace(0, down * along - 1, min(down * along, CANDIDATES)).round().astype(int))
    scored = []
    for row, col in (divmod(int(pick), along) for pick in picks):
        place = replace(area, row=area.row + row * size, col=area.col + col * size, height=size, width=size)
        image = before(place)
        if (image != NODATA).all():
            scored.append((_detail(stretch(image)), place))
    scored.sort(key=lambda pair: (-pair[0], pair[1]))
    chosen: list[Window] = []
    for _, place in scored:
        if len(chosen) < DETAILS and all(place.grow(size).intersect(other) is None for other in chosen):
            chosen.append(place)
    arrays: list[Any] = [zarr.open_array(store / band, mode="r") for band in bands]
    pairs = []
    for place in chosen:
        rows, cols = (slice(s.start * scale, s.stop * scale) for s in place.within(area))
        pairs.append(BeforeAfter(place, before(place), np.stack([array[rows, cols] for array in arrays])))
    return pairs


def uncertainty_map(store: Path, names: Sequence[str]) -> NDArray[np.float32]:
    """Mean of the arrays `names`, which say how far bands may be off: DN [y, x], NaN where none is valid.

    From the finest level of the pyramid whose longer side is at most OVERVIEW pixels.
    """
    root = zarr.open_group(store, mode="r")
    layout: Any = root.attrs["multiscales"]
    level = next(level for level in layout["layout"] if max(level["spatial:shape"]) <= OVERVIEW)
    planes = np.stack([np.asarray(array_of(root, f"{level['asset']}/{name}")[:]) for name in names])
    valid = (planes != NODATA).sum(0)
    return np.where(valid, planes.sum(0, dtype=np.float32) / np.maximum(valid, 1), np.nan).astype(np.float32)


def shaded(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.uint8]:
    """[y, x] -> grey [y, x, 1]: from DARKEST at `low` to white at `high`; NaN is black."""
    share = np.clip((values - low) / max(high - low, 1), 0, 1)
    return np.asarray(np.nan_to_num(DARKEST + (255 - DARKEST) * share + 0.5).astype(np.uint8)[:, :, None])


def scale_of(scene: Scene, store: Path) -> int:
    """How many mosaic pixels a scene pixel's side became."""
    width: Any = zarr.open_group(store, mode="r").attrs["spatial:shape"]
    return int(width[1]) // scene.aoi.width


def data_uri(image: NDArray[np.uint8]) -> str:
    """[y, x, band] as a data: address; PNG where it is small, for its pixels will be seen as squares, else JPEG."""
    picture = Image.fromarray(image if image.shape[2] == 3 else image[:, :, 0])
    buffer = io.BytesIO()
    if max(image.shape) <= 128:
        picture.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        large = max(image.shape) > 2 * DETAIL  # the overview: many pixels, none of them looked at closely
        # Without `optimize`: for that Pillow needs the whole file to fit a buffer that noisy pictures overrun.
        picture.save(buffer, "JPEG", quality=78 if large else 86, subsampling=2 if large else 0)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def averaged(scene: Scene, bands: Sequence[str], area: Window, factor: int) -> NDArray[np.uint16]:
    """The scene in pixels `factor` times larger, the mean of the valid ones; read in strips."""
    if factor == 1:
        return scene.read(bands, area)
    width = -(-area.width // factor)
    strips = []
    tall = factor * max(1, STRIP // (factor * area.width))
    for top in range(area.row, area.stop_row, tall):
        # Beyond the area there may be ground, but the mosaic ends there.
        strip = replace(area, row=top, height=min(tall, area.stop_row - top))
        rows = -(-strip.height // factor)
        padded = np.zeros((len(bands), rows * factor, width * factor), np.uint16)
        padded[:, : strip.height, : strip.width] = scene.read(bands, strip)
        blocks = padded.reshape(len(bands), rows, factor, width, factor)
        count = (blocks != NODATA).sum(axis=(2, 4), dtype=np.uint32)
        strips.append(blocks.sum(axis=(2, 4), dtype=np.uint32) // np.maximum(count, 1))
    return np.concatenate(strips, axis=1).astype(np.uint16)


def _detail(image: NDArray[np.uint8]) -> float:
    """Mean step from pixel to pixel of a stretched image, where clouds are flat because they are white."""
    grey = image.astype(np.float32).mean(axis=2)
    return float(sum(np.abs(np.diff(grey, axis=axis)).sum() for axis in (0, 1)) / grey.size)


def ground(window: Window) -> str:
    """Extent for people: "640 m x 640 m" or "12.8 km x 9.6 km"."""
    width, height = window.width * window.gsd, window.height * window.gsd
    unit, divisor = ("km", 1000) if max(width, height) >= 1000 else ("m", 1)
    return f"{width / divisor:g} {unit} \u00d7 {height / divisor:g} {unit}"
