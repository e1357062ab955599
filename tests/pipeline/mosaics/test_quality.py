"""Quality figures against closed forms; consistency on a store and scene whose errors are known."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from measures import psnr, seam_ratio
from numpy.typing import NDArray

from rsup.pipeline.lattice import Window, chunks
from rsup.pipeline.mosaics.check import PART, consistency, count_pixels
from rsup.pipeline.mosaics.quality import block_errors, spectral_angles
from rsup.pipeline.mosaics.store import create_mosaic, write_chunk
from rsup.pipeline.scenes.opening import open_scene
from rsup.pipeline.scenes.writer import create_scene


def nearest(lr: NDArray[np.uint16], scale: int) -> NDArray[np.uint16]:
    return lr.repeat(scale, axis=-2).repeat(scale, axis=-1)


def test_block_errors_are_the_offset_that_was_added() -> None:
    lr = np.random.default_rng(0).integers(100, 9000, (3, 20, 30), dtype=np.uint16)
    sr = nearest(lr, 8)
    assert not block_errors(sr, lr, 8).any()
    sr[1] += 6  # one band of three
    errors = block_errors(sr, lr, 8)
    assert errors.mean() == pytest.approx(2.0) and np.percentile(errors, 99) == pytest.approx(6.0)
    sr[0, ::8, ::8] += 64  # one pixel of each block: 1 DN in the mean
    errors = block_errors(sr, lr, 8)
    assert errors.mean() == pytest.approx(7 / 3) and np.percentile(errors, 99) == pytest.approx(6.0)


def test_block_errors_count_valid_pixels_only_but_a_lost_one_in_full() -> None:
    lr = np.full((1, 2, 2), 500, np.uint16)
    lr[0, 0, 0] = 0
    sr = nearest(lr, 4)
    sr[0, :4, :4] = 9999  # where the scene has nothing
    np.testing.assert_array_equal(block_errors(sr, lr, 4), [0, 0, 0])
    sr[0, 7, 7] = 0
    np.testing.assert_array_equal(block_errors(sr, lr, 4), [0, 0, 500])
    assert not block_errors(sr, np.zeros_like(lr), 4).size


def test_spectral_angle_of_vectors_at_a_known_angle() -> None:
    # Reflectances (0.3, 0.3) and (0.3 cos 2t.., ) turned by t in the plane of the two bands.
    t = np.radians(0.1)
    r = 0.3 * np.sqrt(2)
    turned = [r * np.cos(np.pi / 4 + t), r * np.sin(np.pi / 4 + t)]
    lr = np.full((2, 3, 3), 4000, np.uint16)
    sr = nearest(np.broadcast_to(np.round((np.array(turned) + 0.1) * 1e4)[:, None, None], (2, 3, 3)), 4)
    found = spectral_angles(sr.astype(np.uint16), lr, 4)
    assert found.shape == (9,) and found == pytest.approx(0.1, abs=0.01)  # DN are whole numbers
    assert not spectral_angles(nearest(lr, 4), lr, 4).any()
    brighter = (nearest(lr, 4).astype(int) - 1000) * 2 + 1000  # twice the reflectance, the same colour
    assert spectral_angles(brighter.astype(np.uint16), lr, 4) == pytest.approx(0.0, abs=1e-9)
    right = np.stack([np.full((1, 1), 3000, np.uint16), np.full((1, 1), 1000, np.uint16)])
    assert spectral_angles(nearest(right[::-1], 4), right, 4) == pytest.approx(90.0)
    assert not spectral_angles(nearest(lr, 4), np.zeros_like(lr), 4).size


def test_seam_ratio_of_a_ramp_is_one_and_of_a_step_is_its_height() -> None:
    rows, cols = np.mgrid[:64, :96]
    ramp = 100 + 3 * rows + 3 * cols
    assert seam_ratio(ramp, [16, 32, 48], [32, 64]) == pytest.approx(1.0)
    stepped = ramp + 9 * (cols >= 32)  # 3 -> 12 on the one seam
    assert seam_ratio(stepped, [], [32]) == pytest.approx(4.0)
    assert seam_ratio(np.stack([stepped, stepped]), [], [32]) == pytest.approx(4.0)
    assert seam_ratio(stepped, [], [31]) < 1.1  # one pixel off sees nothing
    assert seam_ratio(stepped.T, [32], []) == pytest.approx(4.0)
    assert np.isnan(seam_ratio(np.full((8, 8), 5), [4], []))


def test_seam_ratio_ignores_steps_to_nodata() -> None:
    rows, cols = np.mgrid[:40, :40]
    image = 1000 + rows + cols
    image[:, 20:] = 0
    assert seam_ratio(image, [10], [20]) == pytest.approx(1.0)


def test_psnr_of_a_known_error() -> None:
    a = np.random.default_rng(3).random((3, 10, 10))
    assert psnr(a, a + 0.01, 1.0) == pytest.approx(40.0)
    assert psnr(a, a + 0.01, 0.5) == pytest.approx(40 + 20 * np.log10(0.5))
    assert psnr(a, a, 1.0) == np.inf
    assert psnr(np.array([0], np.uint16), np.array([1], np.uint16), 1.0) == 0.0  # no unsigned wrap


WINDOW = Window(-600_000, 50_000, 300, 420)


def known_stores(folder: Path, window: Window, scale: int = 4) -> None:
    """A scene with a margin and a mosaic of its inner window: +2 DN in green, nodata in a corner of both."""
    rng = np.random.default_rng(5)
    outer = window.grow(16)
    lr = rng.integers(1100, 4000, (3, outer.height, outer.width), dtype=np.uint16)
    lr[:, :60, :60] = 0
    bands = ("red", "green", "blue")
    writer = create_scene(folder / "s.zarr", outer, "EPSG:32631", bands, 256, aoi=window)
    for index, part in chunks(outer, 256):
        rows, cols = part.within(outer)
        plane = np.zeros((part.height, part.width), np.uint8)
        writer.write(index, lr[:, rows, cols], plane, plane.astype(np.uint16))
    create_mosaic(folder / "m.zarr", window, "EPSG:32631", scale, bands, 64, {})
    for index, part in chunks(window, 64):
        sr = nearest(lr[(slice(None), *part.within(outer))], scale)
        sr[1] += np.uint16(2) * (sr[1] > 0)
        write_chunk(folder / "m.zarr", bands, index, sr)


def test_consistency_finds_the_error_that_was_put_in(tmp_path: Path) -> None:
    known_stores(tmp_path, WINDOW)
    scene = open_scene(tmp_path / "s.zarr")
    assert scene.aoi == WINDOW
    figures = consistency(scene, tmp_path / "m.zarr", ("red", "green", "blue"), 4)
    assert figures["block_mean_error_mean"] == pytest.approx(2 / 3)
    assert figures["block_mean_error_p99"] == pytest.approx(2.0)
    assert 0 < figures["sam_deg"] < 0.2
    assert "sam_deg" not in consistency(scene, tmp_path / "m.zarr", ("green",), 4)


def test_consistency_of_nothing_but_nodata_has_no_figures(tmp_path: Path) -> None:
    writer = create_scene(tmp_path / "s.zarr", Window(0, 0, 8, 8), "EPSG:32631", ("red", "nir"), 8)
    assert writer.window.width == 8
    create_mosaic(tmp_path / "m.zarr", Window(0, 0, 8, 8), "EPSG:32631", 4, ("red", "nir"), 8, {})
    assert consistency(open_scene(tmp_path / "s.zarr"), tmp_path / "m.zarr", ("red", "nir"), 4) == {}


def test_dark_and_lost_pixels_are_counted_over_the_area_asked_for(tmp_path: Path) -> None:
    window = Window(0, 0, 300, PART + 200)
    area = Window(10, 10, 250, PART + 100)
    dn = np.random.default_rng(1).integers(1100, 4000, (3, window.height, window.width), dtype=np.uint16)
    source = np.ones((window.height, window.width), np.uint16)
    dn[0, 20:30, 20:25] = 0  # dark in one band: 50 pixels
    dn[1, 25:40, 20] = 0  # 15, of which 5 are dark in the other band too
    dn[2, 100:110, PART:] = 0  # 10 rows of 110 columns within the area, in a band that nobody asks for
    dn[:, 200:210, 300:310] = 0  # 100 that came from an item
    source[205:210, 300:310] = 0  # 50 of which did not
    dn[:, 5, 5] = dn[0, 6, 6] = 0  # outside of the area
    writer = create_scene(tmp_path / "s.zarr", window, "EPSG:32631", ("red", "green", "blue"), 512, aoi=area)
    for index, part in chunks(window, 512):
        cut = part.within(window)
        writer.write(index, dn[:, *cut], np.full(source[cut].shape, 4, np.uint8), source[cut])
    scene = open_scene(tmp_path / "s.zarr")
    assert count_pixels(scene, ("red", "green")) == {"dark_pixels": 60, "lost_pixels": 50}
    assert count_pixels(scene, ("blue",)) == {"dark_pixels": 1100, "lost_pixels": 50}


def test_consistency_of_a_large_mosaic_needs_no_more_memory(tmp_path: Path) -> None:
    def peak(side: int) -> int:
        (folder := tmp_path / str(side)).mkdir()
        known_stores(folder, Window(0, 0, side, side))
        scene = open_scene(folder / "s.zarr")
        tracemalloc.start()
        consistency(scene, folder / "m.zarr", ("red", "green", "blue"), 4)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(640) < 1.3 * peak(256) + 2**20
