"""Where others name a file, a pipe, a device or a folder in its place is refused before it is opened."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rsup.models.base.errors import RsupError
from rsup.models.base.regular import check_file, check_store, read_at_most
from rsup.models.data.images import DataConfig, Images
from rsup.models.data.rasters import UnusableError, open_raster
from rsup.models.metrics.niqe import load_pristine
from rsup.models.published import import_published
from rsup.models.training.recipe import load_recipe
from rsup.models.weights_file import read_header

RGB = ("red", "green", "blue")
READERS: dict[str, Callable[[Path], object]] = {
    "weights": read_header,
    "recipe": load_recipe,
    "pickle": lambda path: import_published(path, 4, path.with_name("out.safetensors")),
    "image": lambda path: open_raster(path, RGB, None),
    "parameters": load_pristine,
}


@pytest.fixture(params=["pipe", "device", "folder", "link to a device", "nothing", "a name too long"])
def no_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "x.tif"
    if request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "device":
        path = Path("/dev/zero")
    elif request.param == "folder":
        path.mkdir()
    elif request.param == "link to a device":
        path.symlink_to("/dev/zero")
    elif request.param == "a name too long":
        path = tmp_path / ("x" * 300)
    return path


@pytest.mark.timeout(30)
@pytest.mark.parametrize("reader", READERS)
def test_only_files_are_opened(reader: str, no_file: Path) -> None:
    with pytest.raises((RsupError, UnusableError)) as caught:
        READERS[reader](no_file)
    assert "\n" not in str(caught.value)


def test_files_and_links_to_them_are_taken(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("file")
    check_file(tmp_path / "file")
    check_file(tmp_path / "link")


@pytest.mark.timeout(30)
def test_a_store_with_a_pipe_in_it_is_not_read(tmp_path: Path) -> None:
    store = tmp_path / "images" / "scene.zarr"
    (store / "red" / "c").mkdir(parents=True)
    (store / "zarr.json").write_text("{}")
    (store / "again").symlink_to(store)  # round in a circle
    check_store(store)
    os.mkfifo(store / "red" / "c" / "0")
    with pytest.raises(UnusableError, match="is a pipe, a socket or a device"):
        open_raster(store, RGB, 1)
    os.mkfifo(tmp_path / "images" / "image.png")
    with pytest.raises(RsupError, match="2 of them skipped .the first: .* cannot be opened"):
        Images(tmp_path / "images", "train", DataConfig(), 32)


def test_no_more_is_read_than_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_at_most(path, 5) == b"12345" and read_at_most(path, 4) is None
    with pytest.raises(OSError, match="Is a directory"):
        read_at_most(tmp_path, 5)
