"""What is heeded of a scene's own words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from rsup.pipeline.scenes.attributes import SceneAttributes, interval, moment


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-06-07T10:10:31.024Z", datetime(2024, 6, 7, 10, 10, 31, 24000, tzinfo=UTC)),
        ("2024-06-07T12:10:31+02:00", datetime(2024, 6, 7, 12, 10, 31, tzinfo=timezone(timedelta(hours=2)))),
        ("2024-06-07", datetime(2024, 6, 7, tzinfo=UTC)),
        ("2024:06:07 10:10:31", datetime(2024, 6, 7, 10, 10, 31, tzinfo=UTC)),  # TIFF 6.0, section 8
        *((text, None) for text in ("yesterday", "", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00")),
        *((value, None) for value in (None, 20240607, ["2024-06-07"], 1e308)),
    ],
)
def test_dates(text: Any, expected: datetime | None) -> None:
    assert moment(text) == expected


def test_the_most_telling_date_is_the_file_s() -> None:
    day = {n: datetime(2024, 6, n, tzinfo=UTC) for n in (1, 2, 3)}
    tags = {"TIFFTAG_DATETIME": "2024:06:03 00:00:00"}
    assert interval(tags) == (day[3], day[3])
    assert interval(tags | {"ACQUISITIONDATETIME": "2024-06-02"}) == (day[2], day[2])
    span = {"time_coverage_start": "2024-06-01", "time_coverage_end": "2024-06-02"}
    assert interval(tags | span) == (day[1], day[2])
    reversed_ = {"time_coverage_start": "2024-06-02", "time_coverage_end": "2024-06-01"}
    assert interval(tags | reversed_) == (day[3], day[3])
    assert interval({"datetime": 5}) is interval({}) is None


def test_items_are_what_is_understood_of_them() -> None:
    attributes = {
        "items": [
            {
                "id": "a\u202e",
                "href": "https://u:p@example.com/a?sig=s#f",
                "hrefs": {"red": "https://u:p@h"},
                "mine": 1,
            },
            {"id": 5, "datetime": None, "cloud": float("nan"), "offset": 10**400, "evidence": "one"},
            {"offset": -1000, "cloud": 3, "evidence": ["x", "y"]},
            *("a word", 7, None),
        ],
        "title": "else",
    }
    assert [item.model_dump(exclude_none=True) for item in SceneAttributes.model_validate(attributes).items] == [
        {"id": "a\\u202e", "href": "https://example.com/a"},
        {},
        {"offset": -1000, "cloud": 3.0, "evidence": ["x", "y"]},
    ]
    assert SceneAttributes.model_validate({"items": "a word"}).items == []
