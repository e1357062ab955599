"""What meets `rsup upscale` on its way: damaged chunks, a disk that fills up, Ctrl-C; a rerun finishes each time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import psutil
import pytest
import xarray as xr
from forks import Rsup
from numpy.typing import NDArray

from rsup.models.base.errors import OutputError
from rsup.pipeline.jobs.upscale import upscale
from rsup.pipeline.jobs.upscale_plan import UpscaleRequest
from rsup.pipeline.scenes.scene import Scene

Make = Callable[..., Scene]


class SmallDisk(Protocol):
    """See conftest.py."""

    path: Path

    def remount(self, options: str) -> None: ...


def noise(height: int, width: int, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).integers(1, 65535, (3, height, width)).astype(np.uint16)


def stored(path: Path) -> NDArray[np.uint16]:
    """Raw numbers [band, y, x] of a mosaic store, by xarray alone."""
    with xr.open_dataset(path, engine="zarr", mask_and_scale=False) as mosaic:
        return np.stack([mosaic[band].values for band in ("red", "green", "blue")])


def published(output: Path) -> dict[str, bytes]:
    """Bytes of every file that has its final name."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and ".rsup" not in path.parts
    }


def records(output: Path, name: str) -> list[str]:
    """What it says of chunks and steps."""
    ledger = output / ".rsup" / name / "ledger.jsonl"
    lines = ledger.read_text().splitlines()[1:] if ledger.exists() else []
    return [line for line in lines if '"settled"' not in line]


@pytest.mark.slow
def test_a_chunk_that_fails_is_told_the_others_are_done_and_a_rerun_mends_it(
    make_scene: Make, rsup: Rsup, tmp_path: Path
) -> None:
    scene, output = make_scene(noise(300, 70)), tmp_path / "out"
    options = "--scale 4 --model nearest --chunk 64 --consistency mean --json".split()
    asked = ("upscale", scene.path, *options, "-o", output)
    chunk = scene.path / "green" / "c" / "1" / "0"
    whole, times = chunk.read_bytes(), (chunk.stat().st_atime_ns, chunk.stat().st_mtime_ns)

    def write(content: bytes) -> None:
        """As from a disk that errs: neither size nor time tell."""
        chunk.write_bytes(content)
        os.utime(chunk, ns=times)

    write(b"\0" * len(whole))
    failed = rsup(*asked)
    assert failed.returncode == 7 and failed.stdout == "" and "Traceback" not in failed.stderr
    last = failed.stderr.splitlines()[-1]
    lost = [json.loads(line) for line in records(output, "scene_x4") if '"failed"' in line]
    done = [line for line in records(output, "scene_x4") if '"done"' in line]
    assert 0 < len(lost) < 10 and len(lost) + len(done) == 10
    assert last.startswith(f"rsup: {len(lost)} of 10 chunks failed (chunk ") and "run the same command again" in last
    assert all("scene.zarr: " in record["reason"] and "cannot be read" in record["reason"] for record in lost)
    assert published(output) == {}

    write(whole)
    again = rsup(*asked)
    assert again.returncode == 0, again.stderr
    np.testing.assert_array_equal(stored(output / "scene_x4.zarr"), noise(300, 70).repeat(4, 1).repeat(4, 2))
    assert [line for line in records(output, "scene_x4") if '"done"' in line][: len(done)] == done

    before = published(output)
    write(b"\0" * len(whole))
    assert rsup(*asked, "--overwrite").returncode == 7
    assert published(output) == before, "--overwrite may replace an output only by a whole one"


def test_overwrite_replaces_what_is_there(make_scene: Make, tmp_path: Path) -> None:
    first = make_scene(noise(40, 40))
    upscale(UpscaleRequest(first.path, 4, tmp_path, "nearest", device="cpu"))
    before = published(tmp_path / "scene_x4.zarr") | {"tif": (tmp_path / "scene_x4.tif").read_bytes()}
    (tmp_path / "other").mkdir()
    other = make_scene(noise(44, 36, seed=2), "other/scene")
    with pytest.raises(OutputError, match=r"belongs to another run \(scene differ\); choose another output or pass"):
        upscale(UpscaleRequest(other.path, 4, tmp_path, "nearest", device="cpu"))
    assert published(tmp_path / "scene_x4.zarr") | {"tif": (tmp_path / "scene_x4.tif").read_bytes()} == before
    means = UpscaleRequest(other.path, 4, tmp_path, "nearest", device="cpu", overwrite=True, consistency="mean")
    upscale(means)
    np.testing.assert_array_equal(stored(tmp_path / "scene_x4.zarr"), noise(44, 36, seed=2).repeat(4, 1).repeat(4, 2))


@pytest.mark.slow
def test_a_disk_that_fills_up_loses_nothing_and_a_rerun_goes_on(
    make_scene: Make, small_disk: SmallDisk, tmp_path: Path
) -> None:
    """The disk grows from run to run: it is full while the store is made, the chunks, the overviews, the COG."""
    scene = make_scene(noise(200, 180))
    request = UpscaleRequest(
        scene.path, 4, small_disk.path / "out", "nearest", device="cpu", chunk=64, consistency="mean"
    )
    counts = []
    for size, words in {
        "64k": "scene_x4.zarr cannot be written .No space left on device.: free some space",
        "500k": "scene_x4.zarr cannot be written .No space left on device.: free some space there; the same command",
        "1200k": "scene_x4.zarr cannot be written .No space left on device.: free some space there; the same command",
        "1750k": "scene_x4.tif cannot be written .*: free some space there; the same command then goes on",
    }.items():
        small_disk.remount(f"size={size}")
        with pytest.raises(OutputError, match=words) as caught:
            upscale(request)
        assert "\n" not in str(caught.value)
        assert published(request.output) == {}
        counts.append(len(records(request.output, "scene_x4")))
    assert counts[0] == 0 < counts[1] < counts[2] == counts[3] == 12
    small_disk.remount("size=20m")
    upscale(request)
    elsewhere = replace(request, output=tmp_path / "roomy")
    upscale(elsewhere)
    assert published(request.output) == published(elsewhere.output)

    small_disk.remount("ro")
    with pytest.raises(OutputError, match=r"Read-only file system\): choose another output"):
        upscale(UpscaleRequest(scene.path, 4, request.output, "nearest", device="cpu", overwrite=True))
    assert published(request.output) == published(elsewhere.output)


@pytest.mark.parametrize(
    ("number", "moment"), [(signal.SIGINT, 0), pytest.param(signal.SIGTERM, 3, marks=pytest.mark.slow)]
)
def test_stopping_is_quick_and_quiet_and_a_rerun_goes_on(
    number: signal.Signals, moment: int, make_scene: Make, rsup: Rsup, tmp_path: Path
) -> None:
    """Signals as a terminal sends them, to all processes at once; at the start of the workers or after some chunks."""
    scene = make_scene(noise(256, 256))
    command = [
        "upscale", str(scene.path), "--scale", "4", "--model", "nearest", "--chunk", "64", "-o", str(tmp_path / "out"),
        "--consistency", "mean",
        "--device", "cpu", "--json",
    ]  # fmt: skip
    program = [sys.executable, "-m", "rsup.pipeline.cli"]
    with subprocess.Popen(
        [*program, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        until = time.monotonic() + 60
        while len(records(tmp_path / "out", "scene_x4")) < moment or not psutil.Process(process.pid).children():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        children = psutil.Process(process.pid).children(recursive=True)
        start = time.monotonic()
        os.killpg(process.pid, number)
        out, said = process.communicate(timeout=60)
    assert time.monotonic() - start < 20  # 1 to 4 s when the machine has nothing else to do
    assert process.returncode == 128 + number
    assert "Traceback" not in said and out == ""
    assert said.splitlines().count("rsup: stopped; run the same command again to go on") == 1
    assert not psutil.wait_procs(children, timeout=30)[1], "workers outlived the command"
    assert published(tmp_path / "out") == {}
    if moment:
        before = records(tmp_path / "out", "scene_x4")
        assert len(before) < 16
        again = rsup(*command)
        assert again.returncode == 0, again.stderr
        assert json.loads(again.stdout)["already_done"] is False
        assert records(tmp_path / "out", "scene_x4")[: len(before)] == before
        np.testing.assert_array_equal(stored(tmp_path / "out/scene_x4.zarr"), noise(256, 256).repeat(4, 1).repeat(4, 2))
