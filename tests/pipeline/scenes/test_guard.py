"""What a store of a stranger may lead to: no other file, no pipe, no code; and what people write is read."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from strangers import BANDS, WINDOW, numbers, store

from rsup.models.base.errors import SceneError
from rsup.pipeline.scenes.opening import open_scene


def fifo(file: Path) -> None:
    file.unlink(missing_ok=True)
    os.mkfifo(file)


def link_to(target: str) -> Callable[[Path], None]:
    def replace(file: Path) -> None:
        file.unlink()
        file.symlink_to(target)

    return replace


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("name", ["zarr.json", "red/zarr.json", "x/c/0", "red/c/0/0", "scl/c/0/0"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (fifo, "is no file"),
        (folder, "is no file|cannot be opened"),
        (link_to("/etc/passwd"), "leads out of the scene's folder"),
        (link_to("/dev/zero"), "leads out of the scene's folder"),
        (link_to("nowhere"), "is lost"),
    ],
    ids=["pipe", "folder", "elsewhere", "device", "dangling"],
)
@pytest.mark.timeout(20)
def test_what_stands_in_a_file_s_place_is_not_opened(
    tmp_path: Path, name: str, spoil: Callable[[Path], None], words: str
) -> None:
    path = store(tmp_path / "s.zarr", numbers()).path
    spoil(path / name)
    with pytest.raises(SceneError, match=words) as refusal:
        open_scene(path)
    assert name in str(refusal.value)


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    path = store(tmp_path / "s.zarr", dn := numbers()).path
    (path / "red/c/0/0").rename(path / "red/kept")
    (path / "red/c/0/0").symlink_to("../../kept")
    (tmp_path / "linked.zarr").symlink_to("s.zarr")
    np.testing.assert_array_equal(open_scene(tmp_path / "linked.zarr").read(BANDS, WINDOW), dn)


class Bomb:
    """A pickle that makes a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_only_codecs_that_make_numbers_are_run(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "s.zarr", zarr_format=2)
    array = group.create_array("red", shape=(4, 4), chunks=(4, 4), dtype="uint16", filters=None, compressors=None)
    array.attrs.update(scale_factor=1e-4, add_offset=-0.1, _FillValue=0)
    array[:] = 2000
    document = tmp_path / "s.zarr/red/.zarray"
    for filters in ([{"id": "pickle"}], [{"id": "shuffle", "elementsize": 2}, {"id": "pickle"}]):
        document.write_text(json.dumps(json.loads(document.read_text()) | {"filters": filters}))
        (tmp_path / "s.zarr/red/0.0").write_bytes(pickle.dumps(Bomb(tmp_path / "went off")))
        with pytest.raises(SceneError, match="red is written with the codec 'pickle'|is not a readable Zarr group"):
            open_scene(tmp_path / "s.zarr")
        assert not (tmp_path / "went off").exists()


@pytest.mark.parametrize(
    "encoding",
    [
        {"shards": (32, 32), "chunks": (16, 16)},
        {"compressors": [zarr.codecs.BloscCodec(cname="lz4")]},
        {"compressors": [zarr.codecs.GzipCodec()]},
        {"compressors": []},
        {"filters": [zarr.codecs.TransposeCodec(order=(1, 0))]},
    ],
)
@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_what_people_write_is_read(tmp_path: Path, encoding: dict[str, Any]) -> None:
    dn = numbers()
    path = store(tmp_path / "s.zarr", dn).path
    with xr.open_zarr(path, mask_and_scale=False) as ds:
        ds = ds.load().drop_encoding()
    ds.to_zarr(tmp_path / "t.zarr", encoding=dict.fromkeys(BANDS, encoding))
    np.testing.assert_array_equal(open_scene(tmp_path / "t.zarr").read(BANDS, WINDOW), dn)
