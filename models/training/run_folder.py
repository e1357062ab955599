"""The folder of a training run: its recipe, its weights, its checkpoints, curves and validation figures.

Weights that are of use only with the recipe beside them (a teacher's adapters) are plain safetensors; a student's
weights file is written by weights_file.py and stands for itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rsup.models.base.errors import RecipeError, TrainingError
from rsup.models.base.files import write_whole, writing
from rsup.models.weights_file import write_tensors

from .recipe import Recipe, load_recipe, recipe_text
from .run_config import OptimizerConfig, RunConfig

RECIPE = "recipe.toml"
WEIGHTS = "weights.safetensors"
CHECKPOINTS = "checkpoints"

_FREE = frozenset({"steps", "validate_every", "validation_images", "checkpoint_every", "keep", "loaders"})
"""What a run may be resumed with another value of: how long, and how closely watched."""


def check_run(folder: Path, recipe: Recipe, *, resume: bool) -> None:
    """Check that a run of `recipe` may begin in `folder`, or go on with what is there; touch nothing.

    Raises TrainingError for a folder that holds anything without `resume`, and for a run of another recipe with it.
    """
    try:
        if not resume and folder.exists() and any(folder.iterdir()):
            raise TrainingError(f"{folder} is not empty: go on with --resume, or give another folder with -o")
        if (folder / RECIPE).exists():
            _check_same(recipe, recipe_of(folder), folder)
    except OSError as error:
        raise TrainingError(f"{folder} is no folder for a run: {error.strerror}") from error


def begin_run(folder: Path, recipe: RunConfig) -> None:
    """Make a run's folder, where it is missing, and write the recipe. Raises TrainingError where that fails."""
    with writing(folder, TrainingError):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / RECIPE, recipe_text(recipe).encode())


def recipe_of(run: Path) -> Recipe:
    """The recipe a run was given. Raises RecipeError where `run` is no run's folder."""
    if not os.path.isfile(run / RECIPE):  # unlike Path.is_file, whatever the path: too long, not to be entered
        raise RecipeError(f"{run} is no training run: it has no {RECIPE}")
    return load_recipe(run / RECIPE)


def save_state(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write tensors, whole or not at all."""
    with writing(path, TrainingError, SafetensorError):
        write_tensors(path, state)


def load_state(run: Path) -> dict[str, Tensor]:
    """The weights of a run, as `save_state` took them."""
    try:
        return load_file(run / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise RecipeError(f"{run / WEIGHTS} cannot be read ({error}): let that run reach a checkpoint") from error


def _check_same(recipe: Recipe, before: Recipe, folder: Path) -> None:
    """Raise TrainingError unless the runs differ in nothing but how long they are and how closely watched."""
    if recipe.method != before.method:
        raise TrainingError(f"{folder} holds a {before.method} run, not {recipe.method}: give another folder with -o")
    for name in type(recipe).model_fields.keys() - _FREE:
        if getattr(recipe, name) != getattr(before, name):
            raise TrainingError(
                f"{folder} was begun with another {name} (see {folder / RECIPE}): a run is resumed with its own "
                "recipe, or begun in another folder with -o"
            )
    fields = [getattr(recipe, name) for name in type(recipe).model_fields]
    cosine = any(isinstance(each, OptimizerConfig) and each.schedule == "cosine" for each in fields)
    if cosine and recipe.steps != before.steps:
        raise TrainingError(
            f"{folder} was begun with {before.steps} steps, over which its learning rate falls: keep them, or begin "
            "another run with -o"
        )
