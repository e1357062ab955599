"""The loop that every kind of training shares: a task and its images in, a run folder out that can always go on.

All chance of a step comes from generators seeded with (seed, step, turn, part, process), and a batch is a function of
its number: a run that was killed continues from its last checkpoint as if nothing had been, on a CPU bit for bit.
Processes that `accelerate launch` or torchrun starts share each step. Gradients are averaged here, before each change,
and not by DistributedDataParallel, which wants one forward pass a step through one whole network: these tasks call
networks in parts, several times, with others held fixed.
"""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from rsup.models.base.errors import DataError
from rsup.models.base.progress import Progress
from rsup.models.data.batches import Batches, Interleaved, read_ahead
from rsup.models.data.images import DataConfig, Images

from .optimise import change, not_finite, optimizer_of
from .resume import resume, running_mean, save
from .run_config import RunConfig
from .run_folder import WEIGHTS, begin_run
from .task import Task, pair_of, seeded
from .validation import Validation

LOG_EVERY = 10
"""Steps between two points of a curve."""


def fit(task: Task, data: Path, folder: Path, accelerator: Accelerator, progress: Progress) -> dict[str, Any]:
    """Train `task` on the images in `data` until its last step, or until SIGTERM; go on from what `folder` holds.

    Raises DataError for images that will not do, TrainingError for a loss that is not finite (after saving the batch
    that gave it) and for a folder that cannot be written.
    """
    recipe = task.recipe
    torch.manual_seed(recipe.seed)
    variants = list(recipe.per_variant().values())
    # Variants that read alike share what has been read.
    kinds = dict.fromkeys((variant.data, variant.crop) for variant in variants)
    learning = {kind: Images(data, "train", *kind) for kind in kinds}
    run = _Run(task, data, folder, accelerator)
    start = done = run.begin()
    loading = _loading(recipe, learning, range(start, task.steps), task.turns, accelerator)
    writer = SummaryWriter(folder / "tensorboard", purge_step=start) if accelerator.is_main_process else None
    if start == 0:
        run.validation.run(0, writer)  # what training has to better
    stopped = False
    with loading as loader, _told_to_stop() as told:
        for step in range(start, task.steps):
            losses = run.step(variants, loader, step)
            done = step + 1
            run.show(losses, done, writer, progress)
            stopped = done < task.steps and _agreed(told, accelerator)
            if stopped or done % recipe.checkpoint_every == 0 or done == task.steps:
                run.leave(done)
            if stopped:
                break
    if writer:
        writer.close()
    return {
        "run": str(folder),
        "steps": done,
        "of": task.steps,
        "stopped": stopped,
        "weights": str(folder / WEIGHTS),
        "images": max(map(len, learning.values())),
        "skipped": sorted({f"{each.path}: {each.reason}" for images in learning.values() for each in images.skipped}),
        "validation": run.validation.latest,
    }


def _loading(
    recipe: RunConfig,
    learning: dict[tuple[DataConfig, int], Images],
    steps: range,
    turns: int,
    accelerator: Accelerator,
) -> closing[Generator[Tensor | DataError, None, None]]:
    """The batches of those steps in their order, `accumulate` of each variant in turn for each turn of a step."""
    variants = list(recipe.per_variant().values())
    rank = accelerator.process_index
    batches = Interleaved([Batches(learning[each.data, each.crop], each.batch, recipe.seed, rank) for each in variants])
    per_step = turns * recipe.accumulate * len(variants)
    numbers = range(steps.start * per_step, steps.stop * per_step)
    return closing(read_ahead(batches, numbers, recipe.loaders, accelerator.device))


class _Run:
    """What one process trains with, and what it leaves in the folder."""

    def __init__(self, task: Task, data: Path, folder: Path, accelerator: Accelerator) -> None:
        """Raises DataError where `data` has no image left for validation."""
        self.task, self.data, self.folder, self.accelerator = task, data, folder, accelerator
        self.validation = Validation(task, data, accelerator, folder)

    def begin(self) -> int:
        """Put everything on the device as the folder's last checkpoint has it; the number of steps done."""
        task, recipe, accelerator = self.task, self.task.recipe, self.accelerator
        if accelerator.is_main_process:
            begin_run(self.folder, recipe)
        task.to(accelerator.device)
        self.optimizers = {
            name: accelerator.prepare(optimizer_of(task.parameters(name), config))
            for name, config in task.optimizers.items()
        }
        self.mean = EMAModel(task.parameters(task.exported), decay=recipe.ema, foreach=True) if recipe.ema else None
        start = resume(task, self.optimizers, self.mean, self.folder, accelerator)
        self.validation.truncate(start)
        for name in task.optimizers:
            for parameter in task.parameters(name):
                broadcast(parameter.data)
        return start

    def step(self, variants: Sequence[RunConfig], loader: Iterator[Tensor | DataError], step: int) -> dict[str, float]:
        """Every turn of one step; its losses by name. Raises DataError and TrainingError."""
        task, losses = self.task, dict[str, float]()
        for turn in range(task.turns):
            losses |= _turn(task, variants, self.optimizers, loader, step, turn, self.accelerator, self.folder)
        if self.mean is not None:
            self.mean.step(task.parameters(task.exported))
        return losses

    def show(self, losses: dict[str, float], done: int, writer: SummaryWriter | None, progress: Progress) -> None:
        """What there is to see after a step: a line, points of the curves, a validation where one is due."""
        task = self.task
        if self.accelerator.is_main_process:
            progress(done, task.steps, ", ".join(f"{name} {value:.4g}" for name, value in losses.items()))
        if writer and (done % LOG_EVERY == 0 or done == task.steps):
            for name, value in losses.items():
                writer.add_scalar(f"train/{name}", value, done)
        if done % task.recipe.validate_every == 0 or done == task.steps:
            with running_mean(self.mean, task):
                self.validation.run(done, writer)

    def leave(self, step: int) -> None:
        """Write the weights and a checkpoint of that step."""
        if self.accelerator.is_main_process:
            # The checkpoint comes last: a run killed in between makes the weights again.
            named = self.data.name.encode(errors="backslashreplace").decode()  # a header is UTF-8, whatever names are
            with running_mean(self.mean, self.task):
                self.task.export(self.folder / WEIGHTS, named, self.validation.latest)
            save(self.task, self.optimizers, self.mean, self.folder, self.accelerator, step)


def _turn(
    task: Task,
    variants: Sequence[RunConfig],
    optimizers: dict[str, Any],
    loader: Iterator[Tensor | DataError],
    step: int,
    turn: int,
    accelerator: Accelerator,
    folder: Path,
) -> dict[str, float]:
    """One turn: `accumulate` batches of each variant, then one change by every optimiser with a loss."""
    recipe = task.recipe
    parts = recipe.accumulate * len(variants)
    losses: dict[str, float] = {}
    for part in range(parts):
        variant = variants[part % len(variants)]
        batch = next(loader)
        if isinstance(batch, DataError):
            raise batch
        high = batch.to(accelerator.device, non_blocking=True)
        generator = seeded(recipe.seed, step, turn, part, accelerator.process_index)
        # What draws from torch's own generators (augmentation, for one) is seeded as well.
        torch.manual_seed(generator.initial_seed())
        pair = pair_of(high, variant, generator)
        updates = task.updates(pair, step, turn, generator)
        while True:
            with accelerator.autocast():
                update = next(updates, None)
            if update is None:
                break
            values = {update.optimizer: update.loss, **update.terms}
            for name, value in values.items():
                losses[name] = losses.get(name, 0) + float(value.detach()) / parts
            if not torch.isfinite(update.loss):
                raise not_finite("loss", update, pair, step, folder)
            accelerator.backward(update.loss / parts)
            if part == parts - 1:
                if not change(task, update.optimizer, optimizers[update.optimizer], step, accelerator):
                    raise not_finite("gradient", update, pair, step, folder)
    return losses


@contextmanager
def _told_to_stop() -> Iterator[list[int]]:
    """Gets an entry once SIGTERM or Ctrl-C has come, for the loop to see after a step; the second one acts at once."""
    told: list[int] = []
    if current_thread() is not main_thread():
        yield told
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}

    def hear(number: int, _: object) -> None:
        told.append(number)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in numbers:
        signal.signal(number, hear)
    try:
        yield told
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _agreed(told: list[int], accelerator: Accelerator) -> bool:
    """Whether any process was told: all must leave after the same step."""
    if accelerator.num_processes == 1:
        return bool(told)
    flag = torch.tensor(len(told), device=accelerator.device)
    return int(accelerator.reduce(flag, "sum")) > 0
