"""The made instrument against closed forms: MTF, noise, independence of the window."""

from __future__ import annotations

import numpy as np
import pytest

from rsup.models.sensors.demo_responses import DEMO_RESPONSES
from rsup.pipeline.demo.canvas import SAMPLE
from rsup.pipeline.demo.landscape import CRS, ORIGIN, Landscape
from rsup.pipeline.demo.sensor import BAND_GSD, look, noise, response
from rsup.pipeline.demo.spectra import BANDS
from rsup.pipeline.lattice import Window, snap

CENTRE = snap((*ORIGIN, *ORIGIN))
HERE = Window(CENTRE.row // 2 * 2, CENTRE.col // 2 * 2, 32, 32)


@pytest.mark.parametrize("band", BANDS)
def test_contrast_at_nyquist_is_the_published_mtf(band: str) -> None:
    weights = response(band, 16)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
    metres = (np.arange(weights.shape[1]) + 0.5) * SAMPLE
    # One period is two pixels; the phase puts its extremes on the pixels' middles (the samples begin 40 m early).
    wave = np.cos(np.pi * (metres - 40 - BAND_GSD[band] / 2) / BAND_GSD[band])
    measured = weights @ wave
    contrast = np.abs(measured)
    np.testing.assert_allclose(contrast, DEMO_RESPONSES[band].mtf, rtol=0.02)
    assert (np.sign(measured) == np.tile([1, -1], 8)).all()


def test_what_a_pixel_measures_does_not_depend_on_the_window() -> None:
    landscape = Landscape(3)
    whole = look(landscape, HERE, CRS)
    part_window = Window(HERE.row + 8, HERE.col + 14, 16, 10)
    part = look(landscape, part_window, CRS)
    rows, columns = part_window.within(HERE)
    for band in ("red", "nir"):
        np.testing.assert_allclose(part.measured[band], whole.measured[band][rows, columns], atol=2e-6)
    half = (slice(4, 12), slice(7, 12))
    np.testing.assert_allclose(part.measured["swir16"], whole.measured["swir16"][half], atol=2e-6)
    np.testing.assert_array_equal(part.scl, whole.scl[half])


def test_an_odd_window_is_refused() -> None:
    with pytest.raises(ValueError, match="20 m"):
        look(Landscape(3), Window(1, 0, 2, 2), CRS)


def test_noise_has_the_required_signal_to_noise_and_belongs_to_the_place() -> None:
    window = Window(-400, 600, 400, 400)
    for level in (0.2, 0.05):
        field = noise("green", window, 9, np.full((400, 400), level, np.float32))
        assert field.std() == pytest.approx(np.sqrt(level * 0.2) / DEMO_RESPONSES["green"].snr, rel=0.02)
        assert abs(field.mean()) < 4 * field.std() / 400
    inner = Window(-300, 700, 50, 50)
    part = noise("green", inner, 9, np.full((50, 50), level, np.float32))
    np.testing.assert_array_equal(part, field[100:150, 100:150])
    other = noise("green", window, 10, np.full((400, 400), level, np.float32))
    assert abs(np.corrcoef(other.ravel(), field.ravel())[0, 1]) < 0.02
