"""fetch and upscale as a user runs them, into a bucket and out of it, while the store refuses a tenth of requests."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from buckets import KEY, SECRET, Bucket
from forks import Rsup

from rsup.pipeline.demo.archive import Archive
from rsup.pipeline.demo.servers import serve_assets


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_scene_and_its_mosaic_in_a_bucket(
    archive: Archive, stac_server: str, rsup: Rsup, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    said: list[str] = []

    def run(*arguments: object) -> dict[str, object]:
        done: subprocess.CompletedProcess[str] = rsup(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        said.append(done.stdout + done.stderr)
        return json.loads(done.stdout)  # type: ignore[no-any-return]

    box = ",".join(map(str, archive.bbox))
    asked = ["fetch", "--bbox", box, "--date", "2024-06", "--catalog", stac_server]
    upscale = ["--scale", 4, "--model", "nearest", "--device", "cpu"]
    run(*asked, "-o", tmp_path / "scene.zarr")
    run("upscale", tmp_path / "scene.zarr", *upscale, "-o", tmp_path / "out")
    with bucket.faults(0.1):
        fetched = run(*asked, "-o", bucket.address("scene.zarr"))
        assert fetched["scene"] == bucket.address("scene.zarr") and fetched["already_done"] is False
        assert run(*asked, "-o", bucket.address("scene.zarr"))["already_done"] is True
        run("upscale", bucket.address("scene.zarr"), *upscale, "-o", bucket.address("out"))
        assert run("upscale", bucket.address("scene.zarr"), *upscale, "-o", bucket.address("out"))["already_done"]
    with serve_assets(tmp_path) as web:
        run("upscale", f"{web}/scene.zarr", *upscale, "-o", tmp_path / "web")
    assert bucket.objects("scene.zarr/") == files(tmp_path / "scene.zarr")
    made = {name: data for name, data in files(tmp_path / "out").items() if not name.startswith(".rsup/")}
    stored = bucket.objects("out/")
    record = stored.pop(".rsup/scene_x4.json")
    assert stored == made
    assert {name: data for name, data in files(tmp_path / "web").items() if not name.startswith(".rsup/")} == made
    for secret in (KEY, SECRET):
        assert secret not in "".join(said)
        assert not any(secret.encode() in data for data in (record, *stored.values(), *files(tmp_path).values()))
    other = rsup(*asked, "--bands", "red", "-o", bucket.address("scene.zarr"))
    assert other.returncode == 6 and "is of another request (bands differ)" in other.stderr
    assert bucket.objects("scene.zarr/") == files(tmp_path / "scene.zarr")
    assert rsup("upscale", bucket.address("none.zarr"), *upscale, "-o", tmp_path / "none").returncode == 5
