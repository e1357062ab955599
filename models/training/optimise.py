"""One change of one network's weights: gradients of all processes averaged, looked at, clipped, applied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from rsup.models.base.errors import TrainingError

from .run_config import OptimizerConfig
from .run_folder import save_state
from .task import Pair, Task, Update


def change(task: Task, name: str, optimizer: Any, step: int, accelerator: Accelerator) -> bool:
    """One step of one network's optimiser, with the mean of all processes' gradients; False if that is not finite."""
    parameters = task.parameters(name)
    learning = [parameter for parameter in parameters if parameter.grad is not None]
    if accelerator.num_processes > 1:
        flat = torch.cat([parameter.grad.flatten() for parameter in learning if parameter.grad is not None])
        flat = accelerator.reduce(flat, "mean")
        for parameter, part in zip(learning, flat.split([p.numel() for p in learning]), strict=True):
            parameter.grad = part.view_as(parameter)
    settings = task.optimizers[name]
    # Not accelerator.clip_grad_norm_, which unscales what the other optimisers are still accumulating.
    accelerator.unscale_gradients(optimizer)
    norm = nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
    if accelerator.scaler is None and not torch.isfinite(norm):
        return False  # with a scaler it is an overflow, whose step the scaler leaves out
    for group in optimizer.param_groups:
        group["lr"] = settings.rate(*task.place(name, step))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return True


def not_finite(what: str, update: Update, pair: Pair, step: int, folder: Path) -> TrainingError:
    """Keep the batch; that network has not been changed by it, and the last checkpoint is untouched."""
    path = folder / f"not-finite-step-{step:08d}.safetensors"
    terms = {f"term/{name}": value.reshape(()) for name, value in update.terms.items()}
    try:
        save_state(path, {"low": pair.low, "high": pair.high, **terms})
        batch = f"the batch in {path}"
    except TrainingError as error:
        batch = f"a batch that is not kept ({error})"
    return TrainingError(
        f"the {what} of {update.optimizer} is not finite at step {step + 1} (loss {float(update.loss.detach()):g})"
        f" with {batch}: begin another run with a lower learning rate, or without reduced precision"
    )


def optimizer_of(parameters: list[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Of the kind and with the settings of the recipe."""
    kind = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    return kind(parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
