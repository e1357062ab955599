"""Areas from GeoPackages, as GDAL writes them: the ground they mean, in any CRS; and what is none, in one sentence."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio.raw
import pytest
import shapely
from pyproj import Transformer

from rsup.models.base.errors import ArgumentError
from rsup.pipeline.batch.area import of_file

AREA = shapely.Polygon(
    [(12.9, 52.2), (13.4, 52.3), (13.3, 52.7), (12.8, 52.6)], [[(13.0, 52.4), (13.1, 52.4), (13.1, 52.5)]]
)


def write(
    path: Path, geometries: list[Any], crs: str | None = "EPSG:4326", layer: str = "area", **options: Any
) -> Path:
    """A layer as GDAL writes it."""
    wkb = np.array([None if each is None else shapely.to_wkb(each, output_dimension=3) for each in geometries], object)
    names = np.array([f"n{number}" for number in range(len(geometries))], object)
    pyogrio.raw.write(
        path, geometry=wkb, field_data=[names], fields=["name"], layer=layer, driver="GPKG", crs=crs,
        geometry_type="Unknown", **options,
    )  # fmt: skip
    return path


def moved(area: Any, crs: str) -> Any:
    there = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    return shapely.transform(area, lambda xy: np.stack(there.transform(*xy.T), -1))


@pytest.mark.parametrize(
    "crs",
    ["EPSG:4326", "EPSG:32633", "EPSG:3035", "EPSG:4258", "EPSG:2263", "+proj=laea +lat_0=50 +lon_0=10 +units=km"],
)
def test_the_ground_is_the_same_whatever_the_crs(crs: str, tmp_path: Path) -> None:
    """Of northing first (3035), latitude first (4258), feet (2263), and one that no authority knows."""
    area = shapely.segmentize(AREA, 0.01)  # edges that are bent elsewhere
    found = of_file(write(tmp_path / "area.gpkg", [moved(area, crs)], crs))
    assert found.symmetric_difference(AREA).area < 1e-5 * AREA.area


def test_all_features_of_the_layer_are_one_area(tmp_path: Path) -> None:
    other = shapely.MultiPolygon([shapely.box(14, 52, 14.1, 52.1, ccw=False), shapely.box(15, 52, 15.1, 52.1)])
    found = of_file(write(tmp_path / "area.gpkg", [AREA, None, shapely.force_3d(other, 30.0), shapely.Polygon()]))
    assert found.equals(shapely.union_all([AREA, other]))
    cut = [shapely.box(179.9, 0, 180, 1), shapely.box(-180, 0, -179.9, 1)]
    assert of_file(write(tmp_path / "date line.gpkg", cut)).bounds == pytest.approx((179.9, 0, 180.1, 1))


def test_an_open_journal_is_waited_for(tmp_path: Path) -> None:
    """A file that was closed in that mode is whole without one; one that is open is not."""
    path = write(tmp_path / "area.gpkg", [AREA])
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("UPDATE gpkg_contents SET identifier = 'mine'")
    database.commit()
    with pytest.raises(ArgumentError, match="close the program that has it open"):
        of_file(path)
    database.close()
    assert path.read_bytes()[18:20] == b"\2\2" and of_file(path).equals(AREA)


def test_what_is_no_area(tmp_path: Path) -> None:
    path = write(tmp_path / "two.gpkg", [AREA], layer="mine")
    write(path, [AREA], layer="theirs", append=True)
    plain = tmp_path / "plain.gpkg"
    with sqlite3.connect(plain) as database:
        database.execute("CREATE TABLE area (geom BLOB)")
    database.close()
    torn = tmp_path / "torn.gpkg"
    torn.write_bytes(write(tmp_path / "whole.gpkg", [AREA]).read_bytes()[:9000])
    odd = write(tmp_path / "odd.gpkg", [AREA])
    with sqlite3.connect(odd) as database:
        for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            database.execute(f'DROP TRIGGER "{name}"')
        database.execute("UPDATE area SET geom = x'00'")
    database.close()
    with pytest.warns(UserWarning, match="'crs' was not provided"):
        unknown = write(tmp_path / "unknown.gpkg", [AREA], None)
    for file, words in (
        (path, r"has 2 layers \(mine, theirs\): give a file with one"),
        (plain, "is an SQLite database, and no GeoPackage"),
        (torn, "is a damaged GeoPackage"),
        (odd, "is a damaged GeoPackage"),
        (write(tmp_path / "line.gpkg", [shapely.LineString([(13, 52), (14, 53)])]), "must hold polygons"),
        (write(tmp_path / "none.gpkg", []), "must hold polygons"),
        (unknown, "does not say its coordinate reference system"),
        (write(tmp_path / "pole.gpkg", [shapely.box(10, 80, 20, 88)]), "reaches beyond UTM"),
    ):
        with pytest.raises(ArgumentError, match=words) as caught:
            of_file(file)
        assert str(caught.value).startswith(f"area {file} ") and "\n" not in str(caught.value)
