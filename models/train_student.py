"""Stage 2 of SlimDiffSR: the pruned student, learning from images, a discriminator and a teacher's features.

A recipe goes in, the task that trainer.py runs comes out. Source: SlimDiffSR, section 3.5.2, equations 17-20 and 23.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from .distillation import Distillation, FeatureTaps
from .errors import RecipeError
from .initialise import initialise
from .interpolation import interpolator
from .pretrained import TINY, load_stable_diffusion, load_taesd
from .recipe import StudentRecipe
from .reconstruction import Reconstruction
from .run_folder import WEIGHTS, recipe_of
from .student import Student
from .task import Pair, Task, Update
from .teacher import Teacher
from .train_teacher import load_teacher
from .weights import load_student, save_weights, student_header


class StudentTask(Task):
    """One step changes the student (with its adapters), then its discriminator, where the recipe has one."""

    exported = "student"

    def __init__(self, recipe: StudentRecipe) -> None:
        """Raises ModelError where a network the recipe names is not here, RecipeError for settings that do not fit."""
        self.recipe: StudentRecipe = recipe
        self.student = build_student(recipe)
        learner = nn.ModuleDict({"student": self.student})
        self.teacher: Teacher | Student | None = None
        self.distillation: Distillation | None = None
        weights = recipe.distillation
        if weights.mse or weights.mmd:
            self.teacher = _load_teacher(recipe)
            self.distillation = Distillation(self.student.unet, self.teacher.unet, weights)
            learner["distillation"] = self.distillation
        if recipe.crop % (multiple := self._multiple()):
            raise RecipeError(f"crop {recipe.crop}: these networks need a multiple of {multiple}")
        self.networks: dict[str, nn.Module] = {"student": learner}
        self.optimizers = {"student": recipe.optimizer}
        self.reconstruction = Reconstruction(recipe.losses, recipe.discriminator, recipe.seed)
        if self.reconstruction.discriminator is not None:
            self.networks["discriminator"] = self.reconstruction.discriminator
            self.optimizers["discriminator"] = recipe.discriminator_optimizer
        self.enlarge = interpolator("bicubic", recipe.scale)

    def to(self, device: torch.device) -> None:
        for each in (*self.networks.values(), self.reconstruction, self.enlarge, self.teacher):
            if each is not None:
                each.to(device)

    def updates(self, pair: Pair, step: int, turn: int, generator: torch.Generator) -> Iterator[Update]:
        image = self.enlarge(pair.low)
        result, distilled = self._distilled(image, pair.high)
        terms = self.reconstruction.terms(result, pair.high) | self.reconstruction.gan(result)
        loss = self.reconstruction.weighted(terms)
        if distilled:
            weights = self.recipe.distillation
            loss = loss + weights.mse * distilled["mse"] + weights.mmd * distilled.get("mmd", 0)
        yield Update("student", loss, terms | distilled)
        yield from self.reconstruction.judge(result, pair.high)

    def predict(self, pair: Pair, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        result: Tensor = self.student(self.enlarge(pair.low))
        terms = self.reconstruction.terms(result, pair.high)
        return result, {"loss": self.reconstruction.weighted(terms), **terms}

    def export(self, path: Path, data: str, metrics: dict[str, float]) -> None:
        recipe = self.recipe
        header = student_header(
            self.student.config,
            recipe.scale,
            licence=licence_of(recipe),
            source=f"trained on {data}",
            recipe=recipe.model_dump(mode="json", exclude={"teacher"}),
            data=data,
            metrics=metrics,
        )
        save_weights(path, self.student.state_dict(), header)

    def _distilled(self, image: Tensor, truth: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The student's result, and the terms of equation 19 where there is a teacher."""
        distillation = self.distillation
        if self.teacher is None or distillation is None:
            result: Tensor = self.student(image)
            return result, {}
        with FeatureTaps(self.teacher.unet, distillation.teacher_levels) as theirs, torch.no_grad():
            if isinstance(self.teacher, Teacher):
                self.teacher.restore(image, truth)
            else:
                self.teacher(image)
        with FeatureTaps(self.student.unet, distillation.student_levels) as ours:
            result = self.student(image)
        return result, distillation(ours.features, theirs.features)

    def _multiple(self) -> int:
        theirs = 1
        if isinstance(self.teacher, Teacher):
            theirs = self.teacher.multiple
        elif self.teacher is not None:
            theirs = self.teacher.config.multiple
        return max(self.student.config.multiple, theirs)


def build_student(recipe: StudentRecipe) -> Student:
    """The untrained student of a recipe: what it keeps of Stable Diffusion copied, the rest drawn from the seed."""
    torch.manual_seed(recipe.seed)
    student = Student(recipe.student)
    if recipe.initialise == "stable-diffusion":
        sources = recipe.sources
        base = load_stable_diffusion(sources.stable_diffusion, sources.prompt, recipe.seed, sources.tiny)
        if recipe.student.autoencoder == "taesd":
            initialise(student, base.unet, taesd=load_taesd(sources.taesd, recipe.seed, sources.tiny))
        else:
            initialise(student, base.unet, kl=base.vae)
    return student


def licence_of(recipe: StudentRecipe) -> str:
    """Terms of the trained weights: rsup's own, unless they started from Stable Diffusion or learned from it."""
    pure = recipe.initialise == "random" and recipe.teacher is None
    if pure or recipe.sources.stable_diffusion == TINY:
        return "Apache-2.0"
    return "CreativeML OpenRAIL++-M, which passes on from Stable Diffusion 2.1 to every derivative"


def _load_teacher(recipe: StudentRecipe) -> Teacher | Student:
    """A teacher's run folder, a student's run folder or a student's weights file -> the frozen network."""
    path = recipe.teacher
    if path is None:
        raise RecipeError(
            "this recipe distils but names no teacher: give its run folder with --set teacher=RUN, or train without "
            "distillation with --set distillation.mse=0 --set distillation.mmd=0"
        )
    if path.is_dir():
        if not isinstance(recipe_of(path), StudentRecipe):
            return load_teacher(path)
        path = path / WEIGHTS
    student = load_student(path)
    if not isinstance(student, Student):
        raise RecipeError(f"{path} holds no SlimDiffSR student, whose features could be learned from")
    return student.requires_grad_(False).eval()
