"""Averages against numpy over whole factors and integrals over broken ones; blocks that tile; a split that stays."""

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from numpy.typing import NDArray

from rsup.models.data import blocks
from rsup.models.data.blocks import BLOCK, CELLS, LARGE, Block, area_mean, blocks_of, site_of
from rsup.models.data.rasters import Raster, UnusableError, open_raster

RGB = ("red", "green", "blue")


def raster_of(height: int, width: int, gsd: float | None = 1.0, name: str = "town_2020_1.tif") -> Raster:
    """A raster of which only the header matters."""
    return Raster(Path(name), height, width, gsd, (1, 2, 3), 255)


def written(path: Path, data: NDArray[np.floating], gsd: float) -> Raster:
    """[3, y, x] as a file of floats, white at 1."""
    place = Affine(gsd, 0, 500_000, 0, -gsd, 5_000_000)
    with rasterio.open(
        path, "w", "GTiff", data.shape[2], data.shape[1], 3, "EPSG:32631", place, "float32", nodata=-1
    ) as file:
        file.write(data.astype(np.float32))
    return open_raster(path, RGB, 1)


def test_a_name_of_any_bytes_has_its_side() -> None:
    (part,) = blocks_of(raster_of(64, 64, name="site\udcff.zarr"), None)
    assert 0 <= part.share < 1


@pytest.mark.parametrize("factor", [1.25 / 0.6, 2, 12.5, 1.7])
@pytest.mark.parametrize("start", [0, 0.4])
def test_area_mean_is_the_mean_over_fine_slices(factor: float, start: float) -> None:
    values = np.random.default_rng(0).random((2, 60))
    count = int((60 - start) / factor)
    # Each pixel in 600 slices, on which the borders of all these windows fall.
    slices = values.repeat(600, 1)
    edges = [round((start + k * factor) * 600) for k in range(count + 1)]
    expected = [slices[:, a:b].mean(1) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    np.testing.assert_allclose(area_mean(values, 1, count, factor, start), np.stack(expected, 1), rtol=1e-9)


def test_area_mean_of_a_ramp_is_the_ramp_at_the_centres() -> None:
    ramp = (np.arange(256) + 0.5)[:, None] * [1.0, 2.0]
    factor = 1.25 / 0.6
    centres = (np.arange(122) + 0.5) * factor
    found = area_mean(ramp, 0, 122, factor)
    # A window that ends inside a pixel sees that pixel's mean, not the ramp: off by under an eighth of its slope.
    assert np.abs(found / [1.0, 2.0] - centres[:, None]).max() <= 1 / 8


def test_averaging_keeps_means_in_blocks_of_whole_factors(tmp_path: Path) -> None:
    data = np.random.default_rng(1).random((3, 96, 60))
    (part,) = blocks_of(written(tmp_path / "a.tif", data, 0.5), 2.0)
    assert part.size == (24, 15)
    np.testing.assert_allclose(part.read(), data.reshape(3, 24, 4, 15, 4).mean((2, 4)), atol=1e-6)


def test_strips_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = np.random.default_rng(2).random((3, 100, 90))
    data[:, 40, 50] = -1
    (part,) = blocks_of(written(tmp_path / "a.tif", data, 0.6), 1.25)
    whole = part.read()
    monkeypatch.setattr(blocks, "STRIP", 600)
    np.testing.assert_allclose(part.read(), whole, atol=1e-6)


def test_a_missing_pixel_takes_those_that_it_lies_in(tmp_path: Path) -> None:
    data = np.random.default_rng(3).random((3, 60, 60))
    factor = 1.25 / 0.6
    (whole,) = blocks_of(written(tmp_path / "whole.tif", data, 0.6), 1.25)
    holed = data.copy()
    holed[1, 25, 6] = -1
    (part,) = blocks_of(written(tmp_path / "holed.tif", holed, 0.6), 1.25)
    expected = whole.read()
    rows = [k for k in range(28) if k * factor < 26 - 1e-9 and (k + 1) * factor > 25 + 1e-9]
    cols = [k for k in range(28) if k * factor < 7 - 1e-9 and (k + 1) * factor > 6 + 1e-9]
    assert len(cols) == 2
    for row in rows:
        expected[:, row, cols] = np.nan
    np.testing.assert_allclose(part.read(), expected, atol=1e-6)


def test_what_is_brighter_than_white_counts_in_full(tmp_path: Path) -> None:
    data = np.full((3, 40, 40), 0.2)
    data[:, ::2, ::2] = 1.4
    (part,) = blocks_of(written(tmp_path / "a.tif", data, 1), 2)
    np.testing.assert_allclose(part.read(), 0.5, atol=1e-6)
    (plain,) = blocks_of(written(tmp_path / "a.tif", data, 1), None)
    assert plain.read().max() == 1


def test_resolutions() -> None:
    assert blocks_of(raster_of(256, 256, 0.6), 1.25)[0].size == (122, 122)
    assert blocks_of(raster_of(128, 128, 1.2), 1.25)[0].factor == 1
    assert blocks_of(raster_of(128, 128, 1.35), 1.25)[0].factor == 1
    assert blocks_of(raster_of(128, 128, None), None)[0].size == (128, 128)
    with pytest.raises(UnusableError, match="has pixels of 1.4 m, coarser than 1.25 m"):
        blocks_of(raster_of(128, 128, 1.4), 1.25)
    with pytest.raises(UnusableError, match="does not say in metres how large its pixels are"):
        blocks_of(raster_of(128, 128, None), 1.25)


@pytest.mark.parametrize(
    ("height", "width", "gsd"), [(2048, 100, None), (4095, 700, 0.2), (10_000, 10_001, None), (30_011, 9000, 0.5)]
)
def test_parts_cover_every_pixel_once(height: int, width: int, gsd: float | None) -> None:
    found = blocks_of(raster_of(height, width, 0.1), gsd)
    seen = np.zeros((height, width), np.uint8)
    for part in found:
        seen[part.row : part.row + part.height, part.col : part.col + part.width] += 1
        assert max(part.size) <= BLOCK
    assert (seen == 1).all()
    assert (len({part.share for part in found}) == 1) == (min(height, width) < LARGE)


@pytest.mark.parametrize(("height", "width"), [(4095, 9000), (4096, 4096)])
def test_ground_stays_on_its_side_whatever_is_asked_for(height: int, width: int) -> None:
    shares = [
        {(p.row, p.col): p.share for p in blocks_of(raster_of(height, width, 0.3), gsd)} for gsd in (None, 1.25, 2.5)
    ]
    by_ground = [sorted(set(each.values())) for each in shares]
    assert by_ground[0] == by_ground[1] == by_ground[2]
    assert len(by_ground[0]) == (1 if height < LARGE else CELLS**2)


def share_of(site: str) -> float:
    return int(hashlib.sha256(site.encode()).hexdigest()[:12], 16) / 2**48


def test_a_tenth_of_many_names_is_held_out() -> None:
    held = sum(blocks_of(raster_of(256, 256, name=f"scene{k:05}.png"), None)[0].share < 0.1 for k in range(10_000))
    # 4 standard deviations of as many draws.
    assert abs(held - 1000) < 4 * np.sqrt(10_000 * 0.1 * 0.9)


def test_small_rasters_go_by_the_digest_of_their_site() -> None:
    for name, site in (("town_2020_1.tif", "town_1"), ("1999_town.tif", "town"), ("airplane00.png", "airplane00")):
        assert site_of(Path("folder") / name) == site
        assert blocks_of(raster_of(256, 256, name=name), None)[0].share == share_of(site)


@pytest.mark.parametrize(
    ("name", "site"),
    [
        ("santa_monica_2018_33.tif", "santa_monica_33"),
        ("2019_YELL_2_541000.png", "YELL_2_541000"),
        ("m_3607717_sw_18_1_20160620_subset.tif", "m_3607717_sw_18_1_20160620_subset"),
        ("block_2101_7.tif", "block_2101_7"),
        ("2019.tif", "2019"),
    ],
)
def test_sites(name: str, site: str) -> None:
    assert site_of(Path(name)) == site


def held_out(found: list[Block], share: float, side: int) -> NDArray[np.bool_]:
    """On a raster of `side` squared, seen in 80 x 80 places: whether validation takes the ground there."""
    taken = np.zeros((80, 80), bool)
    for part in found:
        if part.share < share:
            top, bottom = (math.ceil(edge / side * 80 - 0.5) for edge in (part.row, part.row + part.height))
            left, right = (math.ceil(edge / side * 80 - 0.5) for edge in (part.col, part.col + part.width))
            taken[top:bottom, left:right] = True
    return taken


def test_ground_in_large_rasters_stays_on_its_side() -> None:
    once = held_out(blocks_of(raster_of(10_000, 10_000, 0.6), None), 0.1, 10_000)
    assert once.mean() == 2 / CELLS**2
    for other in (
        held_out(blocks_of(raster_of(10_000, 10_000, 0.6), 2.5), 0.1, 10_000),
        held_out(blocks_of(raster_of(5000, 5000, 1.2, "town_2022_1.tif"), None), 0.1, 5000),
    ):
        np.testing.assert_array_equal(other, once)
    more = held_out(blocks_of(raster_of(10_000, 10_000), None), 0.3, 10_000)
    assert more.mean() == 5 / CELLS**2 and (more | ~once).all()
    assert (held_out(blocks_of(raster_of(10_000, 10_000, name="other.tif"), None), 0.3, 10_000) != more).any()
