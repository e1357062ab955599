"""Which mosaics a path means, and what is never taken for one."""

import json
import os
import shutil
from pathlib import Path

import pytest

from rsup.models.base.errors import ArgumentError
from rsup.pipeline.view.find import find, own_file


@pytest.mark.parametrize(
    "name", ["", "field_x4.tif", "field_x4.json", "field_x4.zarr", "field_x4.html", "field_x4_model.json"]
)
def test_a_folder_or_any_file_of_it_means_its_mosaic(viewed: Path, name: str) -> None:
    (found,) = find(viewed / "mosaic" / name)
    assert found.item.id == "field_x4" and found.cog == viewed / "mosaic" / "field_x4.tif"
    assert found.item.properties.scale == 4 and found.uncertainty is None


def test_a_folder_of_several_means_all_of_them(viewed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(viewed / "mosaic", tmp_path / "m")
    item = json.loads((folder / "field_x4.json").read_text())
    (folder / "other.json").write_text(json.dumps(item | {"id": "other"}))
    assert [each.item.id for each in find(folder)] == ["field_x4", "other"]
    assert [each.item.id for each in find(folder / "other.json")] == ["other"]


def test_an_archive_means_the_mosaics_that_its_collection_leads_to(viewed: Path, tmp_path: Path) -> None:
    for cell in ("2024-05/a", "2024-06/b"):
        shutil.copytree(viewed / "mosaic", tmp_path / "archive" / cell)
    shutil.copytree(viewed / "mosaic", tmp_path / "outside")
    (tmp_path / "archive" / "link").symlink_to(tmp_path / "outside")
    places = ("./2024-06/b", "2024-05/a", "2024-07/none", "../outside", str(tmp_path / "outside"), "link")
    links = [{"rel": "root", "href": "./collection.json"}]
    links += [{"rel": "item", "href": f"{place}/field_x4.json"} for place in places]
    (tmp_path / "archive" / "collection.json").write_text(json.dumps({"type": "Collection", "links": links}))
    for path in (tmp_path / "archive", tmp_path / "archive" / "collection.json"):
        assert [each.folder.name for each in find(path)] == ["a", "b"]


@pytest.mark.parametrize(
    "href", ["../secret.tif", "/etc/passwd", "a/b.tif", "..\\x", "", ".", "..", "x\0.tif", "gone.tif"]
)
def test_an_item_names_no_file_but_its_own(tmp_path: Path, href: str) -> None:
    (tmp_path / "secret.tif").touch()
    (tmp_path / "m").mkdir()
    assert own_file(tmp_path / "m", href) is None


def test_links_pipes_and_folders_are_no_files_of_a_mosaic(viewed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(viewed / "mosaic", tmp_path / "m")
    os.mkfifo(folder / "pipe.tif")
    (folder / "folder.tif").mkdir()
    assert own_file(folder, "pipe.tif") is None and own_file(folder, "folder.tif") is None
    assert own_file(folder, "./field_x4.tif") == folder / "field_x4.tif"
    (folder / "field_x4.tif").unlink()
    (folder / "field_x4.tif").symlink_to(viewed / "mosaic" / "field_x4.tif")
    (found,) = find(folder)
    with pytest.raises(ArgumentError, match="has no COG beside its item"):
        _ = found.cog


def test_what_has_no_mosaic_is_one_sentence(viewed: Path, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"id": 1}')
    (tmp_path / "b.json").write_text("[" * 100_000)
    (tmp_path / "c.json").write_text(json.dumps({"id": "x", "properties": {"rsup:scale": 0}, "assets": {}}))
    for path in (tmp_path, tmp_path / "a.json", viewed / "field.zarr"):
        with pytest.raises(ArgumentError, match="has no mosaic of rsup's: give a folder"):
            find(path)
    for path in (tmp_path / "nowhere", Path("x" * 3000), Path("\0")):
        with pytest.raises(ArgumentError, match="does not exist|cannot be opened"):
            find(path)
    (tmp_path / "collection.json").write_text("{}")
    with pytest.raises(ArgumentError, match="is no STAC collection"):
        find(tmp_path)
