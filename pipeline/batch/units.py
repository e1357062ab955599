"""Units of work: one cell in one interval, its name, its folder, and whose share it is.

The time of a job is cut into intervals: months, spans of N days from the first day on, or the days of acquisitions.
"""

from __future__ import annotations

import calendar
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from rsup.models.base.errors import ArgumentError

from .cells import Cell

ACQUISITION = "acquisition"
MONTH = "month"
MOST_INTERVALS = 100_000
"""Intervals of a job."""
MOST_UNITS = 1_000_000
"""Units of a job."""


@dataclass(frozen=True, order=True)
class Interval:
    """Whole days, UTC."""

    first: date
    last: date
    name: str
    """Of a folder: "2024-05", "2024-05-01_10d", or the day of an acquisition, "2024-05-12"."""

    @property
    def dates(self) -> str:
        """As fetch is asked for it."""
        return f"{self.first}/{self.last}"


def days_of(length: str) -> int | None:
    """N of "Nd"; None for a month and for acquisitions. Raises ArgumentError for anything else, and for no days."""
    if length in (MONTH, ACQUISITION):
        return None
    found = re.fullmatch(r"(\d{1,5})d", length, re.ASCII)
    if not found or not int(found[1]):
        raise ArgumentError(f"interval {length!r}: give {MONTH}, {ACQUISITION}, or days, from 1d on")
    return int(found[1])


def intervals_of(first: date, last: date, length: str) -> list[Interval]:
    """Intervals without gap or overlap from the first to the last day, both included; the last one may be shorter.

    `length` is "month" (of the calendar) or "Nd". Raises ArgumentError for any other, and for too many.
    """
    days = days_of(length)
    found = []
    start = first
    while start <= last:
        if days is None:
            end, name = date(start.year, start.month, calendar.monthrange(start.year, start.month)[1]), f"{start:%Y-%m}"
        else:
            end, name = start + min(last - start, timedelta(days - 1)), f"{start}_{length}"
        found.append(Interval(start, min(end, last), name))
        if len(found) > MOST_INTERVALS:
            raise ArgumentError(f"interval {length!r} comes to more than {MOST_INTERVALS} intervals: shorten dates")
        if found[-1].last == last:
            break
        start = found[-1].last + timedelta(1)
    return found


def of_days(days: Iterable[str]) -> list[Interval]:
    """One interval a day on which something was sensed; `days` as YYYY-MM-DD."""
    return [Interval(date.fromisoformat(day), date.fromisoformat(day), day) for day in sorted(set(days))]


@dataclass(frozen=True)
class Unit:
    """What is fetched and upscaled at once, and done or not."""

    cell: Cell
    interval: Interval

    @property
    def name(self) -> str:
        """Of its outputs, without scale and ending: an archive has each once."""
        return f"{self.cell.name}_{self.interval.name}"

    @property
    def path(self) -> Path:
        """Its folder, below the job's output."""
        return Path(self.interval.name, self.cell.name)


def units_of(intervals: Sequence[Interval], cells: Sequence[Cell]) -> list[Unit]:
    """Every cell in every interval, interval by interval. Raises ArgumentError for too many."""
    if len(intervals) * len(cells) > MOST_UNITS:
        raise ArgumentError(
            f"{len(cells)} cells in {len(intervals)} intervals are more than {MOST_UNITS} units: "
            "enlarge cells or shorten dates"
        )
    return [Unit(cell, interval) for interval in intervals for cell in cells]


def part_of(text: str) -> tuple[int, int]:
    """I and N of "I/N", with I from 1 to N. Raises ArgumentError for anything else."""
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.ASCII)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise ArgumentError(f"--part {text}: give I/N, from 1/N to N/N")
    return int(found[1]), int(found[2])


def share(units: Iterable[Unit], part: tuple[int, int]) -> list[Unit]:
    """Part I of N of the units, by a hash of their names: a unit stays in its part whatever units come besides."""
    index, count = part
    return [unit for unit in units if _number(unit.name) % count == index - 1]


def _number(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
