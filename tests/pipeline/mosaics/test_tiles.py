"""Tiles through the network: what fills the holes in them, and what is kept of them."""

import numpy as np
import torch

from rsup.pipeline.mosaics.tiles import Finished, TileCache, fill_nodata


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


def test_the_cache_holds_as_many_bytes_as_it_may_and_drops_what_was_not_asked_for() -> None:
    cache = TileCache(3 * 16)

    def finished(*shape: int) -> Finished:
        return Finished(torch.zeros(*shape), torch.tensor(True))

    for key in "abc":
        cache[key] = finished(4)
    assert cache.get("a") is not None
    cache["d"] = finished(4)
    assert set(cache) == {"a", "c", "d"}
    cache["e"] = finished(2, 4)
    assert set(cache) == {"d", "e"}
