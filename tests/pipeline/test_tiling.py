"""Tiles and their weights against closed forms."""

import numpy as np
import pytest

from rsup.pipeline.lattice import Window, chunks, count_chunks
from rsup.pipeline.tiling import Tiling

TILINGS = [
    Tiling(128, 0, 0),
    Tiling(128, 4, 12),
    Tiling(40, 3, 17),
    Tiling(5, 1, 1),
]


@pytest.mark.parametrize("tiling", TILINGS)
@pytest.mark.parametrize("scale", [1, 4, 8])
def test_weights_of_all_tiles_sum_to_one_everywhere(tiling: Tiling, scale: int) -> None:
    window = Window(-37, 1003, 150, 211)
    total = np.zeros((window.height * scale, window.width * scale))
    w = tiling.weights(scale).astype(np.float64)
    assert w.shape == (tiling.size * scale,)
    for tile in tiling.tiles(window):
        common = tile.intersect(window)
        assert common is not None
        rows, cols = common.within(tile)
        part = np.outer(
            w[rows.start * scale : rows.stop * scale],
            w[cols.start * scale : cols.stop * scale],
        )
        assert part.any(), "a tile without weight was asked for"
        rows, cols = common.within(window)
        total[rows.start * scale : rows.stop * scale, cols.start * scale : cols.stop * scale] += part
    np.testing.assert_allclose(total, 1, atol=2e-7)


def test_ramp_is_the_closed_form() -> None:
    w = Tiling(32, 2, 4).weights(2)
    assert (w[:4] == 0).all() and (w[-4:] == 0).all()
    np.testing.assert_allclose(w[4:12], (np.arange(8) + 0.5) / 8, rtol=1e-6)
    np.testing.assert_array_equal(w[12:52], 1)
    np.testing.assert_allclose(w[52:60], 1 - (np.arange(8) + 0.5) / 8, rtol=1e-6)


def test_the_same_ground_has_the_same_tiles_whatever_the_window() -> None:
    tiling = Tiling(64, 2, 6)
    ground = Window(5000, -77, 10, 10)
    for grown in (1, 63, 300):
        around = {t for t in tiling.tiles(ground.grow(grown)) if t.grow(-tiling.halo).intersect(ground)}
        assert around == set(tiling.tiles(ground))
    assert all(t.row % tiling.stride == 0 and t.col % tiling.stride == 0 for t in tiling.tiles(ground))


def test_cover_holds_every_tile() -> None:
    tiling = Tiling(64, 2, 6)
    window = Window(13, 999, 100, 40)
    cover = tiling.cover(window)
    assert all(cover.intersect(tile) == tile for tile in tiling.tiles(window))


def test_a_tile_smaller_than_its_ramps_is_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        Tiling(16, 2, 7)


@pytest.mark.parametrize("tiling", TILINGS)
def test_tiles_and_chunks_are_counted_without_making_them(tiling: Tiling) -> None:
    for window in (Window(-37, 1003, 150, 211), Window(0, 0, 1, 1), Window(-5, -400, 64, 300)):
        assert tiling.count(window) == len(tiling.tiles(window))
        assert count_chunks(window, 50) == len(list(chunks(window, 50)))
    assert tiling.count(Window(0, 0, 10**9, 10**9)) > 10**12
