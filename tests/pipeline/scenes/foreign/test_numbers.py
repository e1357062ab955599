"""What numbers of strangers mean: against exact arithmetic; and one sentence with an option for what nobody says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401 # .rio of datasets
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rsup.models.base.errors import ArgumentError, SceneError
from rsup.pipeline.jobs.upscale import upscale
from rsup.pipeline.jobs.upscale_plan import UpscaleRequest
from rsup.pipeline.lattice import Window
from rsup.pipeline.scenes.foreign.numbers import Numbers, Said, numbers_of
from rsup.pipeline.scenes.opening import open_scene

CRS, WINDOW, BANDS = "EPSG:32633", Window(-580_000, 38_000, 40, 52), ("red", "green", "blue")
pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata")


def meant() -> NDArray[np.uint16]:
    """Stored numbers [band, y, x], with nodata in a corner."""
    planes = np.random.default_rng(4).integers(1001, 5000, (3, WINDOW.height, WINDOW.width)).astype(np.uint16)
    planes[:, :3, :4] = 0
    return planes


def written(kind: str) -> NDArray[Any]:
    """The same as other tools hold it."""
    dn = meant().astype(np.int64)
    absent, plain = dn == 0, dn - 1000
    forms: dict[str, NDArray[Any]] = {
        "raw": dn.astype(np.uint16),
        "plain": np.where(absent, 0, plain).astype(np.uint16),
        "plain, -9999": np.where(absent, -9999, plain).astype(np.int16),
        "plain, float": np.where(absent, np.nan, plain).astype(np.float32),
        "reflectance": np.where(absent, np.nan, plain / 10000).astype(np.float32),
        "reflectance, -9999": np.where(absent, -9999, plain / 10000),
        "thousandths": np.where(absent, 65535, plain * 2).astype(np.uint16),
    }
    return forms[kind]


def tiff(path: Path, data: NDArray[Any], scale: float = 1, offset: float = 0, nodata: float | None = None) -> Path:
    count, height, width = data.shape
    place = {"crs": CRS, "transform": WINDOW.transform(), "nodata": nodata}
    with rasterio.open(path, "w", "GTiff", width, height, count, dtype=data.dtype.name, **place) as file:
        file.write(data)
        file.descriptions, file.scales, file.offsets = ("B4", "B3", "B2"), [scale] * count, [offset] * count
    return path


def store(path: Path, data: NDArray[Any], zarr_format: int = 3, **attributes: Any) -> Path:
    t = WINDOW.transform()
    x, y = t.c + 10 * (np.arange(WINDOW.width) + 0.5), t.f - 10 * (np.arange(WINDOW.height) + 0.5)
    bands = {name: (("y", "x"), plane, attributes) for name, plane in zip(BANDS, data, strict=True)}
    ds = xr.Dataset(bands, {"x": x, "y": y}).rio.write_crs(CRS)
    ds.to_zarr(path, zarr_format=zarr_format, consolidated=False)  # type: ignore[call-overload]
    return path


READ: dict[str, tuple[str, dict[str, Any], dict[str, Any], Said]] = {
    "float reflectance": ("reflectance", {}, {}, Said()),
    "reflectance, -9999": ("reflectance, -9999", {"nodata": -9999}, {"_FillValue": -9999.0}, Said()),
    "scaled otherwise": (
        "thousandths",
        {"scale": 5e-5, "nodata": 65535},
        {"scale_factor": 5e-5, "_FillValue": 65535},
        Said(),
    ),
    "raw": ("raw", {"nodata": 0}, {"_FillValue": 0}, Said(1e-4, -0.1)),
    "raw, nodata said": ("raw", {}, {}, Said(1e-4, -0.1, 0)),
    "raw, scale declared": (
        "raw",
        {"scale": 1e-4, "nodata": 0},
        {"scale_factor": 1e-4, "nodata": 0},
        Said(offset=-0.1),
    ),
    "plain": ("plain", {"nodata": 0}, {"nodata": 0}, Said(1e-4, 0)),
    "int16 with -9999": ("plain, -9999", {"nodata": -9999}, {"missing_value": -9999}, Said(1e-4, 0)),
    "int16 with -9999, nodata said": ("plain, -9999", {}, {}, Said(1e-4, 0, -9999)),
    "numbers of the product as floats": ("plain, float", {}, {}, Said(1e-4, 0)),
}


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("case", READ)
def test_numbers_of_other_tools_are_read(case: str, zarr_format: int, tmp_path: Path) -> None:
    kind, header, attributes, said = READ[case]
    for path in (
        tiff(tmp_path / "s.tif", written(kind), **header),
        store(tmp_path / "s.zarr", written(kind), zarr_format, **attributes),
    ):
        scene = open_scene(path, said)
        assert (scene.window, scene.crs, set(scene.bands)) == (WINDOW, CRS, set(BANDS))
        np.testing.assert_array_equal(scene.read(BANDS, WINDOW), meant())


@pytest.mark.parametrize(
    ("kind", "header", "said", "words"),
    [
        ("raw", {}, Said(), "B4 is uint16, and nothing says what its numbers mean: say --input-scale 0.0001"),
        ("raw", {"nodata": 0}, Said(1e-4), "scale 0.0001 and no offset.* say --input-offset -0.1 for these"),
        ("raw", {"scale": 1e-4, "nodata": 0}, Said(), "scale 0.0001 and no offset"),
        ("plain", {}, Said(1e-4, 0), "nothing says which number stands for nothing: say --input-nodata 0"),
        ("plain, -9999", {"nodata": -9999}, Said(), "B4 is int16, and nothing says what its numbers mean"),
        (
            "plain, float",
            {},
            Said(),
            "half of its numbers, taken for reflectance, .* which nothing has .*--input-scale",
        ),
        ("plain", {"nodata": 0}, Said(1, 0), "read with scale 1 and offset 0, by the user, are .* which nothing has"),
    ],
)
def test_what_is_left_to_be_said_is_asked_for(
    kind: str, header: dict[str, Any], said: Said, words: str, tmp_path: Path
) -> None:
    path = tiff(tmp_path / "s.tif", written(kind), **header)
    with pytest.raises(SceneError, match=words) as refused:
        open_scene(path, said)
    assert "\n" not in str(refused.value)


def test_a_user_s_words_make_no_sense() -> None:
    for said in ({"scale": 0.0}, {"scale": -1e-4}, {"scale": math.nan}, {"offset": math.inf}):
        with pytest.raises(ArgumentError, match="--input-(scale|offset) .* makes no reflectance"):
            Said(**said)


@pytest.mark.parametrize("offset", [0.0, -0.1])
def test_reflectance_is_not_scaled_a_second_time(offset: float, tmp_path: Path) -> None:
    """Floats of reflectance under the words of the numbers that they came from."""
    path = store(tmp_path / "a.zarr", written("reflectance"), scale_factor=1e-4, add_offset=offset)
    with pytest.raises(SceneError, match="scaled already and would be a second time; say --input-scale 1 --input-off"):
        open_scene(path)
    scene = open_scene(path, Said(1.0, 0.0))
    np.testing.assert_array_equal(scene.read(BANDS, WINDOW), meant())


def test_what_no_reflectance_comes_down_to_is_nodata(tmp_path: Path) -> None:
    """-9999 that nobody declared, among floats of reflectance."""
    floats = np.nan_to_num(written("reflectance"), nan=-9999)
    scene = open_scene(store(tmp_path / "a.zarr", floats.astype(np.float32)))
    np.testing.assert_array_equal(scene.read(BANDS, WINDOW), meant())


@pytest.mark.parametrize("attributes", [{}, {"_FillValue": math.nan}])
def test_floats_that_are_0_in_every_band_are_asked_about(attributes: dict[str, Any], tmp_path: Path) -> None:
    """xarray declares NaN of every array of floats, whatever fills its gaps."""
    floats = np.nan_to_num(written("reflectance"), nan=0).astype(np.float32)
    path = store(tmp_path / "a.zarr", floats, **attributes)
    with pytest.raises(SceneError, match="are 0 in every band, .* say --input-nodata 0 .* --input-nodata nan where"):
        open_scene(path)
    np.testing.assert_array_equal(open_scene(path, Said(nodata=0)).read(BANDS, WINDOW), meant())
    dark = np.where(meant() == 0, 1000, meant())
    np.testing.assert_array_equal(open_scene(path, Said(nodata=math.nan)).read(BANDS, WINDOW), dark)
    floats[0, :, 5:9] = 0  # shade and water, in one band
    floats[:, :3, :4] = floats[:, 20:21, 20:21]
    floats[:, 9, 9] = 0  # and in all, here and there
    open_scene(store(tmp_path / "b.zarr", floats, **attributes))


def test_floats_are_said_to_be_read_as_reflectance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_scene(tiff(tmp_path / "s.tif", written("reflectance")))
    assert "its numbers have no scale, and are read as the reflectance that they look like" in capsys.readouterr().err


def test_what_one_band_lacks_is_nodata_in_that_band(tmp_path: Path) -> None:
    """NaN is told apart from the darkest; a 0 that is nodata as well is dark where other bands have numbers."""
    data = written("reflectance")
    data[1, 20:25, 30:40] = np.nan
    data[0, 30, 40] = 0
    expected = meant()
    expected[1, 20:25, 30:40] = 0
    expected[0, 30, 40] = 1000
    scene = open_scene(tiff(tmp_path / "nan.tif", data))
    np.testing.assert_array_equal(scene.read(BANDS, WINDOW), expected)
    plain = written("plain")
    plain[0, 30, 40] = 0
    expected = meant()
    expected[0, 30, 40] = 1000
    scene = open_scene(tiff(tmp_path / "zero.tif", plain, nodata=0), Said(1e-4, 0))
    np.testing.assert_array_equal(scene.read(BANDS, WINDOW), expected)


def test_a_mosaic_says_how_its_scene_was_read_and_is_that_of_the_contract(tmp_path: Path) -> None:
    """And a word on the numbers makes another run of it."""
    contract = tiff(tmp_path / "a" / "s.tif" if (tmp_path / "a").mkdir() is None else tmp_path, meant(), 1e-4, -0.1, 0)
    (tmp_path / "b").mkdir()
    other = tiff(tmp_path / "b" / "s.tif", written("plain, -9999"), nodata=-9999)
    made = []
    for path, said in ((contract, Said()), (other, Said(1e-4, 0))):
        output = path.parent / "m"
        upscale(UpscaleRequest(path, 4, output, "bicubic", ("red", "blue"), device="cpu", said=said))
        with rasterio.open(output / "s_x4.tif") as mosaic:
            made.append(mosaic.read())
        item = json.loads((output / "s_x4.json").read_text())["properties"]
        assert item.get("rsup:input") == (
            None
            if path == contract
            else dict.fromkeys(BANDS, {"scale": 1e-4, "offset": 0, "nodata": [-9999.0], "by": "the user"})
        )
    np.testing.assert_array_equal(*made)
    assert open_scene(other, Said(1e-4, 0)).fingerprint() != open_scene(other, Said(1e-4, -0.1)).fingerprint()


@given(
    st.floats(-1, 7, width=32) | st.just(math.nan) | st.just(-9999.0),
    st.sampled_from(["float32", "float64"]),
    st.sampled_from([1e-4, 1.0, 0.01]),
    st.sampled_from([0.0, -0.1, 0.05]),
)
def test_stored_numbers_are_reflectance_in_exact_arithmetic(
    reflectance: float, dtype: str, scale: float, offset: float
) -> None:
    number = np.asarray(reflectance if reflectance == -9999 else (reflectance - offset) / scale, dtype)
    found = Numbers(scale, offset, (-9999.0,), "the file").stored(number)
    if math.isnan(reflectance) or reflectance == -9999:
        assert found == 0
        return
    said = float(number) * scale + offset
    if said < -0.499:  # none where it is below -0.5
        assert found == (0 if said < -0.501 else found)
        return
    exact = said * 10000 + 1000
    assert abs(float(found) - min(max(exact, 1), 65535)) <= 0.5 + 1e-6


def test_no_type_that_holds_no_reflectance() -> None:
    for dtype, words in (
        ("uint8", "a picture"),
        ("complex64", "holds no reflectance"),
        ("<U5", "holds no reflectance"),
    ):
        with pytest.raises(SceneError, match=words):
            numbers_of("s.tif", "red", dtype, (None, None, None), Said(1e-4, 0, 0))
