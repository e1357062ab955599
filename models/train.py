"""Training, as the command line asks for it: a recipe and a folder of images in, a run folder out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from accelerate import Accelerator

from .errors import RecipeError
from .recipe import Recipe, ResShiftRecipe, RsdRecipe, StudentRecipe, TeacherRecipe, load_recipe
from .run_folder import open_run
from .task import Task
from .train_rsd import ResShiftTask, RsdTask
from .train_student import StudentTask
from .train_teacher import TeacherTask
from .trainer import Report, fit

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


def train(request: TrainRequest, report: Report) -> dict[str, Any]:
    """Train what the recipe says, from the start or from the last checkpoint; what was done, as plain values.

    Raises RecipeError, ModelError, DataError and TrainingError before anything that existed is touched.
    """
    recipe = load_recipe(request.recipe, request.overrides)
    teaching = isinstance(recipe, TeacherRecipe | ResShiftRecipe)
    if teaching != (request.role == "teacher"):
        raise RecipeError(f"{request.recipe} trains a {recipe.method}: use `rsup train {_role(teaching)}`")
    accelerator = Accelerator(mixed_precision=recipe.precision)
    if isinstance(recipe, RsdRecipe) and recipe.train_teacher is not None:
        teacher = request.output / TEACHER
        open_run(request.output, recipe, resume=request.resume)
        open_run(teacher, recipe.train_teacher, resume=request.resume)
        done = fit(ResShiftTask(recipe.train_teacher), request.data, teacher, accelerator, report)
        if done["stopped"]:
            return done
        return fit(RsdTask(recipe, teacher), request.data, request.output, accelerator, report)
    task = _task(recipe)
    if accelerator.is_main_process:
        open_run(request.output, recipe, resume=request.resume)
    accelerator.wait_for_everyone()
    return fit(task, request.data, request.output, accelerator, report)


def _task(recipe: Recipe) -> Task:
    if isinstance(recipe, TeacherRecipe):
        return TeacherTask(recipe)
    if isinstance(recipe, StudentRecipe):
        return StudentTask(recipe)
    if isinstance(recipe, ResShiftRecipe):
        return ResShiftTask(recipe)
    if recipe.teacher is None:
        raise RecipeError(
            "this recipe distils a residual-shifting teacher but names none: train one with "
            "recipes/rsd/teacher.toml and give its run folder with --set teacher=RUN"
        )
    return RsdTask(recipe, recipe.teacher)


def _role(teaching: bool) -> str:
    return "teacher" if teaching else "student"
