"""Fusing items into one chunk: inspected items in, stored numbers, classes and origin of each pixel out.

Every item is in stored numbers before it meets another: items of one day may carry different offsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .grid import Window
from .reading import Source, read
from .sentinel2 import MASKED_CLASSES, SCL

STACK_BYTES = 16 * 2**20
"""Most bytes of pixels held at once for a median; more items are done in strips of fewer rows."""
MEDIAN_ROWS = 64
"""Rows whose median is taken at once."""


@dataclass(frozen=True)
class Chunk:
    """A fused window."""

    data: NDArray[np.uint16]
    """[band, y, x]"""
    classes: NDArray[np.uint8]
    """[y, x], SCL of the first item that has the pixel."""
    source: NDArray[np.uint16]
    """[y, x], 1 + index of the item; 0 where there is none, and in a median, where there are many."""


def first(sources: Sequence[tuple[int, Source]], bands: Sequence[str], window: Window, crs: str, mask: bool) -> Chunk:
    """Each pixel from the first item (numbered from 0, best first) that has it in every band."""
    shape = (window.height, window.width)
    chunk = Chunk(np.zeros((len(bands), *shape), np.uint16), np.zeros(shape, np.uint8), np.zeros(shape, np.uint16))
    for index, source in sources:
        wanted = chunk.source == 0
        if not wanted.any():
            break
        pixels = _read_item(source, bands, window, crs, mask, wanted)
        if pixels is not None:
            data, classes, valid = pixels
            valid &= wanted
            np.copyto(chunk.data, data, where=valid)
            np.copyto(chunk.classes, classes, where=valid)
            chunk.source[valid] = index + 1
    return chunk


def median(sources: Sequence[tuple[int, Source]], bands: Sequence[str], window: Window, crs: str, mask: bool) -> Chunk:
    """The median of all items that have the pixel, band by band, rounded."""
    row_bytes = 2 * max(1, len(sources)) * len(bands) * window.width
    rows = max(1, min(window.height, STACK_BYTES // row_bytes))
    strips = []
    for start in range(0, window.height, rows):
        strip = Window(window.row + start, window.col, min(rows, window.height - start), window.width)
        strips.append(_median_strip(sources, bands, strip, crs, mask))
    return Chunk(
        np.concatenate([strip.data for strip in strips], axis=1),
        np.concatenate([strip.classes for strip in strips]),
        np.concatenate([strip.source for strip in strips]),
    )


def _median_strip(
    sources: Sequence[tuple[int, Source]], bands: Sequence[str], window: Window, crs: str, mask: bool
) -> Chunk:
    shape = (window.height, window.width)
    everything = np.ones(shape, bool)
    stack = np.zeros((len(sources), len(bands), *shape), np.uint16)
    classes = np.zeros(shape, np.uint8)
    seen = np.zeros(shape, bool)
    for layer, (_, source) in zip(stack, sources, strict=True):
        pixels = _read_item(source, bands, window, crs, mask, everything)
        if pixels is not None:
            data, item_classes, valid = pixels
            np.copyto(layer, data, where=valid)
            np.copyto(classes, item_classes, where=valid & ~seen)
            seen |= valid
    return Chunk(median_of_valid(stack), classes, np.zeros(shape, np.uint16))


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
    source: Source, bands: Sequence[str], window: Window, crs: str, mask: bool, wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.uint16], NDArray[np.uint8], NDArray[np.bool_]] | None:
    """Pixels [band, y, x], classes and validity of an item; None where it has nothing that is wanted."""
    classes = np.zeros((window.height, window.width), np.uint8)
    if SCL.name in source.item.hrefs:
        classes = read(source, SCL.name, window, crs).astype(np.uint8)
        if mask:
            wanted = wanted & ~np.isin(classes, MASKED_CLASSES)
            if not wanted.any():
                return None
    data = np.empty((len(bands), window.height, window.width), np.uint16)

    def fill(number: int) -> None:
        data[number] = read(source, bands[number], window, crs)

    with ThreadPoolExecutor(len(bands)) as pool:
        list(pool.map(fill, range(len(bands))))
    return data, classes, wanted & (data > 0).all(axis=0)
