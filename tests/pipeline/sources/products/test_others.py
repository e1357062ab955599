"""Theia's level 2A and HLS S30: reflectance, nodata and masks in the scene's terms."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from fetched import fetched, said
from numpy.typing import NDArray
from safes import GROUND, zipped

from rsup.models.base.errors import SceneError
from rsup.pipeline.sources.products.recognise import is_product, read_product

BANDS = ("red", "nir", "nir08")
THEIA = "SENTINEL2A_20170706-090107-511_L2A_T33TWL_C_V1-0"
HLS = "HLS.S30.T33TWL.2017187T090107.v2.0"
INNER = (slice(128, 128 + GROUND.height), slice(128, 128 + GROUND.width))


def write(path: Path, data: NDArray[Any], gsd: int, nodata: int | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    west, _, _, north = GROUND.bounds
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": 1,
        "dtype": data.dtype,
        "crs": "EPSG:32633",
        "nodata": nodata,
    }
    profile |= {
        "height": data.shape[0],
        "width": data.shape[1],
        "transform": rasterio.Affine(gsd, 0, west, 0, -gsd, north),
    }
    with rasterio.open(path, "w", **profile) as sink:
        sink.write(data, 1)


def numbers(height: int, width: int, nodata: int, seed: int) -> NDArray[np.int16]:
    made = np.random.default_rng(seed).integers(-300, 6000, (height, width), dtype=np.int16)
    made[:16, :16] = nodata
    return made


@pytest.fixture
def theia(tmp_path: Path) -> tuple[Path, dict[str, NDArray[np.int16]]]:
    root, made = tmp_path / THEIA, {}
    for seed, (band, number, gsd) in enumerate((("red", "B4", 10), ("nir", "B8", 10), ("nir08", "B8A", 20))):
        made[band] = numbers(GROUND.height * 10 // gsd, GROUND.width * 10 // gsd, -10_000, seed)
        write(root / f"{THEIA}_FRE_{number}.tif", made[band], gsd, None)
    flags = np.zeros((GROUND.height, GROUND.width), np.uint8)
    flags[40:60, :] = 1 << 1 | 1
    flags[60:80, :] = 1 << 3 | 1 << 6
    flags[80:90, :] = 1
    write(root / "MASKS" / f"{THEIA}_MG2_R1.tif", flags, 10, None)
    (root / f"{THEIA}_MTD_ALL.xml").write_text(
        "<Muscate_Metadata_Document><Radiometric_Informations><REFLECTANCE_QUANTIFICATION_VALUE>10000"
        "</REFLECTANCE_QUANTIFICATION_VALUE></Radiometric_Informations></Muscate_Metadata_Document>"
    )
    return root, made


def test_theia(tmp_path: Path, theia: tuple[Path, dict[str, NDArray[np.int16]]]) -> None:
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


def test_a_malformed_theia_product_is_refused(tmp_path: Path, theia: tuple[Path, Any]) -> None:
    root, _ = theia
    with pytest.raises(SceneError, match=r"has no image of blue \(B02\)"):
        read_product(str(root), ("blue",))
    write(root / "MASKS" / f"{THEIA}_MG2_R1.tif", np.zeros((GROUND.height, GROUND.width), np.uint16), 10, None)
    with pytest.raises(SceneError, match="its mask is uint16, not a byte of flags"):
        fetched(tmp_path / "scene.zarr", root, bands=BANDS)
    document = root / f"{THEIA}_MTD_ALL.xml"
    document.write_text(document.read_text().replace("10000", "none"))
    with pytest.raises(SceneError, match="MTD_ALL.xml cannot be used"):
        read_product(str(root), ("red",))
    document.unlink()
    with pytest.raises(SceneError, match="MTD_ALL.xml cannot be opened"):
        read_product(str(root), ("red",))


def test_hls(tmp_path: Path) -> None:
    root = tmp_path / "download"
    height, width = GROUND.height * 10 // 30, GROUND.width * 10 // 30
    for number in ("B04", "B08", "B8A"):
        plane = np.full((height, width), 2500, np.int16)
        plane[:, :5] = -9999
        write(root / f"{HLS}.{number}.tif", plane, 30, -9999)
    fmask = np.zeros((height, width), np.uint8)
    fmask[:, :5] = 255
    fmask[20:25] |= 1 << 1
    fmask[30:32] |= 1 << 5 | 2 << 6
    write(root / f"{HLS}.Fmask.tif", fmask, 30, 255)
    assert is_product(root)
    ours = fetched(tmp_path / "scene.zarr", root, bands=BANDS)
    red, classes = ours["red"][INNER], ours["scl"][INNER]
    assert set(np.unique(red)) == {0, 3500} and not red[:, :14].any() and red[10:-10, 25:-10].all()
    assert (classes[67, 50], classes[93, 50], classes[5, 50], classes[50, 5]) == (9, 6, 7, 0)
    (item,) = said(tmp_path / "scene.zarr")["items"]
    assert (item["datetime"], item["collection"], item["tile"]) == ("2017-07-06T09:01:07Z", "hls2-s30", "33TWL")
    write(root / f"{HLS.replace('187', '192')}.B04.tif", np.full((height, width), 2500, np.int16), 30, -9999)
    with pytest.raises(SceneError, match="holds 2 products of HLS S30"):
        read_product(str(root), ("red",))
