"""The 10 m side of the map: the scene's own numbers where it is at hand, else the mosaic's block means, and said so."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from scenes import write_scene

from rsup.models.base.errors import SceneError
from rsup.pipeline.lattice import Window
from rsup.pipeline.mosaics.pictures import Stretch
from rsup.pipeline.scenes.opening import open_scene
from rsup.pipeline.view.find import find
from rsup.pipeline.view.mosaic import SIDE, Mosaic

from .conftest import BANDS, WINDOW, numbers


def whole(mosaic: Mosaic, factor: int) -> np.ndarray:
    """All tiles of a level as one image, and no more of them than there are."""
    down, along = (-(-side // (SIDE * factor)) for side in (WINDOW.height, WINDOW.width))
    rows = [np.concatenate([mosaic.tile(factor, row, col) for col in range(along)], 2) for row in range(down)]
    for row, col in ((down, 0), (0, along), (-1, 0)):
        with pytest.raises(LookupError):
            mosaic.tile(factor, row, col)
    return np.concatenate(rows, 1)


def means(factor: int) -> np.ndarray:
    """Of the valid numbers in squares, by the definition; NaN where there is none."""
    dn = numbers().astype(float)
    dn[dn == 0] = np.nan
    height, width = (-(-side // factor) for side in dn.shape[1:])
    out = np.full((4, height, width), np.nan)
    for y in range(height):
        for x in range(width):
            square = dn[:, y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
            if np.isfinite(square).any():
                out[:, y, x] = np.nanmean(square, axis=(1, 2))
    return out


@pytest.mark.parametrize("at_hand", [True, False])
def test_tiles_are_the_scene_or_the_block_means(viewed: Path, tmp_path: Path, at_hand: bool) -> None:
    folder = viewed / "mosaic" if at_hand else shutil.copytree(viewed / "mosaic", tmp_path / "m")
    mosaic = Mosaic.open(find(folder)[0])
    assert (mosaic.scene is not None) == at_hand
    assert (mosaic.window, mosaic.bands, mosaic.crs, mosaic.factors) == (WINDOW, BANDS, "EPSG:32631", [2, 1])
    tiles = whole(mosaic, 1)
    # The mosaic repeats the scene's pixels, so their means are the scene, exactly.
    np.testing.assert_array_equal(tiles[:, : WINDOW.height, : WINDOW.width], numbers())
    assert not tiles[:, WINDOW.height :].any() and not tiles[:, :, WINDOW.width :].any()
    coarse, expected = whole(mosaic, 2), means(2)
    seen = coarse[:, : expected.shape[1], : expected.shape[2]].astype(float)
    np.testing.assert_array_equal(seen == 0, np.isnan(expected))
    assert np.nanmax(np.abs(np.where(seen > 0, seen, np.nan) - expected)) <= 1
    with pytest.raises(LookupError):
        mosaic.tile(4, 0, 0)


def test_the_page_is_told_which_side_is_what(viewed: Path, tmp_path: Path) -> None:
    with_scene = Mosaic.open(find(viewed / "mosaic")[0]).describe("mosaics/0")
    assert with_scene["coarse"]["label"] == "scene" and "field.zarr" in with_scene["coarse"]["meaning"]
    alone = Mosaic.open(find(shutil.copytree(viewed / "mosaic", tmp_path / "m"))[0]).describe("mosaics/0")
    assert alone["coarse"]["label"] == "mosaic's means" and "not at hand" in alone["coarse"]["meaning"]
    assert alone["bounds"] == list(WINDOW.bounds) and alone["gsd"] == 2.5 and alone["crs"] == "EPSG:32631"
    assert alone["summary"] == "2.9 km × 3.3 km, 10 m to 2.5 m with nearest, 2024-06-01, EPSG:32631"
    stretch = Stretch.of(numbers())
    for band, (low, high) in enumerate(alone["stretch"]):
        assert (
            abs(low - (stretch.low[band] * 1e-4 - 0.1)) < 0.01 and abs(high - (stretch.high[band] * 1e-4 - 0.1)) < 0.01
        )


def test_a_scene_that_is_another_is_not_taken(viewed: Path, tmp_path: Path) -> None:
    (found,) = find(viewed / "mosaic")
    grown = WINDOW.grow(3)
    dn = np.full((4, grown.height, grown.width), 2000, np.uint16)
    named = write_scene(tmp_path / "named.zarr", dn, BANDS, grown, "EPSG:32631")
    assert Mosaic.open(found, named).scene == named  # a word of the user counts more than names
    cases = {
        "its grid is another one": write_scene(tmp_path / "a.zarr", dn, BANDS, grown, "EPSG:32632"),
        "it does not cover the mosaic": write_scene(
            tmp_path / "b.zarr", dn, BANDS, Window(grown.row + 100, grown.col, *dn.shape[1:]), "EPSG:32631"
        ),
        "it has no band nir": write_scene(tmp_path / "c.zarr", dn[:3], BANDS[:3], grown, "EPSG:32631"),
    }
    for wrong, scene in cases.items():
        with pytest.raises(SceneError, match=f"is not the scene of field_x4: {wrong}"):
            Mosaic.open(found, scene)
    folder = shutil.copytree(viewed / "mosaic", tmp_path / "kept" / "mosaic")
    shutil.copytree(tmp_path / "c.zarr", tmp_path / "kept" / "field.zarr")
    assert Mosaic.open(find(folder)[0]).scene is None  # of that name, but without nir


def test_a_scene_kept_in_the_folder_is_found(viewed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(viewed / "mosaic", tmp_path / "m")
    shutil.copytree(viewed / "field.zarr", folder / "field.zarr")
    assert Mosaic.open(find(folder)[0]).scene == open_scene(folder / "field.zarr")


def test_a_cog_that_is_none_is_one_sentence(viewed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(viewed / "mosaic", tmp_path / "m")
    (folder / "field_x4.tif").write_bytes(b"no image")
    with pytest.raises(SceneError, match="cannot be read as a mosaic"):
        Mosaic.open(find(folder)[0])
    profile = {"driver": "GTiff", "height": 8, "width": 8, "count": 1, "dtype": "uint8", "crs": "EPSG:32631"}
    with rasterio.open(folder / "field_x4.tif", "w", **profile, transform=rasterio.Affine(2.5, 0, 0, 0, -2.5, 0)):
        pass
    with pytest.raises(SceneError, match="not the numbers that upscale writes"):
        Mosaic.open(find(folder)[0])
