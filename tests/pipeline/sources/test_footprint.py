"""Ground in degrees against pyproj, on both sides of the antimeridian, and real items that cross it."""

import json
from typing import Any

import pytest
from places import SHARED
from pyproj import Transformer

from rsup.models.base.errors import ArgumentError
from rsup.pipeline.lattice import Window
from rsup.pipeline.sources.footprint import Box, Footprint, box_of, window_in

REAL = SHARED / "data" / "sentinel2"


@pytest.mark.parametrize(
    ("bbox", "crs"),
    [
        ((15.0, 46.0, 15.1, 46.1), "EPSG:32633"),
        ((11.9, 46.0, 12.1, 46.1), "EPSG:32633"),
        ((179.95, -17.0, -179.9, -16.9), "EPSG:32701"),
        ((179.95, -17.0, -179.9, -16.9), "EPSG:32760"),
    ],
)
def test_the_window_covers_the_box_and_hardly_more(bbox: tuple[float, ...], crs: str) -> None:
    box = Box.of(bbox)
    west, south, east, north = window_in(box, crs).bounds
    to_utm = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    steps = [i / 40 for i in range(41)]
    edge = [(u, v) for u in steps for v in (0, 1)] + [(v, u) for u in steps for v in (0, 1)]
    points = [
        to_utm.transform(box.west + u * (box.east - box.west), box.south + v * (box.north - box.south)) for u, v in edge
    ]
    xs, ys = zip(*points, strict=True)
    # Outwards by less than a pixel and what 41 samples miss of a curved edge.
    assert 0 <= min(xs) - west < 11 and 0 <= east - max(xs) < 11
    assert 0 <= min(ys) - south < 11 and 0 <= north - max(ys) < 11
    assert not any(number % 10 for number in (west, south, east, north))


def test_a_box_far_from_its_zone_is_refused() -> None:
    window_in(Box.of((4.5, 46, 5, 46.1)), "EPSG:32631")
    with pytest.raises(ArgumentError, match="split it"):
        window_in(Box.of((-2, 46, 14, 46.1)), "EPSG:32632")
    with pytest.raises(ArgumentError, match="split it"):
        window_in(Box.of((15, 46, 15.1, 46.1)), "EPSG:32601")


def test_a_box_across_the_antimeridian_is_split() -> None:
    assert Box.of((179.5, -17.5, -179, -16)).split() == [(179.5, -17.5, 180.0, -16), (-180.0, -17.5, -179, -16)]
    assert Box.of((15, 46, 16, 47)).split() == [(15, 46, 16, 47)]


@pytest.mark.parametrize(
    ("bbox", "crs"), [((15, 46, 15.1, 46.1), "EPSG:32633"), ((179.9, 1, -179.9, 1.1), "EPSG:32601")]
)
def test_a_window_s_box_holds_the_box_it_came_from(bbox: tuple[float, ...], crs: str) -> None:
    box = Box.of(bbox)
    back = box_of(window_in(box, crs), crs)
    assert back.west <= box.west + 1e-6 and back.south <= box.south + 1e-6
    assert back.east >= box.east - 1e-6 and back.north >= box.north - 1e-6
    assert back.east - back.west < box.east - box.west + 0.01


def rectangle(west: float, south: float, east: float, north: float) -> list[list[list[float]]]:
    return [[[west, south], [east, south], [east, north], [west, north], [west, south]]]


FIJI = Box.of((179.9, -17.0, -179.9, -16.5))


@pytest.mark.parametrize(
    ("geometry", "expected"),
    [
        ({"type": "Polygon", "coordinates": rectangle(179.2, -17.2, 180.3, -16.2)}, True),
        ({"type": "Polygon", "coordinates": rectangle(-180.8, -17.2, -179.7, -16.2)}, True),
        ({"type": "Polygon", "coordinates": rectangle(-179.7, -17.2, 179.2, -16.2)}, True),  # the long way round
        (
            {
                "type": "MultiPolygon",
                "coordinates": [rectangle(179.2, -17.2, 180, -16.2), rectangle(-180, -17.2, -179.7, -16.2)],
            },
            True,
        ),
        ({"type": "Polygon", "coordinates": rectangle(178.0, -17.2, 179.0, -16.2)}, False),
        ({"type": "Polygon", "coordinates": rectangle(-0.5, -17.2, 0.5, -16.2)}, False),
        ({"type": "Polygon", "coordinates": rectangle(179.2, -19, 180.3, -18)}, False),
    ],
)
def test_footprints_at_the_antimeridian(geometry: dict[str, Any], expected: bool) -> None:
    assert Footprint(geometry).touches(FIJI) is expected


@pytest.mark.skipif(not REAL.is_dir(), reason="no real imagery beside the project")
def test_real_items_at_the_antimeridian() -> None:
    """01KAB and 01WCR as two catalogues describe them, looked for in their own zones' coordinates."""
    kab = "metadata/stactools/S2A_MSIL2A_20230821T221941_N0509_R029_T01KAB_20230822T021825.SAFE/expected_output.json"
    wcr = "mapchete_eo/stac_items/S2A_OPER_MSI_L2A_TL_2APS_20230602T025701_A041483_T01WCR.json"
    for path, crs, west, north in ((kab, "EPSG:32701", 99960, 8200000), (wcr, "EPSG:32601", 300000, 7600020)):
        geometry = Footprint(json.loads((REAL / path).read_text())["geometry"])
        middle = Window(row=-north // 10 + 5000, col=west // 10 + 8000, height=400, width=400)
        assert geometry.touches(box_of(middle, crs)), path
        assert not geometry.touches(box_of(Window(middle.row + 40_000, middle.col, 400, 400), crs)), path
        assert not geometry.touches(Box.of((10, 46, 10.1, 46.1))), path
