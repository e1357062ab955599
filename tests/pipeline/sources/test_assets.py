"""Assets of every kind against an independent computation pixel by pixel: the right numbers, or one sentence."""

import math
import tempfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rsup.models.base.errors import SceneError
from rsup.models.sensors.sentinel2 import SENTINEL2
from rsup.pipeline.lattice import Window
from rsup.pipeline.sources import assets as reading
from rsup.pipeline.sources import retry
from rsup.pipeline.sources.assets import inspect, quiet, read, read_classes
from rsup.pipeline.sources.stac.catalog import ItemReference

CRS, WEST, NORTH = "EPSG:32633", 500_000, 5_100_000
NATIVE = Affine(10, 0, WEST, 0, -10, NORTH)
WINDOW = Window(-NORTH // 10, WEST // 10, 12, 14)
"""Lattice window of a 12 x 14 file at NATIVE."""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "WAITS", (0.0,))


def write(path: Path, data: NDArray[Any], **options: Any) -> str:
    """A GeoTIFF [y, x] at NATIVE unless told otherwise; `packing` is its scale and offset."""
    packing = options.pop("packing", None)
    data = data if data.ndim == 3 else data[None]
    profile = {"driver": "GTiff", "crs": CRS, "transform": NATIVE, "nodata": None} | options
    shape = {"count": data.shape[0], "height": data.shape[1], "width": data.shape[2], "dtype": data.dtype}
    with rasterio.open(path, "w", **shape | profile) as sink:
        sink.write(data)
        if packing:
            sink.scales, sink.offsets = ([number] * data.shape[0] for number in packing)
    return str(path)


def item(hrefs: dict[str, str], assets: dict[str, dict[str, Any]] | None = None, **changes: Any) -> ItemReference:
    """An item of baseline 05.10 whose first band is looked at."""
    made = ItemReference(
        sensor=SENTINEL2, generation=(),
        id="made", collection=None, datetime="2024-06-10T10:00:00Z", cloud=None, platform=None, tile=None, segment=None,
        baseline="05.10", geometry=None, hrefs=hrefs, evidence_band=next(iter(hrefs)),
        assets={band: (assets or {}).get(band, {}) for band in hrefs}, product_metadata=None,
        properties={"s2:processing_baseline": "05.10"},
    )  # fmt: skip
    return replace(made, **changes)


def numbers(source: reading.InspectedItem, band: str, window: Window = WINDOW) -> NDArray[np.uint16]:
    return read(source, band, window, CRS).numbers


PLAIN = np.arange(1500, 1500 + 12 * 14 * 7, 7, np.uint16).reshape(12, 14)


def stored(value: Any, dtype: str, scale: float | None, offset: float, nodata: float | None, user: str) -> int | None:
    """One number as a stored one, in exact arithmetic; 0 for none, None where it must be refused."""
    number = float(value)
    if math.isnan(number) or (nodata is not None and (number == nodata)):
        return 0
    product = scale in (None, 1e-4)
    signed = nodata is not None and nodata < 0
    if number == 0 and ((product and not signed) or nodata in (None, 0)):
        return 0
    if math.isinf(number):
        return None
    exact = Fraction(value.item())
    if product and exact.denominator != 1:
        return None
    if product:
        dn = int(exact)
        if user == "0" and dtype == "uint16":
            dn = dn - 65536 if 64000 <= dn < 65535 else dn
            return min(65535, max(1, dn + 1000))
        shifted = Fraction(dn + 1000 + int(user))
    else:
        assert scale is not None
        shifted = exact * Fraction(scale) * 10000 + Fraction(offset) * 10000 + 1000
    rounded = round(shifted)
    return rounded if 1 <= rounded <= 65535 else None


def places(kind: str) -> tuple[Affine, bool]:
    """A transform, and whether it is of use."""
    return {
        "lattice": (NATIVE, True),
        "moved": (NATIVE * Affine.translation(0.3, 0.7), True),
        "coarse": (Affine(20, 0, WEST, 0, -20, NORTH), True),
        "upside down": (Affine(10, 0, WEST, 0, 10, NORTH - 120), True),
        "oblong": (Affine(10, 0, WEST, 0, -15, NORTH), True),
        "rotated": (NATIVE * Affine.rotation(20), False),
        "fine": (Affine(5, 0, WEST, 0, -5, NORTH), False),
        "nowhere": (Affine(math.inf, 0, WEST, 0, -10, NORTH), False),
    }[kind]


def sample(plane: NDArray[np.int64], transform: Affine, row: int, col: int) -> float:
    """Bilinear at the centre of a lattice pixel, 0 weighing nothing: the definition, in a loop."""
    x, y = (col + 0.5) * 10, -(row + 0.5) * 10
    i, j = (y - transform.f) / transform.e - 0.5, (x - transform.c) / transform.a - 0.5
    total = weight = 0.0
    for p in (math.floor(i), math.floor(i) + 1):
        for q in (math.floor(j), math.floor(j) + 1):
            share = max(0.0, 1 - abs(i - p)) * max(0.0, 1 - abs(j - q))
            if 0 <= p < plane.shape[0] and 0 <= q < plane.shape[1] and plane[p, q]:
                total, weight = total + share * plane[p, q], weight + share
    return total / weight if weight >= 0.5 else 0.0


def holds(dtype: str, number: float | None) -> bool:
    if number is None or math.isnan(number) or dtype == "complex64":
        return "float" in dtype
    return "float" in dtype or np.iinfo(dtype).min <= number <= np.iinfo(dtype).max


SPOILS = ("type", "value", "place", "scale", "undeclared")


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """A file of the product's numbers or of numbers with a scale of their own, whole or with one thing wrong."""
    pick = lambda *options: draw(st.sampled_from(options))  # noqa: E731
    product = pick(True, False)
    dtype = pick("uint16", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
    header, said = None, {}
    if product:
        values = [0, 5, 999, 1000, 1001, 2500, 9999, 32000]
        values += [63999, 64000, 65000, 65534, 65535] if dtype == "uint16" else []
        header = pick(None, (1e-4, 0.0), (1e-4, -0.1))
        said = pick({}, {"scale": 1, "offset": 0}) if dtype == "uint16" or (header and "int" in dtype) else said
        said = {"scale": 1e-4} if dtype != "uint16" and not header else said
    elif "int" in dtype:
        values, header = [0, 5, 4000, 7000, 9999, 32000], (2.75e-5, -0.1)
        said = pick({}, {"scale": 2.75e-5}, {"scale": 2.75e-5, "offset": -0.1}, {"scale": 1, "offset": 0})
    else:
        values = [0, 0.0001, 0.25, 0.3333, 1.5, -0.05, math.nan]
        header, said = pick((None, {"scale": 1, "offset": 0}), ((2.0, 0.0), {}), ((1.0, -0.02), {}))
    nodata = pick(None, 0, 5, 9999, 65535, -1000, math.nan)
    place = pick("lattice", "lattice", "moved", "coarse", "upside down", "oblong")
    spoil = pick(None, None, None, *SPOILS)
    if spoil == "type":
        dtype, values = pick("uint8", "int8", "complex64"), [0, 5]
    elif spoil == "value":
        values = [*values, pick(1e9, -1e9, math.inf, 1234.5)]
    elif spoil == "place":
        place = pick("rotated", "fine", "nowhere")
    elif spoil == "scale" and header:
        said = {"scale": 0.7}
    elif spoil == "undeclared":
        header, said = None, {}
    with np.errstate(all="ignore"):
        seed = draw(st.integers(0, 99))
        data = np.random.default_rng(seed).choice(np.array(values), (12, 14)).astype(dtype)
    # GDAL would not write a nodata that the type cannot hold.
    return {
        "data": data, "header": header, "said": said, "nodata": nodata if holds(dtype, nodata) else None,
        "place": place, "user": pick("0", "-1000"),
    }  # fmt: skip


@given(files())
@settings(max_examples=60, deadline=None)
def test_any_asset_is_read_right_or_refused(file: dict[str, Any]) -> None:
    data, header, said, nodata = (file[key] for key in ("data", "header", "said", "nodata"))
    dtype = data.dtype.name
    transform, useful = places(file["place"])
    declared = {} if "int" in dtype and said == {"scale": 1, "offset": 0} else said
    scale, offset = header or (declared.get("scale"), declared.get("offset", 0.0))
    useless = (
        not useful
        or dtype in ("uint8", "int8", "complex64")
        or (header is not None and declared.get("scale", scale) != scale)
        or (scale is None and dtype != "uint16")
    )
    expected = None
    if not useless:
        plane = [[stored(value, dtype, scale, offset, nodata, file["user"]) for value in row] for row in data]
        expected = None if any(number is None for row in plane for number in row) else np.array(plane, np.int64)
    around = WINDOW.grow(20)
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = write(Path(folder) / "red.tif", data, packing=header, nodata=nodata, transform=transform)
        wanted = int(file["user"]) if scale in (None, 1e-4) else None
        try:
            source = inspect(item({"red": path}, {"red": {"raster:bands": [said]}}), wanted, False)
            found = numbers(source, "red", around)
        except SceneError as error:
            assert expected is None, error
            assert "item made, band red" in str(error) and "\n" not in str(error)
            return
    assert expected is not None
    right = [
        [sample(expected, transform, around.row + i, around.col + j) for j in range(around.width)]
        for i in range(around.height)
    ]
    assert np.abs(found.astype(float) - np.array(right)).max() <= 0.5 + 1e-6


@pytest.mark.parametrize(
    ("red", "sentence"),
    [
        ({"crs": "EPSG:32632"}, "item made: its blue and red assets lie in EPSG:32633 and EPSG:32632, not in one CRS"),
        ({"crs": None}, "item made, band red: its asset has no CRS"),
        ({"crs": "EPSG:4326"}, r"band red: the CRS of its asset \(EPSG:4326\) is not a projected one in metres"),
        ({"crs": "EPSG:2277"}, "band red: .* not a projected one in metres"),  # feet
        ({"transform": NATIVE * Affine.scale(2)}, "blue and red assets do not cover the same ground"),
        ({"data": PLAIN[::2, ::2], "transform": NATIVE * Affine.scale(2)}, "red: its pixels are 20 m wide, not 10 m"),
        ({"transform": NATIVE * Affine.rotation(3)}, "band red: its asset is rotated"),
        ({"data": PLAIN[:3, :3]}, "blue and red assets do not cover the same ground"),
        ({"data": np.stack([PLAIN, PLAIN])}, "band red: its asset holds 2 bands"),
        ({"data": np.zeros((12, 14), np.uint8)}, "band red: .* it is uint8, a picture, not reflectance"),
        ({"data": PLAIN.astype(np.int16)}, "band red: .* it is int16, and neither it nor its item"),
        ({"packing": (1e-4, 0.0)}, r"blue and red assets declare different offsets \(\[-1000\] and \[0\]\)"),
    ],
)  # fmt: skip
def test_every_band_is_looked_at_not_the_first_alone(tmp_path: Path, red: dict[str, Any], sentence: str) -> None:
    assets = {"blue": {"raster:bands": [{"offset": -0.1}]}}
    hrefs = {"blue": write(tmp_path / "blue.tif", PLAIN)}
    hrefs["red"] = write(tmp_path / "red.tif", **{"data": PLAIN} | red)
    with quiet(), pytest.raises(SceneError, match=sentence):
        inspect(item(hrefs, assets), None, False)


def test_bands_that_are_all_coarse_are_read_and_named(tmp_path: Path) -> None:
    """Reduced copies of products; 20 m bands beside 10 m ones are as they should be."""
    coarse = {"data": PLAIN, "transform": NATIVE * Affine.scale(12)}
    hrefs = {band: write(tmp_path / f"{band}.tif", **coarse) for band in ("blue", "swir16", "scl")}
    assert inspect(item(hrefs), -1000, False).coarse == {"blue": 120, "swir16": 120}
    hrefs["blue"] = write(tmp_path / "blue.tif", np.repeat(np.repeat(PLAIN, 2, 0), 2, 1))
    hrefs["swir16"] = write(tmp_path / "swir16.tif", PLAIN, transform=NATIVE * Affine.scale(2))
    del hrefs["scl"]
    assert inspect(item(hrefs), -1000, False).coarse == {}


def test_an_offset_in_the_header_is_evidence(tmp_path: Path) -> None:
    """Numbers from 1500 on with an offset of 0 in the file and a baseline that says -1000: nobody knows."""
    path = write(tmp_path / "red.tif", PLAIN, packing=(1e-4, 0.0))
    with (
        quiet(),
        pytest.raises(SceneError, match="disagrees .*its file's offset is 0; processing baseline 05.10: -1000"),
    ):
        inspect(item({"red": path}), None, False)
    agreeing = write(tmp_path / "agreeing.tif", PLAIN, packing=(1e-4, -0.1))
    source = inspect(item({"red": agreeing}), None, False)
    assert source.decision.offset == -1000
    np.testing.assert_array_equal(numbers(source, "red"), PLAIN)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"scale": math.nan}, "its item says scale 'nan', which is no number"),
        ({"offset": 1e308}, "its item says offset '1e.308', which is no number"),
        ({"scale": "big"}, "no number"),
        ({"scale": 0}, "a scale of 0 makes no reflectance"),
        ({"nodata": []}, "its item says nodata '..', which is no number"),
    ],
)
def test_fields_that_are_no_numbers(tmp_path: Path, fields: dict[str, Any], sentence: str) -> None:
    path = write(tmp_path / "red.tif", PLAIN)
    for assets in ({"raster:bands": [fields]}, {"bands": [fields]}, fields):
        with quiet(), pytest.raises(SceneError, match=sentence):
            inspect(item({"red": path}, {"red": assets}), -1000, False)
    for strange in ("text", [None], {"a": 1}):  # not a list of objects
        assert inspect(item({"red": path}, {"red": {"raster:bands": strange}}), -1000, False)


def test_classes_are_whole_numbers_up_to_eleven(tmp_path: Path) -> None:
    hrefs = {"red": write(tmp_path / "red.tif", PLAIN)}
    scl = (np.arange(42, dtype=np.uint8) % 12).reshape(6, 7)
    coarse = NATIVE * Affine.scale(2)
    for data in (scl, scl.astype(np.float32), np.where(scl == 0, 255, scl).astype(np.uint8)):
        hrefs["scl"] = write(tmp_path / "scl.tif", data, transform=coarse, nodata=255 if data.max() > 11 else None)
        found = read_classes(inspect(item(hrefs), -1000, False), WINDOW, CRS)
        np.testing.assert_array_equal(found, scl.repeat(2, axis=0).repeat(2, axis=1))
    for data in (scl.astype(np.uint16) + 256, scl * np.float32(0.3), np.full((6, 7), math.nan, np.float32) * 1000 + 12):
        hrefs["scl"] = write(tmp_path / "scl.tif", data, transform=coarse)
        if np.isnan(data).all():
            assert not read_classes(inspect(item(hrefs), -1000, False), WINDOW, CRS).any()
            continue
        with pytest.raises(SceneError, match="band scl: .* which is no scene class"):
            read_classes(inspect(item(hrefs), -1000, False), WINDOW, CRS)


def test_a_crs_whose_metres_are_none_costs_no_memory(tmp_path: Path) -> None:
    wkt = rasterio.crs.CRS.from_proj4(
        "+proj=tmerc +lat_0=0 +lon_0=15 +k=9996 +x_0=500000 +ellps=WGS84 +units=m"
    ).to_wkt()
    path = write(tmp_path / "red.tif", PLAIN, crs=wkt)
    with quiet(), pytest.raises(SceneError, match="band red: .* the metres of its CRS are too far from those"):
        numbers(inspect(item({"red": path}), -1000, False), "red")


def test_a_raster_a_million_pixels_wide_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "red.tif"
    side = 1_000_000
    with rasterio.open(
        path, "w", driver="GTiff", height=side, width=side, count=1, dtype="uint16", crs=CRS, transform=NATIVE,
        tiled=True, blockxsize=1024, blockysize=1024, compress="deflate", sparse_ok=True, bigtiff="yes",
    ) as sink:  # fmt: skip
        sink.write(PLAIN, 1, window=rasterio.windows.Window(0, 0, 14, 12))
    source = inspect(item({"red": str(path)}), -1000, False)
    np.testing.assert_array_equal(numbers(source, "red"), PLAIN)
