"""Recipes: a TOML file and overrides in, everything that decides a training run out, frozen.

Precedence, lowest first: the defaults (the paper's settings), the file, `--set key=value`. What a run was given is
written beside its checkpoints and reads back as a recipe.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomlkit
from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError, model_validator

from rsup.models.base.errors import RecipeError
from rsup.models.base.regular import read_at_most
from rsup.models.base.settings import first_problem
from rsup.models.degradation.draws import Probability
from rsup.models.losses.distillation import DistillationConfig
from rsup.models.losses.rsd import RsdConfig
from rsup.models.losses.terms import LossConfig
from rsup.models.networks.compact import CompactConfig
from rsup.models.networks.discriminators import DiscriminatorConfig
from rsup.models.networks.resshift.network import ResShiftConfig
from rsup.models.networks.slimdiffsr.config import StudentConfig
from rsup.models.networks.slimdiffsr.teacher import TeacherConfig

from .run_config import Batch, Count, Crop, OptimizerConfig, Pretrained, RunConfig

FALSE_COLOUR = "nir", "red", "green"
"""The bands that are shown as red, green and blue for vegetation to be told apart."""


class TeacherRecipe(RunConfig):
    """Stage 1 of SlimDiffSR: the uncertainty estimator, then the one-step teacher (section 3.5.1)."""

    method: Literal["slimdiffsr-teacher"]
    steps: Count = 25_000
    batch: Batch = 2
    estimator_steps: Annotated[int, Field(ge=0, le=10**9)] = 10_000
    """Steps of the estimator before it is frozen (open in the paper); not counted in `steps`."""
    optimizer: OptimizerConfig = OptimizerConfig(kind="adamw", lr=2e-4, weight_decay=0.01)
    discriminator_optimizer: OptimizerConfig = OptimizerConfig(kind="adamw", lr=2e-4, weight_decay=0.01)
    sources: Pretrained = Pretrained()
    teacher: TeacherConfig = TeacherConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    losses: LossConfig = LossConfig()


def _architecture(value: Any) -> str | None:
    """Of a student's settings as TOML or as they are; the published network where they do not say."""
    if isinstance(value, dict):
        name = value.get("architecture", "slimdiffsr-student")
    else:
        name = getattr(value, "architecture", None)
    return name if isinstance(name, str) else None


StudentSettings = Annotated[
    Annotated[StudentConfig, Tag("slimdiffsr-student")] | Annotated[CompactConfig, Tag("compact-student")],
    Discriminator(_architecture),
]


class StudentRecipe(RunConfig):
    """Stage 2 of SlimDiffSR: the pruned student, learning from the images and from a teacher's features (Eq. 23)."""

    method: Literal["slimdiffsr-student"]
    steps: Count = 100_000
    batch: Batch = 16
    teacher: Path | None = None
    """Run folder of the teacher, or a student's weights file; needed wherever `distillation` has a weight."""
    initialise: Literal["stable-diffusion", "random"] | Path = "stable-diffusion"
    """What the student starts from: the modules that it keeps of Stable Diffusion, chance, or, to go on from, the
    weights file of a student with the same settings."""
    weights: Literal["float32", "float16"] = "float32"
    """Type of the numbers in the weights file; checkpoints keep all digits."""
    optimizer: OptimizerConfig = OptimizerConfig(kind="adam", lr=5e-5)
    discriminator_optimizer: OptimizerConfig = OptimizerConfig(kind="adam", lr=5e-5)
    sources: Pretrained = Pretrained()
    student: StudentSettings = StudentConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    losses: LossConfig = LossConfig()
    distillation: DistillationConfig = DistillationConfig()
    learns: Literal["image", "uncertainty"] = "image"
    """`uncertainty` trains a student's second head alone, by what the product's image is off by."""
    through: Probability = 0.0
    """Share of the losses of numbers (L1, spectrum, decibels) that is taken behind the step that holds a mosaic to its
    scene, where a sensor made the pair. Behind it alone, a student would leave to that step all that the sensor sees,
    and with it the telling of noise from ground. What judges appearance always judges what the step leaves."""
    false_colour: Probability = 0.0
    """Share of the batches whose appearance (`perceptual` and `gan`, which see three bands) is judged by near infrared,
    red and green in the place of the first three of `data.bands`."""

    @model_validator(mode="after")
    def _compact_fits(self) -> StudentRecipe:
        if isinstance(self.student, CompactConfig):
            if self.student.scale != self.scale:
                raise ValueError(f"the student is made for x{self.student.scale}, the recipe for x{self.scale}")
            if any(len(each.data.bands) != self.student.bands for each in self.per_variant().values()):
                raise ValueError(f"the student takes {self.student.bands} bands: name as many in data.bands")
            if self.initialise == "stable-diffusion":
                raise ValueError('a compact student keeps nothing of Stable Diffusion: set initialise = "random"')
        return self

    @model_validator(mode="after")
    def _doubts_something(self) -> StudentRecipe:
        if self.learns == "uncertainty":
            if not (isinstance(self.student, CompactConfig) and self.student.uncertainty):
                raise ValueError('learns = "uncertainty" is for a compact student: set student.uncertainty = true')
            if self.distillation.mse or self.distillation.mmd or self.losses.gan_weight:
                raise ValueError('with learns = "uncertainty" the image stays: set distillation and gan_weight to 0')
        return self

    @model_validator(mode="after")
    def _has_false_colour(self) -> StudentRecipe:
        if self.false_colour and not set(FALSE_COLOUR) <= set(self.data.bands):
            raise ValueError(f"false_colour needs {', '.join(FALSE_COLOUR)} in data.bands")
        return self


class ResShiftRecipe(RunConfig):
    """The residual-shifting teacher of RSD, from scratch."""

    method: Literal["resshift"]
    steps: Count = 300_000
    batch: Batch = 64
    crop: Crop = 256
    optimizer: OptimizerConfig = OptimizerConfig(kind="adam", lr=5e-5)
    resshift: ResShiftConfig = ResShiftConfig()


class RsdRecipe(RunConfig):
    """RSD: a residual-shifting teacher distilled into one step."""

    method: Literal["rsd"]
    steps: Count = 3_000
    batch: Batch = 64
    crop: Crop = 256
    teacher: Path | None = None
    """Run folder of the residual-shifting teacher."""
    train_teacher: ResShiftRecipe | None = None
    """In the place of `teacher`: trained first, in the folder `teacher` of the run."""
    optimizer: OptimizerConfig = OptimizerConfig(kind="adamw", lr=5e-5, betas=(0.9, 0.95))
    rsd: RsdConfig = RsdConfig()

    @model_validator(mode="after")
    def _one_teacher(self) -> RsdRecipe:
        if self.teacher is not None and self.train_teacher is not None:
            raise ValueError("teacher and train_teacher exclude each other: give one of them")
        if self.train_teacher is not None and self.train_teacher.scale != self.scale:
            raise ValueError(f"train_teacher is made for x{self.train_teacher.scale}, the student for x{self.scale}")
        if self.train_teacher is not None and self.train_teacher.precision != self.precision:
            raise ValueError(f"train_teacher runs in {self.train_teacher.precision}, the student in {self.precision}")
        return self


Recipe = TeacherRecipe | StudentRecipe | ResShiftRecipe | RsdRecipe
_LARGEST = 64 << 10
"""Bytes of a recipe: tomllib takes time that grows with the square of what it is given."""
_READER: TypeAdapter[Recipe] = TypeAdapter(Annotated[Recipe, Field(discriminator="method")])


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a TOML file, with each `key=value` of `overrides` (dots between levels) put over it in order.

    A value is read as TOML (`true`, `3`, `[1, 2]`, `"text"`), and as text where it is none. Raises RecipeError.
    """
    try:
        content = read_at_most(path, _LARGEST)
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror}): give a recipe, recipes/*.toml") from None
    if content is None:
        raise RecipeError(f"{path} is larger than any recipe ({_LARGEST >> 10} KiB): give a recipe, recipes/*.toml")
    try:
        tree = tomllib.loads(content.decode("utf-8-sig"))  # some editors put a mark before it
    except ValueError as error:  # of a number that is too long, tomllib lets int's own error through
        raise RecipeError(f"{path} is not TOML: {error}") from None
    except RecursionError:
        raise RecipeError(f"{path} is not TOML that can be read: it is nested too deeply") from None
    for override in overrides:
        _override(tree, override)
    try:
        return _READER.validate_python(tree)
    except ValidationError as error:
        raise RecipeError(f"{path}: {first_problem(error)}") from None


def recipe_text(recipe: RunConfig) -> str:
    """The whole recipe as TOML, defaults included."""
    tree = recipe.model_dump(mode="json", exclude_none=True)
    return "# Everything this run was given.\n" + tomlkit.dumps(tree)


def _override(tree: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key.strip():
        raise RecipeError(
            f"--set {override}: give key=value, with dots between levels, as in --set losses.gan_weight=0"
        )
    if not _is_text(override):
        raise RecipeError(f"--set {override}: a recipe is written in UTF-8, and this is not: rename what it names")
    *levels, last = key.strip().split(".")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text.strip()
    for level in levels:
        tree = tree.setdefault(level, {})
        if not isinstance(tree, dict):
            raise RecipeError(f"--set {override}: {level} is no table")
    tree[last] = value


def _is_text(words: str) -> bool:
    """Whether words of the command line can be written down: bytes that are no UTF-8 come as lone surrogates."""
    try:
        words.encode()
    except UnicodeEncodeError:
        return False
    return True
