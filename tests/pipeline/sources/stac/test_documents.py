"""The boundary of items: whatever stands in one, it is a reference or one sentence."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from catalogues import item, query
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsup.models.base.errors import CatalogError
from rsup.pipeline.sources.packing import asset_field
from rsup.pipeline.sources.stac.catalog import search
from rsup.pipeline.sources.stac.documents import Asset
from rsup.pipeline.sources.stac.items import ItemReference

GOOD = item(
    "S2A_33UUQ_20240610_0_L2A",
    properties={
        "platform": "sentinel-2a",
        "s2:processing_baseline": "05.10",
        "s2:datastrip_id": "S2A_OPER_MSI_L2A_DS_2APS_20240610T155057_S20240610T095630_N05.10",
        "earthsearch:boa_offset_applied": True,
    },
    links=[{"rel": "self", "href": "https://example.org/item.json"}],
)
GOOD["assets"]["blue"]["raster:bands"] = [{"offset": -0.1, "scale": 1e-4}]

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(codec=None), max_size=5),
    st.sampled_from([10**400, "\ud800", "a\0b", "x" * 10**6]),
    st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "x" * 10**6, "\ud800", "a\0b"]),
)
JSON = st.recursive(
    ODD, lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(max_size=5), part, max_size=3)
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    found = [path] if path else []
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return found + [place for key, part in parts for place in places(part, (*path, key))]


def outcome(document: dict[str, Any], folder: Path) -> ItemReference | CatalogError:
    path = folder / "item.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [document]}))
    try:
        return search(query(str(path), start=None, end=None))[0]
    except CatalogError as error:
        return error


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(places(GOOD)), JSON)
def test_anything_anywhere_is_a_reference_or_a_sentence(tmp_path: Path, place: tuple[Any, ...], value: Any) -> None:
    document = copy.deepcopy(GOOD)
    part: Any = document
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    found = outcome(document, tmp_path)
    if isinstance(found, CatalogError):
        assert 0 < len(str(found)) < 1000
    else:
        found.id.encode()
        assert found.id.isprintable() and found.cloud is None or 0 <= (found.cloud or 0) <= 100
        assert all(
            math.isfinite(row.get("offset", 0)) for asset in found.assets.values() for row in asset["raster:bands"]
        )


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Foo", "coordinates": []},
        {"type": "LineString", "coordinates": [[0, 0]]},
        {"type": "Point", "coordinates": [15, 46]},
        {"type": "Polygon", "coordinates": [[[math.nan, 0], [1, 0], [1, 1], [math.nan, 0]]]},
        {"type": "Polygon", "coordinates": [[[math.inf, 0], [1, 0], [1, 1], [math.inf, 0]]]},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]},
        {"type": "Polygon", "coordinates": [[["a", "b"]] * 4]},
        {"type": "Polygon", "coordinates": [[[1e308, 1e308], [-1e308, 0], [0, -1e308], [1e308, 1e308]]]},
        {"type": ["Polygon"], "coordinates": []},
        {"type": "GeometryCollection", "geometries": []},
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[[10, 48], [14, 48, 5], [14, 50], [10, 48]]]},
        {"type": "Polygon"},
        [1],
        "POINT(0 0)",
    ],
)
def test_a_footprint_that_is_none_is_said(tmp_path: Path, geometry: Any) -> None:
    error = outcome(GOOD | {"geometry": geometry}, tmp_path)
    assert isinstance(error, CatalogError) and "S2A_33UUQ" in str(error) and "geometry" in str(error)


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"datetime": "0001-01-01T00:00:00+14:00"}, "properties.datetime: is no date"),
        ({"datetime": None}, "properties.datetime: is missing"),
        ({"datetime": 7}, "properties.datetime: must be a text"),
        ({"eo:cloud_cover": math.nan}, "properties.eo:cloud_cover"),
        ({"eo:cloud_cover": 10**400}, "properties.eo:cloud_cover"),
        ({"eo:cloud_cover": "much"}, "properties.eo:cloud_cover"),
    ],
)
def test_a_property_that_cannot_be_is_said(tmp_path: Path, properties: dict[str, Any], words: str) -> None:
    error = outcome(GOOD | {"properties": GOOD["properties"] | properties}, tmp_path)
    assert isinstance(error, CatalogError) and words in str(error)


@pytest.mark.parametrize("name", ["raster:bands", "bands"])
@pytest.mark.parametrize("value", ["abc", {"offset": 0}, [1], [{"offset": math.nan}], [{"offset": 1e308}], ["blue"]])
def test_what_an_asset_says_of_its_numbers_must_be_objects_and_finite(tmp_path: Path, name: str, value: Any) -> None:
    assets = GOOD["assets"] | {"blue": {"href": "https://example.org/blue.tif", name: value}}
    error = outcome(GOOD | {"assets": assets}, tmp_path)
    assert isinstance(error, CatalogError) and "asset blue" in str(error)


@pytest.mark.parametrize(
    ("item_id", "shown"), [("a\nb\x1b[31m", r"a\nb\x1b[31m"), ("\ud800x", r"\ud800x"), ("a\0b", r"a\x00b")]
)
def test_an_id_is_a_label_that_anything_can_hold(tmp_path: Path, item_id: str, shown: str) -> None:
    found = outcome(GOOD | {"id": item_id}, tmp_path)
    assert isinstance(found, ItemReference) and found.id == shown


@pytest.mark.parametrize("item_id", ["", "x" * 10**6, 7, None, ["a"]])
def test_an_id_that_is_no_label_is_said_shortly(tmp_path: Path, item_id: Any) -> None:
    error = outcome(GOOD | {"id": item_id}, tmp_path)
    assert isinstance(error, CatalogError) and "id: " in str(error) and len(str(error)) < 400


def test_numbers_of_an_asset_by_each_extension() -> None:
    for fields in (
        {"raster:bands": [{"scale": 1e-4, "offset": -0.1}]},
        {"bands": [{"name": "B02", "raster:scale": 1e-4, "raster:offset": -0.1}]},
        {"raster:scale": 1e-4, "raster:offset": -0.1},
        {"scale": 1e-4, "offset": -0.1, "bands": [{"name": "B02"}]},
    ):
        asset = Asset.model_validate({"href": "x", "file:size": 5, "file:checksum": "1220ab", **fields})
        said = asset.described()
        assert asset_field(said, "scale") == 1e-4 and asset_field(said, "offset") == -0.1
        assert (said["file:size"], said["file:checksum"]) == (5, "1220ab")


@pytest.mark.parametrize("cloud", [-1, -9999.0, 100.0001])
def test_a_cloud_cover_beyond_percents_is_unknown(tmp_path: Path, cloud: float) -> None:
    found = outcome(GOOD | {"properties": GOOD["properties"] | {"eo:cloud_cover": cloud}}, tmp_path)
    assert isinstance(found, ItemReference) and found.cloud is None
