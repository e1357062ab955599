"""Intervals without gap or overlap, units, and shares of them that are nobody else's."""

from __future__ import annotations

import time
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rsup.models.base.errors import ArgumentError
from rsup.pipeline.batch.area import of_box
from rsup.pipeline.batch.cells import cells_of
from rsup.pipeline.batch.units import days_of, intervals_of, of_days, part_of, share, units_of

DAYS = st.dates(date(2015, 7, 1), date(2018, 12, 31))


@settings(deadline=None)
@given(st.tuples(DAYS, DAYS), st.sampled_from(["month", "1d", "10d", "400d"]))
def test_every_day_is_in_one_interval(ends: tuple[date, date], length: str) -> None:
    first, last = sorted(ends)
    found = intervals_of(first, last, length)
    assert found[0].first == first and found[-1].last == last
    for one, next_one in zip(found[:-1], found[1:], strict=True):
        assert one.first <= one.last and next_one.first == one.last + timedelta(1)
    assert len({each.name for each in found}) == len(found)
    if length == "month":
        assert all(each.first.month == each.last.month for each in found)


def test_an_interval_keeps_its_name_when_the_last_day_moves_on() -> None:
    for length in ("month", "10d"):
        short, long = (intervals_of(date(2024, 5, 1), last, length) for last in (date(2024, 5, 4), date(2024, 6, 30)))
        assert [each.name for each in short] == [each.name for each in long][: len(short)]
    assert [each.dates for each in intervals_of(date(2024, 1, 30), date(2024, 3, 1), "month")] == [
        "2024-01-30/2024-01-31",
        "2024-02-01/2024-02-29",
        "2024-03-01/2024-03-01",
    ]
    assert [each.name for each in of_days(["2024-06-12", "2024-06-02", "2024-06-12"])] == ["2024-06-02", "2024-06-12"]


@pytest.mark.parametrize("length", ["0d", "week", "-1d", "10", "d", ""])
def test_what_is_no_interval(length: str) -> None:
    with pytest.raises(ArgumentError, match="give month, acquisition, or days, from 1d on"):
        days_of(length)


def test_ten_thousand_units_are_laid_out_in_no_time_and_shared_out() -> None:
    start = time.process_time()
    cells = cells_of(of_box((13.0, 52.0, 16.0, 53.6)), 512)
    units = units_of(intervals_of(date(2024, 1, 1), date(2024, 12, 31), "month"), cells)
    parts = [share(units, (index, 3)) for index in (1, 2, 3)]
    assert time.process_time() - start < 10
    assert len(units) == 12 * len(cells) > 10_000
    assert sorted(unit.name for part in parts for unit in part) == sorted(unit.name for unit in units)
    assert len({unit.path for unit in units}) == len({unit.name for unit in units}) == len(units)
    assert min(map(len, parts)) > 0.9 * len(units) / 3
    fewer = share(units[::2], (2, 3))
    assert set(fewer) <= set(parts[1])


@pytest.mark.parametrize("text", ["0/3", "4/3", "1", "1/0", "a/b", "1/2/3", "-1/3"])
def test_what_is_no_part(text: str) -> None:
    with pytest.raises(ArgumentError, match="give I/N"):
        part_of(text)
