"""A product to a mosaic in one step: the same as in two, resumed, done already, and nothing left behind."""

import json
from pathlib import Path
from typing import Any

import pytest
from buckets import Bucket
from safes import planes, write_safe, zipped

from rsup.models.base.errors import ArgumentError, OutputError, SceneError
from rsup.pipeline.jobs import fetch as fetching
from rsup.pipeline.jobs import product_upscale, storing
from rsup.pipeline.jobs.upscale_plan import UpscaleRequest
from rsup.pipeline.places.place import place_of
from rsup.pipeline.scenes.foreign.numbers import Said

NAME = "S2B_MSIL2A_20240610T100559_N0510_R022_T33TWL_20240610T100559"
BANDS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("product")
    return zipped(write_safe(folder, planes(bands=BANDS)), folder / "mine.zip")


def upscale(
    product: Path, output: Path | str, *, keep: bool = False, dry: bool = False, **options: Any
) -> dict[str, Any]:
    asked: dict[str, Any] = {"scale": 4, "model": "nearest", "bands": BANDS, "device": "cpu"} | options
    request = UpscaleRequest(scene=product, **asked)
    place = place_of(str(output))
    return product_upscale.upscale(str(product), request, place, keep_scene=keep, dry_run=dry)


def outputs(folder: Path) -> dict[str, bytes]:
    """What is visible, by name."""
    files = (path for path in folder.rglob("*") if path.is_file() and ".rsup" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.slow
def test_one_step_makes_what_two_do(product: Path, tmp_path: Path) -> None:
    planned = upscale(product, tmp_path / "one", dry=True)
    assert planned["shape"] == [512, 768] and not (tmp_path / "one").exists()
    made = upscale(product, tmp_path / "one")
    assert made["items"] == [NAME] and made["already_done"] is False
    scene = tmp_path / f"{NAME}.zarr"
    request = product_upscale.request_of([str(product)], None, date=None, max_cloud=100, bands=BANDS)
    storing.fetch(request, scene)
    storing.upscale(UpscaleRequest(scene, 4, model="nearest", bands=BANDS, device="cpu"), tmp_path / "two")
    assert outputs(tmp_path / "one") == outputs(tmp_path / "two")
    assert not (tmp_path / "one" / ".rsup" / f"{NAME}.zarr").exists()
    item = json.loads((tmp_path / "one" / f"{NAME}_x4.json").read_text())
    assert str(tmp_path) not in json.dumps(item)


def test_all_bands_of_ten_metres_are_upscaled_unless_some_are_named(tmp_path: Path) -> None:
    safe = write_safe(tmp_path, planes(bands=(*BANDS, "nir")))
    assert upscale(safe, tmp_path / "out", dry=True, bands=())["bands"] == [*BANDS, "nir"]


@pytest.mark.slow
def test_the_same_command_again_is_done_already_and_another_is_refused(
    product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upscale(product, tmp_path / "out", keep=True)
    assert (tmp_path / "out" / f"{NAME}.zarr" / "zarr.json").exists()
    before = outputs(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(fetching, "run", lambda *_: pytest.fail("it was fetched again"))
        assert upscale(product, tmp_path / "out", keep=True)["already_done"] is True
        with pytest.raises(OutputError, match="exists already"):
            upscale(product, tmp_path / "out", model="bicubic")
    assert outputs(tmp_path / "out") == before
    changed = upscale(product, tmp_path / "out", model="bicubic", overwrite=True)
    assert changed["already_done"] is False and changed["model"] == "bicubic"


def test_a_run_that_was_stopped_between_its_halves_goes_on(
    product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(storing, "upscale", stop)
        upscale(product, tmp_path / "out")
    assert not outputs(tmp_path / "out")
    scene = tmp_path / "out" / ".rsup" / f"{NAME}.zarr"
    written = (scene / "red" / "c" / "0" / "0").stat().st_mtime_ns
    seen: list[int] = []
    real = storing.upscale

    def watch(*arguments: Any) -> Any:
        seen.append((scene / "red" / "c" / "0" / "0").stat().st_mtime_ns)
        return real(*arguments)

    monkeypatch.setattr(storing, "upscale", watch)
    upscale(product, tmp_path / "out")
    assert seen == [written] and not scene.exists() and len(outputs(tmp_path / "out")) > 4


def test_what_makes_no_sense_is_refused_before_anything_is_fetched(product: Path, tmp_path: Path) -> None:
    for options in ({"scale": 3}, {"bands": ("red", "infrared")}, {"chunk": 1}, {"said": Said(scale=1e-4)}):
        with pytest.raises(ArgumentError):
            upscale(product, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_what_is_to_be_decided_is_decided_by_fetch_and_leaves_nothing(tmp_path: Path) -> None:
    safe = write_safe(tmp_path, planes(bands=BANDS), offset=dict.fromkeys(range(13), -1000) | {3: -900})
    with pytest.raises(SceneError, match="declare different offsets .* decide with --offset .*: with `rsup fetch`"):
        upscale(safe, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_into_a_bucket(product: Path, tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    upscale(product, tmp_path / "out", keep=True)
    made = upscale(product, bucket.address("out"), keep=True)
    assert made["already_done"] is False
    stored = {name: data for name, data in bucket.objects("out/").items() if not name.startswith(".rsup/")}
    assert stored == outputs(tmp_path / "out")
    assert upscale(product, bucket.address("out"), keep=True)["already_done"] is True
    assert not [path for path in (tmp_path / "scratch").rglob("*") if path.is_file()]
