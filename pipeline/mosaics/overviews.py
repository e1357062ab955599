"""The mosaic's overviews and figures, once its chunks are there: each level averaged from the next finer one.

Chunks of a level are worked on side by side. Those of the finest one are read here once, and counted on the way.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray

from rsup.models.base.errors import OutputError
from rsup.models.base.files import writing
from rsup.models.base.progress import Progress
from rsup.pipeline.cf import sync_chunk, write_block
from rsup.pipeline.machine import side_by_side

from .planes import extent_of, read_back
from .statistics import Statistics
from .store import array_of, bands_of, side_of_squares, uncertainties_of


class _Job(NamedTuple):
    """A chunk of an overview to be written."""

    source: str
    """Group of the level that it is averaged from."""
    target: str
    name: str
    """Of the array."""
    place: tuple[int, ...]
    """Row and column in the array's chunk grid."""
    square: int
    """Pixels along a side of the source's squares of equal pixels."""


def build_overviews(path: Path, progress: Progress) -> dict[str, Statistics]:
    """Fill the overview groups, each from the next finer one; rerun at will. Returns the figures of every array of
    pixels, by its name.

    A pixel is the mean of the up to four valid ones it covers, rounded half up; 0 where none is valid. Holds
    one chunk and its halves at a time for each core, whatever the mosaic's size. `progress(done, total)` counts chunks.
    Also clears away what writers killed in mid-chunk left, so it must run after the last of them.
    Raises OutputError where the disk refuses, or a chunk that was written cannot be read any more.
    """
    root = zarr.open_group(path, mode="r+")
    layout: Any = root.attrs["multiscales"]
    squares = dict.fromkeys(uncertainties_of(path), side_of_squares(path))
    names = (*bands_of(path), *squares)
    jobs = [
        _Job(level["derived_from"], level["asset"], name, index, max(1, squares.get(name, 1) >> finer))
        for finer, level in enumerate(layout["layout"][1:])
        for name in names
        for index in product(*map(range, array_of(root, f"{level['asset']}/{name}").cdata_shape))
    ]
    statistics = {name: Statistics() for name in names}
    finest = layout["layout"][0]["asset"]
    if not jobs:  # it is small
        for name in names:
            statistics[name].add(read_back(array_of(root, f"{finest}/{name}"), (slice(None), slice(None))))
    done, chunk = 0, array_of(root, f"{finest}/{names[0]}").chunks
    with writing(path, OutputError, goes_on=True):
        for leftover in path.rglob("*.partial"):
            leftover.unlink(missing_ok=True)
        with ThreadPoolExecutor(side_by_side(6 * chunk[0] * chunk[1]), "overviews") as pool:
            for source, level in groupby(jobs, lambda job: job.source):  # the next one is made of what this one writes
                of = list(level)
                for job, figures in zip(of, pool.map(partial(_fill, path, root, source == finest), of), strict=True):
                    progress(done, len(jobs))
                    done += 1
                    if figures:
                        statistics[job.name].include(figures)
    progress(len(jobs), len(jobs))
    return statistics


def _fill(path: Path, root: zarr.Group, first: bool, job: _Job) -> Statistics | None:
    """Write a chunk of an overview; where it is of the `first`, the figures of what it was made of."""
    array, figures = array_of(root, f"{job.target}/{job.name}"), Statistics() if first else None
    source = array_of(root, f"{job.source}/{job.name}")
    row, col = job.place
    write_block(array, (row, col), _halved(source, array, (row, col), job.square, figures))
    sync_chunk(path / job.target, [job.name], (row, col))
    return figures


def _halved(
    source: zarr.Array[Any], target: zarr.Array[Any], index: tuple[int, int], square: int, figures: Statistics | None
) -> NDArray[np.uint16]:
    """Chunk `index` of `target`, averaged from the up to four chunks of `source` under it, one at a time; they are
    counted in `figures`, where there are any. `square`: as of _Job.
    """
    height, width = source.chunks
    rows, cols = extent_of(target, index)
    out = np.zeros((rows.stop - rows.start, cols.stop - cols.start), np.uint16)
    starts = product(
        range(2 * rows.start, min(2 * rows.stop, source.shape[0]), height),
        range(2 * cols.start, min(2 * cols.stop, source.shape[1]), width),
    )
    for row, col in starts:
        fine = read_back(source, (slice(row, row + height), slice(col, col + width)))
        half = _mean_of_valid(fine) if square == 1 else fine[::2, ::2]
        if figures:  # shares and deviations, of which one pixel of a square says all
            figures.add(fine[::square, ::square])
        top, left = row // 2 - rows.start, col // 2 - cols.start
        out[top : top + half.shape[0], left : left + half.shape[1]] = half
    return out


def _mean_of_valid(fine: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Half as many pixels [y, x] (rounded up) a side: the mean of the valid ones, 0 where there is none."""
    height, width = fine.shape
    if height % 2 == width % 2 == 0 and fine.all():  # most are, and it takes a third of the time
        # Four numbers below a quarter of the range, as nearly all are, and a half of one fit in 16 bits: a third again.
        columns = fine[::2] + fine[1::2] if fine.max() < 1 << 14 else fine[::2].astype(np.uint32) + fine[1::2]
        return ((columns[:, ::2] + columns[:, 1::2] + 2) >> 2).astype(np.uint16, copy=False)
    total = np.zeros((-(-height // 2), -(-width // 2)), np.uint32)
    valid = np.zeros(total.shape, np.uint8)
    for row, col in product((0, 1), (0, 1)):
        quarter = fine[row::2, col::2]
        part = (slice(quarter.shape[0]), slice(quarter.shape[1]))
        total[part] += quarter
        valid[part] += quarter > 0
    valid = np.maximum(valid, 1)
    return ((total + valid // 2) // valid).astype(np.uint16)
