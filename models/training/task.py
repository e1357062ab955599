"""What a kind of training says of itself: networks, optimisers and losses; the loop in loop.py does the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from rsup.models.base.radiometry import brightness
from rsup.models.degradation.pairs import make_pair
from rsup.models.sensors.response import Response

from .run_config import OptimizerConfig, RunConfig


@dataclass(frozen=True)
class Pair:
    """A batch, in the network's range, on the device."""

    low: Tensor
    """[n, band, h / scale, w / scale]."""
    high: Tensor
    """[n, band, h, w]: the truth."""
    responses: tuple[Response, ...] = ()
    """How the sensor that made `low` sees each band; none where no sensor made it."""
    reflectance: bool = False
    """Whether values are those of reflectances, not of a photograph."""

    def shown(self, image: Tensor) -> Tensor:
        """An image of this pair as pictures show it, in [-1, 1]: what its looks are judged by."""
        return brightness(image) if self.reflectance else image


def pair_of(high01: Tensor, recipe: RunConfig, generator: torch.Generator) -> Pair:
    """The pair that a recipe makes of sharp images [n, band, h, w] in [0, 1]; see `make_pair`."""
    low, high = make_pair(high01, recipe.scale, recipe.degradation, recipe.radiometry, generator)
    return Pair(low, high, recipe.degradation.responses, recipe.radiometry.kind == "reflectance")


@dataclass(frozen=True)
class Update:
    """One backward pass and, once a step, one change by one optimiser."""

    optimizer: str
    loss: Tensor
    terms: dict[str, Tensor] = field(default_factory=dict)
    """What the loss is made of, unweighted, for the curves."""


@runtime_checkable
class Partial(Protocol):
    """A network of which only a part is trained, and saved."""

    def state_to_save(self) -> dict[str, Tensor]:
        """The tensors of that part, by name."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state_to_save` gave. Raises ModelError where it does not fit."""


class Task(ABC):
    """What a recipe trains. `networks` are saved; each optimiser changes `parameters` of its name."""

    recipe: RunConfig
    networks: dict[str, nn.Module]
    optimizers: dict[str, OptimizerConfig]
    exported: str
    """The network that the running mean follows, and that validation and export use."""
    turns: int = 1
    """Batches a step; each is a turn of its own."""

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.recipe.steps

    def place(self, name: str, step: int) -> tuple[int, int]:
        """Where step `step` of the run lies in the schedule of an optimiser: its own step, and how many it takes."""
        return step, self.steps

    def parameters(self, name: str) -> list[nn.Parameter]:
        """What the optimiser of that name changes: unless a task says otherwise, the network of that name."""
        return [parameter for parameter in self.networks[name].parameters() if parameter.requires_grad]

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Move everything, frozen networks included."""

    @abstractmethod
    def updates(self, pair: Pair, step: int, turn: int, generator: torch.Generator) -> Iterator[Update]:
        """Losses one after the other; where the loop comes back for the next, the last one's network has changed."""

    @abstractmethod
    def predict(self, pair: Pair, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """For validation: the restored image [n, 3, h, w] and the losses, `loss` among them."""

    @abstractmethod
    def export(self, path: Path, data: str, metrics: dict[str, float]) -> None:
        """Write the trained weights with their header."""


def seeded(*key: int) -> torch.Generator:
    """A generator on the CPU whose state is a function of the numbers given, each 0 or more."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state) & (2**63 - 1))
