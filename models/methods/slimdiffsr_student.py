"""Stage 2 of SlimDiffSR: the pruned student, learning from images, a discriminator and a teacher's features.

A recipe goes in, the task that loop.py runs comes out. Source: SlimDiffSR, section 3.5.2, equations 17-20 and 23.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from rsup.models.base.errors import RecipeError
from rsup.models.base.intervals import SHARES
from rsup.models.base.radiometry import from_network
from rsup.models.consistency import hold_values
from rsup.models.degradation.draws import Draws
from rsup.models.losses.distillation import Distillation, FeatureTaps
from rsup.models.losses.terms import intervals
from rsup.models.networks.architectures import ARCHITECTURES
from rsup.models.networks.compact import CompactConfig, CompactStudent
from rsup.models.networks.doubt import of_pixels
from rsup.models.networks.interpolation import interpolator
from rsup.models.networks.pretrained import TINY, load_stable_diffusion, load_taesd
from rsup.models.networks.slimdiffsr.initialise import initialise
from rsup.models.networks.slimdiffsr.student import Student
from rsup.models.networks.slimdiffsr.teacher import Teacher
from rsup.models.training.recipe import FALSE_COLOUR, StudentRecipe, TeacherRecipe
from rsup.models.training.run_config import Pretrained
from rsup.models.training.run_folder import WEIGHTS, recipe_of
from rsup.models.training.task import Pair, Task, Update
from rsup.models.weights_file import load_student, read_header, save_weights, student_header

from .reconstruction import Reconstruction, least_crop
from .slimdiffsr_teacher import load_teacher

OWN_LICENCE = "Apache-2.0"
SD_LICENCE = "CreativeML OpenRAIL++-M, which passes on from Stable Diffusion 2.1 to every derivative"


class StudentTask(Task):
    """One step changes the student (with its adapters), then its discriminator, where the recipe has one."""

    exported = "student"

    def __init__(self, recipe: StudentRecipe) -> None:
        """Raises ModelError where a network the recipe names is not here, RecipeError for settings that do not fit."""
        self.recipe: StudentRecipe = recipe
        self.student = build_student(recipe)
        self.licence = _licence_of_start(recipe)
        learner = nn.ModuleDict({"student": self.student})
        self.teacher: Teacher | Student | CompactStudent | None = None
        self.distillation: Distillation | None = None
        weights = recipe.distillation
        if weights.mse or weights.mmd:
            self.teacher, licence = _load_teacher(recipe)
            self.licence = licence if self.licence == OWN_LICENCE else self.licence
            self.distillation = Distillation(self.student.unet, self.teacher.unet, weights)
            learner["distillation"] = self.distillation
        if recipe.learns == "uncertainty":
            self._doubting().learn_doubt()
        recipe.check_crops(self._multiple(), least_crop(recipe.losses, recipe.scale))
        self.networks: dict[str, nn.Module] = {"student": learner}
        self.optimizers = {"student": recipe.optimizer}
        self.reconstruction = Reconstruction(recipe.losses, recipe.discriminator, recipe.scale, recipe.seed)
        if self.reconstruction.discriminator is not None:
            self.networks["discriminator"] = self.reconstruction.discriminator
            self.optimizers["discriminator"] = recipe.discriminator_optimizer
        self.enlarge = interpolator("bicubic", recipe.scale)

    def to(self, device: torch.device) -> None:
        for each in (*self.networks.values(), self.reconstruction, self.enlarge, self.teacher):
            if each is not None:
                each.to(device)
        # The layout that convolutions are fastest in, on a CPU too: a compact student's step takes a sixth less time.
        self.student.to(memory_format=torch.channels_last)

    def updates(self, pair: Pair, step: int, turn: int, generator: torch.Generator) -> Iterator[Update]:
        if self.recipe.learns == "uncertainty":
            yield Update("student", self._doubts(pair)[1]["loss"])
            return
        result, distilled = self._distilled(pair)
        held = self._held(result, pair)
        scene = self.enlarge(pair.low) if self.reconstruction.discriminator is not None else pair.low
        order = self._order(generator)
        shown, truth, scene = (pair.shown(image[:, order]) for image in (held, pair.high, scene))
        terms = self._fidelity(result, held, pair.high) | self.reconstruction.appearance(shown, truth)
        terms |= self.reconstruction.gan(shown, scene)
        loss = self.reconstruction.weighted(terms)
        if distilled:
            weights = self.recipe.distillation
            loss = loss + weights.mse * distilled["mse"] + weights.mmd * distilled.get("mmd", 0)
        yield Update("student", loss, terms | distilled)
        yield from self.reconstruction.discriminator_update(shown, truth, scene)

    def predict(self, pair: Pair, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        if self.recipe.learns == "uncertainty":
            return self._doubts(pair)
        result: Tensor = self.student(self._input(self.student, pair.low))
        held = self._held(result, pair)
        terms = self._fidelity(result, held, pair.high)
        terms |= self.reconstruction.appearance(pair.shown(held), pair.shown(pair.high))
        return held, {"loss": self.reconstruction.weighted(terms), **terms}

    def export(self, path: Path, data: str, metrics: dict[str, float]) -> None:
        recipe = self.recipe
        header = student_header(
            self.student.config,
            recipe.scale,
            bands=recipe.data.bands,
            licence=self.licence,
            source=f"trained on {data}",
            recipe=recipe.model_dump(mode="json", exclude={"teacher", "initialise"}),
            data=data,
            metrics=metrics,
        )
        kind = getattr(torch, recipe.weights)
        save_weights(path, {name: tensor.to(kind) for name, tensor in self.student.state_dict().items()}, header)

    def _doubts(self, pair: Pair) -> tuple[Tensor, dict[str, Tensor]]:
        """The product's image, and how well the second head knows its error: `loss`, and the shares of pixels that lie
        within what it says and within WIDER times that.
        """
        image, widths = self._doubting().with_uncertainty(self._input(self.student, pair.low))
        if pair.responses:
            image = hold_values(image, pair.low, self.recipe.scale, pair.responses)
        off, width = from_network(image) - from_network(pair.high), of_pixels(widths, self.recipe.scale)
        within = {f"within_{factor:g}": (off.abs() < factor * width).float().mean() for factor in SHARES}
        return image, {"loss": intervals(off, width), **within}

    def _doubting(self) -> CompactStudent:
        assert isinstance(self.student, CompactStudent)  # by the recipe's own check
        return self.student

    def _held(self, result: Tensor, pair: Pair) -> Tensor:
        """What the product makes of a result, where the recipe trains for that and a sensor made the pair."""
        if not self.recipe.through or not pair.responses:
            return result
        return hold_values(result, pair.low, self.recipe.scale, pair.responses)

    def _fidelity(self, result: Tensor, held: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """The losses of numbers, in front of that step and behind it."""
        terms, share = self.reconstruction.fidelity(result, truth), self.recipe.through
        if held is not result:
            behind = self.reconstruction.fidelity(held, truth)
            terms = {name: (1 - share) * term + share * behind[name] for name, term in terms.items()}
        return terms

    def _order(self, generator: torch.Generator) -> list[int]:
        """The bands, those first that this batch's appearance is judged by."""
        bands = self.recipe.data.bands
        first = FALSE_COLOUR if Draws(generator).chance(self.recipe.false_colour) else ()
        return list(dict.fromkeys((*map(bands.index, first), *range(len(bands)))))

    def _input(self, network: Student | CompactStudent, low: Tensor) -> Tensor:
        """What a network is given: a compact one enlarges by itself."""
        image: Tensor = self.enlarge(low) if ARCHITECTURES[network.config.architecture].given == "enlarged" else low
        return image.contiguous(memory_format=torch.channels_last)

    def _distilled(self, pair: Pair) -> tuple[Tensor, dict[str, Tensor]]:
        """The student's result, and the terms of equation 19 where there is a teacher."""
        distillation = self.distillation
        if self.teacher is None or distillation is None:
            result: Tensor = self.student(self._input(self.student, pair.low))
            return result, {}
        with FeatureTaps(self.teacher.unet, distillation.teacher_levels) as theirs, torch.no_grad():
            if isinstance(self.teacher, Teacher):
                self.teacher.restore(self.enlarge(pair.low), pair.high)
            else:
                self.teacher(self._input(self.teacher, pair.low))
        with FeatureTaps(self.student.unet, distillation.student_levels) as ours:
            result = self.student(self._input(self.student, pair.low))
        return result, distillation(ours.features, theirs.features)

    def _multiple(self) -> int:
        """Of output pixels; all of these are powers of 2."""
        theirs = self.teacher.multiple if isinstance(self.teacher, Teacher) else 1
        if isinstance(self.teacher, Student | CompactStudent):
            theirs = self.teacher.config.multiple
        return max(self.student.config.multiple, theirs)


def build_student(recipe: StudentRecipe) -> Student | CompactStudent:
    """The student of a recipe as it starts: what it keeps of Stable Diffusion copied, the rest drawn from the seed."""
    torch.manual_seed(recipe.seed)
    if isinstance(recipe.initialise, Path):
        return _known(recipe.initialise, recipe)
    if isinstance(recipe.student, CompactConfig):
        return CompactStudent(recipe.student)
    student = Student(recipe.student)
    if recipe.initialise == "stable-diffusion":
        sources = recipe.sources
        base = load_stable_diffusion(sources.stable_diffusion, sources.prompt, recipe.seed, sources.tiny)
        if recipe.student.autoencoder == "taesd":
            initialise(student, base.unet, taesd=load_taesd(sources.taesd, recipe.seed, sources.tiny))
        else:
            initialise(student, base.unet, kl=base.vae)
    return student


def _load_teacher(recipe: StudentRecipe) -> tuple[Teacher | Student | CompactStudent, str]:
    """A teacher's run folder, a student's run folder or a student's weights file -> the frozen network, its licence."""
    path = recipe.teacher
    if path is None:
        raise RecipeError(
            "this recipe distils but names no teacher: give its run folder with --set teacher=RUN, or train without "
            "distillation with --set distillation.mse=0 --set distillation.mmd=0"
        )
    if os.path.isdir(path):  # unlike Path.is_dir, whatever the path: too long, not to be entered
        of_run = recipe_of(path)
        if isinstance(of_run, TeacherRecipe):
            _check_scale(path, of_run.scale, recipe.scale)
            return load_teacher(path), _licence(of_run.sources)
        path = path / WEIGHTS
    student, header = load_student(path), read_header(path)[0]
    if not isinstance(student, Student | CompactStudent):
        raise RecipeError(f"{path} holds a student of RSD: give a SlimDiffSR one, whose features can be learned from")
    _check_scale(path, header.scale, recipe.scale)
    return student.requires_grad_(False).eval(), header.licence


def _known(path: Path, recipe: StudentRecipe) -> Student | CompactStudent:
    """The student in a weights file; raises RecipeError where the recipe describes another."""
    student = load_student(path)
    _check_scale(path, read_header(path)[0].scale, recipe.scale)
    if student.config == recipe.student:
        assert isinstance(student, Student | CompactStudent)  # what those settings build
        return student
    if not (isinstance(student, CompactStudent) and isinstance(recipe.student, CompactConfig)):
        raise RecipeError(f"{path} holds a student of other settings: give it those of `rsup models show {path}`")
    ours = CompactStudent(recipe.student)
    try:
        ours.adopt(student)
    except ValueError as error:
        raise RecipeError(f"{path} holds a student that this one cannot grow from: {error}") from None
    return ours


def _check_scale(path: Path, theirs: int, ours: int) -> None:
    if theirs != ours:
        raise RecipeError(f"{path} was trained for x{theirs}, this recipe is for x{ours}: give weights of x{ours}")


def _licence_of_start(recipe: StudentRecipe) -> str:
    if isinstance(recipe.initialise, Path):
        return read_header(recipe.initialise)[0].licence
    return OWN_LICENCE if recipe.initialise == "random" else _licence(recipe.sources)


def _licence(sources: Pretrained) -> str:
    """Terms of weights that started from Stable Diffusion, or learned from it."""
    return OWN_LICENCE if sources.stable_diffusion == TINY else SD_LICENCE
