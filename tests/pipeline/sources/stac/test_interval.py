"""What --date takes, against dates computed by numpy and pystac-client, and one sentence for everything else."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pystac_client.item_search import ItemSearch

from rsup.models.base.errors import ArgumentError
from rsup.pipeline.sources.stac.interval import interval


def moments(text: str) -> tuple[str | None, str | None]:
    first, last = (moment and moment.isoformat().replace("+00:00", "Z") for moment in interval(text))
    return first, last


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2024", "2024-01-01T00:00:00Z", "2024-12-31T23:59:59.999999Z"),
        ("2024-02", "2024-02-01T00:00:00Z", "2024-02-29T23:59:59.999999Z"),
        ("20240601", "2024-06-01T00:00:00Z", "2024-06-01T23:59:59.999999Z"),
        ("2024-W23", "2024-06-03T00:00:00Z", "2024-06-09T23:59:59.999999Z"),
        ("2024-W23-2", "2024-06-04T00:00:00Z", "2024-06-04T23:59:59.999999Z"),
        ("2024-153", "2024-06-01T00:00:00Z", "2024-06-01T23:59:59.999999Z"),
        ("2024-06-01T10:00:00Z", "2024-06-01T10:00:00Z", "2024-06-01T10:00:00.999999Z"),
        ("2024-06-01t10:00z", "2024-06-01T10:00:00Z", "2024-06-01T10:00:59.999999Z"),
        ("2024-06-01 10:00:00.5", "2024-06-01T10:00:00.500000Z", "2024-06-01T10:00:00.500000Z"),
        ("20240601T120000+0530", "2024-06-01T06:30:00Z", "2024-06-01T06:30:00.999999Z"),
        ("2024-06-01T00:00:00Z/..", "2024-06-01T00:00:00Z", None),
        ("2024-06-01T00:00:00Z/", "2024-06-01T00:00:00Z", None),
        ("../2024-07-01", None, "2024-07-01T23:59:59.999999Z"),
        ("/2024-07-01T00:00:00Z", None, "2024-07-01T00:00:00Z"),
        ("2024-06-01T12:00:00+02:00/2024-06-30T24:00Z", "2024-06-01T10:00:00Z", "2024-07-01T00:00:00Z"),
        ("2024-06-01/P1M", "2024-06-01T00:00:00Z", "2024-06-30T23:59:59.999999Z"),
        ("2024-06-01T06:00Z/PT36H", "2024-06-01T06:00:00Z", "2024-06-02T17:59:59.999999Z"),
        ("P2W/2024-06-14", "2024-06-01T00:00:00Z", "2024-06-14T23:59:59.999999Z"),
        ("2015/9999", "2015-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_every_form_of_stac_and_iso(text: str, first: str | None, last: str | None) -> None:
    assert moments(text) == (first, last)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("yesterday", "'yesterday' is no date; write 2024, 2024-06, "),
        ("2024-13", "'2024-13' is no date"),
        ("2024-06-31", "'2024-06-31' is no date"),
        ("2023-02-29/2024", "'2023-02-29' is no date"),
        ("2024-06-01/15", "'15' is no date"),
        ("2024-6-1", "'2024-6-1' is no date"),
        ("2024-06T10:00Z", "'2024-06T10:00Z' is no date"),
        ("2024-06-01T25:00Z", "'2024-06-01T25:00Z' is no date"),
        ("2024-06-01T10:00:00+99:00", "is no date"),
        ("2024-W60", "is no date"),
        ("2023-366", "is no date"),
        ("P1M", "'P1M' is no date"),
        ("P1M/P1M", "'P1M' is no date"),
        ("2024/P", "'P' is no date"),
        ("0001-01-01T00:00+14:00", "is no date"),
        ("2024/P9999Y", "is no date"),
        ("../..", "at least one end must be a date"),
        ("", "at least one end must be a date"),
        ("2024/2025/2026", "one date, or two with a slash"),
        ("2024-07/2024-06", "reversed: it ends before it starts"),
        ("2024-06-01T10:00Z/2024-06-01T10:00+01:00", "reversed"),
    ],
)
def test_what_is_no_date_is_one_sentence(text: str, words: str) -> None:
    with pytest.raises(ArgumentError, match=words) as caught:
        interval(text)
    assert "\n" not in str(caught.value)


@given(st.dates(min_value=datetime(1900, 1, 1).date()), st.sampled_from(["%Y", "%Y-%m", "%Y-%m-%d"]))
def test_whole_days_months_and_years_are_those_of_numpy_and_of_pystac_client(day: object, form: str) -> None:
    text = f"{day:{form}}"
    first, last = interval(text)
    unit = {4: "Y", 7: "M", 10: "D"}[len(text)]
    start = np.datetime64(text, unit)
    assert first is not None and last is not None
    assert np.datetime64(first.replace(tzinfo=None)) == start.astype("M8[us]")
    if first.year < 9999:
        assert np.datetime64(last.replace(tzinfo=None)) == (start + 1).astype("M8[us]") - np.timedelta64(1, "us")
        asked = ItemSearch(url="http://127.0.0.1/search", datetime=text).get_parameters()["datetime"].split("/")
        assert [datetime.fromisoformat(each) for each in asked] == [first, last.replace(microsecond=0)]


@given(st.datetimes(min_value=datetime(1900, 1, 1), max_value=datetime(2100, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_a_moment_is_the_same_in_every_zone(moment: datetime, minutes: int) -> None:
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    first, last = interval(f"{moment.isoformat()}{zone}/..")
    assert last is None
    assert first == datetime.fromisoformat(f"{moment.isoformat()}{zone}").astimezone(UTC)
