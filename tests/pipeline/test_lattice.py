"""The lattice against closed forms and against odc-geo."""

import numpy as np
import pytest
from affine import Affine

from rsup.pipeline.lattice import Window, chunks, geobox, snap, window_of


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
