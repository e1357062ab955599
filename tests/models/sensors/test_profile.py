"""A sensor of the test's own: registered, fetched and upscaled, and nothing but its profile names it."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from affine import Affine
from catalogues import write_static

from rsup.models.base.errors import ArgumentError
from rsup.models.base.radiometry import DN_MAX, DN_ZERO
from rsup.models.sensors import SENSORS, common_name, sensor_of
from rsup.models.sensors.profile import Band, Evidence, Identity, NumberRule, Sensor
from rsup.models.sensors.response import Response
from rsup.pipeline.jobs.fetch import fetch
from rsup.pipeline.jobs.upscale import upscale
from rsup.pipeline.jobs.upscale_plan import UpscaleRequest
from rsup.pipeline.sources.request import FetchRequest

SIDE = 60
WEST, NORTH = 500_000, 5_100_000


def rule(known: Evidence, wanted: int | None) -> NumberRule:
    """Its products have no offset, whatever is said."""
    return NumberRule(0, evidence=(f"made, {known.properties.get('made:mode')}",), by_user=wanted is not None)


MADE = Sensor(
    name="made",
    title="Made-1",
    bands=(Band("pan", 10, ("P",), ("panchromatic",), Response(0.3, 120, 0.2)), Band("heat", 10, ("H1", "H2"))),
    classes=None,
    collections=("made-l2",),
    since=datetime(1999, 1, 1, tzinfo=UTC),
    attribution="Made by nobody",
    evidence_bands=("heat",),
    kept_properties=("made",),
    metadata_assets=(),
    offsets=(0,),
    identify=lambda item_id, properties: Identity(tile=item_id[:3]),
    product_offset=lambda metadata: None,
    number_rule=rule,
    to_stored=lambda numbers, _: np.where(numbers > 0, np.clip(numbers.astype(int) + DN_ZERO, 1, DN_MAX), 0).astype(
        np.uint16
    ),
)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Sensor:
    monkeypatch.setitem(SENSORS, MADE.name, MADE)
    return MADE


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """One item, whose assets have the sensor's own keys."""
    numbers = np.random.default_rng(0).integers(1, 4000, (2, SIDE, SIDE)).astype(np.uint16)
    np.save(tmp_path / "numbers.npy", numbers)
    for name, plane in zip(("pan", "heat"), numbers, strict=True):
        profile = {"crs": "EPSG:32633", "dtype": "uint16", "nodata": 0, "transform": Affine(10, 0, WEST, 0, -10, NORTH)}
        with rasterio.open(tmp_path / f"{name}.tif", "w", "GTiff", SIDE, SIDE, 1, **profile) as file:
            file.write(plane, 1)
    ring = [[14.9, 45.9], [15.1, 45.9], [15.1, 46.1], [14.9, 46.1], [14.9, 45.9]]
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "abc-1",
        "collection": "made-l2",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"datetime": "2001-02-03T04:05:06Z", "made:mode": "day", "s2:processing_baseline": "05.09"},
        "assets": {"P": {"href": "../pan.tif"}, "H2": {"href": "../heat.tif"}},
        "links": [],
    }
    return Path(write_static(tmp_path, item))


def test_it_is_fetched_and_upscaled(made: Sensor, catalog: Path, tmp_path: Path) -> None:
    request = FetchRequest(
        bbox=(15.0, 46.0505, 15.005, 46.0535), date="2001", output=tmp_path / "scene.zarr", catalog=str(catalog),
        collection="made-l2", bands=("panchromatic", "H1"), max_cloud=100, crs="EPSG:32633",
    )  # fmt: skip
    assert request.bands == ("pan", "heat")
    fetch(request)
    store = zarr.open_group(request.output, mode="r")
    (source,) = store.attrs["items"]
    assert (source["tile"], source["offset"], source["evidence"]) == ("abc", 0, ["made, day"])
    assert store["scl"].attrs["long_name"] == "Made-1 scene classification"
    corner = np.asarray(store["x"])[0] - 5, np.asarray(store["y"])[0] + 5
    row, col = round((NORTH - corner[1]) / 10), round((corner[0] - WEST) / 10)
    numbers = np.load(tmp_path / "numbers.npy")
    for plane, band in zip(numbers, ("pan", "heat"), strict=True):
        stored = np.asarray(store[band])
        assert stored.any()
        rows, cols = np.nonzero(stored)
        np.testing.assert_array_equal(stored[rows, cols], plane[rows + row, cols + col] + 1000)

    upscale(UpscaleRequest(request.output, 4, tmp_path, "nearest", ("pan", "heat"), device="cpu"))
    item = json.loads((tmp_path / "scene_x4.json").read_text())
    assert item["properties"]["title"].endswith("Made-1 super-resolved to 2.5 m")
    assert "Made by nobody 2001." in (tmp_path / "scene_x4.html").read_text().replace("\n", " ")
    aoi = zarr.open_group(tmp_path / "scene_x4.zarr", mode="r")
    assert np.asarray(aoi["heat"]).any()


def test_its_options_are_its_own(made: Sensor, catalog: Path, tmp_path: Path) -> None:
    plain = {"bbox": (15.0, 46.0, 15.1, 46.1), "date": "2001", "output": tmp_path / "s.zarr", "collection": "made-l2"}
    with pytest.raises(ArgumentError, match="--bands red: choose from pan, heat"):
        FetchRequest(**plain, bands=("red", "pan"))
    with pytest.raises(ArgumentError, match="--offset -1000: choose auto, 0, or ID=VALUE for one item$"):
        FetchRequest(**plain, bands=("pan",), offset="-1000")
    with pytest.raises(ArgumentError, match="--mask-clouds"):
        fetch(FetchRequest(**plain, bands=("pan",), mask_clouds=True, crs="EPSG:32633", catalog=str(catalog)))


def test_names_lead_to_their_sensor(made: Sensor) -> None:
    assert sensor_of("made-l2") is MADE
    assert sensor_of("sentinel-2-l2a").name == sensor_of("nobody-s").name == sensor_of(None).name == "sentinel2"
    assert (common_name("Panchromatic"), common_name("h2"), common_name("B04")) == ("pan", "heat", "red")
