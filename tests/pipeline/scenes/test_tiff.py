"""GeoTIFFs of strangers: no other driver is asked, and a block that one band lacks is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from strangers import BANDS, CRS, WINDOW, tiff

from rsup.models.base.errors import SceneError
from rsup.pipeline.lattice import Window
from rsup.pipeline.scenes.opening import open_scene


def test_no_driver_but_geotiff_s_is_asked(tmp_path: Path) -> None:
    """A VRT may name any file of this machine, whatever it is called itself; and so may a dozen other formats."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"root:x:0:0" * 100)
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{k}" subClass="VRTRawRasterBand"><Description>{name}</Description>'
        "<NoDataValue>0</NoDataValue><Scale>0.0001</Scale><Offset>-0.1</Offset>"
        f'<SourceFilename relativeToVRT="0">{secret}</SourceFilename></VRTRasterBand>'
        for k, name in enumerate(BANDS, 1)
    )
    path = tmp_path / "scene.tif"
    path.write_text(
        f'<VRTDataset rasterXSize="8" rasterYSize="8"><SRS>{CRS}</SRS>'
        f"<GeoTransform>380000,10,0,5800000,0,-10</GeoTransform>{bands}</VRTDataset>"
    )
    with rasterio.open(path) as file:  # GDAL itself would give it away
        assert file.read(1).astype("<u2").tobytes().startswith(b"root")
    with pytest.raises(SceneError, match="neither a Zarr store nor a raster"):
        open_scene(path)
    place = {"crs": CRS, "transform": WINDOW.transform()}
    with rasterio.open(tmp_path / "image.png", "w", "PNG", 9, 9, 1, dtype="uint16", **place) as file:
        file.write(np.ones((1, 9, 9), np.uint16))
    with pytest.raises(SceneError, match="neither a Zarr store nor a raster"):
        open_scene(tmp_path / "image.png")


def test_a_block_of_a_tiff_that_one_band_lacks_is_lost(tmp_path: Path) -> None:
    dn = np.random.default_rng(1).integers(1100, 5000, (3, 64, 64)).astype(np.uint16)
    dn[:, :16, :16] = 0
    settings_ = {"tiled": True, "blockxsize": 16, "blockysize": 16, "sparse_ok": True, "interleave": "band"}
    window = Window(WINDOW.row, WINDOW.col, 64, 64)
    whole = open_scene(tiff(tmp_path / "s.tif", dn, **settings_))
    np.testing.assert_array_equal(whole.read(BANDS, window), dn)
    dn[1, 16:32, 48:] = 0
    with pytest.raises(SceneError, match="block 1, 3 of band 2 is lost"):
        open_scene(tiff(tmp_path / "s.tif", dn, **settings_)).read(BANDS, window)
