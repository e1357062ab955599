"""Fusing: which 0 is nodata, which is the darkest number, and what is counted of both."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer

from rsup.models.sensors.sentinel2 import SENTINEL2
from rsup.pipeline.lattice import Window
from rsup.pipeline.sources.assets import InspectedItem, inspect
from rsup.pipeline.sources.composite import REACH, Fused, first, median
from rsup.pipeline.sources.stac.catalog import ItemReference

CRS, WEST, NORTH, SIDE = "EPSG:32633", 500_000, 5_100_000, 64
WINDOW = Window(-NORTH // 10, WEST // 10, SIDE, SIDE)
WATER, VEGETATION, CLOUD = 6, 4, 9
Planes = dict[str, NDArray[Any]]


def source(
    folder: Path, planes: Planes, crs: str = CRS, wanted: int | None = -1000, corner: Window = WINDOW
) -> InspectedItem:
    """An item of `planes` [y, x] that begin at the corner; 20 m ones are half as wide."""
    home = folder / f"item{len(list(folder.iterdir()))}"
    home.mkdir()
    wide = max(plane.shape[1] for plane in planes.values())
    west, _, _, north = corner.bounds
    for band, plane in planes.items():
        size = 10 * wide // plane.shape[1]
        profile = {"crs": crs, "transform": Affine(size, 0, west, 0, -size, north), "nodata": 0, "dtype": plane.dtype}
        with rasterio.open(
            home / f"{band}.tif", "w", driver="GTiff", height=plane.shape[0], width=plane.shape[1], count=1, **profile
        ) as sink:
            sink.write(plane, 1)
    hrefs = {band: str(home / f"{band}.tif") for band in planes}
    reference = ItemReference(
        sensor=SENTINEL2, generation=(),
        id=home.name, collection=None, datetime="2024-06-10T10:00:00Z", cloud=None, platform=None, tile=None,
        segment=None, baseline="05.10", geometry=None, hrefs=hrefs, evidence_band="red",
        assets=dict.fromkeys(planes, {}), product_metadata=None, properties={"s2:processing_baseline": "05.10"},
    )  # fmt: skip
    return inspect(reference, wanted, False)


def ground(scl: int | None = VEGETATION, **bands: int) -> Planes:
    planes: Planes = {
        band: np.full((SIDE, SIDE), value, np.uint16) for band, value in ({"red": 1500, "green": 1600} | bands).items()
    }
    return planes if scl is None else planes | {"scl": np.full((SIDE // 2, SIDE // 2), scl, np.uint8)}


def fuse(how: Any, *items: InspectedItem, bands: tuple[str, ...] = ("red", "green"), mask: bool = False) -> Fused:
    return how(list(enumerate(items)), bands, WINDOW, CRS, mask)  # type: ignore[no-any-return]


HOLE = (slice(20, 30), slice(24, 40))
PIXELS = 160


@pytest.mark.parametrize("how", [first, median])
@pytest.mark.parametrize("scl", [WATER, VEGETATION, None])
@pytest.mark.parametrize(("wanted", "darkest"), [(-1000, 1), (0, 1000)])
def test_a_zero_in_one_band_is_the_darkest_number(
    tmp_path: Path, how: Any, scl: int | None, wanted: int, darkest: int
) -> None:
    """What 0 is in a copy from which the 1000 was taken is reflectance 0, or less."""
    planes = ground(scl)
    planes["red"][HOLE] = 0
    chunk = fuse(how, source(tmp_path, planes, wanted=wanted))
    expected = planes["red"].astype(int) + (1000 if wanted == 0 else 0)
    expected[HOLE] = darkest
    np.testing.assert_array_equal(chunk.data[0], expected)
    assert (chunk.data > 0).all() and (chunk.dark, chunk.blank) == (PIXELS, 0)


@pytest.mark.parametrize("how", [first, median])
def test_what_is_zero_in_every_band_is_ground_only_where_it_can_be_so_dark(tmp_path: Path, how: Any) -> None:
    for scl, dark, blank in ((WATER, PIXELS, 0), (VEGETATION, 0, PIXELS), (None, 0, 0)):
        planes = ground(scl)
        planes["red"][HOLE] = planes["green"][HOLE] = 0
        chunk = fuse(how, source(tmp_path, planes))
        assert (chunk.dark, chunk.blank) == (dark, blank)
        assert (chunk.data[:, *HOLE] == (1 if dark else 0)).all() and (np.delete(chunk.data, HOLE[0], 1) > 0).all()
        if blank:  # the store itself says that it should be there
            assert (chunk.classes[HOLE] == scl).all()
            assert how is median or (chunk.source == 1).all()


@pytest.mark.parametrize("how", [first, median])
def test_another_item_fills_what_one_lacks(tmp_path: Path, how: Any) -> None:
    planes = ground(VEGETATION)
    planes["red"][HOLE] = planes["green"][HOLE] = 0
    chunk = fuse(how, source(tmp_path, planes), source(tmp_path, ground(VEGETATION, red=2500)))
    assert (chunk.data[0][HOLE] == 2500).all() and (chunk.dark, chunk.blank) == (0, 0)
    if how is first:
        assert (chunk.source[HOLE] == 2).all() and (np.delete(chunk.source, HOLE[0], 0) == 1).all()


@pytest.mark.parametrize("how", [first, median])
@pytest.mark.parametrize("scl", [True, False])
def test_the_edge_of_a_swath_gets_no_dark_rim(tmp_path: Path, how: Any, scl: bool) -> None:
    """A slanting edge: 20 m pixels and classes reach over what the 10 m bands have; in its own zone and in another."""
    y, x = np.mgrid[:SIDE, :SIDE]
    seen = x + 0.7 * y < 70
    coarse = seen.reshape(SIDE // 2, 2, SIDE // 2, 2).any(axis=(1, 3))
    planes: Planes = {
        "red": np.where(seen, 1500, 0).astype(np.uint16),
        "green": np.where(seen, 1600, 0).astype(np.uint16),
        "swir16": np.where(coarse, 1700, 0).astype(np.uint16),
    }
    if scl:
        planes["scl"] = np.where(coarse, WATER, 0).astype(np.uint8)
    bands = ("red", "green", "swir16")
    chunk = fuse(how, source(tmp_path, planes), bands=bands)
    assert (chunk.dark, chunk.blank) == (0, 0)
    np.testing.assert_array_equal((chunk.data > 0).all(axis=0), seen)
    assert set(np.unique(chunk.data)) == {0, 1500, 1600, 1700}
    west, north = Transformer.from_crs(CRS, "EPSG:32632", always_xy=True).transform(WEST, NORTH)
    corner = Window(-round(north / 20) * 2, round(west / 20) * 2, SIDE, SIDE)
    chunk = fuse(how, source(tmp_path, planes, "EPSG:32632", corner=corner), bands=bands)
    assert (chunk.dark, chunk.blank) == (0, 0) and (chunk.data > 0).any()
    assert set(np.unique(chunk.data)) == {0, 1500, 1600, 1700}


def test_the_answer_does_not_depend_on_the_window(tmp_path: Path) -> None:
    """Dark numbers near where the item ends, asked for in parts."""
    planes = ground(WATER)
    planes["scl"][:10] = 0
    for band in ("red", "green"):
        planes[band][:20] = 0
    planes["red"][18:40, 10:50] = 0
    made = source(tmp_path, planes)
    whole = fuse(first, made)
    assert (whole.data[0, 20 : 20 + REACH, 10:50] == 0).all() and (whole.data[0, 20 + REACH : 40, 10:50] == 1).all()
    for row in range(0, SIDE, 16):
        for col in range(0, SIDE, 16):
            part = Window(WINDOW.row + row, WINDOW.col + col, 16, 16)
            chunk = first([(0, made)], ("red", "green"), part, CRS, False)
            np.testing.assert_array_equal(chunk.data, whole.data[:, row : row + 16, col : col + 16])


def test_clouds_are_not_counted_as_missing(tmp_path: Path) -> None:
    planes = ground(CLOUD)
    planes["red"][HOLE] = planes["green"][HOLE] = 0
    chunk = fuse(first, source(tmp_path, planes), mask=True)
    assert not chunk.data.any() and not chunk.source.any() and (chunk.dark, chunk.blank) == (0, 0)
