"""The MosaicJSON of an interval, as cogeo-mosaic understands it and as tile servers draw from it."""

from __future__ import annotations

import random
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import morecantile
import numpy as np
import pytest
import rasterio
from cogeo_mosaic.backends import MosaicBackend
from cogeo_mosaic.backends.file import FileBackend
from cogeo_mosaic.mosaic import MosaicJSON
from PIL import Image
from rio_tiler.errors import EmptyMosaicError, NoAssetFoundError
from rio_tiler.io import Reader

from rsup.pipeline.batch.formats.mosaic_json import footprint_of, mosaic_json_of
from rsup.pipeline.batch.formats.vrt import image_of, vrt_of
from rsup.pipeline.lattice import Window
from rsup.pipeline.mosaics.stac.item import stac_item

BANDS = ("red", "green", "nir")
SIDE, SCALE = 160, 4
CELLS = [
    Window(-578_720 + row * SIDE, 48_000 + col * SIDE, SIDE, SIDE) for row, col in ((0, 0), (0, 1), (1, 0), (2, 5))
]
MERCATOR = morecantile.tms.get("WebMercatorQuad")


def item(cell: Window, crs: str = "EPSG:32633") -> dict[str, Any]:
    model = {"name": "nearest", "sha256": "00" * 32, "header": None}
    assets = {"cog": "mosaic.tif"}
    return stac_item("m", cell, crs, SCALE, BANDS, model, [], assets, held_by="sensor", figures={}, statistics={})


@pytest.fixture
def month(tmp_path: Path) -> Path:
    """A folder of COGs with numbers that no two places share, and both documents over them."""
    folder, numbers = tmp_path / "2024-05", np.random.default_rng(0)
    for index, cell in enumerate(CELLS):
        path = folder / f"cell{index}" / "mosaic.tif"
        path.parent.mkdir(parents=True)
        pixels = numbers.integers(1000, 4000, (len(BANDS), SIDE * SCALE, SIDE * SCALE)).astype(np.uint16)
        shape = {"height": SIDE * SCALE, "width": SIDE * SCALE, "count": len(BANDS), "dtype": "uint16", "nodata": 0}
        with rasterio.open(
            path, "w", driver="COG", crs="EPSG:32633", transform=cell.transform(SCALE), blocksize=512, **shape
        ) as file:
            file.write(pixels)
    (folder / "mosaic_x4.json").write_bytes(document())
    (folder / "33N_x4.vrt").write_bytes(
        vrt_of([image_of(item(cell), "cog", f"cell{index}") for index, cell in enumerate(CELLS)])
    )
    return folder


def document(prefix: str | None = None, order: int = 0) -> bytes:
    images = [footprint_of(item(cell), "cog", f"cell{index}") for index, cell in enumerate(CELLS)]
    random.Random(order).shuffle(images)
    return mosaic_json_of("2024-05", images, prefix)


def test_it_is_what_cogeo_mosaic_makes_of_the_files(month: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(month)
    ours = MosaicJSON.model_validate_json(document())
    theirs = MosaicJSON.from_urls(
        [f"cell{index}/mosaic.tif" for index in range(len(CELLS))], minzoom=ours.minzoom, asset_type="COG"
    )
    assert ours.mosaicjson == theirs.mosaicjson == "0.0.3" and ours.data_type == "uint16"
    assert {key: sorted(paths) for key, paths in theirs.tiles.items()} == ours.tiles
    assert ours.maxzoom == theirs.maxzoom and ours.center is not None and ours.center[2] == ours.minzoom
    np.testing.assert_allclose(ours.bounds, theirs.bounds, atol=1e-6)
    west, _, east, _ = ours.bounds
    tile = MERCATOR.bounds(*MERCATOR.tile(west, ours.bounds[1], ours.minzoom))
    cell = (east - west) / 6
    assert cell < tile.right - tile.left < 4 * cell
    assert max(map(len, ours.tiles.values())) <= 4


@pytest.mark.filterwarnings("ignore::rio_tiler.errors.NoOverviewWarning")  # of the VRT, which has its files' own
def test_a_tile_of_it_is_that_of_the_vrt(month: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(month)
    with FileBackend("mosaic_x4.json") as mosaic, Reader("33N_x4.vrt") as raster:
        west, south, east, north = mosaic.bounds
        drawn = 0
        for x, y, z in MERCATOR.tiles(west, south, east, north, [mosaic.maxzoom]):
            try:
                ours = mosaic.tile(x, y, z)[0].array
            except (EmptyMosaicError, NoAssetFoundError):  # a gap
                continue
            theirs = raster.tile(x, y, z).array
            seen = ~ours.mask & ~theirs.mask
            np.testing.assert_array_equal(ours.data[seen], theirs.data[seen])
            assert (ours.mask != theirs.mask).mean() < 0.02  # edges of files: a pixel either way
            drawn += int(seen.any())
        assert drawn > 8


def test_paths_are_relative_or_below_a_prefix() -> None:
    assert document(order=1) == document(order=2)
    assert "asset_prefix" not in MosaicJSON.model_validate_json(document()).model_dump(exclude_none=True)
    said = MosaicJSON.model_validate_json(document("s3://bucket/archive/2024-05/"))
    with MosaicBackend(":memory:", mosaic_def=said) as mosaic:
        found = mosaic.assets_for_bbox(*said.bounds)
    assert sorted(found) == [f"s3://bucket/archive/2024-05/cell{index}/mosaic.tif" for index in range(len(CELLS))]


def test_two_zones_and_the_antimeridian_are_one_document() -> None:
    """An image of zone 60 that crosses it, and one of zone 1 beyond it."""
    crossing = item(Window(-578_720, 70_400, 400, 400), "EPSG:32660")
    beyond = item(Window(-578_720, 30_400, 400, 400), "EPSG:32601")
    crossing = crossing | {"bbox": [179.99, crossing["bbox"][1], -179.95, crossing["bbox"][3]]}
    images = [footprint_of(each, "cog", name) for each, name in ((crossing, "a"), (beyond, "b"))]
    said = MosaicJSON.model_validate_json(mosaic_json_of("2024-05", images, None))
    assert said.bounds[0] == -180 and said.bounds[2] == 180
    with MosaicBackend(":memory:", mosaic_def=said) as mosaic:
        lat = (crossing["bbox"][1] + crossing["bbox"][3]) / 2
        assert "a/mosaic.tif" in mosaic.assets_for_point(179.995, lat)
        assert "a/mosaic.tif" in mosaic.assets_for_point(-179.96, lat)
        assert mosaic.assets_for_point((beyond["bbox"][0] + beyond["bbox"][2]) / 2, lat)[-1] == "b/mosaic.tif"
        assert not mosaic.assets_for_point(10.0, lat)


@contextmanager
def titiler() -> Iterator[str]:
    """A titiler for mosaics on loopback."""
    import uvicorn
    from fastapi import FastAPI
    from titiler.mosaic.factory import MosaicTilerFactory

    app = FastAPI()
    app.include_router(MosaicTilerFactory(backend=FileBackend).router)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            threading.Event().wait(0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def test_titiler_draws_a_tile_of_it(month: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(month)
    said = MosaicJSON.model_validate_json(document())
    with titiler() as address:
        west, south, east, north = item(CELLS[0])["bbox"]
        x, y, z = MERCATOR.tile((west + east) / 2, (south + north) / 2, said.maxzoom)
        asked = f"{address}/tiles/WebMercatorQuad/{z}/{x}/{y}.png?bidx=1&bidx=2&bidx=3&rescale=1000,4000"
        with urllib.request.urlopen(f"{asked}&url=mosaic_x4.json") as answer:
            (tmp_path / "tile.png").write_bytes(answer.read())
    picture = np.asarray(Image.open(tmp_path / "tile.png").convert("RGBA"))
    assert (picture[..., 3] > 0).mean() > 0.5 and picture[..., :3].std() > 10
