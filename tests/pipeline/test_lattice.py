"""The lattice against closed forms and against odc-geo."""

import pickle

import numpy as np
import pytest
from affine import Affine

from rsup.pipeline.lattice import Rectangle, Window, chunks, geobox, snap, window_of
from rsup.pipeline.tiling import Tiling


def test_chunks_cut_a_window_without_gap_or_overlap() -> None:
    window = Window(-5, 7, 1025, 513)
    seen = np.zeros((window.height, window.width), int)
    for (i, j), chunk in chunks(window, 256):
        assert (chunk.row, chunk.col) == (window.row + i * 256, window.col + j * 256)
        seen[chunk.within(window)] += 1
    assert (seen == 1).all()


def test_snap_grows_to_whole_pixels_and_forgives_rounding() -> None:
    assert snap((399_996.0, 5_000_004.0, 400_013.0, 5_000_020.0)) == Window(-500_002, 39_999, 2, 3)
    window = Window(-500_000, 39_999, 20, 30)
    assert snap(window.bounds) == window
    west, south, east, north = window.bounds
    assert snap((west - 1e-9, south + 1e-9, east + 1e-9, north - 1e-9)) == window


def test_window_and_geobox_are_the_same_ground() -> None:
    window = Window(-500_000, 39_999, 20, 30)
    for scale in (1, 4, 8):
        box = geobox(window, "EPSG:32633", scale)
        assert box.shape == (20 * scale, 30 * scale)
        assert box.boundingbox.bbox == window.bounds
    assert window_of(window.transform(), (20, 30)) == window


@pytest.mark.parametrize(
    ("transform", "sentence"),
    [
        (Affine(10, 0, 5, 0, -10, 0), "not multiples of 10 m"),
        (Affine(20, 0, 0, 0, -20, 0), "20 x 20"),
        (Affine(10, 0, 0, 0, 10, 0), "10 x -10"),
        (Affine(10, 1, 0, 1, -10, 0), "rotated"),
    ],
)
def test_a_raster_off_the_lattice_is_named(transform: Affine, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        window_of(transform, (4, 4))


def test_a_window_of_other_pixels_is_the_same_ground() -> None:
    window = Window(-500_002, 39_998, 20, 32)
    coarse = window.in_pixels_of(20)
    assert coarse == Window(-250_001, 19_999, 10, 16, 20)
    assert coarse.bounds == window.bounds == (399_980, 4_999_820, 400_300, 5_000_020)
    assert coarse.transform() == Affine(20, 0, 399_980, 0, -20, 5_000_020)
    assert coarse.transform(4) == window.transform(2) == Affine(5, 0, 399_980, 0, -5, 5_000_020)
    assert coarse.in_pixels_of(10) == window == window.in_pixels_of(10)
    assert geobox(coarse, "EPSG:32633").boundingbox.bbox == window.bounds
    assert window_of(coarse.transform(), (10, 16), 20) == coarse
    for odd in (Window(-3, 4, 2, 2), Window(-4, 3, 2, 2), Window(-4, 4, 3, 2), Window(-4, 4, 2, 3)):
        with pytest.raises(ValueError, match="does not lie on the lattice of 20 m pixels"):
            odd.in_pixels_of(20)


def test_whatever_is_made_of_a_window_has_its_pixels() -> None:
    window = Window(-25, 7, 103, 51, 30)
    assert window.grow(2) == Window(-27, 5, 107, 55, 30)
    assert window.intersect(Window(0, 0, 100, 10, 30)) == Window(0, 7, 78, 10 - 7, 30)
    assert {part.gsd for _, part in chunks(window, 16)} == {30}
    assert {tile.gsd for tile in Tiling(16, 2, 2).tiles(window)} == {Tiling(16, 2, 2).cover(window).gsd} == {30}
    assert snap((-31.0, 29.0, 61.0, 121.0), 30) == Window(-5, -2, 5, 5, 30)


def test_windows_of_two_pixel_sizes_do_not_mix() -> None:
    fine, coarse = Window(0, 0, 4, 4), Window(0, 0, 2, 2, 20)
    assert fine.bounds == coarse.bounds and fine != coarse
    for attempt in (fine.intersect, fine.within):
        with pytest.raises(ValueError, match="of 10 m pixels and one of 20 m pixels"):
            attempt(coarse)
    assert coarse.within(fine.in_pixels_of(20)) == (slice(0, 2), slice(0, 2))


def test_windows_are_ordered_hashed_and_pickled_by_place_and_pixels() -> None:
    windows = [Window(0, 1, 5, 5), Window(0, 0, 5, 5, 20), Window(-1, 9, 5, 5), Window(0, 0, 5, 5)]
    assert sorted(windows) == [windows[2], windows[3], windows[1], windows[0]]
    assert pickle.loads(pickle.dumps(windows)) == windows and len({*windows, Window(0, 0, 5, 5, 10)}) == 4


def test_rectangles_are_cut_by_rows_and_columns_alone() -> None:
    outer, inner = Rectangle(-2, 0, 10, 10), Rectangle(0, 4, 20, 3)
    assert outer.intersect(inner) == Rectangle(0, 4, 8, 3)
    assert Rectangle(0, 4, 8, 3).within(outer) == (slice(2, 10), slice(4, 7))
    assert outer.intersect(Rectangle(8, 0, 1, 1)) is None and not hasattr(outer, "bounds")
