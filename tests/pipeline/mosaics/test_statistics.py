"""Figures of bands against numpy's, whatever the parts."""

import numpy as np
import pytest

from rsup.pipeline.mosaics.statistics import Statistics, median_of


def test_as_numpy_has_them_whatever_the_parts() -> None:
    image = np.random.default_rng(0).integers(0, 2**16, (301, 257)).astype(np.uint16)
    image[:40] = 0
    found = []
    for size in (301, 50, 7):
        gathered = Statistics()
        for row in range(0, 301, size):
            gathered.add(image[row : row + size])
        found.append(gathered.figures())
    assert found[0] == found[1] == found[2]  # to the last bit
    valid = image[image > 0].astype(float)
    expected = {"minimum": valid.min(), "maximum": valid.max(), "mean": valid.mean(), "stddev": valid.std()}
    assert found[0] == pytest.approx(expected | {"valid_percent": 100 * valid.size / image.size}, rel=1e-12)


def test_one_number_has_no_spread_and_no_pixel_no_figures() -> None:
    same = Statistics()
    same.add(np.full((3000, 3000), 65535, np.uint16))
    assert same.figures()["stddev"] == 0 and same.figures()["mean"] == 65535
    none = Statistics()
    none.add(np.zeros((4, 4), np.uint16))
    assert none.figures() == {}


def test_a_median_is_that_of_the_valid_pixels_of_all_bands() -> None:
    planes = np.random.default_rng(3).gamma(2, 30, (2, 160, 121)).astype(np.uint16)
    planes[0, 30:] = 0
    bands = []
    for plane in planes:
        bands.append(Statistics())
        bands[-1].add(plane)
    assert median_of(bands) == np.quantile(planes[planes > 0], 0.5, method="inverted_cdf")
    assert median_of([]) is None and median_of([Statistics()]) is None
