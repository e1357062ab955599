"""Theia's level 2A and HLS S30: reflectance, nodata and masks in the scene's terms, and what is malformed."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fetched import fetched, said
from numpy.typing import NDArray
from others import HLS, THEIA, write_hls, write_theia, write_tiff
from safes import GROUND, zipped

from rsup.models.base.errors import SceneError
from rsup.pipeline.sources.products.recognise import is_product, read_product

BANDS = ("red", "nir", "nir08")
INNER = (slice(128, 128 + GROUND.height), slice(128, 128 + GROUND.width))
Theia = tuple[Path, dict[str, NDArray[np.int16]]]


@pytest.fixture
def theia(tmp_path: Path) -> Theia:
    flags = np.zeros((GROUND.height, GROUND.width), np.uint8)
    flags[40:60, :] = 1 << 1 | 1
    flags[60:80, :] = 1 << 3 | 1 << 6
    flags[80:90, :] = 1
    return write_theia(tmp_path, BANDS, flags)


@pytest.fixture
def hls(tmp_path: Path) -> Path:
    fmask = np.zeros((GROUND.height // 3, GROUND.width // 3), np.uint8)
    fmask[:5, :5] = 255
    fmask[20:25] |= 1 << 1
    fmask[30:32] |= 1 << 5 | 2 << 6
    root, _ = write_hls(tmp_path / "download", BANDS, fmask)
    return root


def test_theia(tmp_path: Path, theia: Theia) -> None:
    root, made = theia
    assert is_product(root)
    ours = fetched(tmp_path / "scene.zarr", root, bands=BANDS)
    red, kept = ours["red"][INNER], ours["red"][INNER] > 0
    assert not kept[:16, :16].any() and kept[40:, 40:].all()
    np.testing.assert_array_equal(red[kept], made["red"][kept].astype(int) + 1000)
    classes = ours["scl"][INNER]
    assert (classes[45, 50], classes[65, 50], classes[85, 50], classes[100, 50]) == (9, 3, 6, 7)
    (item,) = said(tmp_path / "scene.zarr")["items"]
    assert (item["id"], item["tile"], item["datetime"]) == (THEIA, "33TWL", "2017-07-06T09:01:07Z")
    clear = fetched(tmp_path / "clear.zarr", zipped(root, tmp_path / "a.zip"), bands=BANDS, mask_clouds=True)
    assert not clear["red"][INNER][40:80].any()
    np.testing.assert_array_equal(clear["red"][INNER][84:], red[84:])


def test_hls(tmp_path: Path, hls: Path) -> None:
    for number in ("B04", "B08", "B8A"):
        plane = np.full((GROUND.height // 3, GROUND.width // 3), 2500, np.int16)
        plane[:, :5] = -9999
        write_tiff(hls / f"{HLS}.{number}.tif", plane, 30, -9999)
    assert is_product(hls)
    ours = fetched(tmp_path / "scene.zarr", hls, bands=BANDS)
    red, classes = ours["red"][INNER], ours["scl"][INNER]
    assert set(np.unique(red)) == {0, 3500} and not red[:, :14].any() and red[10:-10, 25:-10].all()
    assert (classes[67, 50], classes[93, 50], classes[17, 50], classes[5, 5]) == (9, 6, 7, 0)
    (item,) = said(tmp_path / "scene.zarr")["items"]
    assert (item["datetime"], item["collection"], item["tile"]) == ("2017-07-06T09:01:07Z", "hls2-s30", "33TWL")


def test_reflectance_0_is_one_and_shade_that_is_darker_than_a_scene_holds_is_the_darkest(
    tmp_path: Path, theia: Theia
) -> None:
    root, made = theia
    for band, number in (("red", "B4"), ("nir", "B8")):
        made[band][100:104, 50:54] = 0
        made[band][110, 60:62] = -1500
        write_tiff(root / f"{THEIA}_FRE_{number}.tif", made[band], 10)
    ours = fetched(tmp_path / "scene.zarr", root, bands=("red", "nir"))
    for band in ("red", "nir"):
        assert (ours[band][INNER][100:104, 50:54] == 1000).all() and (ours[band][INNER][110, 60:62] == 1).all()
    made["red"][110, 60] = -6000
    write_tiff(root / f"{THEIA}_FRE_B4.tif", made["red"], 10)
    with pytest.raises(SceneError, match="it holds -6000, a reflectance of -0.6: beyond"):
        fetched(tmp_path / "other.zarr", root, bands=("red", "nir"))


def test_every_product_of_a_zip_is_read(tmp_path: Path, hls: Path) -> None:
    path = zipped(hls, tmp_path / "a.zip", inside="one")
    with zipfile.ZipFile(path, "a") as sink:
        for file in hls.iterdir():
            sink.write(file, f"two/{file.name.replace('2017187', '2017192')}")
    days = [product.item.datetime[:10] for product in read_product(str(path), ("red",))]
    assert days == ["2017-07-06", "2017-07-11"]


def image(root: Path) -> Path:
    return next(root.glob("*B4.tif" if root.name == THEIA else "*B04.tif"))


def cut(root: Path) -> Path:
    """In tiles, so that its header stands in front and is whole."""
    with rasterio.open(image(root)) as source:
        data, gsd = source.read(1), round(source.transform.a)
    path = write_tiff(image(root), data, gsd, tiled=True, blockxsize=64, blockysize=64, compress="deflate")
    path.write_bytes(path.read_bytes()[:-1000])
    return root


def spoilt_in_zip(root: Path) -> Path:
    path = zipped(root, root.parent / "a.zip", zipfile.ZIP_STORED)
    with zipfile.ZipFile(path) as source:
        (entry,) = (each for each in source.infolist() if each.filename.endswith(image(root).name))
    raw = bytearray(path.read_bytes())
    middle = entry.header_offset + entry.file_size // 2
    raw[middle : middle + 8] = bytes(each ^ 0x55 for each in raw[middle : middle + 8])
    path.write_bytes(raw)
    return path


def doubled(root: Path) -> Path:
    name = image(root).name
    other = name.replace("_B4", "_B04") if root.name == THEIA else name.replace("T33TWL", "T33TWM")
    (root / other).write_bytes(image(root).read_bytes())
    return root


def jpeg2000(root: Path) -> Path:
    with rasterio.open(image(root)) as source:
        data, profile = source.read(1).astype(np.uint16), source.profile
    image(root).unlink()
    profile |= {"driver": "JP2OpenJPEG", "dtype": "uint16", "nodata": None}
    place = {key: profile[key] for key in ("driver", "dtype", "width", "height", "count", "crs", "transform")}
    with rasterio.open(root / "a.jp2", "w", **place) as sink:
        sink.write(data, 1)
    (root / "a.jp2").rename(root / (f"{THEIA}_FRE_B4.tif" if root.name == THEIA else f"{HLS}.B04.tif"))
    return root


def linked(root: Path) -> Path:
    path = image(root)
    path.rename(root.parent / "elsewhere.tif")
    path.symlink_to(root.parent / "elsewhere.tif")
    return root


MALFORMED: dict[Callable[[Path], Path], str] = {
    cut: "does not end there: it is cut off",
    spoilt_in_zip: "is damaged (Bad CRC-32",
    doubled: "two images of red|holds 2 products of HLS S30",
    jpeg2000: "is no GeoTIFF",
    linked: "leads out of its product",
    image: "is one file of (Theia's level 2A|HLS S30); give the folder",
}


@pytest.mark.parametrize("spoil", MALFORMED)
@pytest.mark.parametrize("kind", ["theia", "hls"])
def test_a_malformed_product_is_refused(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str, spoil: Callable[[Path], Path]
) -> None:
    made: Any = request.getfixturevalue(kind)
    product = spoil(made[0] if kind == "theia" else made)
    with pytest.raises(SceneError, match=MALFORMED[spoil].replace("(Bad", r"\(Bad")) as refused:
        read_product(str(product), ("red",))
    assert "\n" not in str(refused.value)


def test_a_theia_product_that_lacks_what_says_what_its_numbers_mean(tmp_path: Path, theia: Theia) -> None:
    root, _ = theia
    with pytest.raises(SceneError, match=r"has no image of blue \(B02\)"):
        read_product(str(root), ("blue",))
    write_tiff(root / "MASKS" / f"{THEIA}_MG2_R1.tif", np.zeros((GROUND.height, GROUND.width), np.uint16), 10)
    with pytest.raises(SceneError, match="its mask is uint16, not a byte of flags"):
        fetched(tmp_path / "scene.zarr", root, bands=BANDS)
    document = root / f"{THEIA}_MTD_ALL.xml"
    document.write_text(document.read_text().replace("10000", "none"))
    with pytest.raises(SceneError, match="MTD_ALL.xml cannot be used"):
        read_product(str(root), ("red",))
    document.unlink()
    with pytest.raises(SceneError, match="MTD_ALL.xml cannot be opened"):
        read_product(str(root), ("red",))
