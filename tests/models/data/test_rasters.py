"""Files of every kind against what Pillow, rasterio and zarr wrote; damage is a reason, never pixels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import ColorInterp

from rsup.models.data.rasters import UnusableError, open_raster

RGB = ("red", "green", "blue")
WriteTiff = Callable[..., Path]


def bytes_of(bands: int, seed: int = 0, side: int = 40) -> NDArray[np.uint8]:
    """[bands, side, side + 8]: blocks that compress, with values 1..254, so that nothing is taken for nodata."""
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(1, 255, (bands, side // 8, side // 8 + 1)), np.ones((1, 8, 8))).astype(np.uint8)


@pytest.fixture
def tiff(tmp_path: Path) -> WriteTiff:
    """`tiff(data [band, y, x], descriptions=None, colours=None, crs=..., gsd=1.0, alpha=..., **tags)`."""

    def write(
        data: NDArray[Any],
        descriptions: tuple[str, ...] | None = None,
        colours: tuple[ColorInterp, ...] | None = None,
        crs: str | None = "EPSG:32631",
        corner: tuple[float, float] = (600_000, 5_700_000),
        gsd: float = 1.0,
        scale: tuple[float, float] | None = None,
        name: str = "image.tif",
        **profile: Any,
    ) -> Path:
        path = tmp_path / name
        count, height, width = data.shape
        place = Affine(gsd, 0, corner[0], 0, -gsd, corner[1])
        with rasterio.open(path, "w", "GTiff", width, height, count, crs, place, data.dtype.name, **profile) as file:
            file.write(data)
            if colours:
                file.colorinterp = colours
            if descriptions:
                file.descriptions = descriptions
            if scale:
                file.scales, file.offsets = [scale[0]] * count, [scale[1]] * count
        return path

    return write


def read(path: Path, bands: tuple[str, str, str] = RGB, white: float | None = None) -> NDArray[np.float32]:
    raster = open_raster(path, bands, white)
    return raster.read(0, 0, raster.height, raster.width)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_png_is_what_pillow_wrote(tmp_path: Path, mode: str) -> None:
    data = bytes_of(4)
    data[3, :8] = 0
    picture = Image.fromarray(np.ascontiguousarray(data.transpose(1, 2, 0))).convert(mode)
    picture.save(tmp_path / "image.png")
    expected = np.asarray(picture.convert("RGB"), np.float32).transpose(2, 0, 1) / np.float32(255)
    if mode.endswith("A"):
        expected[:, :8] = np.nan
    np.testing.assert_array_equal(read(tmp_path / "image.png"), expected)


VRT = """<VRTDataset rasterXSize="40" rasterYSize="40"><GeoTransform>0,1,0,0,0,-1</GeoTransform>{}</VRTDataset>"""
BAND = """<VRTRasterBand dataType="Byte" band="{}"><SimpleSource><SourceFilename>{}</SourceFilename>
<SourceBand>{}</SourceBand></SimpleSource></VRTRasterBand>"""


@pytest.mark.parametrize("suffix", ["tif", "png", "jpg"])
def test_a_file_that_names_others_is_refused(tmp_path: Path, suffix: str) -> None:
    """A virtual raster under the name of an image: GDAL would read what it names, files and addresses of all kinds."""
    secret = tmp_path / "secret.png"
    Image.fromarray(bytes_of(3).transpose(1, 2, 0).copy()).save(secret)
    path = tmp_path / f"image.{suffix}"
    path.write_text(VRT.format("".join(BAND.format(band, secret, band) for band in (1, 2, 3))))
    with rasterio.open(path) as file:
        assert file.driver == "VRT" and file.read().any()
    with pytest.raises(UnusableError, match="cannot be opened .*not recognized as being in a supported file format"):
        read(path)


def test_a_format_is_what_the_file_says_not_its_name(tmp_path: Path) -> None:
    Image.fromarray(bytes_of(3).transpose(1, 2, 0).copy()).save(tmp_path / "image.png")
    (tmp_path / "image.png").rename(tmp_path / "image.tif")
    np.testing.assert_array_equal(read(tmp_path / "image.tif"), bytes_of(3) / np.float32(255))


def test_palettes_are_refused(tmp_path: Path) -> None:
    Image.fromarray(bytes_of(3).transpose(1, 2, 0).copy()).quantize(8).save(tmp_path / "image.png")
    with pytest.raises(UnusableError, match="has a palette: save it as RGB"):
        read(tmp_path / "image.png")


def test_jpeg_is_what_pillow_reads(tmp_path: Path) -> None:
    path = tmp_path / "image.JPG"
    Image.fromarray(bytes_of(3).transpose(1, 2, 0).copy()).save(path, "JPEG", quality=90, subsampling=0)
    decoded = np.asarray(Image.open(path), np.float32).transpose(2, 0, 1) / 255
    # Two libraries may differ by a rounding of the inverse transform.
    assert np.abs(read(path) - decoded).max() <= 2.01 / 255


def test_a_window_is_a_part_of_the_whole(tiff: WriteTiff) -> None:
    raster = open_raster(tiff(bytes_of(3)), RGB, None)
    np.testing.assert_array_equal(
        raster.read(3, 17, 30, 11), raster.read(0, 0, raster.height, raster.width)[:, 3:33, 17:28]
    )


def test_numbers_beyond_bytes_need_their_white(tiff: WriteTiff) -> None:
    data = bytes_of(3).astype(np.uint16) * 40
    path = tiff(data)
    with pytest.raises(UnusableError, match="^holds uint16: say with data.white which number is white$"):
        read(path)
    np.testing.assert_allclose(read(path, white=8000), data / 8000, rtol=1e-6)

    scaled = tiff(data, scale=(1e-4, -0.1), name="scaled.tif")
    with pytest.raises(UnusableError, match="holds uint16 with a scale"):
        read(scaled)
    np.testing.assert_allclose(read(scaled, white=0.5), (data * 1e-4 - 0.1) / 0.5, rtol=1e-5, atol=1e-6)

    floats = np.where(data == data[0, 0, 0], np.nan, data / 1e4).astype(np.float32)
    np.testing.assert_allclose(read(tiff(floats, name="float.tif"), white=0.5), floats / 0.5, rtol=1e-6)


def test_white_does_not_darken_bytes(tiff: WriteTiff) -> None:
    path = tiff(bytes_of(3))
    np.testing.assert_array_equal(read(path, white=10_000), read(path))


@pytest.mark.parametrize(
    ("descriptions", "colours", "order"),
    [
        (None, None, (0, 1, 2, 3)),
        (("Blue", "GREEN", "red ", "nir"), None, (2, 1, 0, 3)),
        (None, ("blue", "green", "red", "undefined"), (2, 1, 0, 3)),
        (None, ("red", "green", "blue", "alpha"), (0, 1, 2, 3)),
        (None, ("gray", "undefined", "undefined", "undefined"), (0, 1, 2, 3)),
    ],
)
def test_bands_are_found_by_name_color_or_order(
    tiff: WriteTiff, descriptions: Any, colours: tuple[str, ...] | None, order: tuple[int, ...]
) -> None:
    data = bytes_of(4)
    path = tiff(data, descriptions, colours and tuple(ColorInterp[name] for name in colours))
    red, green, _, nir = (data[number].astype(np.float32) / np.float32(255) for number in order)
    np.testing.assert_array_equal(read(path, ("nir", "Red", "green")), np.stack([nir, red, green]))


def test_names_that_do_not_fit_are_not_guessed_at(tiff: WriteTiff) -> None:
    path = tiff(bytes_of(3), ("B02", "B03", "B04"))
    with pytest.raises(UnusableError, match="has bands b02, b03, b04, no red: name three of them with data.bands"):
        read(path)
    np.testing.assert_array_equal(read(path, ("B04", "B03", "B02")), bytes_of(3)[::-1] / np.float32(255))


def test_the_first_band_stands_in_for_a_fourth_that_is_missing(tiff: WriteTiff) -> None:
    three = np.arange(3 * 12, dtype=np.uint8).reshape(3, 3, 4)
    path = tiff(three)
    four = open_raster(path, (*RGB, "nir"), None)
    np.testing.assert_array_equal(four.read(0, 0, 3, 4), np.float32(three[[0, 1, 2, 0]]) / np.float32(255))
    with pytest.raises(UnusableError, match="no nir"):
        open_raster(path, ("nir", "red", "green"), None)


def test_near_infrared_is_no_mask_but_alpha_is(tiff: WriteTiff) -> None:
    data = bytes_of(4)
    data[3, :8] = 0
    # GDAL's own default for four bytes.
    path = tiff(data)
    with rasterio.open(path) as file:
        assert file.colorinterp[3] == ColorInterp.alpha
    np.testing.assert_array_equal(read(path), data[:3] / np.float32(255))

    mask = data.copy()
    mask[3, 8:] = 255
    found = read(tiff(mask, name="masked.tif"))
    assert np.isnan(found[:, :8]).all() and np.isfinite(found[:, 8:]).all()


def test_absence(tiff: WriteTiff) -> None:
    data = bytes_of(3)
    data[:, 0] = 0
    data[1, 20] = 0
    found = read(tiff(data, nodata=0))
    assert np.isnan(found[:, 0]).all()
    # Black in one band of a byte image is black.
    assert (found[1, 20] == 0).all() and np.isfinite(found[:, 1:]).all()

    measured = read(tiff(data.astype(np.uint16), nodata=0, name="measured.tif"), white=255)
    assert np.isnan(measured[:, 0]).all() and np.isnan(measured[1, 20]).all() and np.isfinite(measured[0, 20]).all()


@pytest.mark.parametrize(
    ("crs", "corner", "gsd", "metres"),
    [
        ("EPSG:32631", (600_000, 5_700_000), 0.6, 0.6),
        # Feet of the United States' survey, each 1200 / 3937 m.
        ("EPSG:2263", (300_000, 60_000), 2.0, 2 * 1200 / 3937),
        # 60 degrees north, where a metre of this map is half a metre.
        ("EPSG:3857", (0, 8_399_737.89), 1.0, 0.5),
        ("EPSG:4326", (5, 51), 1e-5, None),
        (None, (5, 51), 1.0, None),
    ],
)
def test_pixels_in_metres(tiff: WriteTiff, crs: str | None, corner: Any, gsd: float, metres: float | None) -> None:
    found = open_raster(tiff(bytes_of(3), crs=crs, corner=corner, gsd=gsd), RGB, None).gsd
    assert found == (metres and pytest.approx(metres, rel=1e-5))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.98])
def test_truncated_files_are_named_not_invented(tmp_path: Path, suffix: str, kept: float) -> None:
    # Noise, so that the end of the file holds pixels.
    data = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(data).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole) if isinstance(kept, float) else kept)])
    with pytest.raises(UnusableError, match=r"^cannot be (opened|read) \(.+\)$"):
        read(path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_damage_inside_is_noticed(tmp_path: Path, suffix: str) -> None:
    data = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(data).save(path)
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2
    del damaged[middle : middle + 200]
    path.write_bytes(damaged)
    with pytest.raises(UnusableError, match="cannot be read"):
        read(path)


def test_any_damage_to_a_tiff_is_a_reason_or_pixels(tiff: WriteTiff) -> None:
    path = tiff(bytes_of(3), compress="deflate")
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(100):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), 20):
            damaged[place] = int(rng.integers(256))
        path.write_bytes(damaged)
        try:
            assert read(path, white=1).shape[0] == 3
        except UnusableError:
            refused += 1
    assert refused > 50


def store(path: Path, numbers: NDArray[np.uint16], bands: tuple[str, ...] = RGB, units: str = "metre") -> Path:
    """Numbers [band, y, x] as CF has them: reflectance * 10000 + 1000, 0 without data, pixels of 10 units."""
    axes = {
        "y": ("y", 5_000_000 - 10.0 * np.arange(numbers.shape[1]), {"units": units}),
        "x": ("x", 500_000 + 10.0 * np.arange(numbers.shape[2]), {"units": units}),
    }
    attributes = {"scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": np.uint16(0)}
    arrays = {band: (("y", "x"), each, attributes) for band, each in zip(bands, numbers, strict=True)}
    encoding = {band: {"chunks": (16, 16)} for band in bands}
    raw = xr.Dataset(arrays, axes)
    for band in bands:
        raw[band].attrs.pop("_FillValue")
        encoding[band]["_FillValue"] = np.uint16(0)  # type: ignore[assignment]
    raw.to_zarr(path, zarr_format=3, consolidated=False, encoding=encoding)
    return path


def test_a_store_is_read_as_reflectance(tmp_path: Path) -> None:
    numbers = bytes_of(3).astype(np.uint16) * 20 + 1000
    numbers[:, 5, 7] = 0
    path = store(tmp_path / "scene.zarr", numbers)
    with pytest.raises(UnusableError, match="say with data.white which reflectance is white"):
        read(path)
    raster = open_raster(path, ("blue", "green", "red"), 0.4)
    assert (raster.height, raster.width, raster.gsd) == (40, 48, 10)
    expected = np.where(numbers == 0, np.nan, (numbers * 1e-4 - 0.1) / 0.4)[::-1]
    np.testing.assert_allclose(raster.read(0, 0, 40, 48), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(raster.read(3, 5, 20, 30), expected[:, 3:23, 5:35], rtol=1e-5, atol=1e-6)


def test_a_fetched_scene_is_read_as_reflectance(make_scene: Callable[..., Any], tmp_path: Path) -> None:
    """As `rsup fetch` writes it, larger than a chunk."""
    numbers = np.random.default_rng(4).integers(1, 12_000, (4, 300, 280)).astype(np.uint16)
    numbers[:, :20, :30] = 0
    make_scene(numbers, bands=("red", "green", "blue", "nir"))
    raster = open_raster(tmp_path / "scene.zarr", ("nir", "red", "green"), 0.5)
    assert (raster.height, raster.width, raster.gsd) == (300, 280, 10)
    expected = np.where(numbers == 0, np.nan, (numbers.astype(np.float64) - 1000) / 5000)[[3, 0, 1]]
    np.testing.assert_allclose(raster.read(10, 5, 280, 270), expected[:, 10:290, 5:275], rtol=0, atol=1e-6)


def test_a_store_in_degrees_has_no_pixels_in_metres(tmp_path: Path) -> None:
    path = store(tmp_path / "scene.zarr", bytes_of(3).astype(np.uint16), units="degrees_north")
    assert open_raster(path, RGB, 1).gsd is None


def test_stores_that_will_not_do(tmp_path: Path) -> None:
    path = store(tmp_path / "scene.zarr", bytes_of(3).astype(np.uint16) + 1000)
    with pytest.raises(UnusableError, match="has no band nir with the axes y, x"):
        open_raster(path, ("nir", "red", "green"), 1)
    raster = open_raster(path, RGB, 1)
    chunk = path / "red" / "c" / "1" / "1"
    chunk.write_bytes(chunk.read_bytes()[:10])
    assert raster.read(0, 0, 16, 16).shape == (3, 16, 16)
    with pytest.raises(UnusableError, match="cannot be read"):
        raster.read(0, 0, 40, 48)
    (path / "red" / "zarr.json").write_text("{")
    with pytest.raises(UnusableError, match="cannot be opened"):
        open_raster(path, RGB, 1)
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(UnusableError, match="cannot be opened"):
        open_raster(tmp_path / "empty.zarr", RGB, 1)
