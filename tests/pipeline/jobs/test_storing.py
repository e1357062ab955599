"""Mosaics on an object store: what a folder would hold, done once, taken from nobody, and whole after any stop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from buckets import Bucket

from rsup.models.base.errors import OutputError
from rsup.pipeline.jobs import storing
from rsup.pipeline.jobs.upscale import upscale
from rsup.pipeline.jobs.upscale_plan import UpscaleRequest
from rsup.pipeline.places import objects
from rsup.pipeline.places.address import ObjectPath
from rsup.pipeline.places.upload import upload
from rsup.pipeline.scenes.scene import Scene


class StoppedError(BaseException):
    """In the place of a kill."""


@pytest.fixture
def scene(make_scene: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    return make_scene(np.random.default_rng(0).integers(1000, 5000, (3, 64, 70)).astype(np.uint16))


def asked(scene: Scene | ObjectPath, **changes: Any) -> UpscaleRequest:
    path = scene.path if isinstance(scene, Scene) else scene
    return UpscaleRequest(**{"scene": path, "scale": 4, "model": "nearest", "device": "cpu"} | changes)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_from_a_bucket_into_a_bucket(scene: Scene, bucket: Bucket, tmp_path: Path) -> None:
    upload({scene.path: ObjectPath(bucket.name, "in/scene.zarr")})
    request, output = asked(ObjectPath(bucket.name, "in/scene.zarr")), ObjectPath(bucket.name, "out")
    plan = storing.upscale(request, output, dry_run=True)
    assert plan["outputs"][-1] == bucket.address("out/scene_x4.zarr") and bucket.objects("out/") == {}
    result = storing.upscale(request, output)
    assert result["already_done"] is False and result["outputs"] == plan["outputs"]
    upscale(asked(scene, output=tmp_path / "folder"))
    stored = bucket.objects("out/")
    made = {name: data for name, data in files(tmp_path / "folder").items() if not name.startswith(".rsup/")}
    assert stored.pop(".rsup/scene_x4.json") and stored == made
    assert not files(tmp_path / "scratch") and list((tmp_path / "scratch").iterdir()) == []

    before = len(bucket.seen())
    assert storing.upscale(request, output)["already_done"] is True
    assert not any(method == "PUT" for method, _, _ in bucket.seen()[before:])
    with pytest.raises(OutputError, match="exists already; choose another --output or pass --overwrite"):
        storing.upscale(asked(request.scene, consistency="mean"), output)
    other = storing.upscale(asked(request.scene, consistency="mean", overwrite=True), output)
    assert other["held_by"] == "mean" and b'"mean"' in bucket.get("out/scene_x4.json")


def test_what_others_have_put_there_stays(scene: Scene, bucket: Bucket) -> None:
    bucket.put("out/scene_x4.zarr/thesis.txt", b"years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="holds something that is no store"):
            storing.upscale(asked(scene, overwrite=overwrite), ObjectPath(bucket.name, "out"))
    assert bucket.objects() == {"out/scene_x4.zarr/thesis.txt": b"years of work"}


@pytest.mark.slow
def test_an_upload_that_is_stopped_anywhere_goes_on(
    scene: Scene, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At no moment a reader finds an item, or a store's root, of what is not all there."""
    output, steps, last = ObjectPath(bucket.name, "out"), 0, 0
    request, made = asked(scene, overwrite=False), upscale(asked(scene, output=tmp_path / "folder"))
    whole = {name: data for name, data in files(tmp_path / "folder").items() if not name.startswith(".rsup/")}
    assert made
    acts = {name: getattr(objects, name) for name in ("put", "remove")}

    def counting(name: str) -> Callable[..., None]:
        def act(*arguments: Any) -> None:
            nonlocal steps
            if steps == last:
                raise StoppedError
            steps += 1
            acts[name](*arguments)

        return act

    monkeypatch.setattr(objects, "AT_ONCE", 1)
    for name in acts:
        monkeypatch.setattr(objects, name, counting(name))
    done = False
    while not done:
        steps = 0
        try:
            storing.upscale(request, output)
            done = True
        except StoppedError:
            stored = bucket.objects("out/")
            if "scene_x4.zarr/zarr.json" in stored or "scene_x4.json" in stored:
                mosaic = {name: data for name, data in whole.items() if name.startswith("scene_x4.zarr/")}
                assert mosaic.items() <= stored.items()
        last += 7
    stored = bucket.objects("out/")
    assert stored.pop(".rsup/scene_x4.json") and stored == whole and last > 20
