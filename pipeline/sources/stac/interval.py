"""What --date says: text in, the first and the last moment that are asked for out.

RFC 3339 as STAC's `datetime` takes it, dates and times of ISO 8601 of any precision (a year, a week, a minute), and two
of them, or one and a duration, with a slash between; `..` or nothing leaves an end open. A time without a zone is UTC.
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, date, datetime, time, timedelta

from rsup.models.base.errors import ArgumentError

OPEN = ("", "..")
TICK = timedelta(microseconds=1)
FORMS = "write 2024, 2024-06, 2024-06-01 or 2024-06-01T10:00:00Z, or two of them with a slash, .. for an open end"

_DAY = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?|(\d\d)(\d\d))?", re.ASCII)
"""Of a year, a month or a day, with hyphens, or of a day without."""
_WEEK = re.compile(r"(\d{4})-?W(\d\d)(?:-?(\d))?", re.ASCII)
_ORDINAL = re.compile(r"(\d{4})-?(\d{3})", re.ASCII)
_TIME = re.compile(r"(\d\d)(?::?(\d\d)(?::?(\d\d)(?:[.,](\d{1,9}))?)?)?(Z|[+-]\d\d(?::?\d\d)?)?", re.ASCII)
_DURATION = re.compile(
    r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?", re.ASCII
)
Span = tuple[datetime, datetime]


def interval(text: str) -> tuple[datetime | None, datetime | None]:
    """First and last moment of a date, a time or a range; None for an open end. Raises ArgumentError with the reason.

    A range begins with the first moment of its first part and ends with the last one of its last part: days, months and
    years are taken whole, and a time stands for itself.
    """
    parts = [part.strip() for part in text.strip().split("/")]
    if len(parts) > 2:
        raise ArgumentError(f"--date {text}: give one date, or two with a slash between")
    first, last = parts[0], parts[-1]
    if first in OPEN and last in OPEN:
        raise ArgumentError(f"--date {text}: at least one end must be a date")
    start: datetime | None
    end: datetime | None
    try:
        if len(parts) == 1:
            return _span(first)
        if _is_duration(first) or _is_duration(last):
            start, end = _with_duration(first, last)
        else:
            start = None if first in OPEN else _span(first)[0]
            end = None if last in OPEN else _end(last)
    except (ValueError, OverflowError) as error:
        wrong = error.args[0] if isinstance(error, _NoDateError) else first
        raise ArgumentError(f"--date {text}: {wrong!r} is no date; {FORMS}") from None
    if start and end and start > end:
        raise ArgumentError(f"--date {text} is reversed: it ends before it starts")
    return start, end


class _NoDateError(ValueError):
    """Its one argument is what is no date."""


def _end(text: str) -> datetime:
    """The last moment of what ends a range: of a day the whole day, of a time the time itself."""
    first, last = _span(text)
    return last if "T" not in _plain(text) else first


def _span(text: str) -> Span:
    """First and last moment of a date or a time, as precise as it is written."""
    day, found, clock = _plain(text).partition("T")
    try:
        start, last = _day(day)
        if not found:
            return start, last
        if start.date() != last.date():
            raise ValueError
        start, length = _moment(start, clock)
        return start, start + max(length - TICK, timedelta())
    except (ValueError, OverflowError):  # of the calendar as well: no 31st of June
        raise _NoDateError(text) from None


def _plain(text: str) -> str:
    """With T between day and time, where RFC 3339 allows a space and small letters."""
    return re.sub(r"(?<=\d) +(?=\d)", "T", text.strip()).upper()


def _day(text: str) -> Span:
    """The first and the last moment of a year, month, week or day."""
    if match := _WEEK.fullmatch(text):
        year, week, day = match.groups()
        start = date.fromisocalendar(int(year), int(week), int(day or 1))
        return _days(start, 1 if day else 7)
    if match := _ORDINAL.fullmatch(text):
        year, number = map(int, match.groups())
        if not 1 <= number <= 365 + calendar.isleap(year):
            raise ValueError
        return _days(date(year, 1, 1) + timedelta(days=number - 1), 1)
    match = _DAY.fullmatch(text)
    if not match:
        raise ValueError
    year, month, day = int(match[1]), match[2] or match[4], match[3] or match[5]
    start = date(year, int(month or 1), int(day or 1))
    return _days(
        start, 1 if day else calendar.monthrange(year, start.month)[1] if month else 365 + calendar.isleap(year)
    )


def _days(start: date, count: int) -> Span:
    last = start + timedelta(days=count - 1)
    return datetime.combine(start, time.min, UTC), datetime.combine(last, time.max, UTC)


def _moment(day: datetime, text: str) -> tuple[datetime, timedelta]:
    """A time of a day, in UTC, and how long what it names lasts: an hour, a minute, a second or no time."""
    match = _TIME.fullmatch(text)
    if not match:
        raise ValueError
    hour, minute, second, fraction, zone = match.groups()
    clock = timedelta(hours=int(hour), minutes=int(minute or 0), seconds=int(second or 0))
    clock += timedelta(microseconds=int((fraction or "0")[:6].ljust(6, "0")))
    if int(minute or 0) > 59 or int(second or 0) > 59 or clock > timedelta(days=1):
        raise ValueError  # 24:00 is the end of a day
    seconds = 0 if fraction else 1 if second else 60 if minute else 3600
    return day + clock - _zone(zone), timedelta(seconds=seconds)


def _zone(text: str | None) -> timedelta:
    """How far a zone is ahead of UTC."""
    if text in (None, "Z"):
        return timedelta()
    digits = str(text)[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 23 or minutes > 59:
        raise ValueError
    return (-1 if str(text).startswith("-") else 1) * timedelta(hours=hours, minutes=minutes)


def _is_duration(text: str) -> bool:
    return text.upper().startswith("P")


def _with_duration(first: str, last: str) -> Span:
    """A range of one end and a duration: it does not hold the moment at which the duration is over."""
    if _is_duration(last):
        start = _span(first)[0]
        return start, _moved(start, last, 1) - TICK
    end = _end(last)
    return _moved(end + TICK if "T" not in _plain(last) else end, first, -1), end


def _moved(moment: datetime, duration: str, sign: int) -> datetime:
    match = _DURATION.fullmatch(duration.upper())
    if not match or not any(match.groups()):
        raise _NoDateError(duration)
    years, months, weeks, days, hours, minutes, seconds = (sign * int(number or 0) for number in match.groups())
    year, month = divmod(moment.year * 12 + moment.month - 1 + 12 * years + months, 12)
    day = min(moment.day, calendar.monthrange(year, month + 1)[1])  # a month after the 31st is its last day
    moved = moment.replace(year=year, month=month + 1, day=day)
    return moved + timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)


def stamp(moment: datetime) -> str:
    """As RFC 3339; a moment of UTC ends in Z."""
    return moment.isoformat().replace("+00:00", "Z")
