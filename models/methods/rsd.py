"""RSD: the residual-shifting teacher from scratch, and its distillation into one step with a fake model.

Recipes go in, the tasks that loop.py runs come out. Sources: see networks/resshift/ and losses/rsd.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from rsup.models.base.errors import RecipeError
from rsup.models.losses.perceptual import Term, perceptual_term
from rsup.models.losses.rsd import Rsd
from rsup.models.losses.terms import l1
from rsup.models.networks.interpolation import interpolator
from rsup.models.networks.resshift.latents import Latents, load_latents
from rsup.models.networks.resshift.network import ResShift
from rsup.models.networks.resshift.one_step import assemble
from rsup.models.training.recipe import ResShiftRecipe, RsdRecipe
from rsup.models.training.run_folder import load_state, recipe_of, save_state
from rsup.models.training.task import Pair, Task, Update
from rsup.models.weights_file import check_layout, save_weights, student_header


class _LatentTask(Task):
    """What both tasks do with images: enlarge, encode."""

    latents: Latents
    enlarge: nn.Module

    def to(self, device: torch.device) -> None:
        for each in (*self.networks.values(), self.latents, self.enlarge):
            each.to(device)

    def encoded(self, pair: Pair) -> tuple[Tensor, Tensor]:
        """(z_0 of the truth, z_y of the enlarged image)."""
        with torch.no_grad():
            return self.latents.encode(pair.high), self.latents.encode(self.enlarge(pair.low))


class ResShiftTask(_LatentTask):
    """The teacher: many steps, and only then good."""

    exported = "teacher"

    def __init__(self, recipe: ResShiftRecipe) -> None:
        """Raises ModelError where the autoencoder is not here, RecipeError for a crop that does not fit."""
        self.recipe: ResShiftRecipe = recipe
        self.teacher, self.latents = new_resshift(recipe)
        recipe.check_crops(_multiple(self.latents, self.teacher))
        self.networks: dict[str, nn.Module] = {"teacher": self.teacher}
        self.optimizers = {"teacher": recipe.optimizer}
        self.enlarge = interpolator("bicubic", recipe.scale)

    def updates(self, pair: Pair, step: int, turn: int, generator: torch.Generator) -> Iterator[Update]:
        yield Update("teacher", self.teacher.training_loss(*self.encoded(pair), generator))

    def predict(self, pair: Pair, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        z_0, z_y = self.encoded(pair)
        loss = self.teacher.training_loss(z_0, z_y, generator)
        result = self.latents.decode(self.teacher.sample(z_y, generator))
        return result, {"loss": loss, "l1": l1(result, pair.high)}

    def export(self, path: Path, data: str, metrics: dict[str, float]) -> None:
        """The network alone: the recipe beside it names the autoencoder."""
        save_state(path, self.teacher.state_dict())


class RsdTask(_LatentTask):
    """K turns of the fake network and the head, then one of the student."""

    exported = "student"

    def __init__(self, recipe: RsdRecipe, teacher: ResShift, latents: Latents) -> None:
        """`teacher` is frozen, and restores `latents`. Raises ModelError and RecipeError as ResShiftTask does."""
        self.recipe: RsdRecipe = recipe
        self.latents = latents
        recipe.check_crops(_multiple(latents, teacher))
        torch.manual_seed(recipe.seed)
        self.rsd = Rsd(teacher, recipe.rsd)
        self.networks: dict[str, nn.Module] = {
            "student": self.rsd.student,
            "fake": nn.ModuleDict({"fake": self.rsd.fake, "head": self.rsd.head}),
        }
        self.optimizers = {"student": recipe.optimizer, "fake": recipe.optimizer}
        self.turns = recipe.rsd.fake_updates + 1
        self.perceptual = perceptual_term(recipe.rsd.perceptual)
        self.enlarge = interpolator("bicubic", recipe.scale)

    def to(self, device: torch.device) -> None:
        super().to(device)
        self.rsd.to(device)
        if isinstance(self.perceptual, nn.Module):
            self.perceptual.to(device)

    def updates(self, pair: Pair, step: int, turn: int, generator: torch.Generator) -> Iterator[Update]:
        z_0, z_y = self.encoded(pair)
        weights = self.recipe.rsd
        if turn < weights.fake_updates:
            terms = self.rsd.fake_terms(z_0, z_y, generator)
            # The weight of the student's term, too: the head's gradient reaches the fake network's encoder.
            loss = terms["fake"] + weights.gan_weight * terms.get("discriminator", 0)
            yield Update("fake", loss, {"discriminator": terms["discriminator"]} if weights.gan_weight else {})
            return
        terms = self.rsd.student_terms(z_0, z_y, pair.high, self.latents, self._looks(pair), generator)
        loss = terms["distillation"] + weights.gan_weight * terms.get("gan", 0)
        loss = loss + weights.perceptual_weight * terms.get("perceptual", 0)
        yield Update("student", loss, terms)

    def predict(self, pair: Pair, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        student = assemble(self.rsd.student, self.latents, seed=self.recipe.seed).to(pair.high.device)
        result: Tensor = student(self.enlarge(pair.low))
        error = l1(result, pair.high)
        terms = {"l1": error}
        if (looks := self._looks(pair)) is not None:
            terms["perceptual"] = looks(result, pair.high)
        # The distillation loss has no meaning of its own: it compares two networks that both change.
        return result, {"loss": error + self.recipe.rsd.perceptual_weight * terms.get("perceptual", 0), **terms}

    def export(self, path: Path, data: str, metrics: dict[str, float]) -> None:
        student = assemble(self.rsd.student, self.latents, seed=self.recipe.seed)
        header = student_header(
            student.config,
            self.recipe.scale,
            licence="Apache-2.0; an autoencoder that was not made here keeps its own terms",
            source=f"trained on {data}",
            recipe=self.recipe.model_dump(mode="json", exclude={"teacher"}),
            data=data,
            metrics=metrics,
        )
        save_weights(path, student.state_dict(), header)

    def _looks(self, pair: Pair) -> Term | None:
        """The perceptual term, where there is one, of images of this pair."""
        term = self.perceptual
        return None if term is None else lambda image, truth: term(pair.shown(image), pair.shown(truth))


def rsd_task(recipe: RsdRecipe) -> RsdTask:
    """The task of a recipe that names a trained teacher. Raises RecipeError where it names none."""
    if recipe.teacher is None:
        raise RecipeError(
            "this recipe distils a residual-shifting teacher but names none: train one with "
            "recipes/rsd/teacher.toml and give its run folder with --set teacher=RUN"
        )
    return RsdTask(recipe, *load_resshift(recipe.teacher))


def new_resshift(recipe: ResShiftRecipe) -> tuple[ResShift, Latents]:
    """The untrained network of a recipe, drawn from its seed, and the autoencoder. Raises ModelError without that."""
    latents = load_latents(recipe.resshift.autoencoder)
    torch.manual_seed(recipe.seed)
    return ResShift(recipe.resshift, latents.config.channels), latents


def load_resshift(run: Path) -> tuple[ResShift, Latents]:
    """The network and the autoencoder of a residual-shifting run. Raises RecipeError where `run` is none."""
    recipe = recipe_of(run)
    if not isinstance(recipe, ResShiftRecipe):
        raise RecipeError(f"{run} holds a {recipe.method} run: give a resshift run")
    network, latents = new_resshift(recipe)
    state = load_state(run)
    found, wanted = ({name: tuple(t.shape) for name, t in each.items()} for each in (state, network.state_dict()))
    check_layout(found, wanted, run)
    network.load_state_dict(state)
    return network, latents


def _multiple(latents: Latents, network: ResShift) -> int:
    """Image sides must be multiples of this many output pixels."""
    return latents.config.factor * network.config.denoiser.multiple
