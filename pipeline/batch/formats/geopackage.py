"""Geometries of a GeoPackage (OGC 12-128r18): its bytes in, shapes in degrees out.

A GeoPackage is an SQLite database whose geometries are WKB behind a header, and which says its own CRS: Python and
shapely read both. A library for it would bring a second GDAL into the process.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

MAGIC = b"SQLite format 3\0"
"""How the file begins."""
STEPS = 100_000_000
"""Steps of SQLite's machine: no honest table of outlines takes a tenth."""
ENVELOPES = (0, 32, 48, 48, 64)
"""Bytes of the box in a geometry's header, by the number in its flags (clause 2.1.3)."""
STEP = 5_000.0
"""Metres between the points of an edge: what is straight in a projection is bent in degrees."""
DIGITS = 7
"""Of degrees, a centimetre: the same file is the same ground whatever version of PROJ turns it."""


def geometries(content: bytes, path: Path) -> list[Any]:
    """The geometries of its only layer, in degrees. `path`: where the file lies, for what may lie beside it.

    Raises ValueError, with the end of a sentence about the file, where there is no such layer or it cannot be read.
    """
    journal = path.with_name(f"{path.name}-wal")
    if journal.is_file() and journal.stat().st_size:
        raise ValueError("has changes that are not in it yet: close the program that has it open")
    if content[68:71] != b"GPK" and content[68:70] != b"GP":
        raise ValueError("is an SQLite database, and no GeoPackage: give polygons as GeoJSON or GeoPackage")
    content = content[:18] + b"\1\1" + content[20:]  # its journal is empty, and there is none in memory
    try:
        with closing(sqlite3.connect(":memory:")) as database:
            database.deserialize(content)
            database.execute("PRAGMA trusted_schema = OFF")
            database.set_progress_handler(lambda: 1, STEPS)
            return _of_layer(database, *_layer(database))
    except (sqlite3.Error, shapely.errors.ShapelyError, ProjError, TypeError, IndexError) as error:
        raise ValueError(f"is a damaged GeoPackage ({error}): write it anew") from error


def _layer(database: sqlite3.Connection) -> tuple[str, str, CRS]:
    """Table, column and CRS of the only one."""
    layers = database.execute(
        "SELECT table_name, column_name, g.srs_id FROM gpkg_geometry_columns g JOIN gpkg_contents c USING (table_name)"
        " WHERE c.data_type = 'features' ORDER BY table_name"
    ).fetchall()
    if len(layers) != 1:
        names = f" ({', '.join(str(layer[0]) for layer in layers[:5])})" if layers else ""
        raise ValueError(f"has {len(layers)} layers{names}: give a file with one, which holds the polygons")
    table, column, number = layers[0]
    known = database.execute("SELECT * FROM gpkg_spatial_ref_sys WHERE srs_id = ?", (number,))
    fields = [field[0] for field in known.description]
    said = dict(zip(fields, known.fetchone() or (), strict=False))
    for field in ("definition_12_063", "definition"):  # WKT 2 where the file has it, else WKT 1
        if (text := str(said.get(field) or "undefined")) != "undefined":
            crs = CRS.from_user_input(text)
            if crs.is_geographic or crs.is_projected:
                return str(table), str(column), crs
    raise ValueError(f"does not say its coordinate reference system (srs_id {number}): set it, and write the file anew")


def _of_layer(database: sqlite3.Connection, table: str, column: str, crs: CRS) -> list[Any]:
    name, of = (f'"{each.replace(chr(34), 2 * chr(34))}"' for each in (column, table))
    blobs = database.execute(f"SELECT {name} FROM {of} WHERE {name} IS NOT NULL")  # noqa: S608
    shapes = [shapely.force_2d(shapely.from_wkb(_wkb(blob))) for (blob,) in blobs]
    to_degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)  # x before y, as the standard has it
    if crs.is_projected:
        shapes = [shapely.segmentize(each, STEP / crs.axis_info[0].unit_conversion_factor) for each in shapes]

    def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.round(np.stack(to_degrees.transform(points[:, 0], points[:, 1]), axis=-1), DIGITS)

    return [shapely.transform(each, move) for each in shapes if not each.is_empty]


def _wkb(blob: bytes) -> bytes:
    """What follows the header: "GP", version, flags, the CRS's number and the box."""
    if blob[:2] != b"GP" or blob[3] & 0b100000:  # a type that the standard does not know
        raise TypeError("a geometry is of no standard type")
    return blob[8 + ENVELOPES[blob[3] >> 1 & 0b111] :]
