"""How far a job has come, by its records alone: no catalogue is asked, no unit is touched; and forgetting failures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsup.pipeline.lattice import GSD

from .formats.map_page import Square, Told, write_map
from .job import Job
from .lease import leased
from .records import FAILURE, RECORD, WORK, check, failure_of, forget_failure, record_of
from .units import Unit

STATES = ("done", "stale", "empty", "failed", "running", "waiting")
"""Of a unit. Stale: done, and begun anew or of another model; of new items only a catalogue knows."""


class States:
    """The states of a job's units, as they are when each is asked for."""

    def __init__(self, job: Job) -> None:
        self.output, self.model = job.output, job.upscale_plan.model.sha256
        self._running = leased(job.output)

    def of(self, unit: Unit) -> tuple[str, tuple[str, ...]]:
        """State, and the ids of the items that led to it."""
        return self.at(self.output / unit.path, unit.name)

    def at(self, folder: Path, name: str) -> tuple[str, tuple[str, ...]]:
        """As `of`, for the unit `name` in its folder."""
        failure, record = failure_of(folder), record_of(folder)
        if name in self._running:
            return "running", ()
        if failure is not None:
            return "failed", failure.sources
        if record is None:
            return "waiting", ()
        stale = record.state == "done" and (record.model != self.model or os.path.lexists(folder / WORK))
        return "stale" if stale else record.state, record.sources


def status(job: Job, page: Path | None = None) -> dict[str, Any]:
    """Counts of units by state, and why those failed that did; the same as a map at `page`, where that is given.

    Raises OutputError for another job's output, and where the page cannot be written.
    """
    check(job.output, job.identity())
    units = list(_survey(job))
    count = Counter(unit.state for unit in units)
    said = {
        "output": str(job.output),
        "units": len(units),
        **{state: count[state] for state in STATES},
        "failures": [
            {"unit": f"{unit.cell}_{unit.interval}", "reason": unit.reason} for unit in units if unit.state == "failed"
        ],
    }
    if page is None:
        return said
    model, (first, last) = job.upscale_plan.model, job.days
    summary = (
        f"{len(units):,} units: {len(job.places):,} cells of {job.places[0].window.width * GSD / 1000:g} km, from "
        f"{first} to {last} by {job.interval}, at {GSD / job.upscale.scale:g} m with {model.name} "
        f"({model.sha256[:12]})."
    )
    squares = [Square(cell.name, cell.crs, cell.window.bounds) for cell in job.places]
    write_map(page, job.output, summary, squares, units, STATES, f"_x{job.upscale.scale}.html")
    return said | {"page": str(page)}


def _survey(job: Job) -> Iterator[Told]:
    """Every unit, interval by interval; of acquisitions, those that something is known of."""
    known = States(job)
    for folder, name in _folders(job):
        state, _ = known.at(folder, name)
        failure = failure_of(folder) if state == "failed" else None
        yield Told(folder.name, folder.parent.name, state, failure.reason if failure else "")


def retry(job: Job) -> dict[str, Any]:
    """Forget the failures, so that the next run tries these units again. Raises OutputError."""
    check(job.output, job.identity())
    failed = [(folder, name) for folder, name in _folders(job) if failure_of(folder)]
    for folder, _ in failed:
        forget_failure(folder)
    return {"output": str(job.output), "forgotten": [name for _, name in failed]}


def _folders(job: Job) -> Iterator[tuple[Path, str]]:
    """Folder and name of every unit; of acquisitions, of those that something is known of."""
    if not job.by_acquisition:
        yield from ((job.output / unit.path, unit.name) for unit in job.units())
        return
    for cell in job.places:
        for folder in sorted(job.output.glob(f"*/{cell.name}")):
            if any(os.path.lexists(folder / name) for name in (RECORD, FAILURE, WORK)):
                yield folder, f"{cell.name}_{folder.parent.name}"
