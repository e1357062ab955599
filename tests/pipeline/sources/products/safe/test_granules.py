"""SAFE products: the pixels of a catalogue's item, whatever the layout, the level and the way to the product."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fetched import BANDS, arrays, bbox_of, fetched, no_progress, said
from numpy.typing import NDArray
from safes import COARSE, GROUND, metadata, planes, write_jp2, write_safe, zipped

from rsup.models.base.errors import SceneError
from rsup.pipeline.demo.servers import serve_assets
from rsup.pipeline.jobs.fetch import plan, run
from rsup.pipeline.lattice import Window
from rsup.pipeline.sources.products.recognise import read_product
from rsup.pipeline.sources.request import FetchRequest

MIDDLE = Window(GROUND.row + 30, GROUND.col + 50, 60, 70)


def write_catalogue(folder: Path, bands: dict[str, NDArray[Any]], **properties: Any) -> None:
    """The same pixels as GeoTIFFs of a STAC item."""
    import rasterio

    (folder / "item").mkdir(parents=True)
    west, _, _, north = GROUND.bounds
    for name, data in bands.items():
        gsd = 20 if name in COARSE else 10
        profile: dict[str, Any] = {
            "driver": "GTiff",
            "height": data.shape[0],
            "width": data.shape[1],
            "count": 1,
            "dtype": data.dtype,
            "crs": "EPSG:32633",
            "transform": rasterio.Affine(gsd, 0, west, 0, -gsd, north),
        }
        with rasterio.open(folder / "item" / f"{name}.tif", "w", **profile) as sink:
            sink.write(data, 1)
    item = {
        "type": "Feature",
        "id": "S2B_33TWL_20240610_0_L2A",
        "collection": "sentinel-2-l2a",
        "geometry": None,
        "properties": {"datetime": "2024-06-10T10:05:59Z", "eo:cloud_cover": 5, **properties},
        "assets": {name: {"href": f"{name}.tif"} for name in bands},
        "links": [],
    }
    (folder / "item" / "item.json").write_text(json.dumps(item))
    links = [{"rel": "item", "href": "item/item.json"}]
    (folder / "catalog.json").write_text(json.dumps({"type": "Catalog", "id": "made", "links": links}))


@pytest.mark.parametrize("baseline", ["02.12", "05.10"])
@pytest.mark.parametrize("mask", [False, True])
def test_a_product_gives_the_numbers_of_the_same_pixels_from_a_catalogue(
    tmp_path: Path, baseline: str, mask: bool
) -> None:
    made = planes(bands=BANDS)
    write_catalogue(tmp_path / "catalogue", made, **{"s2:processing_baseline": baseline})
    offset = -1000 if baseline > "04" else None
    safe = write_safe(tmp_path / "products", made, baseline=baseline, offset=offset)
    with serve_assets(tmp_path / "catalogue") as address:
        request = FetchRequest(
            bbox=bbox_of(MIDDLE),
            date="2024-06",
            output=tmp_path / "catalogue.zarr",
            catalog=f"{address}/catalog.json",
            bands=BANDS,
            chunk=64,
            mask_clouds=mask,
            # Random numbers have no dark ground, by which a catalogue's are judged.
            offset=str(offset or 0),
        )
        run(plan(request), no_progress)
    theirs = arrays(tmp_path / "catalogue.zarr")
    ours = fetched(tmp_path / "product.zarr", safe, box=MIDDLE, mask_clouds=mask)
    assert ours.keys() == theirs.keys() == {*BANDS, "scl", "source"}
    assert theirs["red"].any() and (theirs["red"] == 0).any() and theirs["scl"].any()
    for name, plane in theirs.items():
        np.testing.assert_array_equal(ours[name], plane, name)


def test_without_a_bbox_the_product_is_taken_whole_and_says_where_it_is_from(tmp_path: Path) -> None:
    made = planes(bands=BANDS)
    safe = write_safe(tmp_path, made)
    ours = fetched(tmp_path / "scene.zarr", safe)
    about = said(tmp_path / "scene.zarr")
    assert about["aoi"] == list(GROUND.bounds) and about["catalog"] == ""
    inner = (slice(128, 128 + GROUND.height), slice(128, 128 + GROUND.width))
    # Copied exactly; a pixel that one band lacks is left out, and what lies 3 pixels from the edge of the classes.
    whole = (made["red"] > 0) & (made["nir"] > 0) & (np.kron(made["nir08"], np.ones((2, 2))) > 0)
    kept = ours["red"][inner] > 0
    assert kept.mean() > 0.95 and not (kept & ~whole).any()
    np.testing.assert_array_equal(ours["red"][inner][kept], made["red"][kept])
    (item,) = about["items"]
    assert item["id"] == "S2B_MSIL2A_20240610T100559_N0510_R022_T33TWL_20240610T100559"
    assert (item["tile"], item["baseline"], item["offset"], item["cloud"]) == ("33TWL", "05.10", -1000, 5.25)
    assert item["datetime"] == "2024-06-10T10:05:59.024000Z"
    assert item["evidence"][0] == "MTD_MSIL2A.xml: BOA_ADD_OFFSET -1000"
    assert str(tmp_path) not in json.dumps(about)
    assert item["hrefs"]["red"].startswith(f"{safe.name}/GRANULE/")


WAYS: dict[str, Callable[[Path, Path], Path]] = {
    "metadata": lambda safe, _: safe / "MTD_MSIL2A.xml",
    "granules": lambda safe, _: safe / "GRANULE",
    "manifest": lambda safe, _: safe / "manifest.safe",
    "granule": lambda safe, _: next((safe / "GRANULE").iterdir()),
    "granule's metadata": lambda safe, _: next((safe / "GRANULE").iterdir()) / "MTD_TL.xml",
    "zip": lambda safe, folder: zipped(safe, folder / "a.zip"),
    "stored": lambda safe, folder: zipped(safe, folder / "a.SAFE.zip", zipfile.ZIP_STORED),
    "nested": lambda safe, folder: zipped(safe, folder / "a", inside=f"download/of today/{safe.name}"),
    "bare": lambda safe, folder: zipped(safe, folder / "odd %s ! # name.zip", inside=""),
    "renamed": lambda safe, folder: safe.rename(folder / "mine"),
    "linked": lambda safe, folder: linked(safe, folder / "link"),
}


def linked(safe: Path, link: Path) -> Path:
    link.symlink_to(safe)
    return link


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_a_product_gives_the_same_scene(tmp_path: Path, way: str) -> None:
    safe = write_safe(tmp_path, planes(bands=BANDS))
    folder = fetched(tmp_path / "folder.zarr", safe)
    path = WAYS[way](safe, tmp_path)
    other = fetched(tmp_path / "other.zarr", path)
    for name, plane in folder.items():
        np.testing.assert_array_equal(other[name], plane, name)
    ids = [[item["id"] for item in said(tmp_path / f"{name}.zarr")["items"]] for name in ("folder", "other")]
    assert ids[0] == ids[1]


@pytest.mark.parametrize("long_names", [False, True])
@pytest.mark.parametrize(("level", "offset"), [("2A", None), ("2A", -1000), ("1C", None), ("1C", -1000)])
def test_both_levels_in_both_layouts(tmp_path: Path, long_names: bool, level: str, offset: int | None) -> None:
    made = planes(bands=BANDS)
    bands = made if level == "2A" else {name: plane for name, plane in made.items() if name != "scl"}
    baseline = "02.04" if offset is None else "04.00"
    safe = write_safe(tmp_path, bands, level=level, long_names=long_names, offset=offset, baseline=baseline)
    ours = fetched(tmp_path / "scene.zarr", safe)
    inner = (slice(128, 128 + GROUND.height), slice(128, 128 + GROUND.width))
    kept = ours["red"][inner] > 0
    assert kept.mean() > 0.95
    np.testing.assert_array_equal(ours["red"][inner][kept], made["red"][kept] + (1000 if offset is None else 0))
    (item,) = said(tmp_path / "scene.zarr")["items"]
    assert (item["collection"], item["tile"]) == (f"sentinel-2-l{level.lower()}", "33TWL")
    assert item["offset"] == (offset or 0)
    assert ("without scene classification" in " ".join(item["evidence"])) is (level == "1C")
    assert ours["scl"].any() == (level == "2A")


def test_offset_and_quantification_are_the_bands_own(tmp_path: Path) -> None:
    made = planes(bands=("red", "green", "blue"))
    rows = dict.fromkeys(range(13), -1000) | {2: 0}  # green has none
    safe = write_safe(tmp_path, made, offset=rows)
    ours = fetched(tmp_path / "scene.zarr", safe, bands=("red", "green", "blue"))
    inner = (slice(128, 128 + GROUND.height), slice(128, 128 + GROUND.width))
    kept = ours["red"][inner] > 0
    np.testing.assert_array_equal(ours["red"][inner][kept], made["red"][kept])
    np.testing.assert_array_equal(ours["green"][inner][kept], made["green"][kept] + 1000)
    shutil.rmtree(safe)
    safe = write_safe(tmp_path, made, offset=-500, quantification=5000)  # twice as coarse
    ours = fetched(tmp_path / "other.zarr", safe, bands=("red", "green", "blue"))
    np.testing.assert_array_equal(ours["red"][inner][kept], (made["red"][kept] - 500) * 2 + 1000)


def test_dark_water_does_not_refute_what_a_product_states(tmp_path: Path) -> None:
    made = planes(bands=BANDS)
    for band in BANDS:
        made[band] = np.where(made[band] > 0, 700, 0).astype(np.uint16)  # a reflectance of -0.03
    ours = fetched(tmp_path / "scene.zarr", write_safe(tmp_path, made))
    assert set(np.unique(ours["red"])) == {0, 700}


def test_what_no_product_states_is_decided_by_evidence_or_by_the_user(tmp_path: Path) -> None:
    odd = write_safe(tmp_path, planes(bands=BANDS), offset=-7000)
    with pytest.raises(SceneError, match="-7000 is neither 0 nor -1000"):
        fetched(tmp_path / "scene.zarr", odd)
    ours = fetched(tmp_path / "scene.zarr", odd, offset="-1000")
    assert ours["red"].any()
    silent = write_safe(tmp_path, planes(bands=BANDS), day="20240611T100559", offset=None)
    fetched(tmp_path / "silent.zarr", silent)
    (item,) = said(tmp_path / "silent.zarr")["items"]
    assert item["offset"] == -1000 and "processing baseline 05.10: -1000" in item["evidence"]


def test_products_are_mosaicked_and_one_acquisition_votes_once(tmp_path: Path) -> None:
    made = planes(bands=BANDS)
    west = write_safe(tmp_path, made)
    other = Window(GROUND.row, GROUND.col + 96, GROUND.height, GROUND.width)
    east = write_safe(tmp_path, planes(other, seed=1, bands=BANDS), other, tile="33TXL")
    ours = fetched(tmp_path / "scene.zarr", west, east, zipped(west, tmp_path / "again.zip"))
    about = said(tmp_path / "scene.zarr")
    assert about["aoi"] == [500_000, 5_098_720, 502_880, 5_100_000]
    assert [item["tile"] for item in about["items"]] == ["33TWL", "33TXL"]
    assert set(np.unique(ours["source"])) == {0, 1, 2}


def test_the_granules_of_an_old_product_are_items_of_their_own(tmp_path: Path) -> None:
    bands = {name: plane for name, plane in planes(bands=BANDS).items() if name != "scl"}
    safe = write_safe(tmp_path, bands, level="1C", long_names=True, baseline="02.01", offset=None)
    (first,) = (safe / "GRANULE").iterdir()
    second = safe / "GRANULE" / first.name.replace("33TWL", "33TXL")
    other = Window(GROUND.row, GROUND.col + 96, GROUND.height, GROUND.width)
    for image in (first / "IMG_DATA").iterdir():
        band = next(name for name, number in (("red", "B04"), ("nir", "B08"), ("nir08", "B8A")) if number in image.name)
        write_jp2(
            second / "IMG_DATA" / image.name.replace("33TWL", "33TXL"),
            bands[band],
            other,
            gsd=20 if band == "nir08" else 10,
        )
    items = [product.item for product in read_product(str(safe), ("red",))]
    assert [item.tile for item in items] == ["33TWL", "33TXL"]
    assert items[0].id != items[1].id == second.name
    (alone,) = read_product(str(second), ("red",))
    assert alone.item.id == second.name
    assert fetched(tmp_path / "scene.zarr", safe)["source"].max() == 2


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda safe: next(safe.rglob("*_B04_10m.jp2")).unlink(), "no image of red (B04 at 10 m)"),
        (lambda safe: cut(next(safe.rglob("*_B04_10m.jp2")), 0.6), "band red: .* (it is cut off)"),
        (lambda safe: cut(next(safe.rglob("*_SCL_20m.jp2")), 0.9), "band scl: .* (it is cut off)"),
        (lambda safe: next(safe.rglob("*_B04_10m.jp2")).write_bytes(b"GIF89a" * 9), "it is no JPEG 2000 file"),
        (lambda safe: next(safe.rglob("*_B04_10m.jp2")).write_bytes(b""), "it is empty"),
        (lambda safe: (safe / "MTD_MSIL2A.xml").unlink(), "has no MTD_MSIL2A.xml or MTD_MSIL1C.xml"),
        (lambda safe: (safe / "MTD_MSIL2A.xml").write_text("<html>"), "it is no XML"),
        (lambda safe: (safe / "MTD_MSIL2A.xml").write_text("<html/>"), "it is a html, not the metadata"),
        (lambda safe: shutil.rmtree(safe / "GRANULE"), "holds no granules"),
        (lambda safe: elsewhere(next(safe.rglob("*_B04_10m.jp2"))), "leads out of its product"),
        (lambda safe: elsewhere(safe / "MTD_MSIL2A.xml"), "leads out of its product"),
        (lambda safe: circle(next(safe.rglob("*_B04_10m.jp2"))), "cannot be opened"),
        (lambda safe: twice(next(safe.rglob("*_B04_10m.jp2"))), "holds two images of B04"),
    ],
)
def test_a_malformed_product_is_refused_in_one_sentence_and_nothing_is_written(
    tmp_path: Path, harm: Callable[[Path], object], sentence: str
) -> None:
    safe = write_safe(tmp_path / "in", planes(bands=BANDS))
    harm(safe)
    (tmp_path / "out").mkdir()
    with pytest.raises(SceneError, match=sentence.replace("(", r"\(").replace(")", r"\)")) as refused:
        fetched(tmp_path / "out" / "scene.zarr", safe)
    assert "\n" not in str(refused.value)
    assert not list((tmp_path / "out").iterdir())


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


def elsewhere(path: Path) -> None:
    """Moved out of its product, with a link in its place."""
    away = path.rename(path.parents[len(path.parts) - path.parts.index("in") - 2] / path.name)
    path.symlink_to(away)


def circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def twice(path: Path) -> None:
    shutil.copy(path, path.with_name(f"again_{path.name}"))


def test_a_granule_without_its_product_is_refused(tmp_path: Path) -> None:
    safe = write_safe(tmp_path, planes(bands=BANDS))
    granule = next((safe / "GRANULE").iterdir()).rename(tmp_path / "alone")
    with pytest.raises(SceneError, match="a granule without its product"):
        read_product(str(granule), BANDS)


def test_entities_are_not_expanded(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush")
    safe = write_safe(tmp_path, planes(bands=BANDS))
    for declared in (
        f'<!DOCTYPE x [<!ENTITY e SYSTEM "file://{secret}">]>',
        '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">',
    ):
        text = metadata("&e;" if "SYSTEM" in declared and "ENTITY" in declared else "x", extra=declared)
        (safe / "MTD_MSIL2A.xml").write_text(text)
        with pytest.raises(SceneError, match="declares a document type") as refused:
            read_product(str(safe), BANDS)
        assert "hush" not in str(refused.value)
