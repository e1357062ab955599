"""EOPF products: the numbers of the same pixels in a SAFE product, however Zarr holds them and wherever it lies."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from buckets import Bucket
from eopfs import CLASSES, NAME, PACKING, discovery, edit, path_of, write_eopf
from fetched import BANDS, arrays, fetched, no_progress, said
from numpy.typing import NDArray
from places import SHARED
from safes import GROUND, planes, write_safe, zipped

from rsup.models.base.errors import SceneError
from rsup.pipeline.demo.servers import serve_assets
from rsup.pipeline.jobs.fetch import plan, run
from rsup.pipeline.jobs.product import request_of
from rsup.pipeline.sources import retry
from rsup.pipeline.sources.products.recognise import is_product, read_product

KINDS = ("v2", "v2-filter", "v3", "fixedscaleoffset", "scale_offset", "float")
REAL = SHARED / "data/sentinel2/eopf_zarr"


@pytest.fixture(scope="module")
def safe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NDArray[Any]]:
    folder = tmp_path_factory.mktemp("safe")
    return fetched(folder / "scene.zarr", write_safe(folder, planes(bands=BANDS)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_packing_gives_the_numbers_of_the_safe_product(
    tmp_path: Path, safe: dict[str, NDArray[Any]], kind: str
) -> None:
    store = write_eopf(tmp_path / "a", planes(bands=BANDS), kind=kind)
    assert is_product(store)
    ours = fetched(tmp_path / "scene.zarr", store)
    for name, plane in safe.items():
        np.testing.assert_array_equal(ours[name], plane, name)
    about = said(tmp_path / "scene.zarr")
    (item,) = about["items"]
    assert (item["id"], item["tile"], item["baseline"], item["cloud"]) == (NAME, "33TWL", "05.10", 5.25)
    assert item["datetime"] == "2024-06-10T10:05:59.024000Z" and item["collection"] == "sentinel-2-l2a"
    assert about["aoi"] == list(GROUND.bounds) and str(tmp_path) not in json.dumps(about)
    if kind != "float":
        assert item["offset"] == -1000 and "its offset is -1000" in item["evidence"][0]


@pytest.mark.parametrize("kind", ["v2", "scale_offset"])
@pytest.mark.parametrize("inside", ["", "deep/a.zarr"])
def test_a_zip_is_read_in_place(tmp_path: Path, safe: dict[str, NDArray[Any]], kind: str, inside: str) -> None:
    store = write_eopf(tmp_path / "a.zarr", planes(bands=BANDS), kind=kind)
    path = zipped(store, tmp_path / "a.zarr.zip", zipfile.ZIP_STORED, inside)
    shutil.rmtree(store)
    np.testing.assert_array_equal(fetched(tmp_path / "scene.zarr", path)["red"], safe["red"])


def test_web_servers_and_buckets(tmp_path: Path, safe: dict[str, NDArray[Any]], bucket: Bucket) -> None:
    for kind in ("v2", "v3"):
        store = write_eopf(tmp_path / "served" / f"{kind}.zarr", planes(bands=BANDS), kind=kind)
        with serve_assets(tmp_path / "served") as web:
            ours = fetched(tmp_path / f"{kind}.zarr", f"{web}/{kind}.zarr")
            (item,) = said(tmp_path / f"{kind}.zarr")["items"]
            assert item["hrefs"]["red"] == f"{web}/{kind}.zarr/{path_of('red')}"
        np.testing.assert_array_equal(ours["red"], safe["red"])
        np.testing.assert_array_equal(ours["scl"], safe["scl"])
    for file in store.rglob("*"):
        if file.is_file():
            bucket.put(f"a.zarr/{file.relative_to(store)}", file.read_bytes())
    ours = fetched(tmp_path / "bucket.zarr", bucket.address("a.zarr"))
    np.testing.assert_array_equal(ours["nir08"], safe["nir08"])


def test_xarray_reads_the_same_reflectance(tmp_path: Path) -> None:
    """What is compared with is written as ESA does: CF's decoding gives what the scene gives."""
    made = planes(bands=BANDS)
    store = write_eopf(tmp_path / "a.zarr", made)
    ours = fetched(tmp_path / "scene.zarr", store)["red"][128 : 128 + GROUND.height, 128 : 128 + GROUND.width]
    array = xr.open_zarr(store, group="measurements/reflectance/r10m", consolidated=False, mask_and_scale=True)["b04"]
    kept = ours > 0
    assert kept.mean() > 0.9
    np.testing.assert_allclose(ours[kept] * 1e-4 - 0.1, array.values[kept], atol=1e-9)


def test_a_chunk_that_is_not_there_has_no_pixel(
    tmp_path: Path, safe: dict[str, NDArray[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    store = write_eopf(tmp_path / "a.zarr", planes(bands=BANDS))
    (store / path_of("nir") / "1.2").unlink()
    ours = fetched(tmp_path / "scene.zarr", store)
    assert "r10m/b08 lacks its chunk 1.2, which measurements/reflectance/r10m/b04 has" in capsys.readouterr().err
    gone = np.zeros((GROUND.height, GROUND.width), bool)
    gone[48:96, 96:144] = True
    inner = ours["red"][128 : 128 + GROUND.height, 128 : 128 + GROUND.width]
    assert not inner[gone].any()
    np.testing.assert_array_equal(inner[~gone], safe["red"][128 : 128 + GROUND.height, 128 : 128 + GROUND.width][~gone])


@pytest.mark.skipif(not REAL.exists(), reason="the real product is not at hand")
def test_a_real_rewritten_product_is_reflectance_already(tmp_path: Path) -> None:
    """Its overviews only: floats, beside words about the packing they had before."""
    (store,) = REAL.iterdir()
    bands = ("red", "green", "blue")
    bbox = (11.7, 42.0, 11.75, 42.04)
    request = request_of([str(store)], bbox, date=None, max_cloud=100, bands=bands)
    assert request.utm == "EPSG:32632" and request.items[0].id == store.name.removesuffix(".zarr")
    run(plan(replace(request, output=tmp_path / "scene.zarr")), no_progress)
    ours = arrays(tmp_path / "scene.zarr")["red"]
    with xr.open_zarr(store / "measurements/reflectance/r120m", consolidated=False) as group:
        theirs = group["b04"].values
    assert 0.9 * np.nanpercentile(theirs, 1) < np.percentile(ours, 50) * 1e-4 - 0.1 < np.nanpercentile(theirs, 99)


HARM: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "twice": (
        "scale_offset",
        lambda store: edit(store / path_of("red") / "zarr.json", attributes={"scale_factor": 2e-4, "add_offset": -0.1}),
        "is scaled by its codec .* and by its attributes",
    ),
    "unsaid": (
        "v3",
        lambda store: edit(store / path_of("red") / "zarr.json", attributes={}),
        "holds uint16 and says no scale|does not say where its pixels lie",
    ),
    "no scale": (
        "v2",
        lambda store: edit(store / path_of("red") / ".zattrs", scale_factor=None, add_offset=None),
        "holds uint16 and says no scale",
    ),
    "no number": ("v2", lambda store: edit(store / path_of("red") / ".zattrs", scale_factor="1"), "which is no number"),
    "no band": ("v2", lambda store: shutil.rmtree(store / path_of("red")), "has no b04 .red. of 10 m or larger"),
    "no chunk": (
        "v2",
        lambda store: [each.unlink() for each in (store / path_of("red")).glob("[0-9]*")],
        "holds no chunk: the product is incomplete",
    ),
    "no JSON": ("v2", lambda store: (store / path_of("red") / ".zarray").write_text("{"), "is no JSON"),
    "no array": ("v2", lambda store: (store / path_of("red") / ".zarray").write_text("{}"), "cannot be read"),
    "no place": (
        "v2",
        lambda store: edit(store / path_of("red") / ".zattrs", **{"proj:transform": None}),
        "where its pixels lie",
    ),
    "turned": (
        "v2",
        lambda store: edit(store / path_of("red") / ".zattrs", **{"proj:transform": [10, 1, 0, 1, -10, 0]}),
        "where its pixels lie",
    ),
    "no CRS": ("v2", lambda store: no_crs(store), "does not say its CRS"),
    "degrees": (
        "v2",
        lambda store: edit(store / path_of("red") / ".zattrs", **{"proj:epsg": 4326}),
        "not in a projected CRS in metres",
    ),
    "pickle": (
        "v2",
        lambda store: edit(store / path_of("red") / ".zarray", compressor={"id": "pickle", "protocol": 4}),
        "cannot be read",
    ),
    "link": ("v2", lambda store: outside(store / path_of("red") / "0.0"), "leads out of the scene's folder"),
    "pipe": ("v2", lambda store: pipe(store / path_of("red") / "0.0"), "is no file"),
    "damaged": ("v2", lambda store: rot(store / path_of("red") / "0.0"), "red: .* cannot be read"),
    "cut off": ("v2", lambda store: cut(store / path_of("red") / "0.0"), "b04/0.0 is cut off or damaged"),
    "cut off, Zarr 3": ("v3", lambda store: (store / path_of("red") / "c/0/0").write_bytes(b""), "cut off or damaged"),
    "no offset": (
        "v2",
        lambda store: [edit(store / path_of(band) / ".zattrs", add_offset=None) for band in BANDS],
        "evidence for its offset disagrees .*its file's offset is 0; processing baseline 05.10: -1000.*--offset",
    ),
    "no date": (
        "v2",
        lambda store: edit(store / ".zattrs", stac_discovery=discovery(datetime="yesterday")),
        "stac_discovery cannot be understood",
    ),
    "silent": ("v2", lambda store: edit(store / ".zattrs", stac_discovery=None), "does not say when it was sensed"),
    "classes": ("v2", lambda store: edit(store / CLASSES / ".zarray", shape=[3, 3]), "do not cover the same ground"),
}  # fmt: skip


def no_crs(store: Path) -> None:
    properties = discovery()["properties"]
    del properties["proj:epsg"]
    edit(store / ".zattrs", stac_discovery=discovery() | {"properties": properties})
    edit(store / path_of("red") / ".zattrs", **{"proj:epsg": None})


def outside(chunk: Path) -> None:
    away = chunk.rename(chunk.parents[5] / "away")
    chunk.symlink_to(away)


def rot(chunk: Path) -> None:
    whole = chunk.read_bytes()
    chunk.write_bytes(whole[:16] + bytes(len(whole) - 16))


def cut(chunk: Path) -> None:
    chunk.write_bytes(chunk.read_bytes()[:-40])


def pipe(chunk: Path) -> None:
    chunk.unlink()
    os.mkfifo(chunk)


@pytest.mark.parametrize("harm", HARM)
def test_what_is_malformed_is_refused_in_one_sentence(
    tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "WAITS", ())
    kind, spoil, sentence = HARM[harm]
    store = write_eopf(tmp_path / "a.zarr", planes(bands=BANDS), kind=kind)
    spoil(store)
    with pytest.raises(SceneError, match=sentence) as refused:
        fetched(tmp_path / "scene.zarr", store)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 500
    left = {path.name for path in tmp_path.iterdir()} - {"away"}
    assert left == {"a.zarr"} or harm == "damaged", left  # which only its pixels tell


def test_a_codec_and_attributes_that_say_the_same_are_applied_once(
    tmp_path: Path, safe: dict[str, NDArray[Any]]
) -> None:
    store = write_eopf(tmp_path / "a.zarr", planes(bands=BANDS), kind="fixedscaleoffset")
    for band in BANDS:
        edit(store / path_of(band) / "zarr.json", attributes=PACKING)
    np.testing.assert_array_equal(fetched(tmp_path / "scene.zarr", store)["red"], safe["red"])


def test_a_store_of_another_kind_is_no_product_whatever_it_is_called(tmp_path: Path) -> None:
    store = tmp_path / "S2B_MSIL2A_20240610T100559_N0510_R022_T33TWL_20240610T100559.zarr"
    zarr.create_group(store, attributes={"stac_discovery": discovery()}).create_array("red", shape=(4, 4), dtype="u2")
    assert not is_product(store)
    with pytest.raises(SceneError, match="is no product"):
        read_product(str(store), BANDS)
