"""The recipes for Slurm, submitted as they are to a Slurm on loopback: tasks cancelled, requeued, pre-empted."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slurm
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
    said = {
        "output": str(output),
        "bbox": [west, middle, east, middle + 1e-4],
        "dates": "2024-06-12/2024-06-15",
        "interval": "acquisition",
        "cells": 64,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in said.items()]
    lines += ["[fetch]", f"catalog = {json.dumps(catalog)}", "max_cloud = 30"]
    lines += ["[upscale]", "scale = 4", 'model = "nearest"', 'device = "cpu"', "chunk = 64"]
    path = output.with_suffix(".toml")
    path.write_text("\n".join(lines))
    return path


def files_of(output: Path) -> dict[str, str]:
    """Every file, hidden or not, and its hash."""
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file()
    }


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
    wait_until(lambda: any(second.glob("*/.unit/*.zarr")), cluster)
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
