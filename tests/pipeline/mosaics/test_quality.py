"""Quality figures against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from measures import psnr, seam_ratio
from numpy.typing import NDArray

from rsup.pipeline.mosaics.quality import block_errors, spectral_angles


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
