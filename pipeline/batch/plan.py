"""What a job comes to: its units, what each would take, and which of them are done; nothing is touched."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from rsup.models.base.errors import ArgumentError, CatalogError
from rsup.pipeline.jobs.fetch import MARGIN
from rsup.pipeline.jobs.forecast import forecast, recorded

from .catalogue import Catalogue
from .job import Job
from .records import check
from .status import STATES, States
from .units import Unit


def plan(job: Job) -> dict[str, Any]:
    """Every unit with its state, and bytes and seconds of those that are to be done.

    The catalogue is asked only where it is needed: for the days of acquisitions, and for what is new in an interval of
    which something is done. Raises ArgumentError, CatalogError, ModelError and OutputError.
    """
    check(job.output, job.identity())
    catalogue = Catalogue(job)
    units = catalogue.units()
    known = zip(units, States(job).of(units), strict=True)
    states = {unit: _state(unit, state, sources, catalogue) for unit, (state, sources, _) in known}
    count = Counter(states.values())
    to_do = count["waiting"] + count["stale"]
    each = _bytes(job) | (_seconds(job) if to_do else {})
    return {
        "output": str(job.output),
        "cells": len(job.places),
        "units": len(units),
        **{state: count[state] for state in STATES},
        "each": each,
        "to_do": {key: round(to_do * value, 1) for key, value in each.items()},
        "list": [{"unit": unit.name, "state": state} for unit, state in states.items()],
    }


def _state(unit: Unit, state: str, sources: tuple[str, ...], catalogue: Catalogue) -> str:
    if state not in ("done", "empty", "failed"):
        return state
    catalogue.ask(unit.interval)
    try:
        found = {item.id for item in catalogue.items(unit)}
    except (CatalogError, ArgumentError):  # it has none, or none that a run could use
        return state
    return state if found == set(sources) else "stale"


def _bytes(job: Job) -> dict[str, float]:
    """Of one unit's stores, before compression."""
    stored = job.places[0].window.grow(MARGIN)
    return {
        "scene_bytes": stored.height * stored.width * (2 * len(job.fetch.bands) + 3),
        "mosaic_bytes": job.upscale_plan.summary()["bytes"],
    }


def _seconds(job: Job) -> dict[str, float]:
    """Of one unit in the network, where this machine runs it: as they are recorded, else as a tile is timed."""
    if (seconds := recorded(job.plan_here)) is not None:
        return {"network_seconds": seconds}
    with ProcessPoolExecutor(1, get_context("spawn")) as other:  # PyTorch takes more memory than ten thousand units
        said = other.submit(forecast, job.plan_here).result()
    return {key: said[key] for key in ("network_seconds",) if key in said}
