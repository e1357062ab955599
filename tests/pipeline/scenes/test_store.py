"""Stores of strangers: chunks that are lost or were never written, and any word at any place."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strangers import BANDS, CRS, WINDOW, numbers, store

from rsup.models.base.errors import SceneError
from rsup.pipeline.lattice import Window
from rsup.pipeline.scenes.opening import open_scene
from rsup.pipeline.scenes.scene import Scene
from rsup.pipeline.scenes.writer import create_scene


def test_a_chunk_that_was_written_and_is_not_there_is_named(tmp_path: Path) -> None:
    dn = numbers()
    dn[:, :16, :16] = 0
    path = store(tmp_path / "s.zarr", dn, source=0).path
    assert (path / "red/c/0/0").is_file()  # nodata is written too
    for name in ("green/c/1/2", "red/c/0/0"):
        shutil.copytree(path, tmp_path / "t.zarr", dirs_exist_ok=True)
        (tmp_path / "t.zarr" / name).unlink()
        with pytest.raises(SceneError, match=f"{name} is lost; fetch the scene anew"):
            open_scene(tmp_path / "t.zarr").read(BANDS, WINDOW)


def test_a_chunk_that_all_bands_lack_is_nodata_where_nobody_said_it_was_written(tmp_path: Path) -> None:
    """As fetch once wrote, and as Zarr's own writers do."""
    dn = numbers()
    dn[:, :16, :16] = 0
    path = store(tmp_path / "s.zarr", dn, source=0).path
    (path / "source/every-chunk-is-written").unlink()
    for name in ("red", "green", "blue", "scl", "source"):
        (path / name / "c/0/0").unlink()
    np.testing.assert_array_equal(open_scene(path).read(BANDS, WINDOW), dn)
    (path / "green/c/1/2").unlink()
    with pytest.raises(SceneError, match="green/c/1/2 is lost, where other bands have pixels"):
        open_scene(path).read(("green",), WINDOW)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_a_scene_that_xarray_masked_and_wrote_is_whole(tmp_path: Path) -> None:
    """xarray keeps all attributes and leaves out chunks of nodata: nothing of that store was lost."""
    path = store(tmp_path / "s.zarr", dn := numbers()).path
    with xr.open_zarr(path, mask_and_scale=False) as ds:
        ds = ds.load()
    for band in BANDS:
        ds[band][:16, :16] = 0
    ds.to_zarr(tmp_path / "t.zarr")
    assert not (tmp_path / "t.zarr/red/c/0/0").exists()
    dn[:, :16, :16] = 0
    np.testing.assert_array_equal(open_scene(tmp_path / "t.zarr").read(BANDS, WINDOW), dn)


GOOD_ATTRIBUTES = {"items": [{"id": "a", "datetime": "2024-06-01T00:00:00Z", "offset": -1000, "evidence": ["e"]}]}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "s.zarr"
    window = Window(WINDOW.row, WINDOW.col, 9, 8)
    writer = create_scene(path, window, CRS, BANDS, 16, attributes=GOOD_ATTRIBUTES)
    writer.write((0, 0), numbers(window), np.full((9, 8), 4, np.uint8), np.ones((9, 8), np.uint16))
    return path


def spots(document: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON document."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [*([at] if at else []), *(spot for key, value in inner for spot in spots(value, (*at, key)))]


NASTY = st.sampled_from(
    [
        *(10**400, 2**63, -1, 1e308, float("nan"), float("inf"), "\ud800", "\u202e<b>", "a\nb", "../../x", [["red"]]),
        *({"red": 1}, ["red", "green", "blue", "blue"], json.loads("[" * 900 + "]" * 900), "nan 10 0 nan 0 -10"),
        *("EPSG:99999", "x" * 10**5, [10**10, 10**10], [10**6, 10**6], [0, 8], "pickle", "0001-01-01T00:00:00+14:00"),
    ]
)


ANYTHING = NASTY | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=6,
)


@given(data=st.data())
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.filterwarnings("ignore")
def test_any_word_at_any_place_of_a_store_gives_a_scene_or_a_sentence(good: Path, data: st.DataObject) -> None:
    root = json.loads((good / "zarr.json").read_text())
    spot = data.draw(st.sampled_from(spots(root)))
    value = data.draw(ANYTHING)
    place = root
    for key in spot[:-1]:
        place = place[key]
    place[spot[-1]] = value
    whole = (good / "zarr.json").read_bytes()
    (good / "zarr.json").write_text(json.dumps(root))
    try:
        check(good)
    finally:
        (good / "zarr.json").write_bytes(whole)


def check(path: Path) -> None:
    """A Scene whose words are harmless, or one sentence."""
    try:
        scene = open_scene(path)
        scene.read(scene.bands, scene.window)
    except SceneError as error:
        assert "\n" not in str(error) and len(str(error)) < 4000
        return
    json.dumps(scene.attributes, allow_nan=False).encode()
    json.dumps(scene.attributes, ensure_ascii=False).encode("utf-8")
    assert isinstance(pickle.loads(pickle.dumps(scene)), Scene)
    assert len(set(scene.bands)) == len(scene.bands) == len(scene.layers)


@pytest.mark.parametrize(
    ("array", "change", "words"),
    [
        ("", {"attributes": {"bands": [["red"]]}}, None),
        ("", {"attributes": {"deep": json.loads("[" * 900 + "]" * 900)}}, None),
        ("", {"attributes": {"items": json.loads("[" * 900 + "]" * 900)}}, None),
        ("", {"attributes": {"items": [{"evidence": json.loads("[" * 900 + "]" * 900)}]}}, None),
        ("", {"attributes": {"aoi": json.loads("[" * 900 + "]" * 900)}}, "its aoi"),
        ("", {"attributes": {"aoi": [10**400] * 4}}, "its aoi"),
        ("x", {"shape": [10**10]}, "does not count 8 evenly spaced"),
        ("red", {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10**9, 10**9]}}}, "too large to"),
        ("red", {"attributes": {"scale_factor": 10**400}}, "has a scale that is no number"),
        ("red", {"attributes": {"_FillValue": [0]}}, "has a nodata that is no number"),
        ("red", {"dimension_names": [1, 2]}, "not a readable Zarr group|has dimensions"),
        ("spatial_ref", {"attributes": {"crs_wkt": "x" * 10**6}}, "CRS cannot be understood"),
    ],
)
def test_words_that_were_tracebacks(
    good: Path, tmp_path: Path, array: str, change: dict[str, Any], words: str | None
) -> None:
    path = tmp_path / "s.zarr"
    shutil.copytree(good, path)
    document = json.loads((path / array / "zarr.json").read_text())
    attributes = document["attributes"] | change.get("attributes", {})
    document |= change | {"attributes": attributes}
    document.pop("consolidated_metadata", None)
    (path / array / "zarr.json").write_text(json.dumps(document))
    root = json.loads((path / "zarr.json").read_text())
    root.pop("consolidated_metadata", None)
    (path / "zarr.json").write_text(json.dumps(root))
    if words is None:
        check(path)
        return
    with pytest.raises(SceneError, match=words) as refusal:
        open_scene(path)
    assert len(str(refusal.value)) < 3000


def test_a_store_longer_than_the_earth_is_round(good: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.zarr"
    shutil.copytree(good, path)
    for array in (*BANDS, "x", "y"):
        document = json.loads((path / array / "zarr.json").read_text())
        document["shape"] = [10**10] * len(document["shape"])
        (path / array / "zarr.json").write_text(json.dumps(document))
    root = json.loads((path / "zarr.json").read_text())
    root.pop("consolidated_metadata")
    (path / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(SceneError, match="more than there is ground"):
        open_scene(path)
