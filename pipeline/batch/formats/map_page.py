"""The map of an archive: its units and what became of them in, one HTML file that needs nothing but itself out.

Every cell is a square where it lies, in the colour of its unit's state; intervals are chosen above it. Finished squares
lead to their mosaics' pages, and failures are listed with their reasons. No times, no requests, whatever others wrote
is escaped: equal records give an equal page.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from pyproj import Transformer

from rsup.models.base.errors import OutputError
from rsup.models.base.files import writing
from rsup.pipeline.look import template
from rsup.pipeline.places import objects
from rsup.pipeline.places.address import ObjectPath
from rsup.pipeline.places.place import Place, write
from rsup.pipeline.public import printable

PAGE = template(__package__, "map_page.html")
MARK = b'<meta name="generator" content="rsup batch status">'
"""What says, near its beginning, that a file is such a page and may be replaced by one."""
SPAN = 10_000
"""Units of the drawing along its longer side."""
MOST_ROWS = 500
"""Failures in the table: what goes wrong for more is one thing."""


@dataclass(frozen=True)
class Square:
    """A cell of the archive."""

    name: str
    crs: str
    bounds: tuple[float, float, float, float]
    """West, south, east, north in metres of `crs`."""


@dataclass(frozen=True)
class Told:
    """What the records say of a unit."""

    cell: str
    interval: str
    state: str
    reason: str = ""
    """Why it failed, where it did."""


def write_map(
    path: Place,
    archive: Place,
    summary: str,
    squares: Sequence[Square],
    units: Sequence[Told],
    states: Sequence[str],
    ending: str | None,
) -> None:
    """Write the map of the archive in `archive` to `path`, which appears whole or not at all.

    Its squares lead to pages where a browser can go there from `path`: on one disk, or in one bucket. `states`: all
    there are; `ending`: of the mosaics' pages, after the unit's name, or None where they have none. Another map at
    `path` is replaced. Raises OutputError where anything else stands there, or the disk or the store refuses.
    """
    intervals = sorted({unit.interval for unit in units})
    squares = sorted(squares, key=lambda square: square.name)
    corners, width, height = _drawn(squares)
    failed = [unit for unit in units if unit.state == "failed"]
    page = PAGE.substitute(
        mark=MARK.decode(),
        title=_text(f"Archive {archive.name}"),
        summary=_text(summary),
        view=f"0 0 {width} {height}",
        failures=_failures(failed),
        data=_script(
            {
                "states": states,
                "root": None if ending is None else _way(path, archive),
                "ending": ending,
                "cells": [square.name for square in squares],
                "corners": corners,
                "intervals": [printable(interval) for interval in intervals],
                "units": _digits(units, squares, intervals, states),
                "reasons": {f"{unit.cell}_{printable(unit.interval)}": printable(unit.reason) for unit in failed},
            }
        ),
    )
    if not _may_be_written(path):
        raise OutputError(f"{path} is no map of a job, which is all that --page replaces; choose another name")
    write(path, page.encode())


def _may_be_written(path: Place) -> bool:
    """Whether nothing is there but another such page."""
    if isinstance(path, ObjectPath):
        start = objects.beginning(path, 500)
        return start is None or MARK in start
    if not os.path.lexists(path):
        return True
    if not path.is_file() or path.is_symlink():
        return False
    with writing(path, OutputError), path.open("rb") as file:
        return MARK in file.read(500)


def _way(path: Place, archive: Place) -> str | None:
    """From the page to the archive, as a link is written; None where no link leads from one to the other."""
    if isinstance(path, ObjectPath) and isinstance(archive, ObjectPath):
        if path.bucket != archive.bucket:
            return None
        return quote(os.path.relpath(f"/{archive.key}", f"/{path.parent.key}"))
    if isinstance(path, Path) and isinstance(archive, Path):
        return quote(Path(os.path.relpath(archive, path.absolute().parent)).as_posix())
    return None


def _digits(
    units: Sequence[Told], squares: Sequence[Square], intervals: Sequence[str], states: Sequence[str]
) -> list[str]:
    """Of each interval the states of the cells, a digit each; a dot for a cell that has no unit then."""
    columns = {square.name: number for number, square in enumerate(squares)}
    rows = {interval: ["."] * len(squares) for interval in intervals}
    for unit in units:
        rows[unit.interval][columns[unit.cell]] = str(states.index(unit.state))
    return ["".join(row) for row in rows.values()]


def _drawn(squares: Sequence[Square]) -> tuple[list[list[int]], int, int]:
    """The four corners of every cell, x and y in turn, in a drawing of so many units; north is up.

    Degrees, with those of longitude as long as in the middle of the area.
    """
    points: NDArray[np.float64] = np.empty((len(squares), 4, 2))
    for crs in {square.crs for square in squares}:
        chosen = [number for number, square in enumerate(squares) if square.crs == crs]
        bounds = np.array([squares[number].bounds for number in chosen])
        xs, ys = bounds[:, [0, 2, 2, 0]], bounds[:, [3, 3, 1, 1]]
        points[chosen] = np.stack(Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(xs, ys), -1)
    points[..., 0] += 360 * np.round((points[0, 0, 0] - points[..., 0]) / 360)  # one side of the antimeridian
    points[..., 0] *= np.cos(np.radians(points[..., 1].mean()))
    points[..., 1] *= -1
    points -= points.min(axis=(0, 1))
    drawn = np.round(points * SPAN / points.max()).astype(int)
    width, height = (int(side) for side in drawn.max(axis=(0, 1)))
    return drawn.reshape(-1, 8).tolist(), width, height


def _failures(failed: Sequence[Told]) -> str:
    if not failed:
        return ""
    rows = "\n".join(
        f'<tr><th scope="row">{_text(f"{unit.cell}_{unit.interval}")}</th><td>{_text(unit.reason)}</td></tr>'
        for unit in failed[:MOST_ROWS]
    )
    more = f"<p>And {len(failed) - MOST_ROWS:,} more.</p>" if len(failed) > MOST_ROWS else ""
    return f"<h2>Failures</h2>\n<table><tbody>\n{rows}\n</tbody></table>{more}"


def _text(said: str) -> str:
    return escape(printable(said))


def _script(data: dict[str, Any]) -> str:
    """JSON inside a script element, which no text of it can end."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
