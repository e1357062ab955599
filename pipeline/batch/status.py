"""How far a job has come, by its records alone: no catalogue is asked, no unit is touched; and forgetting failures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any

from rsup.pipeline.lattice import GSD
from rsup.pipeline.places.place import Place, folders

from .formats.map_page import Square, Told, write_map
from .job import Job
from .leases.holding import leased
from .records import Failure, Record, check, forget_failure, said_of
from .units import Unit, of_days, units_of

STATES = ("done", "stale", "empty", "failed", "running", "waiting")
"""Of a unit. Stale: done, and begun anew or of another model; of new items only a catalogue knows."""


class States:
    """The states of a job's units, as they are when each is asked for."""

    def __init__(self, job: Job) -> None:
        self.job, self.model = job, job.upscale_plan.model.sha256
        self._running = leased(job.output)

    def of(self, units: Sequence[Unit]) -> Iterator[tuple[str, tuple[str, ...], str]]:
        """Of each unit its state, the ids of the items that led to it, and, of one that failed, why."""
        for unit, said in zip(units, said_of([self.job.output / unit.path for unit in units]), strict=True):
            yield self.at(unit, *said)

    def at(self, unit: Unit, failure: Failure | None, record: Record | None) -> tuple[str, tuple[str, ...], str]:
        """As `of`, for one whose records have been read."""
        if unit.name in self._running:
            return "running", (), ""
        if failure is not None:
            return "failed", failure.sources, failure.reason
        if record is None:
            return "waiting", (), ""
        begun = record.model != self.model or os.path.lexists(self.job.work(unit))
        return "stale" if record.state == "done" and begun else record.state, record.sources, ""


def status(job: Job, page: Place | None = None) -> dict[str, Any]:
    """Counts of units by state, and why those failed that did; the same as a map at `page`, where that is given.

    Raises OutputError for another job's output, and where the page cannot be written.
    """
    check(job.output, job.identity())
    states = States(job)
    found = ((unit, states.at(unit, *said)) for unit, said in _survey(job))
    told = [Told(unit.cell.name, unit.interval.name, state, reason) for unit, (state, _, reason) in found]
    count = Counter(unit.state for unit in told)
    said = {
        "output": str(job.output),
        "units": len(told),
        **{state: count[state] for state in STATES},
        "failures": [
            {"unit": f"{unit.cell}_{unit.interval}", "reason": unit.reason} for unit in told if unit.state == "failed"
        ],
    }
    if page is None:
        return said
    model, (first, last) = job.upscale_plan.model, job.days
    summary = (
        f"{len(told):,} units: {len(job.places):,} cells of {job.places[0].window.width * GSD / 1000:g} km, from "
        f"{first} to {last} by {job.interval}, at {GSD / job.upscale.scale:g} m with {model.name} "
        f"({model.sha256[:12]})."
    )
    squares = [Square(cell.name, cell.crs, cell.window.bounds) for cell in job.places]
    ending = f"_x{job.upscale.scale}.html" if "page" in job.upscale.outputs else None
    write_map(page, job.output, summary, squares, told, STATES, ending)
    return said | {"page": str(page)}


def retry(job: Job) -> dict[str, Any]:
    """Forget the failures, so that the next run tries these units again. Raises OutputError."""
    check(job.output, job.identity())
    failed = [unit for unit, (failure, _) in _survey(job) if failure is not None]
    for unit in failed:
        forget_failure(job.output / unit.path)
    return {"output": str(job.output), "forgotten": [unit.name for unit in failed]}


def _survey(job: Job) -> Iterator[tuple[Unit, tuple[Failure | None, Record | None]]]:
    """Every unit and its records; of acquisitions, those that something is known of."""
    if job.by_acquisition:
        days = [name for name in folders(job.output) if _is_day(name)]
        known = {day: set(folders(job.output / day)) for day in days}
        units = [unit for cell in job.places for unit in units_of(of_days(days), [cell])]
        units = [unit for unit in units if unit.cell.name in known[unit.interval.name]]
    else:
        units = job.units()
    for unit, said in zip(units, said_of([job.output / unit.path for unit in units]), strict=True):
        if not job.by_acquisition or any(said) or os.path.lexists(job.work(unit)):
            yield unit, said


def _is_day(name: str) -> bool:
    """Whether a folder can be that of an acquisition: somebody may have made others."""
    try:
        return date.fromisoformat(name).isoformat() == name
    except ValueError:
        return False
