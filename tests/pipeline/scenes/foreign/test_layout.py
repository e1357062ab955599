"""Stores as other tools lay them out: written by those tools themselves, where they run, and read as they are meant."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import rioxarray
import xarray as xr
import zarr
from affine import Affine
from numpy.typing import NDArray
from pyproj import Transformer

from rsup.models.base.errors import SceneError
from rsup.pipeline.lattice import Window
from rsup.pipeline.scenes.foreign.layout import since
from rsup.pipeline.scenes.foreign.numbers import Said
from rsup.pipeline.scenes.opening import open_scene

CRS, WINDOW, BANDS = "EPSG:32633", Window(-580_000, 38_000, 64, 80), ("red", "green", "blue")
WEST, _, _, NORTH = WINDOW.bounds
TAKEN = datetime(2024, 6, 5, 10, 10, tzinfo=UTC)
PACKING = {"dtype": "uint16", "scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": 0}
NOTHING, RAW = Said(), Said(1e-4, -0.1)
pytestmark = pytest.mark.filterwarnings("ignore")  # of xarray, zarr and the tools themselves


def meant() -> NDArray[np.uint16]:
    """Stored numbers [band, y, x] whose every pixel tells where it lies, with nodata in a corner."""
    y, x = np.mgrid[: WINDOW.height, : WINDOW.width]
    planes = np.stack([1100 + 40 * y + 11 * x + 500 * band for band in range(3)]).astype(np.uint16)
    planes[:, :3, :4] = 0
    return planes


def reflectance() -> NDArray[np.float64]:
    return np.where(meant() == 0, np.nan, meant() * 1e-4 - 0.1)


def dataset(centre: float = 0.5, bands: tuple[str, ...] = BANDS) -> xr.Dataset:
    x, y = np.arange(WINDOW.width) + centre, np.arange(WINDOW.height) + centre
    planes = {name: (("y", "x"), plane) for name, plane in zip(bands, reflectance(), strict=True)}
    return xr.Dataset(planes, {"x": WEST + 10 * x, "y": NORTH - 10 * y}).rio.write_crs(CRS)


def moments(count: int) -> list[np.datetime64]:
    return [np.datetime64("2024-06-05T10:10:00", "ns") + np.timedelta64(5 * day, "D") for day in range(count)]


def check(path: Path, said: Said = NOTHING, bands: tuple[str, ...] = BANDS) -> None:
    scene = open_scene(path, said)
    assert (scene.window, scene.crs, set(scene.bands)) == (WINDOW, CRS, set(bands))
    np.testing.assert_array_equal(scene.read(BANDS, WINDOW), meant())
    part = Window(WINDOW.row + 30, WINDOW.col + 50, 20, 60)
    expected = np.zeros((1, 20, 60), np.uint16)
    expected[0, :, :30] = meant()[2, 30:50, 50:]
    np.testing.assert_array_equal(scene.read(("blue",), part), expected)


def item(folder: Path, *, told: bool) -> pystac.Item:
    """Three files of raw numbers, and an item of them, which may have `told` what they are."""
    for band, plane in zip(BANDS, meant(), strict=True):
        place = {"crs": CRS, "transform": WINDOW.transform(), "nodata": 0}
        with rasterio.open(
            folder / f"{band}.tif", "w", "GTiff", *plane.shape[::-1], 1, dtype="uint16", **place
        ) as file:
            file.write(plane, 1)
    edges = ([WEST, WEST + 800, WEST + 800, WEST], [NORTH - 640, NORTH - 640, NORTH, NORTH])
    x, y = Transformer.from_crs(CRS, "EPSG:4326", always_xy=True).transform(*edges)
    ring = [list(point) for point in zip(x, y, strict=True)]
    made = pystac.Item(
        "made", {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}, [min(x), min(y), max(x), max(y)], TAKEN, {}
    )
    for band in BANDS:
        asset = pystac.Asset(str(folder / f"{band}.tif"), media_type="image/tiff", roles=["data"])
        if told:
            asset.extra_fields = {"raster:bands": [{"nodata": 0, "scale": 1e-4, "offset": -0.1, "data_type": "uint16"}]}
        made.add_asset(band, asset)
    return made


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("told", [True, False])
def test_odc_stac(told: bool, zarr_format: Any, tmp_path: Path) -> None:
    """Raw numbers [time, y, x], whose meaning it does not keep; floats where the item has not told their type."""
    import odc.stac

    ds = odc.stac.load([item(tmp_path, told=told)], bands=BANDS, crs=CRS, resolution=10)
    assert ds.red.dtype == ("uint16" if told else "float32")
    ds.to_zarr(tmp_path / "odc.zarr", zarr_format=zarr_format)
    words = "blue is uint16, and nothing says what its numbers mean" if told else "taken for reflectance, for they have"
    with pytest.raises(SceneError, match=f"{words}.*say --input-scale 0.0001 where"):
        open_scene(tmp_path / "odc.zarr")
    check(tmp_path / "odc.zarr", RAW)
    assert open_scene(tmp_path / "odc.zarr", RAW).interval == (TAKEN, TAKEN)
    ds.to_array("band").to_dataset(name="stack").to_zarr(tmp_path / "stack.zarr", zarr_format=zarr_format)
    check(tmp_path / "stack.zarr", Said(1e-4, -0.1, 0))


def test_rioxarray(tmp_path: Path) -> None:
    """[band, y, x], bands numbered, their names in an attribute; and a GeoTIFF."""
    transform = {"crs": CRS, "transform": WINDOW.transform(), "nodata": 0}
    source = tmp_path / "s.tif"
    with rasterio.open(source, "w", "GTiff", WINDOW.width, WINDOW.height, 3, dtype="uint16", **transform) as file:
        file.write(meant())
        file.descriptions, file.scales, file.offsets = ("B04", "B03", "B02"), [1e-4] * 3, [-0.1] * 3
    raster = rioxarray.open_rasterio(source)
    assert isinstance(raster, xr.DataArray)
    raster.to_dataset(name="stack").to_zarr(tmp_path / "rio.zarr")
    check(tmp_path / "rio.zarr")
    dataset().rio.to_raster(tmp_path / "t.tif")
    check(tmp_path / "t.tif")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_named_bands_and_one_moment(zarr_format: Any, tmp_path: Path) -> None:
    """As xarray writes what stackstac stacks, its names along a dimension; in any chunks."""
    stacked = dataset().expand_dims(time=moments(1)).to_array("band", name="stack").transpose("time", "band", "y", "x")
    encoding = {"stack": PACKING | {"chunks": (1, 2, 16, 48)}}
    stacked.to_dataset().rio.write_crs(CRS).to_zarr(tmp_path / "s.zarr", encoding=encoding, zarr_format=zarr_format)
    check(tmp_path / "s.zarr")
    assert open_scene(tmp_path / "s.zarr").interval == (TAKEN, TAKEN)


def stackstac(xy: float, **attributes: Any) -> xr.Dataset:
    """As stackstac 0.5's `prepare.to_coords` and `to_attrs` lay it out: x and y at corners unless it is told otherwise.

    Its `spec` is no JSON, and has to be dropped to write it. Written by hand, for it does not run with numpy 2.
    """
    ds = dataset(xy, ("B04", "B03", "B02")).drop_vars("spatial_ref").expand_dims(time=moments(1))
    stack = ds.to_array("band", name="stack").transpose("time", "band", "y", "x")
    stack = stack.assign_coords(id=("time", ["made"]), epsg=32633, title=("band", ["Red", "Green", "Blue"]))
    return stack.assign_attrs(crs="epsg:32633", resolution=10.0, **attributes).to_dataset()


def test_stackstac_says_by_its_transform_that_x_and_y_are_corners(tmp_path: Path) -> None:
    for name, xy in (("corners", 0.0), ("centres", 0.5)):
        stackstac(xy, transform=tuple(WINDOW.transform())).to_zarr(tmp_path / f"{name}.zarr")
        check(tmp_path / f"{name}.zarr")


def follow(refusal: str, *values: str) -> Path:
    """Run the command that a sentence ends with, as a user would; the store that it writes."""
    words = shlex.split(refusal[refusal.index(sys.executable) :])
    words = words[: words.index(";")] if ";" in words else words
    code, *arguments = words[2:]
    fixed, changed = arguments[:2], list(values) or arguments[2:]
    subprocess.run([sys.executable, "-c", code, *fixed, *changed], check=True, capture_output=True, timeout=120)
    return Path(fixed[1])


def test_corners_that_nothing_says_to_be_some_are_refused_with_a_remedy(tmp_path: Path) -> None:
    for name, ds, encoding in (
        ("stack", stackstac(0.0), {"stack": PACKING}),
        ("plain", dataset(0.0), dict.fromkeys(BANDS, PACKING)),
    ):
        ds.to_zarr(tmp_path / f"{name}.zarr", encoding=encoding, zarr_format=2)
        with pytest.raises(
            SceneError, match="no pixel of 10 m has its centre.* or stack with xy_coords='center'"
        ) as no:
            open_scene(tmp_path / f"{name}.zarr")
        check(follow(str(no.value)))


def test_several_moments_are_chosen_from_by_their_owner(tmp_path: Path) -> None:
    ds = xr.concat([dataset() + 0.05, dataset()], "time").assign_coords(time=moments(2)).rio.write_crs(CRS)
    ds.to_zarr(tmp_path / "s.zarr", encoding=dict.fromkeys(BANDS, PACKING))
    with pytest.raises(SceneError, match="blue has 2 moments along time; choose one, the first being 0: ") as refused:
        open_scene(tmp_path / "s.zarr")
    mended = follow(str(refused.value), "1")
    check(mended)
    assert open_scene(mended).interval == (datetime(2024, 6, 10, 10, 10, tzinfo=UTC),) * 2


def test_masks_beside_the_bands_are_left_aside(tmp_path: Path) -> None:
    """A band's own name on a picture is not."""
    ds = dataset().expand_dims(time=moments(1))
    ds["cloud_mask"] = (("time", "y", "x"), np.ones((1, WINDOW.height, WINDOW.width), bool))
    ds["AOT"] = (("time", "y", "x"), np.ones((1, WINDOW.height, WINDOW.width), np.uint16))
    ds["SCL"] = (("time", "y", "x"), np.full((1, WINDOW.height, WINDOW.width), 4, np.uint8))
    ds.to_zarr(tmp_path / "s.zarr", encoding=dict.fromkeys(BANDS, PACKING))
    check(tmp_path / "s.zarr")
    ds.assign(nir=ds.SCL).to_zarr(tmp_path / "t.zarr", encoding=dict.fromkeys(BANDS, PACKING))
    with pytest.raises(SceneError, match="nir is uint8: a picture"):
        open_scene(tmp_path / "t.zarr")


def test_planes_without_names_are_named_by_their_owner(tmp_path: Path) -> None:
    stack = dataset().to_array("layer", name="stack").drop_vars("layer").to_dataset().rio.write_crs(CRS)
    stack.to_zarr(tmp_path / "s.zarr", encoding={"stack": PACKING})
    with pytest.raises(SceneError, match="stack has 3 planes along layer, which have no names; name them") as refused:
        open_scene(tmp_path / "s.zarr")
    check(follow(str(refused.value), "B4,B3,B2"))


def test_rows_and_columns_come_last(tmp_path: Path) -> None:
    stack = dataset().to_array("band", name="stack").transpose("y", "x", "band").to_dataset().rio.write_crs(CRS)
    stack.to_zarr(tmp_path / "s.zarr", encoding={"stack": PACKING})
    with pytest.raises(SceneError, match=r"stack has dimensions y, x, band; rsup needs \(y, x\)") as refused:
        open_scene(tmp_path / "s.zarr")
    check(follow(str(refused.value)))


@pytest.mark.parametrize("names", [{"x": "X", "y": "Y"}, {"x": "easting", "y": "northing"}])
def test_y_and_x_by_other_names(names: dict[str, str], tmp_path: Path) -> None:
    dataset().rename(names).to_zarr(tmp_path / "s.zarr", encoding=dict.fromkeys(BANDS, PACKING))
    with pytest.raises(SceneError, match=rf"blue has dimensions {names['y']}, {names['x']}; rsup needs") as refused:
        open_scene(tmp_path / "s.zarr")
    check(follow(str(refused.value)))


def test_a_crs_in_the_store_s_own_attributes(tmp_path: Path) -> None:
    plain = dataset().drop_vars("spatial_ref").assign_attrs({"proj:code": CRS})
    plain.to_zarr(tmp_path / "s.zarr", encoding=dict.fromkeys(BANDS, PACKING))
    check(tmp_path / "s.zarr")


def test_a_billion_planes_are_not_counted(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "s.zarr")
    size = {"shape": (10**9, 64, 80), "chunks": (1, 64, 80), "dtype": "uint16", "fill_value": 0}
    group.create_array("red", dimension_names=("band", "y", "x"), **size)
    group.create_array("band", shape=(10**9,), chunks=(10**9,), dtype="int64", dimension_names=("band",))
    with pytest.raises(SceneError, match="red has 1000000000 planes along band, more than a scene has bands"):
        open_scene(tmp_path / "s.zarr")


def test_two_arrays_of_one_band_are_not_chosen_from(tmp_path: Path) -> None:
    stack = dataset().to_array("band", name="stack").to_dataset()
    both = stack.assign(other=stack["stack"]).rio.write_crs(CRS)
    both.to_zarr(tmp_path / "s.zarr", encoding=dict.fromkeys(("stack", "other"), PACKING))
    with pytest.raises(SceneError, match="both have a band red; leave one of them out") as refused:
        open_scene(tmp_path / "s.zarr")
    check(follow(str(refused.value)))


def degrees(path: Path, crs: str, dtype: str = "float32", **dims: str) -> tuple[Path, Said]:
    """A smooth image on another grid: a plane over x and y in metres of the scene's zone, in three bands."""
    to_there = Transformer.from_crs(CRS, crs, always_xy=True)
    west, south = to_there.transform(WEST - 2000, NORTH - 3000)
    east, north = to_there.transform(WEST + 3000, NORTH + 2000)
    x, y = (np.linspace(a, b, 400) for a, b in ((west, east), (north, south)))
    east_of, north_of = Transformer.from_crs(crs, CRS, always_xy=True).transform(*np.meshgrid(x, y))
    base = 0.15 + 1e-5 * (east_of - WEST) - 2e-5 * (north_of - NORTH)
    planes = {band: (("y", "x"), base + 0.05 * k) for k, band in enumerate(BANDS)}
    ds = xr.Dataset(planes, {"x": x, "y": y}).rio.write_crs(crs).rename(dims)
    said = Said()
    if dtype == "int16":  # numbers that do not say what they are
        ds = ds.assign({band: (ds[band] * 10000).round().astype("int16") for band in BANDS})
        said = Said(1e-4, 0, -9999)
    else:
        ds = ds.assign({band: ds[band].astype("float32") for band in BANDS})
    if path.suffix == ".zarr":
        (ds.expand_dims(time=moments(1)) if dims else ds).to_zarr(path)
    else:
        ds.rio.to_raster(path)
        with rasterio.open(path, "r+") as file:
            file.descriptions = BANDS
    return path, said


WARPED: dict[str, Callable[[Path], tuple[Path, Said]]] = {
    "tiff of degrees": lambda p: degrees(p / "s.tif", "EPSG:4326"),
    "tiff of Web Mercator": lambda p: degrees(p / "s.tif", "EPSG:3857"),
    "tiff of degrees, int16": lambda p: degrees(p / "s.tif", "EPSG:4326", "int16"),
    "store of degrees": lambda p: degrees(p / "s.zarr", "EPSG:4326"),
    "store of latitude and longitude": lambda p: degrees(p / "s.zarr", "EPSG:4326", y="latitude", x="longitude"),
    "store of Web Mercator, int16": lambda p: degrees(p / "s.zarr", "EPSG:3857", "int16"),
}


@pytest.mark.parametrize("case", WARPED)
def test_other_grids_are_warped_by_the_command_that_is_given(case: str, tmp_path: Path) -> None:
    """To the plane that it was, at the places where its pixels lie now."""
    path, said = WARPED[case](tmp_path)
    with pytest.raises(SceneError, match="grid of degrees|not a projected one in metres") as refused:
        open_scene(path, said)
    scene = open_scene(follow(str(refused.value)))
    assert scene.crs == CRS
    data = scene.read(BANDS, scene.window)
    valid = (data > 0).all(axis=0)
    west, _, _, north = scene.window.bounds
    i, j = np.mgrid[: scene.window.height, : scene.window.width]
    base = 0.15 + 1e-5 * (west + 10 * j + 5 - WEST) - 2e-5 * (north - 10 * i - 5 - NORTH)
    for k, plane in enumerate(data):
        wrong = np.abs(plane * 1e-4 - 0.1 - (base + 0.05 * k))[valid]
        assert valid.sum() > 200_000 and wrong.max() < 3e-4


def test_axes_of_other_names_are_told_from_degrees(tmp_path: Path) -> None:
    """Metres called latitude and longitude are no degrees, and not to be warped; rows have other names as well."""
    for names in (("latitude", "longitude"), ("row", "col")):
        path = tmp_path / f"{names[0]}.zarr"
        dataset().rename(dict(zip(("y", "x"), names, strict=True))).to_zarr(path)
        with pytest.raises(
            SceneError, match=rf"{names[0]}, {names[1]}.*(which hold metres|rsup needs \(y, x\))"
        ) as refused:
            open_scene(path)
        check(follow(str(refused.value)))


def test_what_is_beside_the_bands_is_left_aside_or_out(tmp_path: Path) -> None:
    ds = dataset().assign(x_bnds=(("x", "nv"), np.zeros((WINDOW.width, 2))))
    ds.to_zarr(tmp_path / "bounds.zarr")
    check(tmp_path / "bounds.zarr")
    ds.assign(swir16=(("y20", "x20"), np.full((32, 40), 0.4))).to_zarr(tmp_path / "coarse.zarr")
    with pytest.raises(
        SceneError, match="swir16 has dimensions y20, x20, and not those of other bands; leave it out"
    ) as refused:
        open_scene(tmp_path / "coarse.zarr")
    check(follow(str(refused.value)))
    tree = xr.DataTree.from_dict({"/": xr.Dataset(), "/r10m": dataset()})
    tree.to_zarr(tmp_path / "tree.zarr")
    with pytest.raises(SceneError, match=r"give one of its groups \(r10m\), as .*tree.zarr/r10m"):
        open_scene(tmp_path / "tree.zarr")
    check(tmp_path / "tree.zarr" / "r10m")


@pytest.mark.parametrize("words", [{"crs": 32633}, {"epsg": 32633}, {"proj:epsg": 32633}, {"crs": "+init=epsg:32633"}])
def test_a_crs_that_attributes_say(words: dict[str, Any], tmp_path: Path) -> None:
    dataset().drop_vars("spatial_ref").assign_attrs(words).to_zarr(tmp_path / "a.zarr")
    check(tmp_path / "a.zarr")


@pytest.mark.parametrize("names", [list(BANDS), [name.encode() for name in BANDS]])
def test_names_along_a_dimension_of_any_text(names: list[Any], tmp_path: Path) -> None:
    stacked = dataset().to_array("band", name="stack").assign_coords(band=np.array(names)).to_dataset()
    stacked.to_zarr(tmp_path / "a.zarr")
    check(tmp_path / "a.zarr")


def test_netcdf_whose_axes_do_not_say_what_they_are(tmp_path: Path) -> None:
    """As xarray writes it: GDAL takes no notice of such axes, and turns the rows."""
    dataset().to_netcdf(tmp_path / "plain.nc", engine="scipy")
    with pytest.raises(SceneError, match="make a store of it: ") as refused:
        open_scene(tmp_path / "plain.nc")
    check(follow(str(refused.value)))


@pytest.mark.parametrize("bands", [BANDS, ("red",)])
def test_netcdf_becomes_a_store_by_the_command_that_is_given(bands: tuple[str, ...], tmp_path: Path) -> None:
    """As openEO's back ends lay it out: a variable a band, [t, y, x], int16, the CRS in a variable of that name."""
    ds = dataset().drop_vars("spatial_ref")[list(bands)].expand_dims(t=moments(1))
    wkt = rasterio.crs.CRS.from_string(CRS).to_wkt()
    ds = ds.assign_coords(crs=((), 0, {"crs_wkt": wkt, "spatial_ref": wkt, "grid_mapping_name": "transverse_mercator"}))
    for name in bands:
        numbers = (ds[name] * 10000).round().fillna(-32768).astype("int16")
        ds[name] = numbers.assign_attrs(grid_mapping="crs", _FillValue=np.int16(-32768))
    ds.x.attrs = {"standard_name": "projection_x_coordinate", "units": "m"}
    ds.y.attrs = {"standard_name": "projection_y_coordinate", "units": "m"}
    ds.to_netcdf(tmp_path / "openEO.nc", engine="scipy")
    with pytest.raises(SceneError, match="openEO.nc is netCDF, which is not read; make a store of it: ") as refused:
        open_scene(tmp_path / "openEO.nc")
    mended = follow(str(refused.value))
    scene = open_scene(mended, Said(1e-4, 0))
    assert (scene.window, scene.crs, set(scene.bands), scene.interval) == (WINDOW, CRS, set(bands), (TAKEN, TAKEN))
    np.testing.assert_array_equal(scene.read(bands, WINDOW), meant()[: len(bands)])


@pytest.mark.parametrize(
    ("units", "value", "expected"),
    [
        ("days since 2024-06-05 10:10:00", 0, TAKEN),
        ("seconds since 1970-01-01", TAKEN.timestamp(), TAKEN),
        ("hours since 2024-06-05T00:10:00.000000", 10, TAKEN),
        ("milliseconds since 2024-06-05T12:10:00+02:00", 0.0, TAKEN),
        ("months since 2024-06-05", 1, None),
        ("days since never", 1, None),
        ("days since 2024-06-05", float("nan"), None),
        ("days since 2024-06-05", 1e30, None),
        (7, 1, None),
    ],
)
def test_moments_as_cf_counts_them(units: Any, value: float, expected: datetime | None) -> None:
    assert since({"units": units}, value) == expected
    assert since({"units": units, "calendar": "360_day"}, value) is None


def test_the_affine_of_a_shifted_transform_is_not_believed(tmp_path: Path) -> None:
    """One that x and y do not begin at is of another raster."""
    other = tuple(WINDOW.transform() @ Affine.translation(7, 3))
    stackstac(0.5, transform=other).to_zarr(tmp_path / "s.zarr")
    check(tmp_path / "s.zarr")
