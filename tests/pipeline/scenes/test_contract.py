"""The contract with strangers: names of bands, places on the Earth, sizes of chunks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from affine import Affine
from strangers import BANDS, WINDOW, numbers, tiff

from rsup.models.base.errors import SceneError
from rsup.pipeline.scenes.opening import open_scene


@pytest.mark.parametrize(
    "names",
    [
        ("b04", "b03", "b02"),
        ("B4", "B3", "B2"),
        ("B04_10m", "B03_10m", "B02_10m"),
        ("Red", "Green", "Blue"),
        tuple(f"B{k}, central wavelength {nm} nm" for k, nm in ((4, 665), (3, 560), (2, 490))),
    ],
)
def test_a_band_is_found_whatever_it_is_called(tmp_path: Path, names: tuple[str, ...]) -> None:
    dn = numbers()
    scene = open_scene(tiff(tmp_path / "s.tif", dn, names))
    assert scene.bands == BANDS
    np.testing.assert_array_equal(scene.read(("blue", "red"), WINDOW), dn[[2, 0]])


@pytest.mark.parametrize("far", [float("nan"), float("inf"), 1e300, 1e12])
def test_a_tiff_that_lies_nowhere(tmp_path: Path, far: float) -> None:
    path = tiff(tmp_path / "s.tif", numbers(), transform=Affine(10, 0, far, 0, -10, 5_800_000))
    with pytest.raises(SceneError, match="does not say where|lies nowhere|not multiples|no CRS|are .* CRS units"):
        open_scene(path)


def test_a_long_chunk_is_read_and_a_million_small_ones_are_not(tmp_path: Path) -> None:
    """One row a strip is an ordinary TIFF; a file a pixel would take a day."""
    open_scene(tiff(tmp_path / "s.tif", numbers(), blockysize=1))
    group = zarr.create_group(tmp_path / "s.zarr")
    array = group.create_array("red", shape=(600, 600), chunks=(2, 2), dtype="uint16", dimension_names=("y", "x"))
    array.attrs.update(scale_factor=1e-4, add_offset=-0.1, _FillValue=0)
    with pytest.raises(SceneError, match="chunks of 2 x 2 pixels, too small to read; write it in others: "):
        open_scene(tmp_path / "s.zarr")
