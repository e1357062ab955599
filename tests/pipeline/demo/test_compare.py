"""PSNR of a mosaic against the truth: closed forms."""

from __future__ import annotations

from math import log10
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

from rsup.models.base.errors import SceneError
from rsup.pipeline.demo.compare import psnr

BANDS = ("red", "green")


def write(path: Path, values: NDArray[np.uint16], pixel: float, west: float = 0, north: float = 0) -> Path:
    count, height, width = values.shape
    shape = {"count": count, "height": height, "width": width}
    affine = Affine(pixel, 0, west, 0, -pixel, north)
    with rasterio.open(
        path, "w", driver="GTiff", dtype="uint16", nodata=0, crs="EPSG:32633", transform=affine, **shape
    ) as target:
        target.write(values)
        target.descriptions = BANDS[:count]
    return path


@pytest.fixture
def truth(tmp_path: Path) -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(1000, 4000, (2, 1200, 96)).astype(np.uint16)


def test_a_constant_error_has_the_closed_forms_psnr(tmp_path: Path, truth: NDArray[np.uint16]) -> None:
    known = write(tmp_path / "truth.tif", truth, 1.25)
    # The mosaic covers other ground: 10 m further south and east, past the truth's edge.
    moved = np.ones((2, 1200, 96), np.uint16)
    moved[:, :-8, :-8] = truth[:, 8:, 8:]
    moved[0] += 100
    moved[:, 300:700, 10:30] = 0  # nodata does not count
    scores = psnr(write(tmp_path / "x8.tif", moved, 1.25, 10, -10), known)
    assert scores["red"] == pytest.approx(-20 * log10(0.01), abs=1e-6)
    assert scores["green"] == float("inf")


def test_a_coarser_mosaic_is_compared_with_the_truths_means(tmp_path: Path, truth: NDArray[np.uint16]) -> None:
    truth = truth // 4 * 4  # so that the mean of four is a whole number
    known = write(tmp_path / "truth.tif", truth, 1.25)
    means = truth.reshape(2, 600, 2, 48, 2).mean(axis=(2, 4))
    scores = psnr(write(tmp_path / "x4.tif", means.astype(np.uint16) + np.uint16(10), 2.5), known)
    assert scores["red"] == pytest.approx(-20 * log10(0.001), abs=1e-6)


def test_rasters_without_common_ground_are_refused(tmp_path: Path, truth: NDArray[np.uint16]) -> None:
    known = write(tmp_path / "truth.tif", truth, 1.25)
    with pytest.raises(SceneError, match="no common ground"):
        psnr(write(tmp_path / "far.tif", truth, 1.25, 5000), known)
