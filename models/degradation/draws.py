"""Random choices of settings: ranges and weights go in, numbers come out of one generator on the CPU.

A choice made on the CPU is the same whatever device the images are on, and reading it waits for no device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt
from torch import Tensor

from rsup.models.base.errors import RecipeError


def ordered(limits: tuple[float, float]) -> tuple[float, float]:
    """The limits as they are; ValueError, which a settings class reports, where they stand upside down."""
    if not limits[0] <= limits[1]:
        raise ValueError("the lower end of a range may not lie above its upper end")
    return limits


Range = Annotated[tuple[float, float], AfterValidator(ordered)]
"""Lower and upper end of a uniform draw."""
PositiveRange = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(ordered)]
"""The same of numbers above 0."""
Counts = Annotated[tuple[PositiveInt, PositiveInt], AfterValidator(ordered)]
"""Smallest and largest whole number, above 0, of a uniform draw; both are possible."""
Probability = Annotated[float, Field(ge=0, le=1)]


class Draws:
    """A sequence of choices, determined by the state of `generator`, which lives on the CPU."""

    def __init__(self, generator: torch.Generator) -> None:
        self._generator = generator

    def uniform(self, low: float, high: float) -> float:
        """A number from `low` to below `high`."""
        return low + (high - low) * torch.rand((), dtype=torch.float64, generator=self._generator).item()

    def chance(self, probability: Probability) -> bool:
        """True as often as `probability` (0..1) says."""
        return self.uniform(0, 1) < probability

    def integer(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return int(torch.randint(low, high + 1, (), generator=self._generator).item())

    def order(self, count: int) -> Tensor:
        """The numbers from 0 to below `count`, each once; every order as often as any other."""
        return torch.randperm(count, generator=self._generator)

    def index(self, weights: Sequence[float]) -> int:
        """A place in `weights`, as often as its weight says; they need not sum to one.

        RecipeError where a weight is negative or all are 0.
        """
        if min(weights) < 0 or max(weights) == 0:
            raise RecipeError(f"Nothing can be drawn by the shares {list(weights)}: give at least one above 0.")
        return int(torch.multinomial(torch.tensor(weights, dtype=torch.float64), 1, generator=self._generator).item())

    def fields(self, device: torch.device) -> torch.Generator:
        """A generator of noise on `device`.

        Noise is made where the image is: made on the CPU it would take as long as a training step on a GPU. The same
        state gives the same noise on one kind of device, and other noise of the same strength on another.
        """
        return torch.Generator(device).manual_seed(self.integer(0, 2**62))


def low_size(high: Tensor, scale: int) -> tuple[int, int]:
    """Height and width of what `high` [..., h, w] becomes; RecipeError where its edges are no multiples of `scale`."""
    h, w = high.shape[-2:]
    if h % scale or w % scale:
        raise RecipeError(f"Images of {h} x {w} pixels cannot be reduced x{scale}: choose a crop that {scale} divides.")
    return h // scale, w // scale
