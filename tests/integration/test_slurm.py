"""The recipes for Slurm, submitted as they are to a Slurm on loopback: tasks cancelled, requeued, pre-empted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slurm
import zarr
from archives import files_of, write_tables
from forks import Rsup
from places import RECIPES

from rsup.pipeline.batch.job import load_job
from rsup.pipeline.batch.status import STATES, status
from rsup.pipeline.demo.archive import Archive
from rsup.pipeline.scenes.scene import Scene

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(slurm.lacking()), reason=f"{', '.join(slurm.lacking())} not installed"),
]

PROGRAM = [sys.executable, "-m", "rsup.pipeline.cli"]
SLURM = RECIPES / "cluster/slurm"


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm.Slurm]:
    """Two nodes; what is submitted finds this Python's `rsup`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        with slurm.cluster(("node1", "node2")) as started:
            yield started


def write_job(archive: Archive, catalog: str, output: Path) -> Path:
    """A job of two cells on each of two days, beside its output."""
    west, south, east, north = archive.bbox
    middle = south + 0.55 * (north - south)
    said: dict[str, object] = {
        "output": str(output),
        "bbox": [west, middle, east, middle + 1e-4],
        "dates": "2024-06-12/2024-06-15",
        "interval": "acquisition",
        "cells": 64,
    }
    return write_tables(output.with_suffix(".toml"), said, catalog)


def wait_until(what: Callable[[], Any], cluster: slurm.Slurm, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, cluster.said()
        time.sleep(0.01)


def test_an_array_whose_task_is_cancelled_in_the_middle(
    cluster: slurm.Slurm, archive: Archive, stac_server: str, rsup: Rsup, tmp_path: Path
) -> None:
    undisturbed, output = tmp_path / "undisturbed", tmp_path / "archive"
    assert rsup("batch", "run", write_job(archive, stac_server, undisturbed)).returncode == 0
    job = load_job(write_job(archive, stac_server, output))

    def counted() -> dict[str, int]:
        said = status(job)
        return {state: said[state] for state in STATES if said[state]}

    array = cluster.submit("--array=1-2", f"--chdir={tmp_path}", SLURM / "archive.sbatch", output.with_suffix(".toml"))
    second = output / "2024-06-15"  # whose units are all in the second part
    wait_until(lambda: glob("*/.unit/*.zarr", root_dir=second), cluster)  # not Path.glob: folders come and go
    cluster.run("scancel", f"{array}_2")
    cluster.wait_each(array, {f"{array}_1": "COMPLETED", f"{array}_2": "CANCELLED"})
    log = tmp_path / f"rsup-archive-{array}_2.log"
    assert "rsup: stopped; run the same command again to go on" in log.read_text()
    assert counted()["done"] == 2
    assert {path.parts[-3] for path in output.glob("*/*/unit.json")} == {"2024-06-12"}

    cluster.run("scontrol", "requeue", f"{array}_2")
    cluster.wait_each(array, {f"{array}_1": "COMPLETED", f"{array}_2": "COMPLETED"})
    assert counted() == {"done": 4} and files_of(output) == files_of(undisturbed)

    # Shared by another number of tasks, there is as little to do.
    again = cluster.submit("--array=1", f"--chdir={tmp_path}", SLURM / "archive.sbatch", output.with_suffix(".toml"))
    cluster.wait_each(again, {f"{again}_1": "COMPLETED"})
    assert files_of(output) == files_of(undisturbed)


def test_what_scrontab_starts_every_night(
    cluster: slurm.Slurm, archive: Archive, stac_server: str, tmp_path: Path
) -> None:
    """The entry of the recipe as a job with its options, in a folder of this test; Debian's Slurm has no scrontab."""
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/bin").symlink_to(Path(sys.executable).parent)
    (tmp_path / "recipes").symlink_to(RECIPES)
    job = write_job(archive, stac_server, tmp_path / "havelland")
    text = (SLURM / "nightly.scrontab").read_text().replace("/srv/rsup", str(tmp_path)).replace("=1-16", "=1-2")
    options = [line.replace("#SCRON", "#SBATCH") for line in text.splitlines() if line.startswith("#SCRON")]
    entry = text.splitlines()[-1]
    assert entry.startswith("30 1 * * * cd ") and len(options) == 4
    script = tmp_path / "entry"
    script.write_text("\n".join(["#!/bin/sh", *options, entry.removeprefix("30 1 * * * "), ""]))
    night = cluster.submit(script)
    cluster.wait(night, "COMPLETED")
    array = (tmp_path / "nightly.log").read_text().split()[3]
    cluster.wait_each(array, {f"{array}_1": "COMPLETED", f"{array}_2": "COMPLETED"})
    assert status(load_job(job))["done"] == 4


def test_a_mosaic_on_the_gpus_of_a_node(
    cluster: slurm.Slurm, make_scene: Callable[..., Scene], rsup: Rsup, tmp_path: Path
) -> None:
    """Which are none here: the recipe starts what this machine has."""
    scene = make_scene(np.random.default_rng(1).integers(1200, 4000, (3, 96, 96)).astype(np.uint16)).path
    asked = (scene, "--scale", 4, "--model", "bicubic")
    job = cluster.submit(f"--chdir={tmp_path}", SLURM / "node.sbatch", *asked, "-o", "mosaic")
    assert rsup("upscale", *asked, "-o", tmp_path / "direct").returncode == 0
    cluster.wait(job, "COMPLETED")
    assert "TresPerNode=gres:gpu:4" in cluster.run("scontrol", "show", "job", job)
    assert files_of(tmp_path / "mosaic") == files_of(tmp_path / "direct")


def test_training_gives_way_and_goes_on(
    cluster: slurm.Slurm, training_images: Path, rsup: Rsup, tmp_path: Path
) -> None:
    """Two processes are pre-empted after a checkpoint, and end with the weights of a run that was left alone."""
    settings = ("batch=1", "estimator_steps=1", "steps=24", "checkpoint_every=2", "validation_images=1", "loaders=1")
    asked = ["teacher", "--recipe", RECIPES / "slimdiffsr/smoke-teacher.toml", "--data", training_images]
    asked += [part for setting in settings for part in ("--set", setting)]
    room = ("--nodelist=node1", "--ntasks-per-node=2", "--cpus-per-task=1", f"--chdir={tmp_path}")
    job = cluster.submit(*room, SLURM / "train.sbatch", *asked, "-o", "run")
    log = tmp_path / f"rsup-train-{job}.log"
    wait_until(lambda: any((tmp_path / "run/checkpoints").glob("step-*")), cluster)
    urgent = cluster.submit("--partition=urgent", "--nodelist=node1", "--gpus=4", "--output=/dev/null", "--wrap=true")
    cluster.wait(urgent, "COMPLETED")
    assert "stopped at step" in log.read_text()
    cluster.wait(job, "COMPLETED")
    assert "Restarts=1" in cluster.run("scontrol", "show", "job", job)

    alone = cluster.submit(*room, SLURM / "train.sbatch", *asked, "-o", "alone")
    cluster.wait(alone, "COMPLETED")
    for name in ("weights.safetensors", "validation.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()


def test_training_that_fails_does_not_queue_again(
    cluster: slurm.Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of its processes fails; the other is told to stop because of it, and says so as it says it of pre-emption."""
    program = tmp_path / "bin/rsup"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/bash\n"
        "trap 'echo stopped >&2; exit 143' TERM\n"
        '[[ $RANK == 1 ]] || { until [[ -e waits ]]; do sleep 0.1; done; echo "no image" >&2; exit 5; }\n'
        "touch waits\n"
        "while true; do sleep 0.1; done\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    room = ("--ntasks-per-node=2", "--cpus-per-task=1", f"--chdir={tmp_path}")
    job = cluster.submit(*room, SLURM / "train.sbatch", "teacher")
    cluster.wait(job, "FAILED")
    assert "no image" in (tmp_path / f"rsup-train-{job}.log").read_text()
    assert "Restarts=0" in cluster.run("scontrol", "show", "job", job)


@pytest.fixture
def jobqueue(cluster: slurm.Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[slurm.Slurm]:
    """The cluster, for programs that this test starts; Dask's configuration is the recipe."""
    for name, value in (cluster.environment | {"DASK_CONFIG": str(SLURM)}).items():
        monkeypatch.setenv(name, value)
    yield cluster


def in_jobs(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`rsup upscale --cluster slurm` in a process that reads Dask's configuration."""
    line = [*PROGRAM, "upscale", *map(str, arguments), "--cluster", "slurm"]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=400)


def running(cluster: slurm.Slurm) -> list[str]:
    """What runs or waits."""
    return cluster.run("squeue", "--noheader", "--format=%j").split()


def test_one_mosaic_by_workers_that_are_jobs(
    jobqueue: slurm.Slurm, make_scene: Callable[..., Scene], quick_student: Path, rsup: Rsup, tmp_path: Path
) -> None:
    """The command is killed in the middle, its jobs end by themselves, and the same command goes on."""
    scene = make_scene(np.random.default_rng(1).integers(1200, 4000, (3, 256, 256)).astype(np.uint16)).path
    asked = [scene, "--scale", 4, "--model", quick_student, "--chunk", 64]
    assert rsup("upscale", *asked, "-o", tmp_path / "here").returncode == 0
    on_slurm = [*asked, "-o", tmp_path / "jobs", "--workers", 2]
    dry = json.loads(in_jobs(*on_slurm, "--dry-run", "--json").stdout)
    assert dry["workers"] == ["slurm job"] * 2 and not (tmp_path / "jobs").exists()

    ledger = tmp_path / "jobs/.rsup/scene_x4/ledger.jsonl"
    line = [*PROGRAM, "upscale", *map(str, on_slurm), "--cluster", "slurm"]
    with subprocess.Popen(line, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: ledger.exists() and ledger.read_text().count('"done"') > 1, jobqueue)
        assert running(jobqueue) == ["dask-worker"] * 2
        process.kill()
    begun = ledger.read_text().count('"done"')
    assert begun < 16
    wait_until(lambda: not running(jobqueue), jobqueue)
    done = in_jobs(*on_slurm)
    assert done.returncode == 0, done.stderr
    assert not running(jobqueue) and not list(tmp_path.glob("jobs/.rsup/*/jobs"))
    for band in ("red", "green", "blue"):
        here, jobs = (np.asarray(zarr.open(tmp_path / where / "scene_x4.zarr")[band]) for where in ("here", "jobs"))
        assert np.abs(here.astype(int) - jobs).max() <= 1


def test_jobs_that_slurm_refuses_and_jobs_that_end(
    jobqueue: slurm.Slurm, make_scene: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(np.full((3, 64, 64), 2000, np.uint16)).path
    asked = (scene, "--scale", 4, "--model", "nearest", "-o", tmp_path / "jobs")
    with monkeypatch.context() as patch:
        patch.setenv("DASK_JOBQUEUE__SLURM__QUEUE", "nowhere")
        done = in_jobs(*asked)
        assert done.returncode == 2 and "invalid partition specified: nowhere" in done.stderr, done.stderr
    monkeypatch.setenv("DASK_JOBQUEUE__SLURM__JOB_SCRIPT_PROLOGUE", "['echo no such module >&2', 'exit 1']")
    done = in_jobs(*asked)
    assert done.returncode == 7 and "ended before a worker came" in done.stderr, done.stderr
    (log,) = tmp_path.glob("jobs/.rsup/scene_x4/jobs/*.err")
    assert "no such module" in log.read_text() and str(log.parent) in done.stderr
    assert not running(jobqueue) and in_jobs(*asked, "--device", "cpu").returncode == 2
