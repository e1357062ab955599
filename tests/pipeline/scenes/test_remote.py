"""Scenes on s3:// and behind a web server: the numbers of the same scene on the disk, and sentences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from buckets import KEY, SECRET, Bucket
from strangers import WINDOW, numbers, store, tiff

from rsup.models.base.errors import ArgumentError, SceneError
from rsup.pipeline.demo.servers import serve_assets
from rsup.pipeline.places.address import ObjectPath
from rsup.pipeline.places.upload import upload
from rsup.pipeline.places.web import scene_place
from rsup.pipeline.scenes.opening import open_scene


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same numbers as a store and as a GeoTIFF."""
    folder = tmp_path_factory.mktemp("remote")
    store(folder / "scene.zarr", numbers())
    tiff(folder / "scene.tif", numbers())
    return folder


@pytest.fixture(scope="module")
def web(folder: Path) -> Iterator[str]:
    with serve_assets(folder) as address:
        yield address


@pytest.fixture
def on_s3(bucket: Bucket, folder: Path) -> Bucket:
    base = ObjectPath(bucket.name, "in")
    upload({folder / name: base / name for name in ("scene.zarr", "scene.tif")})
    return bucket


@pytest.mark.parametrize("name", ["scene.zarr", "scene.tif"])
def test_the_same_numbers_as_on_the_disk(name: str, folder: Path, web: str, on_s3: Bucket) -> None:
    local = open_scene(folder / name)
    for address in (f"{web}/{name}", on_s3.address(f"in/{name}")):
        scene = open_scene(scene_place(address))
        assert str(scene.path) == address and scene.path.stem == "scene"
        assert (scene.crs, scene.window, scene.aoi, scene.bands) == (local.crs, local.window, local.aoi, local.bands)
        assert scene.attributes == local.attributes
        np.testing.assert_array_equal(scene.read(scene.bands, WINDOW), numbers())
        assert scene.fingerprint() == open_scene(scene_place(address)).fingerprint()


def test_a_change_is_another_fingerprint(on_s3: Bucket) -> None:
    scene = open_scene(scene_place(on_s3.address("in/scene.zarr")))
    before = scene.fingerprint()
    key = next(key for key in on_s3.objects() if key.startswith("in/scene.zarr/red/c/"))
    on_s3.put(key, on_s3.get(key) + b"\0")
    assert scene.fingerprint() != before


def test_a_chunk_that_is_lost_is_said(on_s3: Bucket) -> None:
    scene = open_scene(scene_place(on_s3.address("in/scene.zarr")))
    key = next(key for key in on_s3.objects() if key.startswith("in/scene.zarr/red/c/"))
    on_s3.client.delete_object(Bucket=on_s3.name, Key=key)
    with pytest.raises(SceneError, match=f"{key} is lost; fetch the scene anew"):
        scene.read(scene.bands, WINDOW)


def test_what_is_not_there_or_no_scene_is_one_sentence(on_s3: Bucket, web: str) -> None:
    on_s3.put("odd.zarr/zarr.json", b"{")
    on_s3.put("odd.tif", b"no raster")
    for address, words in (
        (on_s3.address("in/none.zarr"), "does not exist"),
        (on_s3.address("in/none.tif"), "does not exist"),
        (f"{web}/none.zarr", "does not exist"),
        (on_s3.address("odd.zarr"), "is not a readable Zarr group"),
        (on_s3.address("odd.tif"), "is neither a Zarr store nor a raster"),
        ("s3://nowhere-at-all/scene.zarr", "does not exist|there is no bucket"),
        ("http://127.0.0.1:1/scene.zarr", "does not answer"),
    ):
        with pytest.raises(SceneError, match=words) as caught:
            open_scene(scene_place(address))
        assert "\n" not in str(caught.value) and KEY not in str(caught.value) and SECRET not in str(caught.value)
    for address in ("https://me:secret@example.org/a.zarr", "https://example.org/a?sig=secret", "ftp://example.org/a"):
        with pytest.raises(ArgumentError) as refused:
            scene_place(address)
        assert "secret" not in str(refused.value)


def test_a_broken_line_is_said_with_what_to_do(bucket: Bucket, tmp_path: Path) -> None:
    tiff(tmp_path / "odd.tif", numbers(), crs="EPSG:3857")
    upload({tmp_path / "odd.tif": ObjectPath(bucket.name, "odd.tif")})
    with pytest.raises(SceneError, match="copy it to this machine and give that") as caught:
        open_scene(scene_place(bucket.address("odd.tif")))
    assert "\n" not in str(caught.value)
