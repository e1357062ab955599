"""Fusing items into one chunk: inspected items in, stored numbers, classes and origin of each pixel out.

Every item is in stored numbers before it meets another: items of one day may carry different offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rsup.pipeline.lattice import Window

from .assets import InspectedItem, read, read_classes

STACK_BYTES = 16 * 2**20
"""Most bytes of pixels held at once for a median; more items are done in strips of fewer rows."""
MEDIAN_ROWS = 64
"""Rows whose median is taken at once."""
REACH = 3
"""Pixels of the lattice, a 20 m pixel's width and a half: as far as edges of bands and classes may lie apart."""


@dataclass(frozen=True)
class Fused:
    """A fused window."""

    data: NDArray[np.uint16]
    """[band, y, x]"""
    classes: NDArray[np.uint8]
    """[y, x], scene class of the first item that has the pixel."""
    source: NDArray[np.uint16]
    """[y, x], 1 + index of the item; 0 where there is none, and in a median, where there are many."""
    dark: int
    """Pixels that are 0 in some band of a file and were kept as the darkest number, for there is ground."""
    blank: int
    """Pixels that the classification has and no band has: `data` is 0, `classes` and (of `first`) `source` are not."""


@dataclass(frozen=True)
class _Item:
    """One item on a window."""

    data: NDArray[np.uint16]
    """[band, y, x]"""
    classes: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    """[y, x], pixels that every band has."""
    dark: NDArray[np.bool_]
    """[y, x], those of them where one has its darkest number."""
    blank: NDArray[np.bool_]
    """[y, x], ground by its class that no band has."""


def first(
    items: Sequence[tuple[int, InspectedItem]], bands: Sequence[str], window: Window, crs: str, mask: bool
) -> Fused:
    """Each pixel from the first item (numbered from 0, best first) that has it in every band."""
    shape = (window.height, window.width)
    data, classes = np.zeros((len(bands), *shape), np.uint16), np.zeros(shape, np.uint8)
    origin, dark = np.zeros(shape, np.uint16), 0
    missing = np.ones(shape, bool)
    for index, inspected in items:
        item = _read_item(inspected, bands, window, crs, mask, missing)
        if item is None:
            continue
        np.copyto(data, item.data, where=item.valid)
        dark += int((item.dark & item.valid).sum())
        missing &= ~item.valid
        # What no band has stays open to the items that follow.
        news = item.valid | (item.blank & (origin == 0))
        np.copyto(classes, item.classes, where=news)
        origin[news] = index + 1
        if not missing.any():
            break
    return Fused(data, classes, origin, dark, int((missing & (origin > 0)).sum()))


def median(
    items: Sequence[tuple[int, InspectedItem]], bands: Sequence[str], window: Window, crs: str, mask: bool
) -> Fused:
    """The median of all items that have the pixel, band by band, rounded."""
    row_bytes = 2 * max(1, len(items)) * len(bands) * window.width
    rows = max(1, min(window.height, STACK_BYTES // row_bytes))
    strips = []
    for start in range(0, window.height, rows):
        strip = replace(window, row=window.row + start, height=min(rows, window.height - start))
        strips.append(_median_strip(items, bands, strip, crs, mask))
    return Fused(
        np.concatenate([strip.data for strip in strips], axis=1),
        np.concatenate([strip.classes for strip in strips]),
        np.concatenate([strip.source for strip in strips]),
        sum(strip.dark for strip in strips),
        sum(strip.blank for strip in strips),
    )


def _median_strip(
    items: Sequence[tuple[int, InspectedItem]], bands: Sequence[str], window: Window, crs: str, mask: bool
) -> Fused:
    shape = (window.height, window.width)
    everything = np.ones(shape, bool)
    stack = np.zeros((len(items), len(bands), *shape), np.uint16)
    classes = np.zeros(shape, np.uint8)
    seen, dark, blank = np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape, bool)
    for layer, (_, inspected) in zip(stack, items, strict=True):
        item = _read_item(inspected, bands, window, crs, mask, everything)
        if item is not None:
            np.copyto(layer, item.data, where=item.valid)
            np.copyto(classes, item.classes, where=(item.valid & ~seen) | (item.blank & (classes == 0)))
            seen |= item.valid
            dark |= item.dark & item.valid
            blank |= item.blank
    return Fused(
        median_of_valid(stack), classes, np.zeros(shape, np.uint16), int(dark.sum()), int((blank & ~seen).sum())
    )


def median_of_valid(stack: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Median over the first axis of the numbers that are not 0, rounded to even; 0 where all are."""
    if not len(stack):
        return np.zeros(stack.shape[1:], np.uint16)
    # A few rows at once: the counts are many times larger than the numbers.
    blocks = [stack[..., start : start + MEDIAN_ROWS, :] for start in range(0, stack.shape[-2], MEDIAN_ROWS)]
    return np.concatenate([_median_block(block) for block in blocks], axis=-2)


def _median_block(stack: NDArray[np.uint16]) -> NDArray[np.uint16]:
    ordered = np.sort(stack, axis=0)  # nodata, 0, comes first
    empty = (stack == 0).sum(axis=0)
    count = len(stack) - empty
    low = np.take_along_axis(ordered, np.minimum(empty + (count - 1) // 2, len(stack) - 1)[None], axis=0)[0]
    high = np.take_along_axis(ordered, np.minimum(empty + count // 2, len(stack) - 1)[None], axis=0)[0]
    middle = np.rint((low.astype(np.float32) + high) / 2).astype(np.uint16)
    return np.where(count > 0, middle, np.uint16(0))


def _read_item(
    inspected: InspectedItem, bands: Sequence[str], window: Window, crs: str, mask: bool, wanted: NDArray[np.bool_]
) -> _Item | None:
    """The wanted pixels of an item; None where it has nothing that is wanted.

    0 is both nodata and the darkest number, so a band alone cannot tell them apart. Ground is where the
    classification has a class or, without one, where any band has a number; and not within REACH pixels of where
    there is none, for a 20 m pixel reaches beyond the edge of what the 10 m bands have.
    """
    from scipy.ndimage import minimum_filter  # a quarter of a second, which whoever only asks a catalogue does not need

    around = window.grow(REACH)
    inner = window.within(around)
    scheme = inspected.item.sensor.classes
    classified = scheme is not None and scheme.band.name in inspected.item.hrefs
    classes = np.zeros((window.height, window.width), np.uint8)
    has_ground: NDArray[np.bool_] = np.zeros((around.height, around.width), bool)
    if scheme is not None and classified:
        wide = read_classes(inspected, around, crs)
        classes, has_ground = wide[inner], wide > 0
        if mask:
            wanted = wanted & ~np.isin(classes, scheme.masked)
            if not wanted.any():
                return None
    with ThreadPoolExecutor(len(bands)) as pool:
        read_window = window if classified else around
        pixels = list(pool.map(lambda band: read(inspected, band, read_window, crs), bands))
    data, zero = np.stack([band.numbers for band in pixels]), np.stack([band.zero for band in pixels])
    if not classified:
        has_ground = np.asarray((data > 0).any(axis=0))
        data, zero = data[:, *inner], zero[:, *inner]
    ground = minimum_filter(has_ground, 2 * REACH + 1)[inner]
    known = (data > 0).any(axis=0) | np.isin(classes, scheme.dark if scheme else ())
    dark = (data == 0) & zero & ground & known
    for number, band in enumerate(bands):
        data[number][dark[number]] = inspected.zero(band)
    valid = (data > 0).all(axis=0)
    blank = zero.all(axis=0) & ground & (classes > 0) & ~valid
    return _Item(data, classes, wanted & valid, dark.any(axis=0), wanted & blank)
