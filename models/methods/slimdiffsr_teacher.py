"""Stage 1 of SlimDiffSR: the uncertainty estimator alone, then the one-step teacher against its discriminator.

A recipe goes in, the task that loop.py runs comes out; and a finished run's folder gives the teacher back.
Source: SlimDiffSR, section 3.5.1, equations 5, 20-22.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from rsup.models.base.errors import RecipeError
from rsup.models.losses.terms import total_variation, uncertainty
from rsup.models.networks.interpolation import interpolator
from rsup.models.networks.precision import full_precision
from rsup.models.networks.pretrained import load_stable_diffusion
from rsup.models.networks.slimdiffsr.teacher import Teacher
from rsup.models.training.recipe import TeacherRecipe
from rsup.models.training.run_folder import load_state, recipe_of, save_state
from rsup.models.training.task import Pair, Task, Update

from .reconstruction import Reconstruction, least_crop


class TeacherTask(Task):
    """The first `estimator_steps` steps train the estimator (Eq. 5); it is frozen in the rest."""

    exported = "teacher"

    def __init__(self, recipe: TeacherRecipe) -> None:
        """Raises ModelError where a network the recipe names is not here, RecipeError for a crop that does not fit."""
        self.recipe: TeacherRecipe = recipe
        self.teacher = build_teacher(recipe)
        recipe.check_crops(self.teacher.multiple, least_crop(recipe.losses, recipe.scale))
        self.networks: dict[str, nn.Module] = {"teacher": self.teacher}
        self.optimizers = {"teacher": recipe.optimizer}
        self.estimator_steps = 0
        self._adapted = self.teacher.trainable_parameters()
        if self.teacher.estimator is not None:
            # The teacher itself runs it without gradients.
            self.teacher.estimator.requires_grad_(True)
            self.optimizers["estimator"] = recipe.optimizer
            self.estimator_steps = recipe.estimator_steps
        self.reconstruction = Reconstruction(recipe.losses, recipe.discriminator, recipe.scale, recipe.seed)
        if self.reconstruction.discriminator is not None:
            self.networks["discriminator"] = self.reconstruction.discriminator
            self.optimizers["discriminator"] = recipe.discriminator_optimizer
        self.enlarge = interpolator("bicubic", recipe.scale)

    @property
    def steps(self) -> int:
        return self.estimator_steps + self.recipe.steps

    def place(self, name: str, step: int) -> tuple[int, int]:
        if name == "estimator":
            return step, self.estimator_steps
        return step - self.estimator_steps, self.recipe.steps

    def parameters(self, name: str) -> list[nn.Parameter]:
        if name == "estimator":
            assert self.teacher.estimator is not None
            return list(self.teacher.estimator.parameters())
        return self._adapted if name == "teacher" else super().parameters(name)

    def to(self, device: torch.device) -> None:
        for each in (self.teacher, self.reconstruction, self.enlarge):
            each.to(device)

    def updates(self, pair: Pair, step: int, turn: int, generator: torch.Generator) -> Iterator[Update]:
        image = self.enlarge(pair.low)
        if step < self.estimator_steps:
            yield Update("estimator", self._uncertainty(image, pair.high))
            return
        out = self.teacher(image, pair.high)
        shown, truth, scene = map(pair.shown, (out.image, pair.high, image))
        terms = self.reconstruction.fidelity(out.image, pair.high) | self.reconstruction.appearance(shown, truth)
        terms |= self.reconstruction.gan(shown, scene)
        smooth = self._smoothness(out.alpha_bar)
        yield Update("teacher", self._loss(terms, smooth), terms | smooth)
        yield from self.reconstruction.discriminator_update(shown, truth, scene)

    def predict(self, pair: Pair, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        image = self.enlarge(pair.low)
        out = self.teacher(image, pair.high)
        terms, smooth = self.reconstruction.fidelity(out.image, pair.high), self._smoothness(out.alpha_bar)
        terms |= self.reconstruction.appearance(pair.shown(out.image), pair.shown(pair.high))
        figures = {"loss": self._loss(terms, smooth), **terms, **smooth, "timestep": out.timestep.mean()}
        if self.teacher.estimator is not None:
            figures["uncertainty"] = self._uncertainty(image, pair.high)
        return out.image, figures

    def export(self, path: Path, data: str, metrics: dict[str, float]) -> None:
        """Adapters, estimator and predictor: a teacher of its base, which the recipe beside it names."""
        save_state(path, self.teacher.state_to_save())

    def _uncertainty(self, image: Tensor, high: Tensor) -> Tensor:
        assert self.teacher.estimator is not None
        low, truth = self.teacher.encode(image), self.teacher.encode(high)
        with full_precision(image.device):
            estimate = self.teacher.estimator(low)
        return uncertainty(estimate.mean, estimate.log_variance, truth)

    def _smoothness(self, alpha_bar: Tensor) -> dict[str, Tensor]:
        """Equation 21, where the noise level is predicted."""
        return {} if self.teacher.predictor is None else {"tv": total_variation(alpha_bar)}

    def _loss(self, terms: dict[str, Tensor], smooth: dict[str, Tensor]) -> Tensor:
        """Equation 22."""
        return self.reconstruction.weighted(terms) + self.recipe.losses.tv_weight * sum(smooth.values())


def build_teacher(recipe: TeacherRecipe) -> Teacher:
    """The untrained teacher of a recipe, its new parts drawn from the recipe's seed."""
    sources = recipe.sources
    base = load_stable_diffusion(sources.stable_diffusion, sources.prompt, recipe.seed, sources.tiny)
    torch.manual_seed(recipe.seed)
    return Teacher(base, recipe.teacher)


def load_teacher(run: Path) -> Teacher:
    """The teacher that a run folder holds, frozen. Raises RecipeError where it holds none."""
    recipe = recipe_of(run)
    if not isinstance(recipe, TeacherRecipe):
        raise RecipeError(f"{run} holds a {recipe.method} run: give a slimdiffsr-teacher's")
    teacher = build_teacher(recipe)
    teacher.load(load_state(run))
    return teacher.requires_grad_(False).eval()
