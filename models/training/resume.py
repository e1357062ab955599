"""What a run leaves so that it can go on, and how it goes on: bit for bit on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from diffusers.training_utils import EMAModel

from rsup.models.base.errors import TrainingError

from . import checkpoint
from .run_folder import CHECKPOINTS
from .task import Partial, Task


def save(
    task: Task, optimizers: dict[str, Any], mean: EMAModel | None, folder: Path, accelerator: Accelerator, step: int
) -> None:
    """Write the checkpoint of `step` (steps done): networks, optimisers, running mean, and the scaler of fp16.

    The newest `keep` stay. Raises TrainingError where the disk refuses.
    """
    state = checkpoint.State(step)
    for name, network in task.networks.items():
        own = network.state_to_save() if isinstance(network, Partial) else network.state_dict()
        state.put(f"network/{name}", own)
    for name, optimizer in optimizers.items():
        state.put_optimizer(name, optimizer)
    if mean is not None:
        state.put("mean", {str(index): tensor for index, tensor in enumerate(mean.shadow_params)})
        state.plain["mean_steps"] = mean.optimization_step
    if accelerator.scaler is not None:
        state.plain["scaler"] = accelerator.scaler.state_dict()
    checkpoint.save(folder / CHECKPOINTS, state, task.recipe.keep)


def resume(
    task: Task, optimizers: dict[str, Any], mean: EMAModel | None, folder: Path, accelerator: Accelerator
) -> int:
    """Put the newest checkpoint back, if there is one; the number of steps done. Raises TrainingError for others."""
    state = checkpoint.load_latest(folder / CHECKPOINTS)
    if state is not None:
        try:
            _put_back(state, task, optimizers, mean, accelerator)
        except (RuntimeError, ValueError, LookupError, TypeError) as error:
            reason = str(error).strip().split("\n")[0]
            raise TrainingError(
                f"the checkpoint of step {state.step} in {folder} does not fit this run ({reason}): "
                "remove it to resume from the one before"
            ) from error
    if mean is not None:
        mean.to(accelerator.device)
    return 0 if state is None else state.step


def _put_back(
    state: checkpoint.State, task: Task, optimizers: dict[str, Any], mean: EMAModel | None, accelerator: Accelerator
) -> None:
    for name, network in task.networks.items():
        own = state.part(f"network/{name}")
        if isinstance(network, Partial):
            network.load(own)
        else:
            network.load_state_dict(own)
    for name, optimizer in optimizers.items():
        state.load_optimizer(name, optimizer)
    if accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(state.plain["scaler"])
    if mean is not None:
        shadow = state.part("mean")
        mean.shadow_params = [shadow[str(index)] for index in range(len(shadow))]
        mean.optimization_step = state.plain["mean_steps"]


@contextmanager
def running_mean(mean: EMAModel | None, task: Task) -> Iterator[None]:
    """The exported network has its running mean's weights while the block runs."""
    if mean is None:
        yield
        return
    parameters = task.parameters(task.exported)
    mean.store(parameters)
    mean.copy_to(parameters)
    try:
        yield
    finally:
        mean.restore(parameters)
