"""What uncertainties mean, against Gaussian errors."""

from __future__ import annotations

import pytest
from scipy.stats import norm

from rsup.models.base.intervals import DETAIL, MEANING, SHARES, WIDER
from rsup.models.weights_file import SCALES


def test_the_first_share_is_that_within_a_gaussian_s_deviation_and_the_second_takes_heavier_tails() -> None:
    assert SHARES[1.0] == pytest.approx(norm.cdf(1) - norm.cdf(-1), abs=5e-4)
    assert norm.ppf(0.5 + SHARES[WIDER] / 2) < WIDER
    assert MEANING == "68% of the errors lie within it, 95% within 2.5 times it."


def test_squares_are_whole_pixels() -> None:
    assert all(scale % DETAIL == 0 for scale in SCALES)
