"""Fetch end to end from catalogues on disk: where pixels land, what their numbers become, what survives a failure."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from numpy.typing import NDArray
from places import SHARED
from pyproj import Transformer

from rsup.models.base.errors import ArgumentError, CatalogError, OutputError, SceneError
from rsup.pipeline.jobs.fetch import MARGIN, plan, run
from rsup.pipeline.jobs.upscale import upscale
from rsup.pipeline.jobs.upscale_plan import UpscaleRequest
from rsup.pipeline.lattice import Window
from rsup.pipeline.scenes.opening import open_scene
from rsup.pipeline.scenes.scene import Scene
from rsup.pipeline.sources import retry
from rsup.pipeline.sources.composite import median_of_valid
from rsup.pipeline.sources.footprint import Box, box_of, window_in
from rsup.pipeline.sources.request import FetchRequest

REAL = SHARED / "data" / "sentinel2"
PRODUCTS = REAL / "mapchete_eo" / "full_products" / "sentinel-2-l2a"

BBOX = (15.0, 46.0, 15.012, 46.009)
AOI = window_in(Box.of(BBOX), "EPSG:32633")


def around(aoi: Window) -> Window:
    """A little more ground than fetch stores; its edges are multiples of 20 m, as those of Sentinel-2 tiles."""
    wide = aoi.grow(MARGIN + 20)
    row, col = wide.row // 2 * 2, wide.col // 2 * 2
    return Window(row, col, (wide.stop_row - row + 1) // 2 * 2, (wide.stop_col - col + 1) // 2 * 2)


GROUND = around(AOI)

Ramp = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
"""A value for each x, y in metres of the item's CRS; linear, so that bilinear sampling is exact."""


def red_ramp(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return 20_000 + (x - 500_000) * 0.7 + (y - 5_094_000) * 0.31


def green_ramp(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return 20_000 - (x - 500_000) * 0.23 + (y - 5_094_000) * 0.8


def centres(window: Window, gsd: int = 10) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """x and y [y, x] of the pixel centres, `gsd` metres apart."""
    west, south, east, north = window.bounds
    x, y = np.arange(west + gsd / 2, east, gsd), np.arange(north - gsd / 2, south, -gsd)
    return np.broadcast_to(x[None], (len(y), len(x))), np.broadcast_to(y[:, None], (len(y), len(x)))


def write_band(path: Path, window: Window, data: NDArray[Any], crs: str, gsd: int = 10, **options: Any) -> None:
    """A tiled GeoTIFF of `window` (given in 10 m pixels)."""
    west, _, _, north = window.bounds
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": data.shape[0],
        "width": data.shape[1],
        "count": 1,
        "dtype": data.dtype,
        "crs": crs,
        "transform": rasterio.Affine(gsd, 0, west, 0, -gsd, north),
        "tiled": True,
        "blockxsize": 64,
        "blockysize": 64,
    }
    with rasterio.open(path, "w", **profile | {"nodata": 0} | options) as sink:
        sink.write(data, 1)


def add_item(
    folder: Path,
    item_id: str,
    bands: dict[str, NDArray[Any]],
    window: Window = GROUND,
    crs: str = "EPSG:32633",
    scl: int | NDArray[Any] = 4,
    **properties: Any,
) -> dict[str, Any]:
    """Write an item's files and list it in the folder's catalogue. A 20 m grid is recognised by its shape."""
    home = folder / item_id
    home.mkdir(parents=True)
    planes = {"scl": np.full((window.height // 2, window.width // 2), scl, np.uint8), **bands}
    for name, data in planes.items():
        write_band(home / f"{name}.tif", window, data, crs, gsd=10 * window.height // data.shape[0])
    box = box_of(window, crs)
    ring = [(box.west, box.south), (box.east, box.south), (box.east, box.north), (box.west, box.north)]
    item = {
        "type": "Feature",
        "id": item_id,
        "collection": "sentinel-2-l2a",
        "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]]]},
        "properties": {
            "datetime": f"2024-06-10T10:{len(list(folder.iterdir())):02}:00Z",  # each of its own: one has one vote
            "eo:cloud_cover": 5,
            "s2:processing_baseline": "05.10",
            **properties,
        },
        "assets": {name: {"href": f"{name}.tif"} for name in planes},
        "links": [],
    }
    (home / "item.json").write_text(json.dumps(item))
    catalog = folder / "catalog.json"
    listed = json.loads(catalog.read_text())["links"] if catalog.exists() else []
    listed.append({"rel": "item", "href": f"{item_id}/item.json"})
    catalog.write_text(json.dumps({"type": "Catalog", "id": "made", "links": listed}))
    return item


def ramps(window: Window = GROUND, crs: str = "EPSG:32633") -> dict[str, NDArray[np.uint16]]:
    x, y = centres(window)
    if crs != "EPSG:32633":
        x, y = Transformer.from_crs(crs, "EPSG:32633", always_xy=True).transform(x, y)
    return {"red": np.rint(red_ramp(x, y)).astype(np.uint16), "green": np.rint(green_ramp(x, y)).astype(np.uint16)}


def next_zone() -> Window:
    """A window of zone 32 that covers GROUND and more; turned by 4 degrees against it."""
    x, y = centres(GROUND.grow(60))
    x, y = Transformer.from_crs("EPSG:32633", "EPSG:32632", always_xy=True).transform(x, y)
    west, north = np.floor(x.min() / 20) * 20, np.ceil(y.max() / 20) * 20
    return Window(int(-north / 10), int(west / 10), 2 * int((north - y.min()) / 20), 2 * int((x.max() - west) / 20))


def flat(value: int, window: Window = GROUND) -> dict[str, NDArray[np.uint16]]:
    return {band: np.full((window.height, window.width), value, np.uint16) for band in ("red", "green")}


def fetch(folder: Path, **options: Any) -> Scene:
    asked: dict[str, Any] = {
        "bbox": BBOX,
        "date": "2024-06",
        "output": folder / "scene.zarr",
        "catalog": str(folder),
        "bands": ("red", "green"),
        "chunk": 128,
    }
    request = FetchRequest(**asked | options)
    run(plan(request), lambda done, total: None)
    return open_scene(request.output)


def stored_array(scene: Scene, name: str) -> NDArray[Any]:
    array = zarr.open_group(scene.path, mode="r")[name]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[:])


def test_native_pixels_are_copied_exactly_where_they_belong(tmp_path: Path) -> None:
    bands = ramps()
    add_item(tmp_path, "a", bands)
    scene = fetch(tmp_path)
    assert (scene.aoi, scene.window, scene.crs) == (AOI, AOI.grow(MARGIN), "EPSG:32633")
    cut = scene.window.within(GROUND)
    np.testing.assert_array_equal(scene.read(("green", "red"), scene.window), [bands["green"][cut], bands["red"][cut]])
    assert not list(tmp_path.glob(".scene*"))


def test_a_rotated_raster_of_coordinates_lands_on_them(tmp_path: Path) -> None:
    """An item of zone 32 whose pixels are their zone 33 coordinates, turned by 4 degrees against the output."""
    window = next_zone()
    add_item(tmp_path, "a", ramps(window, "EPSG:32632"), window, "EPSG:32632")
    scene = fetch(tmp_path)
    x, y = centres(scene.window)
    data = scene.read(("red", "green"), scene.window).astype(np.float64)
    # Rounded twice, before and after resampling. A pixel of displacement would be 7 and 3, or 2 and 8.
    assert np.abs(data[0] - red_ramp(x, y)).max() <= 1.01
    assert np.abs(data[1] - green_ramp(x, y)).max() <= 1.01


def test_a_rotated_raster_of_coordinates_survives_fetch_and_upscale(tmp_path: Path) -> None:
    """A ramp stays a ramp under bicubic and under the consistency projection: every 1.25 m pixel says where it is."""
    window = next_zone()
    add_item(tmp_path, "a", ramps(window, "EPSG:32632"), window, "EPSG:32632")
    scene = fetch(tmp_path)
    upscale(UpscaleRequest(scene.path, 8, tmp_path / "out", "bicubic", ("red", "green"), device="cpu"))
    with xr.open_dataset(
        tmp_path / "out" / f"{scene.path.stem}_x8.zarr", engine="zarr", mask_and_scale=False
    ) as mosaic:
        assert mosaic.sizes == {"y": scene.aoi.height * 8, "x": scene.aoi.width * 8}
        x, y = np.meshgrid(mosaic["x"].values, mosaic["y"].values)
        for band, ramp in (("red", red_ramp), ("green", green_ramp)):
            # The scene's own rounding (1.01) passes through an interpolation that overshoots, and is rounded again.
            # A shift by one 1.25 m pixel would show in red's mean as 0.9 and 0.4, in green's as 0.3 and 1.0.
            error = mosaic[band].values - ramp(x, y)
            assert np.abs(error).max() <= 4 and abs(error.mean()) <= 0.05


def test_zones_meet_in_one_grid(tmp_path: Path) -> None:
    """The west from zone 33, the rest from zone 32: one ramp without a step."""
    other = next_zone()
    half = Window(GROUND.row, GROUND.col, GROUND.height, GROUND.width // 4 * 2)
    add_item(tmp_path, "near", ramps(half), half, **{"eo:cloud_cover": 1})
    add_item(tmp_path, "next", ramps(other, "EPSG:32632"), other, "EPSG:32632", **{"eo:cloud_cover": 2})
    scene = fetch(tmp_path)
    x, y = centres(scene.window)
    assert np.abs(scene.read(("red",), scene.window)[0] - red_ramp(x, y)).max() <= 1.01
    origin = stored_array(scene, "source")
    assert set(np.unique(origin)) == {1, 2}
    assert (origin[:, : half.stop_col - scene.window.col] == 1).all()


def test_the_same_ground_whatever_the_bbox_and_the_chunks(tmp_path: Path) -> None:
    """A 10 m and a 20 m band, half of it from another zone: equal to the last number."""
    other = next_zone()
    half = Window(GROUND.row, GROUND.col, GROUND.height, GROUND.width // 4 * 2)
    noise = np.random.default_rng(5)
    for name, window, crs in (("near", half, "EPSG:32633"), ("next", other, "EPSG:32632")):
        red = noise.integers(1000, 5000, (window.height, window.width)).astype(np.uint16)
        swir = noise.integers(1000, 5000, (window.height // 2, window.width // 2)).astype(np.uint16)
        add_item(tmp_path, name, {"red": red, "swir16": swir}, window, crs)
    asked = {"bands": ("red", "swir16")}
    whole = fetch(tmp_path, **asked, chunk=1024)
    small = fetch(tmp_path, **asked, chunk=64, output=tmp_path / "small.zarr")
    np.testing.assert_array_equal(whole.read(asked["bands"], whole.window), small.read(asked["bands"], whole.window))
    part = fetch(tmp_path, **asked, chunk=100, output=tmp_path / "part.zarr", bbox=(15.0031, 46.0017, 15.0101, 46.0083))
    np.testing.assert_array_equal(whole.read(asked["bands"], part.window), part.read(asked["bands"], part.window))


def test_the_antimeridian_is_no_border(tmp_path: Path) -> None:
    bbox = (179.995, -16.9, -179.995, -16.893)
    aoi = window_in(Box.of(bbox), "EPSG:32701")
    ground = around(aoi)
    code = np.arange(ground.height)[:, None] * 50 + np.arange(ground.width)[None] + 1000
    add_item(tmp_path, "a", {"red": code.astype(np.uint16)}, ground, "EPSG:32701")
    scene = fetch(tmp_path, bbox=bbox, bands=("red",))
    assert scene.crs == "EPSG:32701" and scene.aoi == aoi and 100 < aoi.width < 115
    np.testing.assert_array_equal(scene.read(("red",), scene.window)[0], code[scene.window.within(ground)])


def test_each_item_s_offset_is_applied_before_they_meet(tmp_path: Path) -> None:
    """One ground of reflectance 0.05, as three archives store it."""
    thirds = [Window(GROUND.row, GROUND.col + i * 160, GROUND.height, 160) for i in range(3)]
    assert thirds[-1].stop_col >= AOI.grow(MARGIN).stop_col
    add_item(tmp_path, "raw", flat(1500, thirds[0]), thirds[0])
    add_item(tmp_path, "shifted", flat(500, thirds[1]), thirds[1], **{"earthsearch:boa_offset_applied": True})
    add_item(tmp_path, "old", flat(500, thirds[2]), thirds[2], **{"s2:processing_baseline": "02.14"})
    scene = fetch(tmp_path)
    assert np.unique(scene.read(scene.bands, scene.window)).tolist() == [1500]
    decided = {item["id"]: (item["offset"], item["baseline"]) for item in scene.attributes["items"]}
    assert decided == {"raw": (-1000, "05.10"), "shifted": (0, "05.10"), "old": (0, "02.14")}
    assert all(item["evidence"] for item in scene.attributes["items"])


def test_numbers_that_wrapped_around_are_mended_before_resampling(tmp_path: Path) -> None:
    """Reflectance -0.02 in a shifted 20 m band: -200, stored as 65336. Bilinear neighbours must not see 65336."""
    coarse = np.full((GROUND.height // 2, GROUND.width // 2), 400, np.uint16)
    coarse[::7, ::5] = 65336
    properties = {"earthsearch:boa_offset_applied": True}
    add_item(tmp_path, "a", {"swir16": coarse, "red": flat(300)["red"]}, **properties)
    data = fetch(tmp_path, bands=("swir16",)).read(("swir16",), AOI)
    assert data.min() >= 800 and data.max() <= 1400
    assert data.min() == 1062  # 1400 - 9/16 * 600, rounded to even


def test_files_without_a_nodata_tag_do_not_darken_their_edges(tmp_path: Path) -> None:
    window = GROUND
    coarse = np.full((window.height // 2, window.width // 2), 3000, np.uint16)
    coarse[:, :100] = 0
    add_item(tmp_path, "a", {"swir16": coarse, "red": flat(3000)["red"]})
    write_band(tmp_path / "a" / "swir16.tif", window, coarse, "EPSG:32633", gsd=20, nodata=None)
    data = fetch(tmp_path, bands=("swir16",)).read(("swir16",), AOI.grow(MARGIN))
    assert np.unique(data).tolist() == [0, 3000]


def test_clouds_give_way_to_the_next_item(tmp_path: Path) -> None:
    classes = np.full((GROUND.height // 2, GROUND.width // 2), 4, np.uint8)
    rows = slice(80, 120)
    classes[rows] = 9
    add_item(tmp_path, "clear", flat(1500), scl=classes, **{"eo:cloud_cover": 1})
    add_item(tmp_path, "hazy", flat(2500), scl=6, **{"eo:cloud_cover": 8})
    scene = fetch(tmp_path, mask_clouds=True)
    red = np.full((GROUND.height, GROUND.width), 1500)
    red[160:240] = 2500
    cut = scene.window.within(GROUND)
    np.testing.assert_array_equal(scene.read(("red",), scene.window)[0], red[cut])
    np.testing.assert_array_equal(stored_array(scene, "source"), np.where(red == 1500, 1, 2)[cut])
    np.testing.assert_array_equal(stored_array(scene, "scl"), np.where(red == 1500, 4, 6)[cut])
    unmasked = fetch(tmp_path, output=tmp_path / "unmasked.zarr")
    assert np.unique(unmasked.read(("red",), unmasked.window)).tolist() == [1500]


def test_the_median_is_numpy_s_over_valid_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(3)
    stack = noise.integers(1000, 6000, (4, 2, GROUND.height, GROUND.width)).astype(np.uint16)
    holes = noise.random((4, 1, GROUND.height, GROUND.width)) < 0.4
    stack[np.broadcast_to(holes, stack.shape)] = 0
    for number, layer in enumerate(stack):
        add_item(tmp_path, f"item{number}", {"red": layer[0], "green": layer[1]})
    expected = numpy_median(stack)
    np.testing.assert_array_equal(median_of_valid(stack), expected)
    scene = fetch(tmp_path, composite="median")
    cut = (slice(None), *scene.window.within(GROUND))
    np.testing.assert_array_equal(scene.read(scene.bands, scene.window), expected[cut])
    monkeypatch.setattr("rsup.pipeline.sources.composite.STACK_BYTES", 160_000)  # strips of a few rows
    strips = fetch(tmp_path, composite="median", output=tmp_path / "strips.zarr")
    np.testing.assert_array_equal(strips.read(scene.bands, scene.window), expected[cut])


def numpy_median(stack: NDArray[np.uint16]) -> NDArray[np.uint16]:
    values = np.where(stack == 0, np.nan, stack.astype(np.float64))
    empty = (stack == 0).all(axis=0)
    values[:, empty] = 0
    return np.rint(np.nanmedian(values, axis=0)).astype(np.uint16)


def test_a_stopped_run_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    add_item(tmp_path, "a", ramps())
    undisturbed = fetch(tmp_path, output=tmp_path / "undisturbed.zarr")
    asked = plan(
        FetchRequest(BBOX, "2024-06", tmp_path / "scene.zarr", str(tmp_path), bands=("red", "green"), chunk=128)
    )
    seen: list[int] = []

    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        seen.append(done)
        if done == 5:
            raise StopError

    with pytest.raises(StopError):
        run(asked, stop)
    assert not (tmp_path / "scene.zarr").exists()
    seen.clear()
    run(asked, lambda done, total: seen.append(done))
    assert seen[0] == 5  # those were not read again
    assert tree(tmp_path / "scene.zarr") == tree(undisturbed.path)
    assert not list(tmp_path.glob(".scene*"))


def tree(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()}


def test_a_partial_store_of_another_request_is_not_mixed_in(tmp_path: Path) -> None:
    add_item(tmp_path, "a", ramps())
    asked: dict[str, Any] = {
        "bbox": BBOX,
        "date": "2024-06",
        "output": tmp_path / "scene.zarr",
        "catalog": str(tmp_path),
    }

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(plan(FetchRequest(**asked, bands=("red",), chunk=128)), stop)
    with pytest.raises(OutputError, match="another run .*bands"):
        fetch(tmp_path)
    scene = fetch(tmp_path, overwrite=True)
    np.testing.assert_array_equal(scene.read(("green",), AOI)[0], ramps()["green"][AOI.within(GROUND)])


def test_an_output_that_exists_is_only_replaced_when_the_new_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "WAITS", (0.0, 0.0))
    add_item(tmp_path, "a", ramps())
    before = tree(fetch(tmp_path).path)
    with pytest.raises(
        OutputError, match=r"scene\.zarr exists and .*\(bands differ\); choose another -o or pass --over"
    ):
        fetch(tmp_path, bands=("green",))
    whole = (tmp_path / "a" / "green.tif").read_bytes()
    (tmp_path / "a" / "green.tif").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SceneError, match="item a, band green: its asset cannot be read"):
        fetch(tmp_path, overwrite=True)
    assert tree(tmp_path / "scene.zarr") == before
    (tmp_path / "a" / "green.tif").write_bytes(whole)
    fetch(tmp_path, overwrite=True)
    assert tree(tmp_path / "scene.zarr") == before


def test_a_read_that_fails_once_is_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is damaged when fetch starts and whole again a moment later."""
    monkeypatch.setattr(retry, "WAITS", (1.0, 1.0))
    add_item(tmp_path, "a", ramps())
    whole = (tmp_path / "a" / "red.tif").read_bytes()
    (tmp_path / "a" / "red.tif").write_bytes(whole[:100])
    mend = threading.Timer(0.7, lambda: (tmp_path / "a" / "red.tif").write_bytes(whole))
    mend.start()
    scene = fetch(tmp_path)
    mend.join()
    np.testing.assert_array_equal(scene.read(("red",), AOI)[0], ramps()["red"][AOI.within(GROUND)])


def test_what_an_asset_may_not_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "WAITS", (0.0, 0.0))
    add_item(tmp_path, "a", ramps())
    secret = tmp_path.parent / f"{tmp_path.name}-secret.tif"
    write_band(secret, GROUND, flat(4000)["red"], "EPSG:32633")
    (tmp_path / "a" / "green.tif").write_text(
        f'<VRTDataset rasterXSize="{GROUND.width}" rasterYSize="{GROUND.height}"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>{', '.join(map(str, GROUND.transform().to_gdal()))}</GeoTransform>"
        '<VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f"<SourceFilename>{secret}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(SceneError, match="band green: its asset cannot be read .it is neither GeoTIFF nor JPEG 2000"):
        fetch(tmp_path)


def test_evidence_that_disagrees_stops_the_run_until_the_user_decides(tmp_path: Path) -> None:
    add_item(tmp_path, "a", flat(500))  # baseline 05.10 and darker than its numbers can be
    with pytest.raises(SceneError, match="disagrees"):
        fetch(tmp_path)
    scene = fetch(tmp_path, offset="0")
    assert np.unique(scene.read(scene.bands, AOI)).tolist() == [1500]


def test_nothing_left_is_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    add_item(tmp_path, "a", flat(1500), scl=9)
    with pytest.raises(SceneError, match="no pixel of --bbox .* without --mask-clouds"):
        fetch(tmp_path, mask_clouds=True)
    assert not list(tmp_path.glob("*scene*"))


def rewrite(folder: Path, item_id: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what a catalogue on disk says of an item."""
    path = folder / item_id / "item.json"
    item = json.loads(path.read_text())
    change(item)
    path.write_text(json.dumps(item))


def test_masking_without_classes_is_refused(tmp_path: Path) -> None:
    add_item(tmp_path, "a", flat(1500))
    rewrite(tmp_path, "a", lambda item: item["assets"].pop("scl"))
    with pytest.raises(ArgumentError, match="--mask-clouds needs scene classification, which no item found has"):
        fetch(tmp_path, mask_clouds=True)
    assert not stored_array(fetch(tmp_path), "scl").any()


LACKS: dict[str, tuple[Callable[[Path], object], dict[str, Any], str]] = {
    "no such band": (
        lambda folder: rewrite(folder, "best", lambda item: item["assets"].pop("green")),
        {},
        "item best has no asset for band green (looked for green, B03, B03_10m)",
    ),
    "no classes": (
        lambda folder: rewrite(folder, "best", lambda item: item["assets"].pop("scl")),
        {"mask_clouds": True},
        "item best has no scene classification, which --mask-clouds needs",
    ),
    "a file gone": (
        lambda folder: (folder / "best" / "red.tif").unlink(),
        {},
        "item best, band red: its asset cannot be read (No such file or directory); it is not where its item says",
    ),
}


@pytest.mark.parametrize("lack", LACKS)
def test_what_one_item_lacks_costs_that_item(lack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The other's pixels, the same as if it were alone; the loss said, kept in the scene and in its mosaic's item."""
    spoil, options, reason = LACKS[lack]
    add_item(tmp_path / "both", "best", flat(1500), **{"eo:cloud_cover": 1})
    add_item(tmp_path / "both", "other", ramps())
    add_item(tmp_path / "alone", "other", ramps())
    spoil(tmp_path / "both")
    alone = fetch(tmp_path / "alone", **options)
    capsys.readouterr()
    scene = fetch(tmp_path / "both", **options)
    assert capsys.readouterr().err.count(f"left out: {reason} (--strict would stop here)") == 1
    np.testing.assert_array_equal(scene.read(scene.bands, scene.window), alone.read(scene.bands, scene.window))
    assert [item["id"] for item in scene.attributes["items"]] == ["other"]
    assert np.unique(stored_array(scene, "source")).tolist() == [1]
    assert scene.attributes["left_out"] == [{"id": "best", "reason": reason}]
    upscale(UpscaleRequest(scene.path, 4, tmp_path / "m", "nearest", ("red",), device="cpu"))
    made = json.loads((tmp_path / "m" / "scene_x4.json").read_text())
    assert made["properties"]["rsup:left_out"] == [{"id": "best", "reason": reason}]
    assert made["properties"]["rsup:sources"] == ["other"]


@pytest.mark.parametrize("lack", LACKS)
def test_who_wants_the_stop_asks_for_it(lack: str, tmp_path: Path) -> None:
    spoil, options, reason = LACKS[lack]
    add_item(tmp_path, "best", flat(1500), **{"eo:cloud_cover": 1})
    add_item(tmp_path, "other", ramps())
    spoil(tmp_path)
    with pytest.raises((SceneError, CatalogError)) as stopped:
        fetch(tmp_path, strict=True, **options)
    assert reason in str(stopped.value) and "\n" not in str(stopped.value)


@pytest.mark.parametrize("lack", ["no such band", "a file gone"])
def test_where_no_item_is_left_there_is_one_sentence(lack: str, tmp_path: Path) -> None:
    for name in ("best", "other"):
        add_item(tmp_path, name, flat(1500))
        if lack == "a file gone":
            (tmp_path / name / "red.tif").unlink()
        else:
            rewrite(tmp_path, name, lambda item: item["assets"].pop("red"))
    with pytest.raises((SceneError, CatalogError)) as stopped:
        fetch(tmp_path)
    said = str(stopped.value)
    assert "item best" in said and said.endswith("; nor can any of the other 1 items be used")
    assert "again" not in said and "\n" not in said and not (tmp_path / "scene.zarr").exists()


def test_an_item_that_goes_while_a_run_is_stopped_is_mixed_into_nothing(tmp_path: Path) -> None:
    """Chunks that were made with it are made again without; with it back, a finished scene is not touched."""
    add_item(tmp_path, "best", flat(1500), **{"eo:cloud_cover": 1})
    add_item(tmp_path, "other", ramps())
    asked = FetchRequest(BBOX, "2024-06", tmp_path / "scene.zarr", str(tmp_path), bands=("red", "green"), chunk=128)

    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == total - 1:
            raise StopError

    with pytest.raises(StopError):
        run(plan(asked), stop)
    (tmp_path / "best" / "red.tif").rename(tmp_path / "red.tif")
    summary = run(plan(asked), lambda done, total: None)
    assert summary["items"] == ["other"] and [each["id"] for each in summary["left_out"]] == ["best"]
    scene = open_scene(asked.output)
    np.testing.assert_array_equal(scene.read(("red",), AOI)[0], ramps()["red"][AOI.within(GROUND)])
    (tmp_path / "red.tif").rename(tmp_path / "best" / "red.tif")
    again = run(plan(asked), lambda done, total: None)
    assert again["already_done"] and again["left_out"] == summary["left_out"] and again["items"] == ["other"]


def test_the_same_acquisition_in_an_older_listing_takes_the_place_of_files_that_are_gone(tmp_path: Path) -> None:
    """And alone of the two has its vote where they are there."""
    same = {"datetime": "2024-06-10T10:00:00Z", "platform": "sentinel-2b", "grid:code": "MGRS-33TWL"}
    add_item(tmp_path, "old", ramps(), **same)
    add_item(tmp_path, "new", flat(1500), **same | {"s2:processing_baseline": "05.11"})
    assert [item["id"] for item in fetch(tmp_path, output=tmp_path / "a.zarr").attributes["items"]] == ["new"]
    (tmp_path / "new" / "green.tif").unlink()
    scene = fetch(tmp_path, output=tmp_path / "b.zarr")
    assert [item["id"] for item in scene.attributes["items"]] == ["old"]
    assert [each["id"] for each in scene.attributes["left_out"]] == ["new"]
    np.testing.assert_array_equal(scene.read(("red",), AOI)[0], ramps()["red"][AOI.within(GROUND)])


def test_all_items_that_somebody_has_to_decide_of_are_named_at_once(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        add_item(tmp_path, name, flat(500 if name != "b" else 1500))
    with pytest.raises(SceneError, match=r"^a: .*disagrees.*--offset a=0 .* \(so are 2 items: a, c\)$"):
        fetch(tmp_path)
    assert [item["offset"] for item in fetch(tmp_path, offset="a=0,c=0").attributes["items"]] == [0, -1000, 0]


def test_offsets_are_decided_item_by_item(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """West: the 1000 is off, whatever it says. East: it is on. Truth + 1000 everywhere, if the west is decided."""
    half = GROUND.width // 2 // 2 * 2
    truth = np.random.default_rng(0).integers(200, 900, (GROUND.height, GROUND.width)).astype(np.uint16)
    west, east = replace(GROUND, width=half), replace(GROUND, col=GROUND.col + half, width=GROUND.width - half)
    add_item(tmp_path, "west", dict.fromkeys(("red", "green"), truth[:, :half]), west)
    add_item(tmp_path, "east", dict.fromkeys(("red", "green"), truth[:, half:] + np.uint16(1000)), east)
    with pytest.raises(SceneError, match=r"west: .*disagrees .*decide for it with --offset west=0 \(.*for all items"):
        fetch(tmp_path)
    with pytest.raises(ArgumentError, match="--offset nobody=...: no item of that id is found; --dry-run lists"):
        fetch(tmp_path, offset="nobody=0")
    capsys.readouterr()
    for name, offset in (("one", "west=0"), ("rest", "0,east=-1000")):
        scene = fetch(tmp_path, output=tmp_path / f"{name}.zarr", offset=offset)
        assert "contradicts" not in capsys.readouterr().err
        np.testing.assert_array_equal(scene.read(("red",), AOI)[0], truth[AOI.within(GROUND)] + 1000)
    scene = fetch(tmp_path, output=tmp_path / "all.zarr", offset="0")
    said = capsys.readouterr().err
    assert "--offset 0 contradicts the evidence of 1 of 2 items, and counts all the same (item east: " in said
    evidence = {item["id"]: item["evidence"][-1] for item in scene.attributes["items"]}
    assert evidence == {
        "west": "decided by --offset 0",
        "east": "decided by --offset 0, against the evidence",
    }


def test_the_catalogue_s_word_on_the_grid_is_not_needed(tmp_path: Path) -> None:
    """Items without proj: fields are the rule above; here they have wrong ones, and a torn geometry."""
    item = add_item(tmp_path, "a", ramps())
    item["properties"] |= {"proj:epsg": 32601, "proj:code": "EPSG:32601"}
    for asset in item["assets"].values():
        asset |= {"proj:transform": [10, 0, 0, 0, -10, 0], "proj:shape": [7, 7]}
    item["geometry"] = None
    (tmp_path / "a" / "item.json").write_text(json.dumps(item))
    scene = fetch(tmp_path)
    np.testing.assert_array_equal(scene.read(("red",), AOI)[0], ramps()["red"][AOI.within(GROUND)])


def test_doubtful_pixels_are_counted_said_and_kept_in_the_scene(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bands = flat(1500)
    top = AOI.row - GROUND.row
    bands["red"][top : top + 5, 150:160] = 0
    for band in bands.values():
        band[top + 20 : top + 30, 150:170] = 0
    add_item(tmp_path, "a", bands)
    request = FetchRequest(BBOX, "2024-06", tmp_path / "scene.zarr", str(tmp_path), bands=("red", "green"), chunk=128)

    class StopError(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == total - 2:
            raise StopError

    with pytest.raises(StopError):
        run(plan(request), stop)
    summary = run(plan(request), lambda done, total: None)  # what was counted before it was stopped counts
    counted = {"dark_pixels": 50, "zero_pixels": 200}
    assert summary.items() >= counted.items()
    scene = open_scene(request.output)
    stored = json.loads((scene.path / "zarr.json").read_text())["attributes"]
    assert {name: stored[name] for name in counted} == counted
    assert (scene.read(("red",), scene.window) == 1).sum() == 50
    empty = (scene.read(scene.bands, scene.window) == 0).all(axis=0)
    assert empty.sum() == 200 and (stored_array(scene, "source")[empty] == 1).all()
    said = capsys.readouterr().err
    assert "50 pixels are 0 in some band though there is ground" in said
    assert "200 pixels have a scene class and are 0 in every band" in said
    whole = fetch(tmp_path, output=tmp_path / "whole.zarr")
    assert tree(whole.path) == tree(request.output)


def test_a_plan_is_json_and_touches_nothing(tmp_path: Path) -> None:
    add_item(tmp_path, "a", ramps())
    before = sorted(tmp_path.rglob("*"))
    asked = plan(FetchRequest(BBOX, "2024-06", tmp_path / "scene.zarr", str(tmp_path), bands=("red",), chunk=128))
    told = json.loads(json.dumps(asked.to_dict()))
    height, width = asked.window.height, asked.window.width
    assert told["chunks"] == -(-height // 128) * -(-width // 128)
    assert told["bytes_to_write"] == height * width * 5  # red, source; scl
    assert told["bytes_to_read"] == height * width * 4  # red and scl of one item, both held in 16 bits
    assert [item["id"] for item in told["items"]] == ["a"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not REAL.is_dir(), reason="no real imagery beside the project")
def test_three_real_products_end_to_end(tmp_path: Path) -> None:
    """Two tiles, two dates, shifted pixels and a catalogue that says otherwise; 120 m files for 10 m bands."""
    links = []
    for home in sorted(path for path in PRODUCTS.iterdir() if path.is_dir()):
        (tmp_path / home.name).mkdir()
        for name in ("B02.tif", "B03.tif", "B04.tif", "SCL.tif"):
            for suffix in ("", ".aux.xml"):  # these JPEG 2000 files keep their georeference beside them
                (tmp_path / home.name / (name + suffix)).write_bytes((home / (name + suffix)).read_bytes())
        (tmp_path / home.name / "item.json").write_bytes((home / f"{home.name}.json").read_bytes())
        links.append({"rel": "item", "href": f"{home.name}/item.json"})
    (tmp_path / "catalog.json").write_text(json.dumps({"type": "Catalog", "id": "real", "links": links}))
    bands = ("red", "green", "blue")
    scene = fetch(tmp_path, bbox=(15.59, 46.015, 15.62, 46.035), date="2023-08", bands=bands, chunk=512)
    assert [item["offset"] for item in scene.attributes["items"]] == [0, 0, 0]
    assert [item["id"] for item in scene.attributes["items"]] == [
        "S2A_33TWL_20230815_0_L2A",
        "S2A_33TWM_20230815_0_L2A",
        "S2B_33TWL_20230820_0_L2A",
    ]
    data = scene.read(bands, scene.aoi)
    assert (data > 1000).all()  # darker than 0 nowhere, and the 1000 is there
    with rasterio.open(tmp_path / "S2A_33TWL_20230815_0_L2A" / "B04.tif") as source:
        west, south, east, north = scene.aoi.bounds
        coarse = source.read(1, window=source.window(west, south, east, north).round_offsets().round_lengths())
    assert abs(float(np.median(data[0])) - 1000 - float(np.median(coarse))) < 15


def test_more_ground_than_the_disk_holds_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(OutputError, match=r"comes to \d+ x \d+ pixels, \d+ GB before compression, and .* has room for"):
        plan(FetchRequest((5, -80, 25, 84), "2024", tmp_path / "half.zarr", "http://127.0.0.1:9", crs="EPSG:32633"))
    assert time.monotonic() - start < 5
