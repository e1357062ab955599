"""Scenes of strangers: what they may lead to, what is 0 in them, what is lost of them, and any metadata at all."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rsup.models.base.errors import ArgumentError, SceneError
from rsup.models.upscaler import load
from rsup.pipeline.jobs.upscale_plan import UpscalePlan, UpscaleRequest
from rsup.pipeline.lattice import Window, chunks
from rsup.pipeline.mosaics.chunk import upscale_chunk
from rsup.pipeline.scenes.opening import open_scene
from rsup.pipeline.scenes.scene import Scene
from rsup.pipeline.scenes.writer import SceneWriter, create_scene

CRS, BANDS = "EPSG:32633", ("red", "green", "blue")
WINDOW = Window(-580_000, 38_000, 40, 52)
Student = Callable[[int], Path]


def numbers(window: Window = WINDOW) -> NDArray[np.uint16]:
    return np.random.default_rng(2).integers(1100, 5000, (3, window.height, window.width)).astype(np.uint16)


def tiff(path: Path, dn: NDArray[np.uint16], names: tuple[str, ...] = BANDS, **profile: Any) -> Path:
    window = Window(WINDOW.row, WINDOW.col, *dn.shape[1:])
    place = {"crs": CRS, "transform": window.transform(), "nodata": 0} | profile
    count, height, width = dn.shape
    with rasterio.open(path, "w", "GTiff", width, height, count, dtype="uint16", **place) as file:
        file.write(dn)
        file.descriptions, file.scales, file.offsets = names, [1e-4] * count, [-0.1] * count
    return path


def store(
    path: Path, dn: NDArray[np.uint16], classes: int | NDArray[Any] = 4, source: int = 1, chunk: int = 16
) -> SceneWriter:
    window = Window(WINDOW.row, WINDOW.col, *dn.shape[1:])
    writer = create_scene(path, window, CRS, BANDS, chunk, attributes={"items": [{"id": "a"}]})
    scl = np.broadcast_to(np.asarray(classes, np.uint8), dn.shape[1:])
    for index, part in chunks(window, chunk):
        cut = part.within(window)
        writer.write(index, dn[:, *cut], scl[cut], np.full(scl[cut].shape, source, np.uint16))
    return writer


# --- what a file may lead to


def test_no_driver_but_geotiff_s_is_asked(tmp_path: Path) -> None:
    """A VRT may name any file of this machine, whatever it is called itself; and so may a dozen other formats."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"root:x:0:0" * 100)
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{k}" subClass="VRTRawRasterBand"><Description>{name}</Description>'
        "<NoDataValue>0</NoDataValue><Scale>0.0001</Scale><Offset>-0.1</Offset>"
        f'<SourceFilename relativeToVRT="0">{secret}</SourceFilename></VRTRasterBand>'
        for k, name in enumerate(BANDS, 1)
    )
    path = tmp_path / "scene.tif"
    path.write_text(
        f'<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>{CRS}</SRS>'
        f"<GeoTransform>380000,10,0,5800000,0,-10</GeoTransform>{bands}</VRTDataset>"
    )
    with rasterio.open(path) as file:  # GDAL itself would give it away
        assert file.read(1).astype("<u2").tobytes().startswith(b"root")
    with pytest.raises(SceneError, match="neither a Zarr store nor a raster"):
        open_scene(path)
    place = {"crs": CRS, "transform": WINDOW.transform()}
    with rasterio.open(tmp_path / "image.png", "w", "PNG", 9, 9, 1, dtype="uint16", **place) as file:
        file.write(np.ones((1, 9, 9), np.uint16))
    with pytest.raises(SceneError, match="neither a Zarr store nor a raster"):
        open_scene(tmp_path / "image.png")


def fifo(file: Path) -> None:
    file.unlink(missing_ok=True)
    os.mkfifo(file)


def link_to(target: str) -> Callable[[Path], None]:
    def replace(file: Path) -> None:
        file.unlink()
        file.symlink_to(target)

    return replace


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("name", ["zarr.json", "red/zarr.json", "x/c/0", "red/c/0/0", "scl/c/0/0"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (fifo, "is no file"),
        (folder, "is no file|cannot be opened"),
        (link_to("/etc/passwd"), "leads out of the scene's folder"),
        (link_to("/dev/zero"), "leads out of the scene's folder"),
        (link_to("nowhere"), "is lost"),
    ],
    ids=["pipe", "folder", "elsewhere", "device", "dangling"],
)
@pytest.mark.timeout(20)
def test_what_stands_in_a_file_s_place_is_not_opened(
    tmp_path: Path, name: str, spoil: Callable[[Path], None], words: str
) -> None:
    path = store(tmp_path / "s.zarr", numbers()).path
    spoil(path / name)
    with pytest.raises(SceneError, match=words) as refusal:
        open_scene(path)
    assert name in str(refusal.value)


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    path = store(tmp_path / "s.zarr", dn := numbers()).path
    (path / "red/c/0/0").rename(path / "red/kept")
    (path / "red/c/0/0").symlink_to("../../kept")
    (tmp_path / "linked.zarr").symlink_to("s.zarr")
    np.testing.assert_array_equal(open_scene(tmp_path / "linked.zarr").read(BANDS, WINDOW), dn)


@pytest.mark.timeout(20)
def test_a_pipe_and_a_device_are_no_scenes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    for path in (tmp_path / "pipe.tif", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(SceneError, match="is a pipe or a device"):
            open_scene(path)


class Bomb:
    """A pickle that makes a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_only_codecs_that_make_numbers_are_run(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "s.zarr", zarr_format=2)
    array = group.create_array("red", shape=(4, 4), chunks=(4, 4), dtype="uint16", filters=None, compressors=None)
    array.attrs.update(scale_factor=1e-4, add_offset=-0.1, _FillValue=0)
    array[:] = 2000
    document = tmp_path / "s.zarr/red/.zarray"
    for filters in ([{"id": "pickle"}], [{"id": "shuffle", "elementsize": 2}, {"id": "pickle"}]):
        document.write_text(json.dumps(json.loads(document.read_text()) | {"filters": filters}))
        (tmp_path / "s.zarr/red/0.0").write_bytes(pickle.dumps(Bomb(tmp_path / "went off")))
        with pytest.raises(SceneError, match="red is written with the codec 'pickle'|is not a readable Zarr group"):
            open_scene(tmp_path / "s.zarr")
        assert not (tmp_path / "went off").exists()


@pytest.mark.parametrize(
    "encoding",
    [
        {"shards": (32, 32), "chunks": (16, 16)},
        {"compressors": [zarr.codecs.BloscCodec(cname="lz4")]},
        {"compressors": [zarr.codecs.GzipCodec()]},
        {"compressors": []},
        {"filters": [zarr.codecs.TransposeCodec(order=(1, 0))]},
    ],
)
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_what_people_write_is_read(tmp_path: Path, encoding: dict[str, Any]) -> None:
    dn = numbers()
    path = store(tmp_path / "s.zarr", dn).path
    with xr.open_zarr(path, mask_and_scale=False) as ds:
        ds = ds.load().drop_encoding()
    ds.to_zarr(tmp_path / "t.zarr", encoding=dict.fromkeys(BANDS, encoding))
    np.testing.assert_array_equal(open_scene(tmp_path / "t.zarr").read(BANDS, WINDOW), dn)


# --- what is 0


def speckled() -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Numbers with a dark 0 in one band here and there and holes in all, and what they mean."""
    dn = numbers()
    dn[0, 5:9, 7] = 0
    dn[:2, 20, 30] = 0
    dn[2, 33, 3:50] = 0
    dn[:, 12:15, 40:45] = 0
    meant = np.where((dn == 0) & (dn > 0).any(axis=0), 1, dn).astype(np.uint16)
    return dn, meant


@pytest.mark.parametrize("kind", ["tiff", "store", "store without classes"])
def test_a_0_in_one_band_is_dark_and_in_all_bands_nodata(tmp_path: Path, kind: str) -> None:
    dn, meant = speckled()
    if kind == "tiff":
        path = tiff(tmp_path / "s.tif", dn)
    else:
        path = store(tmp_path / "s.zarr", dn, classes=0 if "without" in kind else 6).path
    scene = open_scene(path)
    np.testing.assert_array_equal(scene.read(BANDS, WINDOW), meant)
    # Whatever is asked for, alone or with others, whole or in parts.
    for k, band in enumerate(BANDS):
        np.testing.assert_array_equal(scene.read((band,), WINDOW)[0], meant[k])
    for _, part in chunks(WINDOW, 9):
        np.testing.assert_array_equal(scene.read(("blue",), part)[0], meant[2][part.within(WINDOW)])
    pixels = scene.examine(("red", "green"), WINDOW.grow(2))
    assert pixels.dark[:, 2:-2, 2:-2].sum() == 6 and pixels.dark.sum() == 6
    np.testing.assert_array_equal(pixels.there[2:-2, 2:-2], dn.any(axis=0))


def test_a_0_that_the_classification_calls_nodata_stays_one(tmp_path: Path) -> None:
    """At the swath's edge the bands end one after the other."""
    dn, meant = speckled()
    scl = np.full(dn.shape[1:], 4)
    scl[33, :20] = 0
    meant[2, 33, 3:20] = 0
    scene = open_scene(store(tmp_path / "s.zarr", dn, scl).path)
    np.testing.assert_array_equal(scene.read(BANDS, WINDOW), meant)
    np.testing.assert_array_equal(scene.read(("blue",), WINDOW)[0], meant[2])


def test_dark_pixels_are_there_in_the_mosaic(tmp_path: Path) -> None:
    dn, meant = speckled()
    scene = open_scene(tiff(tmp_path / "s.tif", dn))
    sr = upscale_chunk(scene.read, scene.bands, WINDOW, ("red", "blue"), load("nearest", 4))
    np.testing.assert_array_equal(sr, meant[[0, 2]].repeat(4, 1).repeat(4, 2))


# --- what is lost


def test_a_chunk_that_was_written_and_is_not_there_is_named(tmp_path: Path) -> None:
    dn = numbers()
    dn[:, :16, :16] = 0
    path = store(tmp_path / "s.zarr", dn, source=0).path
    assert (path / "red/c/0/0").is_file()  # nodata is written too
    for name in ("green/c/1/2", "red/c/0/0"):
        shutil.copytree(path, tmp_path / "t.zarr", dirs_exist_ok=True)
        (tmp_path / "t.zarr" / name).unlink()
        with pytest.raises(SceneError, match=f"{name} is lost; fetch the scene anew"):
            open_scene(tmp_path / "t.zarr").read(BANDS, WINDOW)


def test_a_chunk_that_all_bands_lack_is_nodata_where_nobody_said_it_was_written(tmp_path: Path) -> None:
    """As fetch once wrote, and as Zarr's own writers do."""
    dn = numbers()
    dn[:, :16, :16] = 0
    path = store(tmp_path / "s.zarr", dn, source=0).path
    (path / "source/every-chunk-is-written").unlink()
    for name in ("red", "green", "blue", "scl", "source"):
        (path / name / "c/0/0").unlink()
    np.testing.assert_array_equal(open_scene(path).read(BANDS, WINDOW), dn)
    (path / "green/c/1/2").unlink()
    with pytest.raises(SceneError, match="green/c/1/2 is lost, where other bands have pixels"):
        open_scene(path).read(("green",), WINDOW)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_a_scene_that_xarray_masked_and_wrote_is_whole(tmp_path: Path) -> None:
    """xarray keeps all attributes and leaves out chunks of nodata: nothing of that store was lost."""
    path = store(tmp_path / "s.zarr", dn := numbers()).path
    with xr.open_zarr(path, mask_and_scale=False) as ds:
        ds = ds.load()
    for band in BANDS:
        ds[band][:16, :16] = 0
    ds.to_zarr(tmp_path / "t.zarr")
    assert not (tmp_path / "t.zarr/red/c/0/0").exists()
    dn[:, :16, :16] = 0
    np.testing.assert_array_equal(open_scene(tmp_path / "t.zarr").read(BANDS, WINDOW), dn)


def test_a_block_of_a_tiff_that_one_band_lacks_is_lost(tmp_path: Path) -> None:
    dn = np.random.default_rng(1).integers(1100, 5000, (3, 64, 64)).astype(np.uint16)
    dn[:, :16, :16] = 0
    settings_ = {"tiled": True, "blockxsize": 16, "blockysize": 16, "sparse_ok": True, "interleave": "band"}
    window = Window(WINDOW.row, WINDOW.col, 64, 64)
    whole = open_scene(tiff(tmp_path / "s.tif", dn, **settings_))
    np.testing.assert_array_equal(whole.read(BANDS, window), dn)
    dn[1, 16:32, 48:] = 0
    with pytest.raises(SceneError, match="block 1, 3 of band 2 is lost"):
        open_scene(tiff(tmp_path / "s.tif", dn, **settings_)).read(BANDS, window)


# --- what bands are called


@pytest.mark.parametrize(
    "names",
    [
        ("b04", "b03", "b02"),
        ("B4", "B3", "B2"),
        ("B04_10m", "B03_10m", "B02_10m"),
        ("Red", "Green", "Blue"),
        tuple(f"B{k}, central wavelength {nm} nm" for k, nm in ((4, 665), (3, 560), (2, 490))),
    ],
)
def test_a_band_is_found_whatever_it_is_called(tmp_path: Path, names: tuple[str, ...]) -> None:
    dn = numbers()
    scene = open_scene(tiff(tmp_path / "s.tif", dn, names))
    assert scene.bands == BANDS
    np.testing.assert_array_equal(scene.read(("blue", "red"), WINDOW), dn[[2, 0]])


def test_esa_s_names_and_common_ones_give_one_mosaic(tmp_path: Path, tiny_student: Student) -> None:
    """Not each band in the three channels of a network that was made for red, green and blue."""
    dn, names = numbers(), ("B04", "B03", "B02")
    common, other = (tiff(tmp_path / f"{k}.tif", dn, called) for k, called in enumerate((BANDS, names)))
    model = load(str(tiny_student(4)), 4)
    mosaics = []
    for path, asked in ((common, BANDS), (other, BANDS), (other, names), (common, names)):
        plan = UpscalePlan.make(UpscaleRequest(path, 4, tmp_path, str(tiny_student(4)), asked, device="cpu"))
        assert plan.request.bands == BANDS and plan.false_colour == []
        mosaics.append(upscale_chunk(plan.scene.read, plan.scene.bands, WINDOW, plan.request.bands, model))
    for mosaic in mosaics[1:]:
        np.testing.assert_array_equal(mosaic, mosaics[0])


def test_a_band_beside_the_network_s_is_said_to_go_in_false_colour(tmp_path: Path, tiny_student: Student) -> None:
    path = tiff(tmp_path / "s.tif", numbers(), ("red", "green", "B8"))
    asked = {"scene": path, "scale": 4, "output": tmp_path, "bands": ("red", "B08"), "device": "cpu"}
    plan = UpscalePlan.make(UpscaleRequest(model=str(tiny_student(4)), **asked))
    assert plan.false_colour == ["red", "nir"] and plan.summary()["false_colour"] == ["red", "nir"]
    assert UpscalePlan.make(UpscaleRequest(model="bicubic", **asked)).false_colour == []


def test_a_band_that_no_array_of_a_mosaic_can_be_called_is_refused(tmp_path: Path) -> None:
    path = tiff(tmp_path / "s.tif", numbers(), ("../red", "x", "2"))
    for name in ("../red", "x", "2"):
        with pytest.raises(ArgumentError, match="no array of a mosaic can be called that"):
            UpscalePlan.make(UpscaleRequest(path, 4, tmp_path, "nearest", (name,), device="cpu"))


# --- what its numbers can be


def test_numbers_that_are_no_reflectance_are_doubted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)

    def filled(low: int, high: int, share: float = 1.0) -> Path:
        dn = numbers()
        part = dn[:, : round(share * WINDOW.height)]
        part[:] = rng.integers(low, high, part.shape)
        return tiff(tmp_path / "s.tif", dn)

    with pytest.raises(SceneError, match=r"below -0.01 nearly everywhere \(median -0.08"):
        open_scene(filled(1, 255))
    with pytest.raises(SceneError, match="below -0.01 nearly everywhere"):
        open_scene(filled(200, 800))  # dark reflectance * 10000, without the 1000
    assert capsys.readouterr().err == ""
    open_scene(filled(940, 990))  # water that was corrected too far
    assert "below 0 nearly everywhere" in capsys.readouterr().err
    for path in (filled(985, 1040), filled(1, 255, 0.8), filled(300, 900, 0.5)):  # water; a lake; shadow
        open_scene(path)
    assert capsys.readouterr().err == ""
    void = numbers()
    void[:, 1:] = 0
    open_scene(tiff(tmp_path / "s.tif", void))


# --- any metadata

GOOD_ATTRIBUTES = {"items": [{"id": "a", "datetime": "2024-06-01T00:00:00Z", "offset": -1000, "evidence": ["e"]}]}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "s.zarr"
    window = Window(WINDOW.row, WINDOW.col, 9, 8)
    writer = create_scene(path, window, CRS, BANDS, 16, attributes=GOOD_ATTRIBUTES)
    writer.write((0, 0), numbers(window), np.full((9, 8), 4, np.uint8), np.ones((9, 8), np.uint16))
    return path


def spots(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [*([at] if at else []), *(spot for key, value in inner for spot in spots(value, (*at, key)))]


NASTY = st.sampled_from(
    [
        *(10**400, 2**63, -1, 1e308, float("nan"), float("inf"), "\ud800", "\u202e<b>", "a\nb", "../../x", [["red"]]),
        *({"red": 1}, ["red", "green", "blue", "blue"], json.loads("[" * 900 + "]" * 900), "nan 10 0 nan 0 -10"),
        *("EPSG:99999", "x" * 10**5, [10**10, 10**10], [10**6, 10**6], [0, 8], "pickle", "0001-01-01T00:00:00+14:00"),
    ]
)
ANYTHING = NASTY | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=6,
)


@given(data=st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore")
def test_any_word_at_any_place_of_a_store_gives_a_scene_or_a_sentence(good: Path, data: st.DataObject) -> None:
    root = json.loads((good / "zarr.json").read_text())
    spot = data.draw(st.sampled_from(spots(root)))
    value = data.draw(ANYTHING)
    place = root
    for key in spot[:-1]:
        place = place[key]
    place[spot[-1]] = value
    whole = (good / "zarr.json").read_bytes()
    (good / "zarr.json").write_text(json.dumps(root))
    try:
        check(good)
    finally:
        (good / "zarr.json").write_bytes(whole)


def check(path: Path) -> None:
    """A Scene whose words are harmless, or one sentence."""
    try:
        scene = open_scene(path)
        scene.read(scene.bands, scene.window)
    except SceneError as error:
        assert "\n" not in str(error) and len(str(error)) < 4000
        return
    json.dumps(scene.attributes, allow_nan=False).encode()
    json.dumps(scene.attributes, ensure_ascii=False).encode("utf-8")
    assert isinstance(pickle.loads(pickle.dumps(scene)), Scene)
    assert len(set(scene.bands)) == len(scene.bands) == len(scene.layers)


@pytest.mark.parametrize(
    ("array", "change", "words"),
    [
        ("", {"attributes": {"bands": [["red"]]}}, None),
        ("", {"attributes": {"deep": json.loads("[" * 900 + "]" * 900)}}, None),
        ("", {"attributes": {"items": json.loads("[" * 900 + "]" * 900)}}, None),
        ("", {"attributes": {"items": [{"evidence": json.loads("[" * 900 + "]" * 900)}]}}, None),
        ("", {"attributes": {"aoi": json.loads("[" * 900 + "]" * 900)}}, "its aoi"),
        ("", {"attributes": {"aoi": [10**400] * 4}}, "its aoi"),
        ("x", {"shape": [10**10]}, "does not count 8 evenly spaced"),
        ("red", {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**9, 10**9]}}}, "too large to"),
        ("red", {"attributes": {"scale_factor": 10**400}}, "are no numbers"),
        ("red", {"attributes": {"_FillValue": [0]}}, "has nodata that is no number"),
        ("red", {"dimension_names": [1, 2]}, "not a readable Zarr group|has dimensions"),
        ("spatial_ref", {"attributes": {"crs_wkt": "x" * 10**6}}, "CRS cannot be understood"),
    ],
)
def test_words_that_were_tracebacks(
    good: Path, tmp_path: Path, array: str, change: dict[str, Any], words: str | None
) -> None:
    path = tmp_path / "s.zarr"
    shutil.copytree(good, path)
    document = json.loads((path / array / "zarr.json").read_text())
    attributes = document["attributes"] | change.get("attributes", {})
    document |= change | {"attributes": attributes}
    document.pop("consolidated_metadata", None)
    (path / array / "zarr.json").write_text(json.dumps(document))
    root = json.loads((path / "zarr.json").read_text())
    root.pop("consolidated_metadata", None)
    (path / "zarr.json").write_text(json.dumps(root))
    if words is None:
        check(path)
        return
    with pytest.raises(SceneError, match=words) as refusal:
        open_scene(path)
    assert len(str(refusal.value)) < 3000


def test_a_store_longer_than_the_earth_is_round(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    shutil.copytree(good, path)
    for array in (*BANDS, "x", "y"):
        document = json.loads((path / array / "zarr.json").read_text())
        document["shape"] = [10**10] * len(document["shape"])
        (path / array / "zarr.json").write_text(json.dumps(document))
    root = json.loads((path / "zarr.json").read_text())
    root.pop("consolidated_metadata")
    (path / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(SceneError, match="more than there is ground"):
        open_scene(path)


@pytest.mark.parametrize("far", [float("nan"), float("inf"), 1e300, 1e12])
def test_a_tiff_that_lies_nowhere(tmp_path: Path, far: float) -> None:
    path = tiff(tmp_path / "s.tif", numbers(), transform=Affine(10, 0, far, 0, -10, 5_800_000))
    with pytest.raises(SceneError, match="does not say where|lies nowhere|not multiples|no CRS|are .* CRS units"):
        open_scene(path)


def test_a_long_chunk_is_read_and_a_million_small_ones_are_not(tmp_path: Path) -> None:
    """One row a strip is an ordinary TIFF; a file a pixel would take a day."""
    open_scene(tiff(tmp_path / "s.tif", numbers(), blockysize=1))
    group = zarr.create_group(tmp_path / "s.zarr")
    array = group.create_array("red", shape=(600, 600), chunks=(2, 2), dtype="uint16", dimension_names=("y", "x"))
    array.attrs.update(scale_factor=1e-4, add_offset=-0.1, _FillValue=0)
    with pytest.raises(SceneError, match="chunks of 2 x 2 pixels, too small to read; write it in others: "):
        open_scene(tmp_path / "s.zarr")
