"""The mosaic's overviews, once its chunks are there: each level averaged from the next finer one, chunk by chunk."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from rsup.models.base.errors import OutputError
from rsup.models.base.files import writing
from rsup.models.base.progress import Progress
from rsup.pipeline.cf import sync_chunk

from .store import array_of, bands_of, extent_of, uncertainties_of


def build_overviews(path: Path, progress: Progress) -> None:
    """Fill the overview groups, each from the next finer one; rerun at will.

    A pixel is the mean of the up to four valid ones it covers, rounded half up; 0 where none is valid. Holds
    one chunk and its halves at a time, whatever the mosaic's size. `progress(done, total)` counts chunks.
    Also clears away what writers killed in mid-chunk left, so it must run after the last of them.
    Raises OutputError where the disk refuses, or a chunk that was written cannot be read any more.
    """
    root = zarr.open_group(path, mode="r+")
    layout: Any = root.attrs["multiscales"]
    jobs = [
        (level["derived_from"], level["asset"], name, (row, col))
        for level in layout["layout"]
        if "derived_from" in level
        for name in (*bands_of(path), *uncertainties_of(path))
        for row, col in product(*map(range, array_of(root, f"{level['asset']}/{name}").cdata_shape))
    ]
    with writing(path, OutputError, goes_on=True):
        for leftover in path.rglob("*.partial"):
            leftover.unlink(missing_ok=True)
        for done, (source, target, name, index) in enumerate(jobs):
            progress(done, len(jobs))
            array = array_of(root, f"{target}/{name}")
            array.set_block_selection(index, _halved(array_of(root, f"{source}/{name}"), array, index))
            sync_chunk(path / target, [name], index)
    progress(len(jobs), len(jobs))


def _halved(source: zarr.Array[Any], target: zarr.Array[Any], index: tuple[int, int]) -> NDArray[np.uint16]:
    """Chunk `index` of `target`, averaged from the up to four chunks of `source` under it, one at a time."""
    height, width = source.chunks
    rows, cols = extent_of(target, index)
    out = np.zeros((rows.stop - rows.start, cols.stop - cols.start), np.uint16)
    starts = product(
        range(2 * rows.start, min(2 * rows.stop, source.shape[0]), height),
        range(2 * cols.start, min(2 * cols.stop, source.shape[1]), width),
    )
    for row, col in starts:
        try:
            fine = np.asarray(source[row : row + height, col : col + width])
        except Exception as error:  # every codec has errors of its own
            raise OutputError(
                f"{source.store_path} cannot be read back ({error}): pass --overwrite to start afresh"
            ) from error
        half = _mean_of_valid(fine)
        top, left = row // 2 - rows.start, col // 2 - cols.start
        out[top : top + half.shape[0], left : left + half.shape[1]] = half
    return out


def _mean_of_valid(fine: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Half as many pixels [y, x] (rounded up) a side: the mean of the valid ones, 0 where there is none."""
    height, width = fine.shape
    total = np.zeros((-(-height // 2), -(-width // 2)), np.uint32)
    valid = np.zeros(total.shape, np.uint8)
    for row, col in product((0, 1), (0, 1)):
        quarter = fine[row::2, col::2]
        part = (slice(quarter.shape[0]), slice(quarter.shape[1]))
        total[part] += quarter
        valid[part] += quarter > 0
    valid = np.maximum(valid, 1)
    return ((total + valid // 2) // valid).astype(np.uint16)
