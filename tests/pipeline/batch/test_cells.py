"""Cells: the squares of the lattice that an area touches, and the names of those of MGRS."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from pyproj import Transformer

from rsup.models.base.errors import ArgumentError
from rsup.pipeline.batch.area import of_box, of_file
from rsup.pipeline.batch.cells import Cell, cells_of
from rsup.pipeline.demo.acquisitions import ACQUISITIONS
from rsup.pipeline.lattice import GSD, Window


def ground(cell: Cell) -> Any:
    """Its square in degrees, bent as it is."""
    square = shapely.segmentize(shapely.box(*cell.window.bounds), 500)
    to_degrees = Transformer.from_crs(cell.crs, "EPSG:4326", always_xy=True)
    return shapely.transform(square, lambda xy: np.stack(to_degrees.transform(*xy.T), -1))


@pytest.mark.parametrize(
    ("bbox", "zones"),
    [
        ((11.9, 48.0, 12.1, 48.1), {"EPSG:32632", "EPSG:32633"}),  # across the edge of two zones
        ((13.0, -0.05, 13.1, 0.05), {"EPSG:32633", "EPSG:32733"}),  # across the equator
        ((2.9, 60.0, 3.1, 60.05), {"EPSG:32631", "EPSG:32632"}),  # where Norway's zone is wider
        ((8.9, 73.0, 9.2, 73.05), {"EPSG:32631", "EPSG:32633"}),  # Svalbard has no zone 32
    ],
)
def test_the_squares_cover_the_area_and_each_touches_it(bbox: tuple[float, ...], zones: set[str]) -> None:
    area = shapely.box(*bbox)
    cells = cells_of(of_box(bbox), 128)  # type: ignore[arg-type]
    assert {cell.crs for cell in cells} == zones
    squares = [ground(cell) for cell in cells]
    assert shapely.union_all(squares).buffer(1e-6).covers(area)
    assert all(square.intersects(area) for square in squares)
    for cell in cells:
        window = cell.window
        assert (window.height, window.width, window.row % 128, window.col % 128) == (128, 128, 0, 0)
    assert len({cell.name for cell in cells}) == len(cells)


def test_an_area_that_is_a_square_touches_no_neighbour() -> None:
    window = Window(-542 * 1000, 31 * 1000, 1000, 1000)
    (cell,) = cells_of(ground(Cell("", "EPSG:32633", window)).buffer(-1e-7), 1000)
    assert cell == Cell("33N-E310000-N5410000", "EPSG:32633", window)


def test_the_squares_of_mgrs_are_the_ones_that_tiles_are_named_after() -> None:
    """Of three tiles in two zones, as their products have them: each tile holds its square."""
    for acquisition in ACQUISITIONS:
        west, south, east, north = acquisition.tile_bounds
        tile = Window(round(-north / GSD), round(west / GSD), round((north - south) / GSD), round((east - west) / GSD))
        cells = {cell.name: cell for cell in cells_of(ground(Cell("", acquisition.crs, tile)), "mgrs")}
        cell = cells[acquisition.tile]
        assert cell.crs == acquisition.crs
        inner = cell.window.bounds
        assert west <= inner[0] and south <= inner[1] and inner[2] <= east and inner[3] <= north
        assert inner[2] - inner[0] == inner[3] - inner[1] == 100_000


@pytest.mark.parametrize(
    ("degrees", "name"),
    [  # as gdal, geographiclib and the tiling grid of Sentinel-2 have them
        ((11.57, 48.14), "32UPU"), ((-70.65, -33.45), "19HCC"), ((151.21, -33.86), "56HLH"), ((5.32, 60.39), "32VKN"),
    ],
)  # fmt: skip
def test_known_squares_of_mgrs(degrees: tuple[float, float], name: str) -> None:
    lon, lat = degrees
    assert [cell.name for cell in cells_of(of_box((lon, lat, lon + 1e-4, lat + 1e-4)), "mgrs")] == [name]


def test_across_the_antimeridian() -> None:
    cells = cells_of(of_box((179.99, -17.0, -179.99, -16.99)), 64)
    assert {cell.crs for cell in cells} == {"EPSG:32760", "EPSG:32701"}
    assert len(cells) < 30


Write = Callable[[object], Path]


@pytest.fixture
def geojson(tmp_path: Path) -> Write:
    def write(document: object) -> Path:
        path = tmp_path / "area.geojson"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    return write


def polygon(*bbox: float) -> dict[str, Any]:
    return json.loads(shapely.to_geojson(shapely.box(*bbox)))  # type: ignore[no-any-return]


def test_an_area_from_a_file_is_its_polygons(geojson: Write) -> None:
    one, other = polygon(13, 52, 13.1, 52.1), polygon(14, 52, 14.1, 52.1)
    features = [{"type": "Feature", "properties": {}, "geometry": each} for each in (one, other)]
    found = of_file(geojson({"type": "FeatureCollection", "features": features}))
    assert found.equals(shapely.union(shapely.box(13, 52, 13.1, 52.1), shapely.box(14, 52, 14.1, 52.1)))
    assert of_file(geojson(features[0])).equals(of_file(geojson(one)))
    names = {cell.name for cell in cells_of(found, 512)}
    assert names < {cell.name for cell in cells_of(of_box((13, 52, 14.1, 52.1)), 512)}  # and nothing between them
    cut = {"type": "GeometryCollection", "geometries": [polygon(179.9, 0, 180, 1), polygon(-180, 0, -179.9, 1)]}
    assert of_file(geojson(cut)).bounds == pytest.approx((179.9, 0, 180.1, 1))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "is no GeoJSON"),
        ([], "is no GeoJSON"),
        ({"type": "Point", "coordinates": [1, 2]}, "must hold polygons"),
        ({"type": "FeatureCollection", "features": []}, "must hold polygons"),
        (polygon(300_000, 5_400_000, 300_100, 5_400_100), "is not in degrees"),
        (polygon(1, 80, 2, 85), "reaches beyond UTM"),
    ],
)
def test_what_is_no_area(document: object, words: str, geojson: Write) -> None:
    with pytest.raises(ArgumentError, match=words):
        of_file(geojson(document))


def test_too_many_squares_are_refused_before_they_are_made() -> None:
    with pytest.raises(ArgumentError, match="lie around this area, which are too many"):
        cells_of(of_box((0.1, 0.1, 5.9, 50)), 64)
    with pytest.raises(ArgumentError, match="has no ground in it"):
        cells_of(shapely.Polygon([(13, 52), (13.1, 52), (13, 52)]), 64)
    with pytest.raises(ArgumentError, match="has no ground in it"):
        of_box((13, 52, 13, 52))
