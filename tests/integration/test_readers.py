"""A mosaic in Python's readers: by name through STAC, as reflectance through titiler."""

import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from time import sleep

import numpy as np
import odc.stac
import pystac
import pytest
import rasterio
from PIL import Image
from rio_tiler.io import Reader, STACReader

from rsup.pipeline.jobs.upscale import upscale
from rsup.pipeline.jobs.upscale_plan import UpscaleRequest
from rsup.pipeline.scenes.scene import Scene

BANDS = ("red", "green", "blue", "nir")


@pytest.fixture
def mosaic(make_scene: Callable[..., Scene], tmp_path: Path) -> Path:
    y, x = np.mgrid[:60, :50]
    dn = np.stack([2000 + 500 * k + 900 * np.sin(x / (5 + k)) * np.cos(y / 7) for k in range(4)]).astype(np.uint16)
    dn[:, :4, :4] = 0
    upscale(UpscaleRequest(make_scene(dn, bands=BANDS).path, 4, tmp_path / "m", "nearest", device="cpu"))
    return tmp_path / "m"


def test_odc_stac_finds_bands_by_name(mosaic: Path) -> None:
    item = pystac.Item.from_file(str(mosaic / "scene_x4.json"))
    loaded = odc.stac.load([item], bands=["nir", "red"])
    everything = odc.stac.load([item])
    assert set(everything.data_vars) == set(BANDS)  # and the store beside the COG is not taken for one
    with rasterio.open(mosaic / "scene_x4.tif") as tif:
        for band in ("nir", "red"):
            np.testing.assert_array_equal(loaded[band].values[0], tif.read(1 + BANDS.index(band)))
        assert loaded.odc.geobox.transform == tif.transform and loaded["red"].nodata == 0


def test_rio_tiler_finds_bands_by_name_in_item_and_file(mosaic: Path) -> None:
    with rasterio.open(mosaic / "scene_x4.tif") as tif, STACReader(str(mosaic / "scene_x4.json")) as item:
        seen = item.preview(assets=[{"name": "cog", "bands": ["nir", "red"]}], max_size=None).array
        np.testing.assert_array_equal(seen.filled(0), tif.read([4, 1]))
    with Reader(str(mosaic / "scene_x4.tif")) as cog:
        info = cog.info()
        assert [name for _, name in info.band_descriptions] == list(BANDS)
        assert info.scales == [1e-4] * 4 and info.colorinterp[:3] == ["red", "green", "blue"]


@pytest.fixture
def titiler() -> Iterator[str]:
    """A titiler on loopback."""
    import uvicorn
    from fastapi import FastAPI
    from titiler.core.factory import TilerFactory

    app = FastAPI()
    app.include_router(TilerFactory().router)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = Thread(target=server.run)
    thread.start()
    while not server.started:
        sleep(0.05)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_titiler_draws_a_tile_of_the_cog(mosaic: Path, titiler: str, tmp_path: Path) -> None:
    import morecantile

    with rasterio.open(mosaic / "scene_x4.tif") as tif, Reader(str(mosaic / "scene_x4.tif")) as cog:
        west, south, east, north = cog.get_geographic_bounds("EPSG:4326")
        assert tif.count == 4
    x, y, z = morecantile.tms.get("WebMercatorQuad").tile((west + east) / 2, (south + north) / 2, 16)
    asked = f"bidx=1&bidx=2&bidx=3&rescale=1000,4000&url={mosaic / 'scene_x4.tif'}"
    with urllib.request.urlopen(f"{titiler}/tiles/WebMercatorQuad/{z}/{x}/{y}.png?{asked}") as answer:
        (tmp_path / "tile.png").write_bytes(answer.read())
    picture = np.asarray(Image.open(tmp_path / "tile.png").convert("RGBA"))
    inside = picture[picture[..., 3] > 0]
    assert len(inside) > 1000 and inside[:, :3].std() > 10
    assert inside[:, 2].mean() > inside[:, 1].mean() > inside[:, 0].mean()  # blue is the brightest here


def test_titiler_xarray_reads_the_store_as_reflectance(mosaic: Path) -> None:
    from titiler.xarray.io import Reader as StoreReader

    with StoreReader(str(mosaic / "scene_x4.zarr"), variable="red") as store:
        seen = store.preview(max_size=None).array[0]
    with rasterio.open(mosaic / "scene_x4.tif") as tif:
        red = tif.read(1)
    np.testing.assert_allclose(seen.filled(np.nan), np.where(red > 0, red * 1e-4 - 0.1, np.nan), atol=1e-9)
