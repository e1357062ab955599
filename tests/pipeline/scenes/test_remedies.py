"""Every remedy that a broken scene is refused with, followed to the letter: its pixels are then the right ones."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr
from affine import Affine
from numpy.typing import NDArray

from rsup.models.base.errors import SceneError
from rsup.pipeline.lattice import Window
from rsup.pipeline.scenes import contract, remedies
from rsup.pipeline.scenes.opening import open_scene
from rsup.pipeline.scenes.scene import Scene

CRS, WINDOW = "EPSG:32633", Window(-580_000, 38_000, 40, 52)
BANDS = ("red", "green", "blue")
# xarray writes consolidated metadata, of which zarr warns; rioxarray multiplies affines as affine 3 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore")


def stored() -> NDArray[np.uint16]:
    """Asymmetrical stored numbers [band, y, x], with nodata in a corner."""
    y, x = np.mgrid[: WINDOW.height, : WINDOW.width]
    planes = np.stack([1100 + 40 * y + 17 * x + 500 * band for band in range(3)]).astype(np.uint16)
    planes[:, :3, :4] = 0
    return planes


def reflectance() -> NDArray[np.float64]:
    return np.where(stored() == 0, np.nan, stored() * 1e-4 - 0.1)


def tiff(path: Path, data: NDArray[Any], scale: float = 1e-4, offset: float = -0.1, **profile: Any) -> Path:
    names = profile.pop("names", BANDS)
    settings: dict[str, Any] = {"nodata": 0, "crs": CRS, "transform": WINDOW.transform(), **profile}
    count, height, width = data.shape
    with rasterio.open(path, "w", "GTiff", width, height, count, dtype=data.dtype.name, **settings) as file:
        file.write(data)
        file.scales, file.offsets = [scale] * count, [offset] * count
        if names:
            file.descriptions = names
    return path


def dataset(data: NDArray[Any], **attributes: Any) -> xr.Dataset:
    """A store as xarray has it: raw numbers, with `attributes` of the bands."""
    transform = WINDOW.transform()
    x, y = (np.arange(size) + 0.5 for size in (WINDOW.width, WINDOW.height))
    coordinates = {"x": transform.c + 10 * x, "y": transform.f - 10 * y}
    bands = {name: (("y", "x"), plane, attributes) for name, plane in zip(BANDS, data, strict=True)}
    return xr.Dataset(bands, coordinates).rio.write_crs(CRS)


PACKING = {"scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": 0}


def store(path: Path, ds: xr.Dataset | None = None) -> Path:
    (dataset(stored(), **PACKING) if ds is None else ds).to_zarr(path)
    return path


def follow(refusal: str, choice: int, values: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command that a sentence offers, in this process, with what only the owner knows put in its place."""
    words = shlex.split(refusal[refusal.index(sys.executable) :])
    starts = [k for k, word in enumerate(words) if word == sys.executable]
    assert words[starts[choice] + 1] == "-c"
    code, *arguments = words[starts[choice] + 2 :]
    arguments = arguments[: arguments.index(";")] if ";" in arguments else arguments
    monkeypatch.setattr(sys, "argv", ["-c", *(values.get(argument, argument) for argument in arguments)])
    exec(code, {"__name__": "__main__"})


def regular(path: Path) -> xr.Dataset:
    return xr.open_zarr(path, mask_and_scale=False).load()


Break = Callable[[Path], Path]
OFF = Affine(10, 0, 380_003, 0, -10, 5_800_006)
FLOAT = reflectance().astype(np.float32)
BROKEN: dict[str, tuple[Break, str, int, dict[str, str]]] = {
    "tiff: no names": (lambda p: tiff(p / "s.tif", stored(), names=None), "every band needs a name", 0, {}),
    "tiff: no CRS": (lambda p: tiff(p / "s.tif", stored(), crs=None), "has no CRS", 0, {}),
    "tiff: two names of a band": (
        lambda p: tiff(p / "s.tif", stored()[[0, 1, 2, 1]], names=("red", "B03", "blue", "green")),
        "B03 and green are both green",
        0,
        {},
    ),
    "tiff: from south to north": (
        lambda p: tiff(p / "s.tif", stored()[:, ::-1], transform=Affine(10, 0, 380_000, 0, 10, 5_799_600)),
        "from south to north",
        0,
        {},
    ),
    "tiff: nowhere": (
        lambda p: tiff(p / "s.tif", stored(), transform=Affine.identity()),
        "does not say where its pixels lie",
        0,
        {},
    ),
    "tiff: a strip of a gigabyte": (lambda p: tiff(p / "s.tif", stored()), "chunks of .* too large to hold", 0, {}),
    "store: no CRS": (
        lambda p: store(p / "s.zarr", dataset(stored(), **PACKING).drop_vars("spatial_ref")),
        "has no CRS",
        0,
        {},
    ),
    "store: from south to north": (
        lambda p: store(p / "s.zarr", dataset(stored(), **PACKING).sortby("y")),
        "from south to north",
        0,
        {},
    ),
    "store: columns first": (
        lambda p: store(p / "s.zarr", dataset(stored(), **PACKING).transpose("x", "y")),
        "has dimensions x, y",
        0,
        {},
    ),
    "store: nowhere": (
        lambda p: store(p / "s.zarr", dataset(stored(), **PACKING).drop_vars(["x", "y"])),
        "does not say where",
        0,
        {},
    ),
    "store: x of NaN": (
        lambda p: store(p / "s.zarr", dataset(stored(), **PACKING).assign_coords(x=np.full(52, np.nan))),
        "evenly spaced",
        0,
        {},
    ),
    "store: an aoi elsewhere": (
        lambda p: store(p / "s.zarr", dataset(stored(), **PACKING).assign_attrs(aoi=[0, 0, 50, 50])),
        "its aoi",
        0,
        {},
    ),
    "store: an aoi of words": (
        lambda p: store(p / "s.zarr", dataset(stored(), **PACKING).assign_attrs(aoi="everywhere")),
        "its aoi",
        0,
        {},
    ),
    "store: red and B04": (
        lambda p: store(p / "s.zarr", dataset(stored(), **PACKING).assign(B04=lambda d: d.red)),
        "B04 and red are both red",
        0,
        {"red": "B04"},
    ),
    "store: tiny chunks": (
        lambda p: store(p / "s.zarr", dataset(stored(), **PACKING).chunk(x=8, y=8)),
        "chunks of 8 x 8 pixels",
        0,
        {},
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_the_remedy_leads_to_right_pixels(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "gigabyte" in fault:
        monkeypatch.setattr(contract, "LARGEST_CHUNK", 2000)
    if "tiny" in fault:
        monkeypatch.setattr(contract, "MOST_CHUNKS", 30)
    spoil, words, choice, values = BROKEN[fault]
    path = spoil(tmp_path)
    with pytest.raises(SceneError, match=words) as refusal:
        open_scene(path)
    assert "\n" not in str(refusal.value)
    monkeypatch.undo()
    values = {"380000": str(WINDOW.bounds[0]), "5800000": str(WINDOW.bounds[3])} | values
    follow(str(refusal.value), choice, values, monkeypatch)
    mended = path.with_name("s-mended.zarr")
    scene = open_scene(mended if mended.exists() else path)
    assert (scene.window, scene.crs) == (WINDOW, CRS)
    np.testing.assert_array_equal(scene.read(BANDS, WINDOW), stored())


RESAMPLED: dict[str, tuple[Break, str]] = {
    "tiff: off the lattice": (lambda p: tiff(p / "s.tif", stored(), transform=OFF), "multiples of 10 m"),
    "tiff: degrees": (
        lambda p: tiff(p / "s.tif", stored(), crs="EPSG:4326", transform=Affine(1e-4, 0, 13.25, 0, -1e-4, 52.33)),
        "projected one in metres",
    ),
    "tiff: 20 m": (
        lambda p: tiff(p / "s.tif", stored(), transform=Affine(20, 0, 380_000, 0, -20, 5_800_000)),
        "20 x 20",
    ),
    "tiff: rotated": (
        lambda p: tiff(p / "s.tif", stored(), transform=Affine(9, 1, 380_000, 1, -9, 5_800_000)),
        "rotated",
    ),
    "store: off the lattice": (
        lambda p: store(p / "s.zarr", dataset(stored(), **PACKING).assign_coords(x=380_008.0 + 10 * np.arange(52))),
        "multiples of 10 m",
    ),
}


def smooth(scene: Scene) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    data = scene.read(BANDS, scene.window)
    return data, (data > 0).all(axis=0)


@pytest.mark.parametrize("fault", RESAMPLED)
def test_resampling_leads_to_pixels_that_rasterio_s_warp_gives(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, words = RESAMPLED[fault]
    path = spoil(tmp_path)
    with pytest.raises(SceneError, match=words) as refusal:
        open_scene(path)
    follow(str(refusal.value), 0, {}, monkeypatch)
    scene = open_scene(tmp_path / "s-mended.zarr")
    data, valid = smooth(scene)
    assert scene.crs == CRS and valid.sum() > 200
    if path.suffix == ".tif":
        with rasterio.open(path) as source:
            values, transform, crs = source.read().astype(np.float32), source.transform, source.crs
    else:
        ds = regular(path)
        values = np.stack([ds[band].values for band in BANDS]).astype(np.float32)
        transform, crs = Affine(10, 0, 380_003, 0, -10, 5_800_000), CRS
    expected = np.zeros(data.shape, np.float32)
    rasterio.warp.reproject(
        values, expected, src_transform=transform, src_crs=crs, src_nodata=0, dst_transform=scene.window.transform(),
        dst_crs=CRS, dst_nodata=0, resampling=rasterio.warp.Resampling.bilinear,
    )  # fmt: skip
    both = valid & (expected > 0).all(axis=0)
    assert both.sum() > 0.9 * valid.sum()
    # GDAL places pixels to an eighth of one, by pieces that the two cut differently; the steepest step is 40.
    assert np.abs(data - expected)[:, both].max() <= 5


def test_unevenly_spaced_pixels_are_interpolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plane stays a plane, whatever the places at which it was sampled."""
    x = 380_001.0 + 10 * np.arange(52) + 3 * np.sin(np.arange(52))
    y = 5_799_998.0 - 10 * np.arange(40)
    plane = 0.1 + 1e-4 * (x[None] - 380_000) + 2e-4 * (5_800_000 - y[:, None])
    ds = xr.Dataset({"red": (("y", "x"), plane)}, {"x": x, "y": y}).rio.write_crs(CRS)
    ds.red.encoding = {"dtype": "uint16", "_FillValue": 0, "scale_factor": 1e-4, "add_offset": -0.1}
    store(tmp_path / "s.zarr", ds)
    with pytest.raises(SceneError, match="evenly spaced") as refusal:
        open_scene(tmp_path / "s.zarr")
    follow(str(refusal.value), 1, {}, monkeypatch)
    scene = open_scene(tmp_path / "s-mended.zarr")
    west, _, _, north = scene.window.bounds
    i, j = np.mgrid[: scene.window.height, : scene.window.width]
    expected = 0.1 + 1e-4 * (west + 10 * j + 5 - 380_000) + 2e-4 * (5_800_000 - (north - 10 * i - 5))
    assert scene.window.width >= 50 and scene.window.height >= 38
    np.testing.assert_allclose(scene.read(("red",), scene.window)[0] * 1e-4 - 0.1, expected, atol=2e-4)


def test_a_picture_has_no_remedy(tmp_path: Path) -> None:
    path = tiff(tmp_path / "s.tif", (stored() // 40).astype(np.uint8), 1, 0)
    with pytest.raises(
        SceneError, match="red is uint8: a picture, not reflectance.*give the bands themselves"
    ) as refusal:
        open_scene(path)
    assert sys.executable not in str(refusal.value)


def test_bands_of_another_grid_are_removed(tmp_path: Path) -> None:
    ds = dataset(stored(), **PACKING)
    store(tmp_path / "s.zarr", ds)
    store(tmp_path / "t.zarr", ds.isel(x=slice(0, 26)))
    shutil.copytree(tmp_path / "t.zarr" / "red", tmp_path / "s.zarr" / "B05")
    (tmp_path / "s.zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(SceneError, match="differ in shape .* keep in one store those of one 10 m grid"):
        open_scene(tmp_path / "s.zarr")
    shutil.rmtree(tmp_path / "s.zarr" / "B05")
    np.testing.assert_array_equal(open_scene(tmp_path / "s.zarr").read(BANDS, WINDOW), stored())


def test_a_command_survives_any_path(tmp_path: Path) -> None:
    path = tmp_path / "São Paulo #1 'x' $HOME \"100%\".tif"
    words = shlex.split(remedies.name_bands(path, 4))
    assert words[0] == sys.executable and words[3] == str(path)
