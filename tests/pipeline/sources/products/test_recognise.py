"""What is a product and what is a scene, by what it says of itself and never by its name."""

import os
import shlex
import subprocess
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from safes import planes, write_safe, zipped
from scenes import write_scene
from strangers import numbers, tiff
from zarr.storage import ZipStore

from rsup.models.base.errors import SceneError
from rsup.pipeline.lattice import Window
from rsup.pipeline.scenes.opening import open_scene
from rsup.pipeline.sources.products.recognise import is_product, read_product


def test_products_and_what_is_none(tmp_path: Path) -> None:
    safe = write_safe(tmp_path, planes(bands=("red",)))
    zipped(safe, tmp_path / "a")
    granule = next((safe / "GRANULE").iterdir())
    for path in (
        safe,
        safe / "GRANULE",
        safe / "manifest.safe",
        safe / "MTD_MSIL2A.xml",
        granule,
        granule / "MTD_TL.xml",
        tmp_path / "a",
    ):
        assert is_product(path), path
    (safe / "MTD_MSIL2A.xml").unlink()
    assert is_product(safe)  # a damaged one
    dn = np.full((1, 64, 64), 2000, np.uint16)
    scene = write_scene(tmp_path / "S2A_MSIL2A.SAFE", dn, ("red",), Window(-510_000, 50_000, 64, 64), "EPSG:32633")
    (tmp_path / "MTD_MSIL2A.tif").write_bytes(b"II*\0")
    os.mkfifo(tmp_path / "pipe.zip")
    nothing = (scene.path, tmp_path / "MTD_MSIL2A.tif", tmp_path / "pipe.zip", tmp_path / "nowhere.SAFE")
    for path in nothing:
        assert not is_product(path), path
        with pytest.raises(SceneError):
            read_product(str(path), ("red",))
    assert is_product(tmp_path)  # near one: what to give instead is said
    with pytest.raises(SceneError, match=r"is no product: it holds S2B_MSIL2A_.*\.SAFE; give that"):
        read_product(str(tmp_path), ("red",))


def test_a_zipped_scene_is_told_from_a_product_and_how_it_is_unpacked(tmp_path: Path) -> None:
    """As zarr's ZipStore writes it, its root being the zip's, and as a person zips a folder or a file."""
    dn = np.random.default_rng(0).integers(1200, 5000, (1, 64, 64)).astype(np.uint16)
    scene = write_scene(tmp_path / "s.zarr", dn, ("red",), Window(-510_000, 50_000, 64, 64), "EPSG:32633")
    (tmp_path / "tif").mkdir()
    image = tiff(tmp_path / "tif" / "a b.tif", numbers())
    places = ((scene.path, ""), (scene.path, "s.zarr"), (image.parent, "in"))
    made = [zipped(folder, tmp_path / f"{k}.zip", inside=inside) for k, (folder, inside) in enumerate(places)]
    with ZipStore(tmp_path / "twice.zip", mode="w") as store, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zipfile: names that are there twice
        xr.open_zarr(scene.path, mask_and_scale=False).load().to_zarr(store, consolidated=False)
    for path in (*made, tmp_path / "twice.zip"):
        assert is_product(path)
        with pytest.raises(
            SceneError, match="that is no product; unpack it:|as zarr's ZipStore leaves it; unpack it:"
        ) as refused:
            read_product(str(path), ("red",))
        command, place = str(refused.value).split("unpack it: ")[1].split(" ; and give ")
        subprocess.run(shlex.split(command), check=True, timeout=60)
        (found,) = shlex.split(place)
        assert open_scene(found).bands[0] == "red"


def test_a_part_of_a_product_is_told_from_it(tmp_path: Path) -> None:
    safe = write_safe(tmp_path, planes(bands=("red",)))
    images = next((safe / "GRANULE").iterdir()) / "IMG_DATA"
    for part in (images, images / "R10m", next(images.rglob("*B04_10m.jp2"))):
        assert is_product(part)
        with pytest.raises(SceneError, match=rf"is no product: it lies in {safe}; give that"):
            read_product(str(part), ("red",))


def test_a_file_of_zeros_is_no_tar_archive(tmp_path: Path) -> None:
    (tmp_path / "image.dat").write_bytes(bytes(1 << 14))
    assert not is_product(tmp_path / "image.dat")
