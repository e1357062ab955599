"""Resampling against closed forms and GDAL's warper, and its independence of the window."""

import numpy as np
import pytest
import rasterio.warp
from numpy.typing import NDArray

from rsup.pipeline.lattice import Window, chunks
from rsup.pipeline.sources.resample import Grid, resample

ZONE_33, ZONE_32 = "EPSG:32633", "EPSG:32632"
WINDOW = Window(row=-509_400, col=50_030, height=70, width=90)


def foreign(gsd: int) -> Window:
    """A window of zone 32, in pixels of `gsd` metres, around WINDOW."""
    west, south, east, north = rasterio.warp.transform_bounds(ZONE_33, ZONE_32, *WINDOW.bounds, densify_pts=21)
    row, col = int(-north // gsd) - 3, int(west // gsd) - 3
    return Window(row, col, int(-south // gsd) + 4 - row, int(east // gsd) + 4 - col, gsd)


def grid(crs: str, gsd: int) -> Grid:
    """All of a zone: rows and columns are counted from its origin."""
    return Grid(crs, rasterio.Affine(gsd, 0, 0, 0, -gsd, 0), 0, 0)


def noise(window: Window) -> NDArray[np.uint16]:
    return np.random.default_rng(11).integers(1000, 5000, (window.height, window.width)).astype(np.uint16)


def test_twenty_metres_to_ten_is_the_closed_form() -> None:
    native = WINDOW.in_pixels_of(20).grow(2)
    coarse = noise(native)
    out = resample(coarse, native, grid(ZONE_33, 20), WINDOW, ZONE_33, "bilinear")
    inner = coarse[2:-2, 2:-2].astype(float)
    # The north-west quarter of a coarse pixel: 9/16 its own, 3/16 its northern and western neighbours', 1/16.
    expected = (9 * inner + 3 * coarse[1:-3, 2:-2] + 3 * coarse[2:-2, 1:-3] + coarse[1:-3, 1:-3]) / 16
    np.testing.assert_array_equal(out[::2, ::2], np.rint(expected))
    nearest = resample(coarse, native, grid(ZONE_33, 20), WINDOW, ZONE_33, "nearest")
    np.testing.assert_array_equal(nearest, inner.repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("gsd", [10, 20])
def test_another_zone_agrees_with_gdal(gsd: int) -> None:
    native = foreign(gsd)
    numbers = noise(native)
    ours = resample(numbers, native, grid(ZONE_32, gsd), WINDOW, ZONE_33, "bilinear")
    theirs = np.zeros_like(ours)
    options = {"XSCALE": 1, "YSCALE": 1}
    rasterio.warp.reproject(
        numbers, theirs, src_transform=native.transform(), src_crs=ZONE_32,
        dst_transform=WINDOW.transform(), dst_crs=ZONE_33, resampling=rasterio.warp.Resampling.bilinear, **options,
    )  # fmt: skip
    # Of noise 4000 wide: GDAL's coordinates are good to a few thousandths of a pixel.
    assert np.abs(ours.astype(int) - theirs).max() <= 20


def test_a_pixel_does_not_depend_on_the_window() -> None:
    native = foreign(10)
    numbers = noise(native)
    numbers[20:40, 30:50] = 0
    for method in ("bilinear", "nearest"):
        whole = resample(numbers, native, grid(ZONE_32, 10), WINDOW, ZONE_33, method)  # type: ignore[arg-type]
        for _, window in chunks(WINDOW, 23):
            part = resample(numbers, native, grid(ZONE_32, 10), window, ZONE_33, method)  # type: ignore[arg-type]
            np.testing.assert_array_equal(part, whole[window.within(WINDOW)])


def test_nodata_weighs_nothing_and_wins_from_half_on() -> None:
    native = WINDOW.in_pixels_of(20).grow(2)
    coarse = np.full((native.height, native.width), 3000, np.uint16)
    coarse[:, :12] = 0
    out = resample(coarse, native, grid(ZONE_33, 20), WINDOW, ZONE_33, "bilinear")
    assert (out[:, :20] == 0).all() and (out[:, 20:] == 3000).all()
