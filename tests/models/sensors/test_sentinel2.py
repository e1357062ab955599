"""Offsets: the evidence of real items, every way it can disagree, and the numbers that come out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from places import SHARED

from rsup.models.base.errors import SceneError
from rsup.models.sensors import common_name
from rsup.models.sensors.profile import Evidence, NumberRule
from rsup.models.sensors.sentinel2 import SENTINEL2, platform_of, segment_of, tile_of
from rsup.models.sensors.sentinel2_offset import (
    dark_level,
    number_rule,
    processing_baseline,
    product_offset,
    to_stored,
)
from rsup.pipeline.sources.packing import asset_offset

REAL = SHARED / "data" / "sentinel2"
real = pytest.mark.skipif(not REAL.is_dir(), reason="no real imagery beside the project")
PRODUCTS = REAL / "mapchete_eo" / "full_products" / "sentinel-2-l2a"
STACTOOLS = REAL / "metadata" / "stactools"

NEW, OLD = {"s2:processing_baseline": "05.09"}, {"s2:processing_baseline": "02.14"}
APPLIED, KEPT = {"earthsearch:boa_offset_applied": True}, {"earthsearch:boa_offset_applied": False}
EVERY = [*SENTINEL2.bands, SENTINEL2.classes.band]
MINUS, ZERO, NONE = {"raster:bands": [{"offset": -0.1}]}, {"raster:bands": [{"offset": 0}]}, {}


def decide(
    item_id: str,
    properties: dict[str, Any],
    asset: dict[str, Any],
    dark: float | None,
    product: int | None = None,
    wanted: int | None = None,
) -> NumberRule:
    """The rule for an item whose valid pixels all have the number `dark`; None: there are none."""
    pixels = np.full(400, 0 if dark is None else round(dark), np.uint16)
    return number_rule(Evidence(item_id, properties, asset_offset(asset), None, product, pixels), wanted)


@pytest.mark.parametrize(
    ("properties", "asset", "dark", "offset", "shifted"),
    [
        (NEW, NONE, 1050.0, -1000, False),  # Planetary Computer
        (NEW, MINUS, 1050.0, -1000, False),  # CDSE
        (NEW | KEPT, MINUS, 1050.0, -1000, False),  # Earth Search, Collection 1
        (NEW | KEPT, MINUS, None, -1000, False),  # too few valid pixels to look at
        (NEW | APPLIED, MINUS, 250.0, 0, True),  # Earth Search: shifted, and the asset's offset is the product's
        (NEW | APPLIED, ZERO, 2500.0, 0, True),
        (OLD | KEPT, ZERO, 1020.0, 0, False),
        (OLD, NONE, 300.0, 0, False),
        ({}, {"raster:offset": -0.1}, 1100.0, -1000, False),
        ({}, {"bands": [{"raster:offset": -0.1}]}, 1100.0, -1000, False),
        ({}, NONE, 300.0, 0, True),  # dark pixels alone; 64000 and above can only have wrapped around
    ],
)
def test_evidence_that_agrees_decides(
    properties: dict[str, Any], asset: dict[str, Any], dark: float | None, offset: int, shifted: bool
) -> None:
    decision = decide("item", properties, asset, dark)
    assert (decision.offset, decision.shifted) == (offset, shifted)
    assert decision.evidence


@pytest.mark.parametrize(
    ("properties", "asset", "dark", "sentence"),
    [
        (NEW, NONE, 250.0, "disagrees"),  # raw by its baseline, yet darker than raw can be
        (NEW, MINUS, 250.0, "disagrees"),
        (NEW | APPLIED, MINUS, 2500.0, "disagrees"),  # nothing dark in it to tell
        (OLD, MINUS, 1500.0, "disagrees"),
        ({}, NONE, 1500.0, "nothing says"),
        ({}, NONE, None, "nothing says"),
        (NEW, {"raster:bands": [{"offset": -0.7}]}, 1050.0, "neither 0 nor -1000"),
    ],
)
def test_evidence_that_disagrees_is_left_to_the_user(
    properties: dict[str, Any], asset: dict[str, Any], dark: float | None, sentence: str
) -> None:
    with pytest.raises(SceneError, match=sentence) as failure:
        decide("item", properties, asset, dark)
    assert "--offset 0 or --offset -1000" in str(failure.value)
    assert decide("item", properties, asset, dark, wanted=-1000).offset == -1000
    assert decide("item", properties, asset, dark, wanted=0).offset == 0


@pytest.mark.parametrize(
    ("properties", "asset", "dark", "wanted", "overrules"),
    [
        (NEW, NONE, 1050.0, -1000, False),
        (NEW, NONE, 1050.0, 0, True),
        (OLD, NONE, 300.0, 0, False),
        (OLD, NONE, 300.0, -1000, True),
        (NEW, MINUS, 250.0, 0, False),  # what is said and the dark pixels disagree: the user decides
        (NEW, MINUS, 250.0, -1000, True),  # a hundredth of the ground darker than black
        (NEW | APPLIED, MINUS, 2500.0, 0, False),
        (NEW | APPLIED, MINUS, 2500.0, -1000, False),
        ({}, NONE, 1500.0, 0, False),
        ({}, NONE, None, -1000, False),
    ],
)
def test_a_user_s_word_counts_and_what_it_contradicts_is_known(
    properties: dict[str, Any], asset: dict[str, Any], dark: float | None, wanted: int, overrules: bool
) -> None:
    decision = decide("item", properties, asset, dark, wanted=wanted)
    assert (decision.offset, decision.by_user, decision.overrules) == (wanted, True, overrules)
    assert decision.evidence[-1] == f"decided by --offset {wanted}{', against the evidence' if overrules else ''}"


def test_product_metadata_stands_in_for_the_baseline() -> None:
    assert decide("item", {}, NONE, 1100.0, product=-1000).offset == -1000
    with pytest.raises(SceneError, match="product metadata: -1000; dark pixels"):
        decide("item", {}, NONE, 200.0, product=-1000)


def test_numbers_become_those_of_baseline_4() -> None:
    numbers = np.array([0, 1, 1000, 30000, 63999, 64000, 64999, 65000, 65534, 65535], np.uint16)

    def stored(offset: int, shifted: bool) -> list[int]:
        return list(to_stored(numbers, NumberRule(offset, shifted)).tolist())

    assert stored(-1000, False) == numbers.tolist()
    assert stored(0, False) == [0, 1001, 2000, 31000, 64999, 65000, 65535, 65535, 65535, 65535]
    # 65534 was 998 before the archive took 1000 off; 65000 was 464; what was below 1 was nodata and is kept valid.
    assert stored(0, True) == [0, 1001, 2000, 31000, 64999, 1, 463, 464, 998, 65535]


def test_every_valid_number_stays_valid_and_ordered() -> None:
    numbers = np.arange(65536).astype(np.uint16)
    for offset, shifted in ((-1000, False), (0, False), (0, True)):
        stored = to_stored(numbers, NumberRule(offset, shifted))
        assert stored[0] == 0 and (stored[1:] > 0).all()
        assert (np.diff(stored[1:64000].astype(int)) == 1).all()


@pytest.mark.parametrize(
    ("item_id", "properties", "expected"),
    [
        (
            "S2B_MSIL2A_20240607T100559_N0510_R022_T33TWL_20240607T120000",
            {},
            ("05.10", "33TWL", "2B"),
        ),
        ("S2A_33TWL_20230815_0_L2A", {}, (None, "33TWL", "2A")),
        ("anything", {"grid:code": "MGRS-1WCR"}, (None, "01WCR", None)),
        ("anything", {"s2:datatake_id": "GS2C_20240106T175731_044611_N05.10"}, ("05.10", None, "2C")),
        ("anything", {"platform": "sentinel-2a"}, (None, None, "2A")),
        ("anything", {"platform": "Sentinel-2B", "s2:mgrs_tile": "06VVN"}, (None, "06VVN", "2B")),
        ("../../etc/passwd", {}, (None, None, None)),
    ],
)
def test_names_are_understood(
    item_id: str, properties: dict[str, Any], expected: tuple[str | None, str | None, str | None]
) -> None:
    found = processing_baseline(item_id, properties), tile_of(item_id, properties), platform_of(item_id, properties)
    assert found == expected


def test_water_and_snow_are_no_clouds() -> None:
    assert not {4, 5, 6, 7, 11} & set(SENTINEL2.classes.masked)
    assert {3, 8, 9, 10} <= set(SENTINEL2.classes.masked)


def load(path: Path) -> dict[str, Any]:
    item: dict[str, Any] = json.loads(path.read_text())
    return item


@real
@pytest.mark.parametrize("name", ["S2A_33TWL_20230815_0_L2A", "S2A_33TWM_20230815_0_L2A", "S2B_33TWL_20230820_0_L2A"])
def test_real_shifted_products_of_earth_search(name: str) -> None:
    item = load(PRODUCTS / name / f"{name}.json")
    with rasterio.open(PRODUCTS / name / "B02.tif") as source:
        dark = dark_level(source.read(1))
    assert asset_offset(item["assets"]["blue"]) == -1000  # the catalogue's word, and wrong
    assert item["properties"]["earthsearch:boa_offset_applied"] is True
    decision = decide(name, item["properties"], item["assets"]["blue"], dark)
    assert (decision.offset, decision.shifted, decision.baseline) == (0, True, "05.09")


@real
def test_real_desert_of_an_old_baseline() -> None:
    folder = REAL / "sahara_29RKH_100m"
    item = load(folder / "S2A_29RKH_20200219_0_L2A.json")
    with rasterio.open(folder / "B02.tif") as source:
        dark = dark_level(source.read(1))
    assert dark is not None and dark > 1000  # a raw number could be as dark: only the metadata decide
    decision = decide(item["id"], item["properties"], item["assets"]["blue"], dark)
    assert (decision.offset, decision.shifted, decision.baseline) == (0, False, "02.14")


@real
def test_real_metadata_of_raw_products() -> None:
    for folder in STACTOOLS.glob("S2?_MSIL2A_*"):
        item = load(folder / "expected_output.json")
        properties = item["properties"]
        assert product_offset((folder / "MTD_MSIL2A.xml").read_text()) == -1000
        assert decide(item["id"], properties, item["assets"]["blue"], 1050.0).offset == -1000
        assert segment_of(properties) and tile_of(item["id"], properties) and platform_of(item["id"], properties)
    old = load(REAL / "metadata" / "odc-stac" / "S2B_MSIL2A_20190629T212529_R043_T06VVN_20201006T080531.json")
    assert decide(old["id"], old["properties"], old["assets"]["B04"], 300.0).offset == 0


def test_every_archive_s_name_of_a_band_is_the_same_band() -> None:
    numbers = {"blue": 2, "green": 3, "red": 4, "rededge1": 5, "rededge2": 6, "rededge3": 7, "nir": 8}
    numbers |= {"swir16": 11, "swir22": 12}
    for name, number in numbers.items():
        esa, earth_engine = f"B{number:02}", f"B{number}"
        for called in (name, name.upper(), esa, esa.lower(), earth_engine, *(f"{esa}_{gsd}m" for gsd in (10, 20, 60))):
            assert common_name(called) == name, called
        # As GDAL's SENTINEL2 driver describes the bands of a product.
        assert common_name(f"{earth_engine}, central wavelength 665 nm") == name
    for called in ("nir08", "B8A", "b8a", "B8A_20m"):
        assert common_name(called) == "nir08"
    assert [common_name(f"rededge{nm}") for nm in ("071", "075", "078")] == ["rededge1", "rededge2", "rededge3"]
    assert {common_name(called) for called in ("scl", "SCL", "SCL_20m")} == {"scl"}
    for other in ("B01", "B09", "B10", "coastal", "B04_5m", "B044", "xB04", "Ündefined", "", "scl2"):
        assert common_name(other) == other


def test_asset_keys_name_their_band_alone() -> None:
    keys = [key for band in EVERY for key in band.names]
    assert len(set(keys)) == len(keys)
    for band in EVERY:
        name, number, at_its_size = band.asset_keys
        assert (name, at_its_size) == (band.name, f"{number}_{band.gsd}m") and number == number.upper()
        assert {common_name(key) for key in band.names} == {band.name}
