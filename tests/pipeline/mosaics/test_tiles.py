"""Tiles through the network: what fills the holes in them."""

import numpy as np

from rsup.pipeline.mosaics.tiles import fill_nodata


def test_fill_takes_the_nearest_valid_pixel() -> None:
    rng = np.random.default_rng(1)
    dn = rng.integers(1, 9999, (2, 12, 15)).astype(np.uint16)
    dn[rng.random(dn.shape) < 0.6] = 0
    filled = fill_nodata(dn)
    for band, out in zip(dn, filled, strict=True):
        points = np.argwhere(band)
        for (row, col), value in np.ndenumerate(band):
            distance = ((points - (row, col)) ** 2).sum(1)
            nearest = points[distance == distance.min()]
            assert out[row, col] in {value} if value else {band[tuple(p)] for p in nearest}
    dn[1] = 0
    np.testing.assert_array_equal(fill_nodata(dn)[1], fill_nodata(dn)[0])
