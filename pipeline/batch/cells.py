"""The ground of a job cut into cells: squares of the fixed lattice of each UTM zone, whole wherever the area ends.

A cell is the same ground in every job, so that neighbouring jobs fit together. The squares of MGRS, 100 km wide, are
those that Sentinel-2's tiles are named after.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, floor
from typing import Any

import numpy as np
import shapely
from pyproj import Transformer

from rsup.models.base.errors import ArgumentError
from rsup.pipeline.lattice import GSD, Window
from rsup.pipeline.sources.footprint import Box, box_of

from .area import by_zone

MGRS = "mgrs"
MGRS_SIDE = 100_000 // GSD
"""Side of a square of MGRS, in pixels."""
SIDES = (64, 32_768)
"""Smallest and largest side of a square, in pixels."""
MOST = 1_000_000
"""Squares that are looked at; a world of tiles is less."""
HAIR = 1e-3
"""Metres of an area that do not make it touch a square: it ends at the square's edge, but for rounding."""

_COLUMNS = ("ABCDEFGH", "JKLMNPQR", "STUVWXYZ")
_ROWS = "ABCDEFGHJKLMNPQRSTUV"
_BANDS = "CDEFGHJKLMNPQRSTUVWX"


@dataclass(frozen=True)
class Cell:
    """One square of ground."""

    name: str
    """Of a folder: "33UUQ", or zone and south-western corner in metres, "33N-E309760-N5422080"."""
    crs: str
    window: Window
    """On the lattice of `crs`."""

    @property
    def zone(self) -> str:
        """Number and hemisphere of its UTM zone, "33N"."""
        return _zone_name(self.crs)

    @cached_property
    def box(self) -> Box:
        """The smallest box in degrees around it."""
        return box_of(self.window, self.crs)


def cells_of(area: Any, size: int | str) -> list[Cell]:
    """The squares of `size` pixels, or of MGRS, that an area in degrees touches; from north to south in each zone.

    Raises ArgumentError where there are too many to look at, or none.
    """
    side = MGRS_SIDE if isinstance(size, str) else size
    parts = by_zone(area)
    looked_at = {crs: _around(part, side) for crs, part in parts.items()}
    if (count := sum(len(rows) * len(cols) for rows, cols in looked_at.values())) > MOST:
        raise ArgumentError(f"cells of {side} pixels: {count:,} lie around this area, which are too many: enlarge them")
    cells = []
    for crs, part in parts.items():
        for row, col in _touched(part, side, *looked_at[crs]):
            window = Window(row * side, col * side, side, side)
            name = _mgrs(window, crs) if size == MGRS else _corner(window, crs)
            cells.append(Cell(name, crs, window))
    if not cells:
        raise ArgumentError("the area has no ground in it: give polygons that are wider than a line")
    return cells


def _around(part: Any, side: int) -> tuple[range, range]:
    """Rows and columns of the squares of a zone's lattice around `part`, in metres."""
    west, south, east, north = (edge / (side * GSD) for edge in shapely.bounds(part))
    return range(floor(-north), ceil(-south)), range(floor(west), ceil(east))


def _touched(part: Any, side: int, rows: range, cols: range) -> list[tuple[int, int]]:
    """Row and column of those squares that `part`, in metres, touches."""
    metres = side * GSD
    row, col = (grid.ravel() for grid in np.meshgrid(rows, cols, indexing="ij"))
    squares = shapely.box(
        col * metres + HAIR, -(row + 1) * metres + HAIR, (col + 1) * metres - HAIR, -row * metres - HAIR
    )
    shapely.prepare(part)
    hit = shapely.intersects(part, squares)
    return [(int(r), int(c)) for r, c in zip(row[hit], col[hit], strict=True)]


def _zone(crs: str) -> tuple[int, bool]:
    """Number, and whether it is of the north."""
    code = int(crs.removeprefix("EPSG:"))
    return code % 100, code < 32700


def _zone_name(crs: str) -> str:
    number, northern = _zone(crs)
    return f"{number:02}{'N' if northern else 'S'}"


def _corner(window: Window, crs: str) -> str:
    west, south, _, _ = window.bounds
    return f"{_zone_name(crs)}-E{west}-N{south}"


def _mgrs(window: Window, crs: str) -> str:
    """Zone, latitude band, column and row letter of the 100 km square (NGA.STND.0037, appendix B: scheme AA)."""
    number, _ = _zone(crs)
    west, south, east, north = window.bounds
    middle = (west + east) / 2, (south + north) / 2
    lat = Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform(*middle)[1]
    band = _BANDS[min(len(_BANDS) - 1, max(0, int((lat + 80) // 8)))]
    hundreds = int(west) // 100_000, int(south) // 100_000  # the south's false northing is five times the 2000 km
    column = _COLUMNS[(number - 1) % 3][(hundreds[0] - 1) % 8]
    row = _ROWS[(hundreds[1] + (0 if number % 2 else 5)) % len(_ROWS)]
    return f"{number:02}{band}{column}{row}"
