"""A mosaic in readers that are not Python's: OpenLayers in Chromium, geotiff.js in node, GDAL's own programs."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from browsers import bundle, readers, told

from rsup.pipeline.jobs.upscale import upscale
from rsup.pipeline.jobs.upscale_plan import UpscaleRequest
from rsup.pipeline.scenes.scene import Scene

pytestmark = pytest.mark.slow
BANDS = ("red", "green", "blue")


@pytest.fixture
def mosaic(make_scene: Callable[..., Scene], tmp_path: Path) -> Path:
    """A folder with a mosaic of 1280 x 1280 pixels, a corner nodata."""
    y, x = np.mgrid[:160, :160]
    dn = np.stack([2500 + 900 * np.sin(x / (5 + k)) * np.cos(y / 7) for k in range(4)]).astype(np.uint16)
    dn[:, :10, :10] = 0
    scene = make_scene(dn, bands=(*BANDS, "nir"))
    upscale(UpscaleRequest(scene.path, 8, tmp_path / "m", "bicubic", device="cpu", chunk=64, consistency="mean"))
    return tmp_path / "m"


def test_openlayers_draws_the_zarr_store_at_full_resolution(mosaic: Path, tmp_path: Path) -> None:
    bundle("geozarr.js", mosaic / "geozarr.bundle.js")
    shutil.copy(readers() / "geozarr.html", mosaic)
    red = zarr.open_array(mosaic / "scene_x8.zarr" / "red", mode="r")
    half = zarr.open_array(mosaic / "scene_x8.zarr" / "2" / "red", mode="r")
    page = "geozarr.html?store=scene_x8.zarr&crs=EPSG:32631"
    without, full = (told(mosaic, page + more, tmp_path / "chromium") for more in ("", "&full=1"))
    assert without["levels"]["."] == [] and without["levels"]["2"] == list(BANDS)
    assert set(without["red"][:255]) <= set(
        np.asarray(half[128]).tolist()
    )  # the finest overview, enlarged; its last pixel is its own matter
    assert full["resolution"] == 1.25 and full["red"] == np.asarray(red[256, 256:512]).tolist()
    picture = np.array(full["picture"])
    assert picture.shape == (64, 64, 4)
    assert (picture[:9, :9, 3] == 0).all()  # nodata is transparent
    assert (picture[12:, 12:, 3] == 255).all() and picture[12:, 12:, 0].std() > 20  # and the rest is drawn


def test_geotiff_js_reads_the_cog(mosaic: Path) -> None:
    script = (
        "import {fromFile} from 'geotiff';"
        "const tiff = await fromFile(process.argv[1]); const image = await tiff.getImage();"
        "const [red, nir] = await image.readRasters({samples: [0, 3], window: [200, 300, 210, 301]});"
        "console.log(JSON.stringify({count: await tiff.getImageCount(), box: image.getBoundingBox(),"
        "nodata: image.getGDALNoData(), band: await image.getGDALMetadata(3), red: [...red], nir: [...nir]}));"
    )
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    asked = [node, "--input-type=module", "-e", script, mosaic / "scene_x8.tif"]
    said = json.loads(subprocess.run(asked, cwd=readers(), check=True, capture_output=True, timeout=60).stdout)
    with rasterio.open(mosaic / "scene_x8.tif") as tif:
        pixels = tif.read(window=((300, 301), (200, 210)))[:, 0]
        assert said["box"] == list(tif.bounds) and said["nodata"] == 0
        assert said["count"] == 1 + len(tif.overviews(1))
    assert said["red"] == pixels[0].tolist() and said["nir"] == pixels[3].tolist()
    assert said["band"]["DESCRIPTION"] == "nir" and float(said["band"]["SCALE"]) == 1e-4


def test_gdalinfo_of_the_system_reads_names_statistics_and_colours(mosaic: Path) -> None:
    program = shutil.which("gdalinfo")
    if program is None:
        pytest.skip("gdalinfo is not installed")
    asked = [program, "-json", mosaic / "scene_x8.tif"]
    said = json.loads(subprocess.run(asked, check=True, capture_output=True, timeout=60).stdout)
    bands = said["bands"]
    assert [band["description"] for band in bands] == [*BANDS, "nir"]
    assert [band["colorInterpretation"] for band in bands] == ["Red", "Green", "Blue", "Undefined"]
    assert all(band["scale"] == 1e-4 and band["offset"] == -0.1 and band["noDataValue"] == 0 for band in bands)
    assert all({"minimum", "maximum", "mean", "stdDev"} <= band.keys() and band["overviews"] for band in bands)
    assert said["metadata"]["IMAGE_STRUCTURE"]["COMPRESSION"] == "ZSTD" and said["metadata"][""]["MODEL"] == "bicubic"
