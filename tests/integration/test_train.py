"""`rsup train` as a user runs it: killed, stopped, failed, in two processes; and what it makes, used."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import rasterio
import torch
from forks import Forked, Forks, Rsup
from places import RECIPES, ROOT
from safetensors.torch import load_file

from rsup.models.data.batches import Batches
from rsup.models.data.images import Images
from rsup.models.degradation.pairs import make_pair
from rsup.models.methods.rsd import ResShiftTask
from rsup.models.training.recipe import RsdRecipe, load_recipe
from rsup.models.training.task import Pair, seeded
from rsup.pipeline.scenes.scene import Scene

TEACHER = ("teacher", "slimdiffsr/smoke-teacher.toml", "batch=1", "estimator_steps=3", "validation_images=1")
STUDENT = ("student", "slimdiffsr/smoke-student.toml", "batch=1", "validation_images=1")
RSD = (
    "student", "rsd/smoke.toml", "batch=1", "steps=8", "rsd.fake_updates=1", "checkpoint_every=2", "validate_every=3",
    "validation_images=1", "train_teacher.batch=1", "train_teacher.steps=8", "train_teacher.checkpoint_every=3",
    "train_teacher.validate_every=4", "train_teacher.validation_images=1",
)  # fmt: skip


def command(images: Path, output: Path, role: str, recipe: str, *settings: str) -> list[str]:
    sets = [part for setting in settings for part in ("--set", setting)]
    fixed = ["train", role, "--recipe", str(RECIPES / recipe), "--data", str(images), "-o", str(output), "--json"]
    return [*fixed, *sets]


def trained(rsup: Rsup, line: list[str]) -> dict[str, Any]:
    done = rsup(*line)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture(scope="module")
def students(rsup: Rsup, training_images: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights that the smoke recipes make in fewer steps."""
    folder = tmp_path_factory.mktemp("runs")
    teacher = folder / "teacher"
    assert trained(rsup, command(training_images, teacher, *TEACHER, "steps=2"))["steps"] == 5
    more = (f"teacher={teacher}", "steps=2")
    slim = trained(rsup, command(training_images, folder / "slimdiffsr", *STUDENT, *more))
    rsd = trained(rsup, command(training_images, folder / "rsd", *RSD))
    assert set(slim["validation"]) > {"loss", "psnr_y", "ssim_y"} and rsd["images"] == slim["images"] == 27
    return {"slimdiffsr": Path(slim["weights"]), "rsd": Path(rsd["weights"])}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["slimdiffsr", "rsd"])
def test_a_trained_student_upscales(
    kind: str, students: dict[str, Path], make_scene: Callable[..., Scene], rsup: Rsup, tmp_path: Path
) -> None:
    scene = make_scene(np.random.default_rng(1).integers(1200, 4000, (3, 96, 96)).astype(np.uint16))
    shown = rsup("models", "show", students[kind], "--json")
    assert shown.returncode == 0 and json.loads(shown.stdout)["parameters"] > 1000, shown.stderr
    done = rsup("upscale", scene.path, "--scale", 4, "--model", students[kind], "-o", tmp_path, "--device", "cpu",
                "--workers", 1, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("*_x4.tif"))


@pytest.mark.slow
def test_kill_9(rsup: Rsup, forks: Forks, students: dict[str, Path], training_images: Path, tmp_path: Path) -> None:
    """Of the command, at a random moment after the teacher's first checkpoint."""
    output = tmp_path / "run"
    line = command(training_images, output, *RSD)
    process = forks.begin(line)
    wait_for(output / "teacher/checkpoints", "step-*", process)
    time.sleep(random.uniform(0, 1.2))
    process.kill()
    process.end()
    trained(rsup, [*line, "--resume"])
    whole = students["rsd"].parent
    for name in ("validation.jsonl", "weights.safetensors", "teacher/validation.jsonl", "teacher/weights.safetensors"):
        assert (output / name).read_bytes() == (whole / name).read_bytes(), name


def test_sigterm(rsup: Rsup, forks: Forks, training_images: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    line = command(training_images, output, *TEACHER, "steps=2000", "checkpoint_every=2", "loaders=1")
    process = forks.begin(line)
    wait_for(output / "checkpoints", "step-*", process)
    process.send_signal(signal.SIGTERM)
    done = process.end(timeout=60)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert re.search(r"stopped at step \d+ of \d+: go on with --resume", done.stderr), done.stderr
    result = json.loads(done.stdout)
    assert result["stopped"] and (output / f"checkpoints/step-{result['steps']:08d}/state.json").exists()
    again = rsup(*line)
    assert again.returncode == 9 and again.stderr.startswith("rsup: ") and "--resume" in again.stderr


@pytest.mark.slow
def test_make_train_default_ends_where_a_run_was_stopped(tmp_path: Path) -> None:
    """And does not start the next recipe, from weights that are half trained."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for k in range(24):
        profile = {"width": 256, "height": 256, "count": 4, "dtype": "uint8", "crs": "EPSG:32611"}
        place = rasterio.transform.from_origin(500_000 + 1000 * k, 4_000_000, 0.6, 0.6)
        with rasterio.open(tmp_path / f"images/site-{k}.tif", "w", "GTiff", transform=place, **profile) as file:
            file.write(rng.integers(0, 256, (4, 64, 64), np.uint8).repeat(4, 1).repeat(4, 2))
    (tmp_path / "recipes").symlink_to(RECIPES)
    line = ["make", "-f", ROOT / "Makefile", "-o", "install", "train-default", "IMAGES=images",
            f"BIN={Path(sys.executable).parent}"]  # fmt: skip
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        # The first figures are there: what follows is the loop, which hears signals.
        wait_for(tmp_path / "runs/student-x4", "validation.jsonl", process, 300)
        time.sleep(1)
        family = psutil.Process(process.pid).children(recursive=True)  # parents before their children
        next(child for child in family if "train" in child.cmdline()).send_signal(signal.SIGTERM)
        out, complaints = process.communicate(timeout=60)
    assert process.returncode and '"stopped": true' in out, complaints
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == ["student-x4"]


def test_a_loss_that_is_not_finite(rsup: Rsup, training_images: Path, tmp_path: Path) -> None:
    line = command(training_images, tmp_path / "run", *TEACHER, "optimizer.lr=1e30", "loaders=1")
    done = rsup(*line)
    assert done.returncode == 9 and "Traceback" not in done.stderr, done.stderr
    (kept,) = (tmp_path / "run").glob("not-finite-step-*.safetensors")
    assert str(kept) in done.stderr and done.stderr.strip().count("\n") <= 1
    pair = load_file(kept)
    assert pair["low"].shape == (1, 3, 16, 16) and pair["high"].shape == (1, 3, 64, 64)


def wait_for(folder: Path, pattern: str, process: "subprocess.Popen[Any] | Forked", seconds: float = 60) -> None:
    """Until `folder` holds what fits the pattern, or the process has ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if any(folder.glob(pattern)) or process.poll() is not None:
            return
        time.sleep(0.01)
    process.kill()
    pytest.fail(f"{folder} never held {pattern}")


@pytest.mark.slow
def test_two_processes(training_images: Path, tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_processes.py")
    recipe = RECIPES / "rsd/smoke.toml"
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(
        [*line, str(recipe), str(training_images), str(tmp_path)], capture_output=True, text=True, timeout=200,
        check=False, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("one", "told"):
        ours, theirs = (load_file(tmp_path / f"{name}-{rank}.safetensors") for rank in (0, 1))
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in ours.items())
    told = [json.loads((tmp_path / f"told-{rank}.json").read_text()) for rank in (0, 1)]
    assert told[0] == told[1]
    assert [(each["steps"], each["stopped"]) for each in told[0]] == [(1, False), (3, True), (2, False)]
    assert (tmp_path / "told/checkpoints/step-00000003").exists() and (tmp_path / "rsd/weights.safetensors").exists()

    # What the first step went by: the mean of both processes' gradients, made again here.
    settings = [f"train_teacher.{each}" for each in ("batch=1", "steps=1")]
    whole = load_recipe(recipe, settings)
    assert isinstance(whole, RsdRecipe) and whole.train_teacher is not None
    task = ResShiftTask(whole.train_teacher)
    images = Images(training_images, "train", task.recipe.data, task.recipe.crop)
    for rank in (0, 1):
        high = Batches(images, 1, task.recipe.seed, rank)[0]
        generator = seeded(task.recipe.seed, 0, 0, 0, rank)
        torch.manual_seed(generator.initial_seed())
        pair = Pair(*make_pair(high, 4, task.recipe.degradation, task.recipe.radiometry, generator))
        (next(task.updates(pair, 0, 0, generator)).loss / 2).backward()
    saved = load_file(tmp_path / "one/checkpoints/step-00000001/tensors.safetensors")
    for index, parameter in enumerate(task.parameters("teacher")):
        assert parameter.grad is not None
        torch.testing.assert_close(
            saved[f"optimizer/teacher/{index}/exp_avg"], 0.1 * parameter.grad, rtol=1e-3, atol=1e-6
        )
