"""The scene store against independent readers (xarray, rioxarray, GDAL), and the contract line by line."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  (registers .rio)
import strangers
import xarray as xr
import zarr
from affine import Affine
from numpy.typing import NDArray

from rsup.models.base.errors import OutputError, SceneError
from rsup.pipeline.lattice import Window, chunks
from rsup.pipeline.scenes.opening import open_scene
from rsup.pipeline.scenes.writer import create_scene

CRS = "EPSG:32633"
BANDS = ("red", "green", "nir")
WINDOW = Window(row=-520_037, col=30_011, height=37, width=53)


def numbers(window: Window, bands: int = 3) -> NDArray[np.uint16]:
    """Asymmetrical stored numbers [band, y, x]: no flip, swap or shift leaves them unchanged."""
    code = np.arange(window.height)[:, None] * 101 + np.arange(window.width)[None, :] * 3
    return np.stack([code + 1000 + 7 * band for band in range(bands)]).astype(np.uint16)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "scene.zarr"
    data = numbers(WINDOW)
    data[:, 0, 0] = 0
    writer = create_scene(path, WINDOW, CRS, BANDS, chunk=16, aoi=WINDOW.grow(-5), attributes={"items": [{"id": "a"}]})
    for index, window in chunks(WINDOW, 16):
        cut = (slice(None), *window.within(WINDOW))
        classes = np.full((window.height, window.width), 4, np.uint8)
        writer.write(index, data[cut], classes, classes.astype(np.uint16))
    return path


# rioxarray multiplies affines in a way that affine 3 deprecates.
@pytest.mark.filterwarnings("ignore:Use `@` matmul:PendingDeprecationWarning")
def test_xarray_reads_reflectance_unaided(store: Path) -> None:
    with xr.open_dataset(store, engine="zarr", decode_coords="all") as ds:
        assert set(ds.data_vars) == {*BANDS, "scl", "source"}
        expected = numbers(WINDOW) * 1e-4 - 0.1
        expected[:, 0, 0] = np.nan
        np.testing.assert_allclose(np.stack([ds[b].values for b in BANDS]), expected, atol=1e-6)
        assert ds.scl.dtype == np.uint8
        assert ds.rio.crs.to_epsg() == 32633
        assert ds.red.rio.crs.to_epsg() == 32633
        assert ds.red.rio.transform() == Affine(10, 0, 300_110, 0, -10, 5_200_370)
        assert ds.red.rio.transform(recalc=True) == ds.red.rio.transform()
        assert ds.x.values[0] == 300_115 and ds.y.values[-1] == 5_200_370 - 365


def test_read_returns_what_was_written_and_zero_outside(store: Path) -> None:
    scene = open_scene(store)
    assert (scene.crs, scene.window, scene.aoi, scene.bands) == (CRS, WINDOW, WINDOW.grow(-5), BANDS)
    asked = Window(WINDOW.row - 2, WINDOW.col + 40, 20, 20)
    data = scene.read(("nir", "red"), asked)
    whole = np.zeros((2, *np.add(numbers(WINDOW).shape[1:], 40)), np.uint16)
    whole[:, 20:-20, 20:-20] = numbers(WINDOW)[[2, 0]]
    np.testing.assert_array_equal(data, whole[:, 18:38, 60:80])
    assert not scene.read(("red",), Window(0, 0, 4, 4)).any()


def test_a_pickled_scene_reads_from_many_threads(store: Path) -> None:
    scene = pickle.loads(pickle.dumps(open_scene(store)))
    windows = [w for _, w in chunks(WINDOW, 7)]
    stored = numbers(WINDOW)
    stored[:, 0, 0] = 0
    with ThreadPoolExecutor(8) as pool:
        for window, data in zip(windows, pool.map(lambda w: scene.read(("green",), w), windows), strict=True):
            expected = stored[1][window.within(WINDOW)]
            np.testing.assert_array_equal(data[0], expected)


def test_fingerprint_changes_with_pixels(store: Path) -> None:
    before = open_scene(store).fingerprint()
    assert before == open_scene(store).fingerprint()
    zarr.open_group(store)["red"][3, 3] = 9  # type: ignore[index]
    assert open_scene(store).fingerprint() != before


def dataset(**changes: Any) -> xr.Dataset:
    """A scene as a user of xarray would make it: reflectance, CRS and coordinates; no word from rsup."""
    reflectance = numbers(WINDOW, 1)[0] * 1e-4 - 0.1
    x = changes.get("x", 300_115.0 + 10 * np.arange(WINDOW.width))
    y = changes.get("y", 5_200_365.0 - 10 * np.arange(WINDOW.height))
    ds = xr.Dataset({"red": (("y", "x"), reflectance)}, coords={"x": x, "y": y})
    return ds.rio.write_crs(changes["crs"]) if changes.get("crs", CRS) and changes.setdefault("crs", CRS) else ds


ENCODING: dict[str, Any] = {"dtype": "uint16", "scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": 0}


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_store_written_by_xarray_is_a_scene(tmp_path: Path, zarr_format: int) -> None:
    path = tmp_path / "user.zarr"
    ds = dataset()
    ds.red.encoding.update(ENCODING)
    ds.to_zarr(path, zarr_format=zarr_format, consolidated=False)  # type: ignore[call-overload]
    scene = open_scene(path)
    assert (scene.window, scene.aoi, scene.crs) == (WINDOW, WINDOW, CRS)
    np.testing.assert_array_equal(scene.read(("red",), WINDOW), numbers(WINDOW, 1))


def test_a_store_cut_by_xarray_stays_where_it_was(store: Path, tmp_path: Path) -> None:
    with xr.open_dataset(store, engine="zarr", decode_coords="all", mask_and_scale=False) as ds:
        cut = ds.drop_attrs(deep=False).isel(x=slice(10, 30), y=slice(5, 25))
        for variable in cut.variables.values():
            variable.encoding.pop("chunks", None)
        cut.to_zarr(tmp_path / "cut.zarr", consolidated=False)
    scene = open_scene(tmp_path / "cut.zarr")
    assert scene.window == Window(WINDOW.row + 5, WINDOW.col + 10, 20, 20)
    np.testing.assert_array_equal(scene.read(("green",), scene.window)[0], numbers(WINDOW)[1, 5:25, 10:30])


@pytest.mark.parametrize(
    ("changes", "encoding", "sentence"),
    [
        ({"crs": None}, ENCODING, "no CRS"),
        ({"crs": "EPSG:4326"}, ENCODING, "projected one in metres"),
        ({"crs": "EPSG:2263"}, ENCODING, "projected one in metres"),  # US survey feet
        ({}, {"dtype": "uint16", "scale_factor": 1e-4, "_FillValue": 0}, "no offset.*--input-offset"),
        ({"x": 300_112.0 + 10 * np.arange(WINDOW.width)}, ENCODING, "multiples of 10 m"),
        ({"x": 300_110.0 + 20 * np.arange(WINDOW.width)}, ENCODING, "20 x 10"),
        ({"x": 300_115.0 + np.arange(WINDOW.width) ** 2}, ENCODING, "evenly spaced"),
        ({"y": 5_200_365.0 + 10 * np.arange(WINDOW.height)}, ENCODING, "south to north"),
    ],
)
def test_a_broken_line_is_named(
    tmp_path: Path, changes: dict[str, Any], encoding: dict[str, Any], sentence: str
) -> None:
    path = tmp_path / "user.zarr"
    ds = dataset(**changes)
    ds.red.encoding.update(encoding)
    ds.to_zarr(path, consolidated=False)
    with pytest.raises(SceneError, match=sentence):
        open_scene(path)


def write_geotiff(path: Path, **changes: Any) -> Path:
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "dtype": changes.get("dtype", "uint16"),
        "count": 3,
        "height": WINDOW.height,
        "width": WINDOW.width,
        "crs": changes.get("crs", CRS),
        "transform": changes.get("transform", WINDOW.transform()),
        "nodata": changes.get("nodata", 0),
    }
    with rasterio.open(path, "w", **profile) as sink:
        sink.write(numbers(WINDOW).astype(profile["dtype"]))
        sink.descriptions = changes.get("descriptions", BANDS)
        sink.scales = (changes.get("scale", 1e-4),) * 3
        sink.offsets = (changes.get("offset", -0.1),) * 3
    return path


def test_a_geotiff_is_a_scene(tmp_path: Path) -> None:
    scene = open_scene(write_geotiff(tmp_path / "scene.tif"))
    assert (scene.window, scene.aoi, scene.bands, scene.crs) == (WINDOW, WINDOW, BANDS, CRS)
    asked = Window(WINDOW.row + 30, WINDOW.col - 1, 10, 5)
    expected = np.zeros((1, 10, 5), np.uint16)
    expected[0, :7, 1:] = numbers(WINDOW)[1, 30:, :4]
    np.testing.assert_array_equal(scene.read(("green",), asked), expected)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crs": None}, "no CRS"),
        ({"crs": "EPSG:3857"}, "not a projected one in metres of the ground"),
        ({"crs": "EPSG:4326"}, "projected one in metres"),
        ({"nodata": None}, "stands for nothing: say --input-nodata"),
        ({"offset": 0.0}, "no offset.*--input-offset"),
        ({"scale": 1.0}, "are a reflectance of .* which nothing has"),
        ({"scale": 1.0, "offset": 0.0}, "nothing says what its numbers mean: say --input-scale"),
        ({"descriptions": ("red", None, "nir")}, "name of its own"),
        ({"descriptions": ("red", "red", "nir")}, "name of its own"),
        ({"transform": Affine(10, 0, 300_003, 0, -10, 5_200_370)}, "multiples of 10 m"),
        ({"transform": Affine(9, 1, 300_000, 1, -9, 5_200_370)}, "rotated"),
        ({"transform": Affine(20, 0, 300_000, 0, -20, 5_200_360)}, "20 x 20"),
    ],
)
def test_a_broken_line_of_a_geotiff_is_named(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    path = write_geotiff(tmp_path / "scene.tif", **changes)
    with pytest.raises(SceneError, match=sentence):
        open_scene(path)


def test_what_is_no_scene_is_said_to_be_none(tmp_path: Path, store: Path) -> None:
    (tmp_path / "note.txt").write_text("not a raster")
    (tmp_path / "empty").mkdir()
    zarr.create_group(tmp_path / "bare.zarr")
    for name, sentence in {
        "nowhere.zarr": "does not exist",
        "note.txt": "neither a Zarr store nor a raster",
        "empty": "not a readable Zarr group",
        "bare.zarr": "no band",
    }.items():
        with pytest.raises(SceneError, match=sentence):
            open_scene(tmp_path / name)
    with pytest.raises(SceneError, match="no band swir16; it has red, green, nir"):
        open_scene(store).read(("swir16",), WINDOW)


def test_a_damaged_chunk_is_a_sentence(store: Path) -> None:
    (store / "red" / "c" / "1" / "1").write_bytes(b"damaged")
    with pytest.raises(SceneError, match="red cannot be read"):
        open_scene(store).read(("red",), WINDOW)


def test_an_aoi_outside_the_pixels_is_refused(tmp_path: Path) -> None:
    create_scene(tmp_path / "scene.zarr", WINDOW, CRS, BANDS, 16, aoi=Window(0, 0, 5, 5))
    with pytest.raises(SceneError, match="outside its pixels"):
        open_scene(tmp_path / "scene.zarr")


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written .*choose another output"):
        create_scene(tmp_path / "file" / "scene.zarr", WINDOW, CRS, BANDS, 16)


@pytest.mark.parametrize("kind", ["tiff", "store", "store without classes"])
def test_a_0_in_one_band_is_dark_and_in_all_bands_nodata(tmp_path: Path, kind: str) -> None:
    dn, meant = strangers.speckled()
    if kind == "tiff":
        path = strangers.tiff(tmp_path / "s.tif", dn)
    else:
        path = strangers.store(tmp_path / "s.zarr", dn, classes=0 if "without" in kind else 6).path
    scene = open_scene(path)
    np.testing.assert_array_equal(scene.read(strangers.BANDS, strangers.WINDOW), meant)
    # Whatever is asked for, alone or with others, whole or in parts.
    for k, band in enumerate(strangers.BANDS):
        np.testing.assert_array_equal(scene.read((band,), strangers.WINDOW)[0], meant[k])
    for _, part in chunks(strangers.WINDOW, 9):
        np.testing.assert_array_equal(scene.read(("blue",), part)[0], meant[2][part.within(strangers.WINDOW)])
    pixels = scene.examine(("red", "green"), strangers.WINDOW.grow(2))
    assert pixels.dark[:, 2:-2, 2:-2].sum() == 6 and pixels.dark.sum() == 6
    np.testing.assert_array_equal(pixels.there[2:-2, 2:-2], dn.any(axis=0))


def test_a_0_that_the_classification_calls_nodata_stays_one(tmp_path: Path) -> None:
    """At the swath's edge the bands end one after the other."""
    dn, meant = strangers.speckled()
    scl = np.full(dn.shape[1:], 4)
    scl[33, :20] = 0
    meant[2, 33, 3:20] = 0
    scene = open_scene(strangers.store(tmp_path / "s.zarr", dn, scl).path)
    np.testing.assert_array_equal(scene.read(strangers.BANDS, strangers.WINDOW), meant)
    np.testing.assert_array_equal(scene.read(("blue",), strangers.WINDOW)[0], meant[2])
