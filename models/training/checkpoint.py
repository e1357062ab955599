"""Checkpoints of a training run: named states in, one folder a checkpoint out, whole or not at all, the oldest dropped.

A checkpoint is a safetensors file and a JSON file. No generator is saved: every draw of a step is a function of the
seed, the step and the process alone (see models/training/loop.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rsup.models.base.errors import TrainingError
from rsup.models.base.files import remove, replacing, write_whole, writing
from rsup.models.weights_file import write_tensors

_NAME = re.compile(r"step-(\d{8})")


@dataclass
class State:
    """Everything a run continues from."""

    step: int
    """Steps done."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """By name; names may hold dots."""
    plain: dict[str, Any] = field(default_factory=dict)
    """What JSON can say."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `prefix` and a slash, without that."""
        return {
            name.removeprefix(f"{prefix}/"): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(f"{prefix}/")
        }

    def put(self, prefix: str, tensors: Mapping[str, Tensor]) -> None:
        """Add tensors, a slash between `prefix` and their names."""
        self.tensors |= {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}

    def put_optimizer(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        """Add an optimiser's moments and counts; its settings come from the recipe."""
        for index, moments in optimizer.state_dict()["state"].items():
            self.put(f"optimizer/{name}/{index}", moments)

    def load_optimizer(self, name: str, optimizer: torch.optim.Optimizer) -> None:
        """Give an optimiser back what `put_optimizer` took."""
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in self.part(f"optimizer/{name}").items():
            index, _, moment = key.partition("/")
            state.setdefault(int(index), {})[moment] = tensor
        optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def save(folder: Path, state: State, keep: int) -> Path:
    """Write a checkpoint into `folder` and drop all but the `keep` newest. Raises TrainingError (no space, ...).

    One of the same step stays: what a run is at a step follows from its recipe.
    """
    final = folder / f"step-{state.step:08d}"
    with writing(final, TrainingError, SafetensorError):
        folder.mkdir(parents=True, exist_ok=True)
        if not final.exists():
            with replacing(final) as fresh:
                fresh.mkdir()
                write_tensors(fresh / "tensors.safetensors", state.tensors)
                write_whole(fresh / "state.json", json.dumps({"step": state.step, **state.plain}).encode())
        for old in checkpoints(folder)[:-keep]:
            remove(old)
    return final


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints in `folder`, oldest first."""
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)) if folder.is_dir() else []


def load_latest(folder: Path) -> State | None:
    """The newest checkpoint, or None where there is none. Raises TrainingError where it is damaged."""
    found = checkpoints(folder)
    if not found:
        return None
    try:
        plain = json.loads((found[-1] / "state.json").read_text())
        return State(plain.pop("step"), load_file(found[-1] / "tensors.safetensors"), plain)
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise TrainingError(f"{found[-1]} is damaged ({error}): remove it to resume from the one before") from error
