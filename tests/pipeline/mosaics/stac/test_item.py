"""The STAC item: valid by the core schemas, read by pystac's extensions, its footprint against pyproj's."""

from __future__ import annotations

import json
import os
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import jsonschema
import numpy as np
import pystac
import pytest
from places import ROOT
from pyproj import Transformer
from pystac.errors import STACValidationError
from pystac.extensions.eo import EOExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.validation import validate_dict
from shapely.geometry import Point, Polygon, shape
from stac_pydantic import Item

from rsup.models.base.errors import OutputError
from rsup.models.upscaler import descriptor_of
from rsup.pipeline.demo.servers import serve_assets
from rsup.pipeline.lattice import Window
from rsup.pipeline.mosaics.stac.item import stac_item, write_item
from rsup.pipeline.mosaics.statistics import Statistics

SCHEMAS = ROOT / "tests" / "data" / "stac"
"""The schemas of the extensions, as their authors published them (README.md there)."""
CRS = "EPSG:32633"
WINDOW = Window(-580_000, 40_000, 256, 300)
MODEL = {"name": "student-x8", "sha256": "0123456789abcdef" * 4, "header": descriptor_of("default", 8).header}
SOURCES: list[dict[str, Any]] = [
    {
        "id": "S2B_33UUU_20240607",
        "datetime": "2024-06-07T10:10:31.024Z",
        "href": "https://user:pw@example.com/items/b.json?sig=secret#x",
    },
    {"id": "S2A_33UUU_20240602", "datetime": "2024-06-02T10:10:21Z", "href": None, "baseline": "05.10"},
]
ASSETS = {"cog": "town_x8.tif", "zarr": "town_x8.zarr", "page": "town_x8.html", "model": "town_x8_model.json"}
STATISTICS = {band: Statistics() for band in ("red", "green", "nir")}
for _figures in STATISTICS.values():
    _figures.add(np.array([[0, 1000], [2000, 3000]], np.uint16))


def make(**change: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "name": "town_x8",
        "window": WINDOW,
        "crs": CRS,
        "scale": 8,
        "bands": ("red", "green", "nir"),
        "model": MODEL,
        "sources": SOURCES,
        "assets": ASSETS,
        "held_by": "sensor",
        "figures": {"sensor_rms": 0.5},
        "statistics": STATISTICS,
    }
    return stac_item(**(options | change))


def validate(item: dict[str, Any]) -> None:
    """Against the core schemas that pystac carries, stac-pydantic's reading of them, and those of the extensions."""
    validate_dict(item | {"stac_extensions": []})
    Item.model_validate(item)
    for address in item["stac_extensions"]:
        name, version = address.split("/")[3:5]
        schema = json.loads((SCHEMAS / f"{name}_{version}.json").read_text())
        jsonschema.Draft7Validator(schema).validate(item)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"sources": []},
        {"sources": [{"id": "x", "datetime": "not a date"}, {}]},
        {"sources": SOURCES[:1]},
        {"window": Window(-100_000, 10_500, 1, 1), "crs": "EPSG:32601"},
    ],
)
def test_valid_by_the_core_schema(change: dict[str, Any]) -> None:
    item = make(**change)
    validate(item)
    assert item == json.loads(json.dumps(item))


def test_the_core_schema_would_have_said_so() -> None:
    item = make()
    item["properties"]["datetime"] = "yesterday"
    with pytest.raises(STACValidationError):
        validate(item)


def test_read_back_by_pystac_and_its_extensions(tmp_path: Path) -> None:
    write_item(make(), tmp_path / "town_x8.json")
    item = pystac.Item.from_file(str(tmp_path / "town_x8.json"))
    proj = ProjectionExtension.ext(item)
    assert proj.code == CRS
    assert proj.shape == [2048, 2400]
    assert proj.transform == [1.25, 0.0, 400_000.0, 0.0, -1.25, 5_800_000.0]
    assert proj.bbox == list(WINDOW.bounds)
    assert item.properties["gsd"] == 1.25
    assert item.properties["rsup:model_sha256"] == MODEL["sha256"] and item.properties["rsup:scale"] == 8
    assert item.common_metadata.start_datetime is not None and item.common_metadata.end_datetime is not None
    assert item.common_metadata.start_datetime.isoformat() == "2024-06-02T10:10:21+00:00"
    assert item.common_metadata.end_datetime.isoformat().startswith("2024-06-07T10:10:31")
    assert item.assets["cog"].get_absolute_href() == str(tmp_path / "town_x8.tif")
    assert item.assets["cog"].roles == ["data"] and item.assets["page"].media_type == "text/html"
    for key in ("cog", "zarr"):
        bands = item.assets[key].extra_fields["bands"]
        assert [band["name"] for band in bands] == ["red", "green", "nir"]
        assert {(b["nodata"], b["data_type"], b["raster:scale"], b["raster:offset"]) for b in bands} == {
            (0, "uint16", 1e-4, -0.1)
        }
        assert [(b["eo:common_name"], b["eo:center_wavelength"]) for b in bands] == [
            ("red", 0.6646), ("green", 0.5598), ("nir", 0.8328),
        ]  # fmt: skip
        assert bands[0]["raster:spatial_resolution"] == 1.25 and bands[0]["raster:sampling"] == "area"
        assert bands[0]["statistics"] == pytest.approx(
            {"minimum": 1000, "maximum": 3000, "mean": 2000, "stddev": np.std([1000, 2000, 3000]), "valid_percent": 75}
        )
    eo = EOExtension.ext(item.assets["cog"]).bands
    assert eo is not None
    assert [(band.name, band.common_name) for band in eo] == [("red", "red"), ("green", "green"), ("nir", "nir")]
    assert "eo:bands" not in item.assets["zarr"].extra_fields  # readers of names would open it as a raster


def test_the_uncertainty_is_an_asset_with_bands_of_its_own() -> None:
    item = make(assets=ASSETS | {"uncertainty": "town_x8_uncertainty.tif"})
    validate(item)
    asset = pystac.Item.from_dict(item).assets["uncertainty"]
    assert asset.href == "town_x8_uncertainty.tif" and asset.roles == ["data", "uncertainty"]
    assert "68% of the errors lie within it, 95% within 2.5 times it" in str(asset.description)
    bands = asset.extra_fields["bands"]
    assert [band["name"] for band in bands] == ["red_uncertainty", "green_uncertainty", "nir_uncertainty"]
    assert {(b["nodata"], b["data_type"], b["raster:scale"], b["raster:offset"]) for b in bands} == {
        (0, "uint16", 1e-4, 0)
    }
    assert not any("eo:common_name" in band for band in bands)
    assert asset.extra_fields["eo:bands"][0] == {"name": "red_uncertainty"}
    del item["assets"]["uncertainty"]
    assert item == make()


def test_every_source_is_named_and_linked_without_secrets() -> None:
    item = make()
    links = [link for link in item["links"] if link["rel"] == "derived_from"]
    assert [link["href"] for link in links] == ["https://example.com/items/b.json", "town_x8_model.json"]
    assert links[1]["mlm:name"] == "student-x8" and links[1]["type"] == "application/geo+json"
    assert "secret" not in json.dumps(item) and "pw@" not in json.dumps(item)
    assert item["properties"]["rsup:sources"] == ["S2B_33UUU_20240607", "S2A_33UUU_20240602"]
    assert "rsup:false_colour" in item["properties"] and item["properties"]["rsup:false_colour"] == []
    assert make(false_colour=["nir"])["properties"]["rsup:false_colour"] == ["nir"]
    local = make(sources=[{"id": "a", "href": "file:///home/somebody/item.json"}])
    assert [link["rel"] for link in local["links"]] == ["derived_from", "license"] and "somebody" not in json.dumps(
        local
    )


def test_one_shared_moment_is_the_datetime() -> None:
    item = make(sources=[SOURCES[0], {"id": "other tile", "datetime": "2024-06-07T12:10:31.024+02:00"}])
    assert item["properties"]["datetime"] == "2024-06-07T10:10:31.024000Z"
    assert "start_datetime" not in item["properties"]


def test_a_scene_without_dated_items_has_its_own_interval_and_no_datetime() -> None:
    first, last = datetime(2024, 6, 1, 10, tzinfo=UTC), datetime(2024, 6, 3, tzinfo=UTC)
    for sources in ([], [{"id": "x", "datetime": "not a date"}], [{"datetime": "0001-01-01T00:00:00+14:00"}]):
        found = make(sources=sources, interval=(first, last))["properties"]
        assert found["datetime"] is None
        assert (found["start_datetime"], found["end_datetime"]) == ("2024-06-01T10:00:00Z", "2024-06-03T00:00:00Z")
    assert make(sources=[], interval=(first, first))["properties"]["datetime"] == "2024-06-01T10:00:00Z"
    dated = make(sources=SOURCES[:1], interval=(first, last))["properties"]
    assert dated["datetime"].startswith("2024-06-07") and "start_datetime" not in dated


@pytest.mark.parametrize(
    "name", ["São Paulo #1 100%", "a?b", "50%25 done", "x:y", "plain", os.fsdecode(b"not utf-8 \xff")]
)
def test_files_are_found_from_the_item_whatever_they_are_called(tmp_path: Path, name: str) -> None:
    """Resolved by pystac on a web server, and on the disk by the item's file: address."""
    files = {key: f"{name}_x8.{key}" for key in ("cog", "page")}
    for key, file in files.items():
        (tmp_path / file).write_bytes(key.encode())
    path = tmp_path / f"{name}_x8.json"
    write_item(make(name=f"{name}_x8", assets=files), path)
    validate(json.loads(path.read_text(encoding="utf-8")))
    item = pystac.Item.from_dict(json.loads(path.read_text(encoding="utf-8")))
    item.set_self_href((tmp_path / "item.json").as_uri())
    for key in files:
        href = item.assets[key].get_absolute_href()
        assert href is not None
        assert Path(os.fsdecode(unquote_to_bytes(urlsplit(href).path))).read_bytes() == key.encode()
    if not name.isprintable():
        return  # the server knows UTF-8 alone
    with serve_assets(tmp_path) as address:
        item.set_self_href(f"{address}/item.json")
        for key in files:
            with urllib.request.urlopen(item.assets[key].get_absolute_href() or "") as answer:
                assert answer.read() == key.encode()


def test_what_others_wrote_is_one_line_of_text() -> None:
    item = make(name="a\nb\u202e", sources=[{"id": "x\ud800\u2066\r", "href": "https://u:p@h/\u202e?k=1"}])
    text = json.dumps(item, ensure_ascii=False)
    assert not set("\u202e\u2066\ud800") & set(text) and "u:p" not in text
    assert item["id"] == "a\\nb\\u202e" and item["properties"]["rsup:sources"] == ["x\\ud800\\u2066\\r"]


def test_who_took_it_and_on_which_terms() -> None:
    said = make(sources=[SOURCES[0] | {"cloud": 4.0}, SOURCES[1] | {"cloud": 1.0}])["properties"]
    assert (said["constellation"], said["instruments"], said["eo:cloud_cover"]) == ("sentinel-2", ["msi"], 2.5)
    assert "platform" not in said  # two of them
    assert make(sources=SOURCES[:1])["properties"]["platform"] == "sentinel-2b"
    assert said["license"] == "other" and said["providers"][0]["roles"] == ["producer", "licensor"]
    assert said["attribution"] == "Contains modified Copernicus Sentinel data 2024"
    assert "eo:cloud_cover" not in make(sources=[SOURCES[0] | {"cloud": 4.0}, SOURCES[1]])["properties"]
    unknown = make(sources=[])
    assert not {"platform", "constellation", "license", "providers"} & set(unknown["properties"])
    assert not any(link["rel"] == "license" for link in unknown["links"])


def test_how_it_was_made_without_a_time_unless_one_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    said = make(false_colour=["nir"])["properties"]
    assert said["processing:software"].keys() == {"rsup", "student-x8", "torch", "GDAL"}
    assert said["processing:software"]["rsup"] == said["processing:version"] and "processing:datetime" not in said
    assert "then corrected so that the sensor would see the 10 m pixels, within its noise" in said["processing:lineage"]
    assert "nir in the place of the bands" in said["processing:lineage"]
    assert "block means equal the 10 m pixels" in make(held_by="mean")["properties"]["processing:lineage"]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1717754400")
    item = make()
    assert item["properties"]["processing:datetime"] == "2024-06-07T10:00:00Z"
    validate(item)


def test_the_footprint_is_the_window_s_edge() -> None:
    item = make()
    polygon = shape(item["geometry"])
    to_degrees = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True)
    west, south, east, north = WINDOW.bounds
    t = np.linspace(0, 1, 50)[:-1]
    ring = [(west + (east - west) * a, south) for a in t] + [(east, south + (north - south) * a) for a in t]
    ring += [(east - (east - west) * a, north) for a in t] + [(west, north - (north - south) * a) for a in t]
    exact = Polygon([to_degrees.transform(*point) for point in ring])
    assert polygon.symmetric_difference(exact).area < 1e-5 * exact.area
    assert polygon.exterior.is_ccw and polygon.is_valid
    assert item["bbox"] == [pytest.approx(value, abs=1e-7) for value in polygon.bounds]


def test_a_mosaic_across_the_antimeridian_is_two_polygons() -> None:
    window = Window(-103_000, 10_000, 2000, 10_000)  # zone 1, from 179.4 E on
    item = make(window=window, crs="EPSG:32601")
    geometry = shape(item["geometry"])
    assert geometry.geom_type == "MultiPolygon" and geometry.is_valid and len(geometry.geoms) == 2
    assert all(part.exterior.is_ccw for part in geometry.geoms)
    west, _, east, _ = item["bbox"]
    assert 179 < west < 180 and -180 < east < -178.9
    to_degrees = Transformer.from_crs("EPSG:32601", "EPSG:4326", always_xy=True)
    for x, y in ((101_000.0, 1_015_000.0), (195_000.0, 1_015_000.0)):
        lon, lat = to_degrees.transform(x, y)
        assert geometry.contains(Point(lon, lat))
    assert not geometry.contains(Point(0, 9.1))
    assert geometry.area < 2


def test_equal_input_gives_equal_bytes_and_a_failed_write_harms_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_item(make(), path)
    first = path.read_bytes()
    write_item(make(), path)
    assert path.read_bytes() == first
    with pytest.raises(TypeError):
        write_item(make() | {"links": object()}, path)  # nothing that JSON can say
    with pytest.raises(OutputError, match="cannot be written"):
        write_item(make(), path / "under a file.json")
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]
