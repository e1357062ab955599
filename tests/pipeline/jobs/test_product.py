"""Products in the place of a catalogue: which of them are taken, in which zone, of which ground."""

from pathlib import Path
from typing import Any

import pytest
from safes import GROUND, planes, write_jp2, write_safe

from rsup.models.base.errors import ArgumentError, SceneError
from rsup.pipeline.jobs.product import request_of
from rsup.pipeline.lattice import Window
from rsup.pipeline.sources.stac.catalog import NothingFoundError

OPTIONS: dict[str, Any] = {"date": None, "max_cloud": 100, "bands": ("red", "nir")}


@pytest.fixture(scope="module")
def products(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two days of one tile, and a tile of the next zone."""
    folder = tmp_path_factory.mktemp("products")
    made = planes()
    return {
        "early": str(write_safe(folder, made)),
        "late": str(write_safe(folder, made, day="20240710T100559")),
        "beyond": str(write_safe(folder, made, Window(-510_000, 77_000, 128, 192), "EPSG:32632", tile="32TQS")),
    }


def test_the_ground_is_the_products_own_in_the_zone_of_most(products: dict[str, str]) -> None:
    one = request_of([products["early"]], None, **OPTIONS)
    assert (one.utm, one.ground) == ("EPSG:32633", GROUND)
    alone = request_of([products["beyond"]], None, **OPTIONS)
    assert (alone.utm, alone.ground) == ("EPSG:32632", Window(-510_000, 77_000, 128, 192))
    every = request_of(list(products.values()), None, **OPTIONS)
    assert every.utm == "EPSG:32633" and every.ground is not None and every.ground.intersect(GROUND) == GROUND
    assert [item.tile for item in every.items] == ["32TQS", "33TWL", "33TWL"]  # by date, then by name
    forced = request_of([products["early"]], None, **OPTIONS, crs="EPSG:32632")
    assert forced.utm == "EPSG:32632" and forced.ground is not None and forced.ground.height > GROUND.height


def test_dates_cloud_and_ground_choose_among_products(products: dict[str, str]) -> None:
    both = [products["early"], products["late"]]
    july = request_of(both, None, **OPTIONS | {"date": "2024-07"})
    assert [item.datetime[:7] for item in july.items] == ["2024-07"]
    near = request_of(both, (15.001, 46.03, 15.01, 46.04), **OPTIONS)
    assert near.ground is None and len(near.items) == 2 and near.utm == "EPSG:32633"
    for changed, box in (({"date": "2023"}, None), ({"max_cloud": 5.0}, None), ({}, (20.0, 10.0, 20.1, 10.1))):
        with pytest.raises(NothingFoundError, match="not one product is of the ground, dates and cloud asked for"):
            request_of(both, box, **OPTIONS | changed)


def test_a_product_across_the_antimeridian(tmp_path: Path) -> None:
    window = Window(-818_500, 17_860, 128, 192)  # of zone 1 south, 180 degrees in its middle
    made = write_safe(tmp_path, planes(), window, "EPSG:32701", tile="01KAB")
    request = request_of([str(made)], None, **OPTIONS)
    assert (request.utm, request.ground) == ("EPSG:32701", window)
    west, _, east, _ = request.bbox
    assert 179.9 < west < 180 and -180 < east < -179.9
    assert len(request_of([str(made)], (179.99, -17, -179.99, -16), **OPTIONS).items) == 1


def test_clouds_of_level_1c_cannot_be_masked_and_no_product_is_larger_than_a_country(tmp_path: Path) -> None:
    bands = {name: plane for name, plane in planes().items() if name != "scl"}
    plain = write_safe(tmp_path, bands, level="1C")
    with pytest.raises(ArgumentError, match="--mask-clouds needs scene classification, which S2B_MSIL1C"):
        request_of([str(plain)], None, **OPTIONS | {"mask_clouds": True})
    write_jp2(next(plain.rglob("*_B04.jp2")), bands["red"], GROUND, gsd=20_000)
    with pytest.raises(SceneError, match="its pixels would cover 2,560 x 3,840 km, which no product does"):
        request_of([str(plain)], None, **OPTIONS)


def test_what_makes_no_sense_is_refused(products: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="infrared: choose from"):
        request_of([products["early"]], None, **OPTIONS | {"bands": ("infrared",)})
    with pytest.raises(SceneError, match="is no product: give a SAFE product"):
        request_of([str(tmp_path)], None, **OPTIONS)
    with pytest.raises(SceneError, match="cannot be opened"):
        request_of([str(tmp_path / "nowhere")], None, **OPTIONS)
    with pytest.raises(SceneError, match="is no product"):
        request_of(["https://127.0.0.1:9/a.tif"], None, **OPTIONS)
