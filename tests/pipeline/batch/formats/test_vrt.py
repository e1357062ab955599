"""The VRT of an interval, as GDAL reads it: every COG's pixels in their place, and what they mean."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.windows import Window, from_bounds

from rsup.pipeline.batch.formats.vrt import Image, image_of, vrt_of
from rsup.pipeline.lattice import Window as Cell
from rsup.pipeline.mosaics.stac.item import stac_item

BANDS = ("red", "green", "nir")
SIDE, SCALE = 150, 4
CELLS = [Cell(row * SIDE, col * SIDE, SIDE, SIDE) for row, col in ((-3610, 210), (-3609, 213), (-3610, 211))]
"""Two that are neighbours, and one with gaps around it."""


@pytest.fixture
def cogs(tmp_path: Path) -> dict[Cell, NDArray[np.uint16]]:
    """COGs below `2024-05`, as mosaics are written, with some nodata at their edges; their pixels by their ground."""
    made, numbers = {}, np.random.default_rng(0)
    for index, cell in enumerate(CELLS):
        pixels = numbers.integers(1, 2**16, (len(BANDS), SIDE * SCALE, SIDE * SCALE)).astype(np.uint16)
        pixels[:, :7, -9:] = 0
        path = tmp_path / "2024-05" / f"cell {index}&" / "mosaic.tif"
        path.parent.mkdir(parents=True)
        profile = {"height": SIDE * SCALE, "width": SIDE * SCALE, "count": len(BANDS), "dtype": "uint16", "nodata": 0}
        with rasterio.open(
            path, "w", driver="COG", crs="EPSG:32633", transform=cell.transform(SCALE), blocksize=512, **profile
        ) as file:
            file.write(pixels)
        made[cell] = pixels
    return made


def item(cell: Cell) -> dict[str, Any]:
    model = {"name": "nearest", "sha256": "00" * 32, "header": None}
    assets = {"cog": "mosaic.tif"}
    return stac_item(
        "m", cell, "EPSG:32633", SCALE, BANDS, model, [], assets, held_by="sensor", figures={}, statistics={}
    )


@pytest.fixture
def images() -> list[Image]:
    return [image_of(item(cell), "cog", f"cell {index}&") for index, cell in enumerate(CELLS)]


def test_every_pixel_is_where_its_cog_has_it(
    cogs: dict[Cell, NDArray[np.uint16]], images: list[Image], tmp_path: Path
) -> None:
    path = tmp_path / "2024-05" / "33N_x4.vrt"
    path.write_bytes(vrt_of(images))
    with rasterio.open(path) as file:
        west, north = CELLS[0].bounds[0], CELLS[0].bounds[3]
        assert file.crs.to_epsg() == 32633 and file.transform == Affine(2.5, 0, west, 0, -2.5, north)
        assert (file.height, file.width) == (2 * SIDE * SCALE, 4 * SIDE * SCALE)
        assert file.descriptions == BANDS and set(file.dtypes) == {"uint16"} and set(file.nodatavals) == {0}
        assert set(file.scales) == {1e-4} and set(file.offsets) == {-0.1}
        assert [each.name for each in file.colorinterp] == ["red", "green", "undefined"]
        whole = file.read()
        for cell, pixels in cogs.items():
            window = from_bounds(*cell.bounds, file.transform).round_offsets().round_lengths()
            np.testing.assert_array_equal(file.read(window=window), pixels)
        gap = file.read(window=Window(0, SIDE * SCALE, SIDE * SCALE, SIDE * SCALE))
        assert not gap.any() and np.count_nonzero(whole) == sum(map(np.count_nonzero, cogs.values()))
        coarse = file.read(out_shape=(3, file.height // 4, file.width // 4))  # from the files' own overviews
        with rasterio.open(tmp_path / "2024-05" / "cell 0&" / "mosaic.tif") as cog:
            side = SIDE * SCALE // 4
            np.testing.assert_array_equal(coarse[:, :side, :side], cog.read(out_shape=(3, side, side)))


def test_equal_items_give_equal_bytes_and_no_path_of_this_machine(images: list[Image], tmp_path: Path) -> None:
    said = vrt_of(images)
    random.Random(1).shuffle(images)
    assert vrt_of(images) == said and b"cell 2&amp;/mosaic.tif" in said and str(tmp_path).encode() not in said


def test_gdal_need_not_open_the_files(
    cogs: dict[Cell, NDArray[np.uint16]], images: list[Image], tmp_path: Path
) -> None:
    """A country's thousands of files stay closed until their pixels are asked for: what is said of them is so."""
    path = tmp_path / "2024-05" / "33N_x4.vrt"
    path.write_bytes(vrt_of(images))
    for cog in path.parent.glob("*/mosaic.tif"):
        with rasterio.open(cog) as file:
            assert {(file.height, file.width)} == {(image.height, image.width) for image in images}
            for kind, shape in zip(file.dtypes, file.block_shapes, strict=True):
                stated = f'DataType="{kind.replace("ui", "UI")}" BlockXSize="{shape[1]}" BlockYSize="{shape[0]}"'
                assert path.read_text().count(stated) == len(BANDS) * len(CELLS)
        cog.unlink()
    with rasterio.open(path) as file:
        assert file.count == len(BANDS)
