"""Training, as the command line asks for it: a recipe and a folder of images in, a run folder out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator

from .base.errors import RecipeError, TrainingError, remedy
from .base.progress import Progress
from .methods import METHODS
from .methods.rsd import ResShiftTask, RsdTask, load_resshift, new_resshift
from .training.loop import fit
from .training.recipe import ResShiftRecipe, RsdRecipe, load_recipe
from .training.run_folder import check_run

TEACHER = "teacher"
"""Folder, in an RSD run that trains its own teacher, of that teacher's run."""


@dataclass(frozen=True)
class TrainRequest:
    """What `rsup train` was asked for."""

    role: Literal["teacher", "student"]
    recipe: Path
    data: Path
    output: Path
    overrides: tuple[str, ...] = ()
    resume: bool = False


def train(request: TrainRequest, progress: Progress) -> dict[str, Any]:
    """Train what the recipe says, from the start or from the last checkpoint; what was done, as plain values.

    Raises RecipeError, ModelError, DataError and TrainingError before anything that existed is touched.
    """
    recipe = load_recipe(request.recipe, request.overrides)
    method = METHODS[recipe.method]
    if method.role != request.role:
        raise RecipeError(f"{request.recipe} trains a {recipe.method}: use `rsup train {method.role}`")
    # Without being told, several processes on CPUs would each take themselves for the only one.
    accelerator = Accelerator(mixed_precision=recipe.precision, cpu=not torch.accelerator.is_available())
    if recipe.precision == "fp16" and accelerator.device.type == "cpu":
        raise RecipeError("precision fp16 is for GPUs and there is none here: use --set precision=bf16, or no")
    check_run(request.output, recipe, resume=request.resume)
    try:
        if isinstance(recipe, RsdRecipe) and recipe.train_teacher is not None:
            return _train_both(request, recipe, recipe.train_teacher, accelerator, progress)
        task = method.task(recipe)
        # No process makes the folder while another still looks whether it is there.
        accelerator.wait_for_everyone()
        return fit(task, request.data, request.output, accelerator, progress)
    except OSError as error:
        lost = "start all of its processes again" if isinstance(error, ConnectionError | TimeoutError) else "mend that"
        raise TrainingError(
            f"{request.output}: training stopped ({error}): {remedy(error) or lost}, and go on with --resume"
        ) from error


def _train_both(
    request: TrainRequest, recipe: RsdRecipe, first: ResShiftRecipe, accelerator: Accelerator, progress: Progress
) -> dict[str, Any]:
    """The residual-shifting teacher in a folder of its own, then its student."""
    teacher = request.output / TEACHER
    check_run(teacher, first, resume=request.resume)
    # What the student lacks is said now, and not when its teacher has been trained for days.
    RsdTask(recipe, *new_resshift(first))
    task = ResShiftTask(first)
    accelerator.wait_for_everyone()
    done = fit(task, request.data, teacher, accelerator, progress)
    if done["stopped"]:
        return done
    accelerator.wait_for_everyone()
    return fit(RsdTask(recipe, *load_resshift(teacher)), request.data, request.output, accelerator, progress)
