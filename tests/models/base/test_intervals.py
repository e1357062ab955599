"""Rounding what uncertainties say, against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from rsup.models.base.intervals import round_off


def exact(number: int) -> int:
    """`number` to five binary digits, half up; no more than 16 bits hold."""
    step = Fraction(2) ** max(number.bit_length() - 5, 0)
    return min(int(floor(number / step + Fraction(1, 2)) * step), 65535)


def test_every_number_keeps_five_binary_digits() -> None:
    numbers = np.arange(1 << 16, dtype=np.uint16)
    expected = np.array([exact(int(number)) for number in numbers])
    table = numbers.reshape(4, -1).copy()
    round_off(table)
    np.testing.assert_array_equal(table.reshape(-1), expected)
    assert (np.abs(expected - numbers)[1:] / numbers[1:]).max() <= 1 / 32
    np.testing.assert_array_equal(expected[:33], numbers[:33])


def test_what_is_longer_than_a_piece_is_rounded_to_its_end() -> None:
    numbers = np.full(3 * 70_001, 1001, np.uint16)
    round_off(numbers)
    np.testing.assert_array_equal(numbers, 992)
    round_off(np.empty(0, np.uint16))


def test_a_copy_is_not_rounded_in_the_place_of_its_origin() -> None:
    with pytest.raises(AssertionError):
        round_off(np.zeros((8, 8), np.uint16)[:, ::2])
