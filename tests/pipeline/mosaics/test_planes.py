"""Chunks of a mosaic store: on the disk when they are written, whole or refused, and squares read as pixels.

What becomes of a store, by writers that are killed too, is in test_store.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from rsup.models.base.intervals import DETAIL
from rsup.pipeline.lattice import Window
from rsup.pipeline.mosaics.planes import write_chunk
from rsup.pipeline.mosaics.store import create_mosaic

WINDOW, SCALE, CHUNK = Window(-500_123, 40_007, 75, 131), 8, 32
BANDS = ("red", "nir")
SIDE = CHUNK * SCALE


def create(path: Path, uncertainty: bool = False) -> None:
    create_mosaic(path, WINDOW, "EPSG:32633", SCALE, BANDS, CHUNK, {}, uncertainty)


def test_nodata_chunks_have_no_file_and_a_rerun_takes_one_away(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    create(store)
    for number in (7, 0):
        write_chunk(store, BANDS, (0, 0), np.full((2, SIDE, SIDE), number, np.uint16))
        assert (store / "red/c/0/0").is_file() == bool(number)
    with xr.open_dataset(store, engine="zarr", mask_and_scale=False) as ds:
        assert not ds["red"].values.any()


def test_a_chunk_is_durable_before_the_write_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "a.zarr"
    create(store, uncertainty=True)
    synced: list[int] = []
    fsync = os.fsync

    def remember(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", remember)
    write_chunk(store, BANDS, (0, 3), *(np.ones((2, 32 * fine, 32 * fine), np.uint16) for fine in (SCALE, DETAIL)))
    for name in (*BANDS, "red_uncertainty", "nir_uncertainty"):
        for entry in (store / name / "c/0/3", store / name / "c/0", store / name / "c", store / name):
            assert entry.stat().st_ino in synced, entry


def test_a_number_of_the_uncertainty_stands_for_a_square_of_pixels(tmp_path: Path) -> None:
    """In a chunk that the mosaic's edges cut, on the pixels that a scene's pixel became."""
    store, (rows, cols) = tmp_path / "a.zarr", (WINDOW.height - 64, WINDOW.width - 128)
    create(store, uncertainty=True)
    widths = np.random.default_rng(3).integers(1, 900, (2, rows * DETAIL, cols * DETAIL), dtype=np.uint16)
    write_chunk(store, BANDS, (2, 4), np.ones((2, rows * SCALE, cols * SCALE), np.uint16), widths)
    with xr.open_dataset(store, engine="zarr", mask_and_scale=False) as ds:
        for band, numbers in zip(BANDS, widths, strict=True):
            expected = np.zeros((WINDOW.height * SCALE, WINDOW.width * SCALE), np.uint16)
            expected[64 * SCALE :, 128 * SCALE :] = np.kron(numbers, np.ones((SCALE // DETAIL,) * 2, np.uint16))
            np.testing.assert_array_equal(ds[f"{band}_uncertainty"].values, expected)


def test_data_that_is_not_the_whole_chunk_is_refused(tmp_path: Path) -> None:
    store, whole = tmp_path / "a.zarr", np.ones((2, SIDE, SIDE), np.uint16)
    create(store, uncertainty=True)
    with pytest.raises(ValueError, match="256, 256"):
        write_chunk(store, BANDS, (0, 0), whole[..., 1:])
    with pytest.raises(ValueError, match="float32"):
        write_chunk(store, BANDS, (0, 0), whole.astype(np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="64, 64"):
        write_chunk(store, BANDS, (0, 0), whole, whole)
    assert not (store / "red/c").exists()
