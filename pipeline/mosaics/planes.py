"""The pixels of a mosaic store (store.py): finished chunks in, planes of uint16 out; no chunk touches another."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from rsup.models.base.errors import OutputError
from rsup.pipeline.cf import sync_chunk, write_block

from .store import array_of, side_of_squares, uncertainty_of


def write_chunk(
    path: Path,
    bands: Sequence[str],
    index: tuple[int, int],
    data: NDArray[np.uint16],
    widths: NDArray[np.uint16] | None = None,
) -> None:
    """Write chunk `index` (row, column of the chunk grid) of the named bands: uint16 [band, y, x], its whole extent.

    `widths`: how far they may be off, where the mosaic says so, one number a square (`side_of_squares`). On the disk
    (fsync) when it returns. No other chunk is read or written, so any number of processes may write different ones.
    Raises ValueError for data of another shape, OSError where the disk refuses.
    """
    group = zarr.open_group(path, mode="r+")
    planes = [(name, plane, 1) for name, plane in zip(bands, data, strict=True)]
    if widths is not None:
        side = side_of_squares(path)
        planes += [(uncertainty_of(name), plane, side) for name, plane in zip(bands, widths, strict=True)]
    blocks = [(array_of(group, name), plane, side) for name, plane, side in planes]
    for array, plane, side in blocks:
        _check_plane(array, index, plane, side)

    def write(array: zarr.Array[Any], plane: NDArray[np.uint16], side: int) -> None:
        write_block(array, index, plane if side == 1 else _in_squares(plane, side))

    # Side by side: while the last chunk of a mosaic is packed, the other cores have nothing else to do.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)), "planes") as pool:
        list(pool.map(write, *zip(*blocks, strict=True)))
    sync_chunk(path, [name for name, _, _ in planes], index)


def extent_of(array: zarr.Array[Any], index: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of chunk `index`, cut at the array's edge."""
    rows, cols = (
        slice(i * size, min((i + 1) * size, length))
        for i, size, length in zip(index, array.chunks, array.shape, strict=True)
    )
    return rows, cols


def read_back(array: zarr.Array[Any], window: tuple[slice, slice]) -> NDArray[np.uint16]:
    """Pixels [y, x] that a chunk's writer left. Raises OutputError where they cannot be read any more."""
    try:
        return np.asarray(array[window])
    except Exception as error:  # every codec has errors of its own
        raise OutputError(
            f"{array.store_path} cannot be read back ({error}): pass --overwrite to start afresh"
        ) from error


def _in_squares(plane: NDArray[np.uint16], side: int) -> NDArray[np.uint16]:
    """Each number [y, x] for a square of so many pixels a `side`."""
    height, width = plane.shape
    pixels = np.empty((height * side, width * side), np.uint16)
    # Rows whole: broadcast along both axes at once, numpy would copy squares number by number.
    pixels.reshape(height, side, -1)[:] = plane.repeat(side, axis=1)[:, None]
    return pixels


def _check_plane(array: zarr.Array[Any], index: tuple[int, int], plane: NDArray[Any], side: int) -> None:
    rows, cols = extent_of(array, index)
    expected = ((rows.stop - rows.start) // side, (cols.stop - cols.start) // side)
    if plane.shape != expected or plane.dtype != np.uint16:
        raise ValueError(f"chunk {index} is uint16 {expected}, not {plane.dtype} {plane.shape}")
