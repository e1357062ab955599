"""The loop that every kind of training shares: a task and its images in, a run folder out that can always go on.

All chance of a step comes from generators seeded with (seed, step, turn, part, process), and a batch is a function of
its number: a run that was killed continues from its last checkpoint as if nothing had been, on a CPU bit for bit.
Processes that `accelerate launch` or torchrun starts share each step. Gradients are averaged here, before each change,
and not by DistributedDataParallel, which wants one forward pass a step through one whole network: these tasks call
networks in parts, several times, with others held fixed.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard.writer import SummaryWriter

from rsup.models.base.errors import DataError, TrainingError
from rsup.models.data.images import Batches, Images, Turns
from rsup.models.degradation.pairs import make_pair

from . import checkpoint
from .recipe import OptimizerConfig, RunConfig
from .run_folder import CHECKPOINTS, WEIGHTS, begin_run, save_state
from .task import Pair, Partial, Task, Update, seeded
from .validation import Validation

Report = Callable[[int, int, str], None]
"""`report(done, total, losses)`."""

LOG_EVERY = 10
"""Steps between two points of a curve."""


def fit(task: Task, data: Path, folder: Path, accelerator: Accelerator, report: Report) -> dict[str, Any]:
    """Train `task` on the images in `data` until its last step, or until SIGTERM; go on from what `folder` holds.

    Raises DataError for images that will not do, TrainingError for a loss that is not finite (after saving the batch
    that gave it) and for a folder that cannot be written.
    """
    recipe = task.recipe
    torch.manual_seed(recipe.seed)
    ways = list(recipe.ways().values())
    # Ways that read alike share what has been read.
    kinds = dict.fromkeys((way.data, way.crop) for way in ways)
    learning = {kind: Images(data, "train", *kind) for kind in kinds}
    validation = Validation(task, data, accelerator, folder)
    if accelerator.is_main_process:
        begin_run(folder, recipe)
    task.to(accelerator.device)
    optimizers = {
        name: accelerator.prepare(_optimizer(task.parameters(name), config)) for name, config in task.optimizers.items()
    }
    mean = EMAModel(task.parameters(task.exported), decay=recipe.ema, foreach=True) if recipe.ema else None
    start = _resume(task, optimizers, mean, folder, accelerator)
    validation.truncate(start)
    for name in task.optimizers:
        for parameter in task.parameters(name):
            broadcast(parameter.data)
    rank = accelerator.process_index
    batches = Turns([Batches(learning[way.data, way.crop], way.batch, recipe.seed, rank) for way in ways])
    per_step = task.turns * recipe.accumulate * len(ways)
    numbers = range(start * per_step, task.steps * per_step)
    reading = closing(_read(batches, numbers, recipe.loaders, accelerator.device))
    writer = SummaryWriter(folder / "tensorboard", purge_step=start) if accelerator.is_main_process else None

    def finish(step: int) -> None:
        if accelerator.is_main_process:
            # The checkpoint comes last: a run killed in between makes the weights again.
            named = data.name.encode(errors="backslashreplace").decode()  # a header is UTF-8, whatever names are
            with _running_mean(mean, task):
                task.export(folder / WEIGHTS, named, validation.latest)
            _save(task, optimizers, mean, folder, accelerator, step)

    if start == 0:
        validation.run(0, writer)  # what training has to better
    with reading as loader, _told_to_stop() as told:
        stopped = False
        for step in range(start, task.steps):
            losses: dict[str, float] = {}
            for turn in range(task.turns):
                losses |= _turn(task, ways, optimizers, loader, step, turn, accelerator, folder)
            if mean is not None:
                mean.step(task.parameters(task.exported))
            done = step + 1
            if accelerator.is_main_process:
                report(done, task.steps, ", ".join(f"{name} {value:.4g}" for name, value in losses.items()))
            if writer and (done % LOG_EVERY == 0 or done == task.steps):
                for name, value in losses.items():
                    writer.add_scalar(f"train/{name}", value, done)
            if done % recipe.validate_every == 0 or done == task.steps:
                with _running_mean(mean, task):
                    validation.run(done, writer)
            stopped = done < task.steps and _agreed(told, accelerator)
            if stopped or done % recipe.checkpoint_every == 0 or done == task.steps:
                finish(done)
            if stopped:
                break
    if writer:
        writer.close()
    return {
        "run": str(folder),
        "steps": done if start < task.steps else start,
        "of": task.steps,
        "stopped": stopped,
        "weights": str(folder / WEIGHTS),
        "images": max(map(len, learning.values())),
        "skipped": sorted({f"{each.path}: {each.reason}" for images in learning.values() for each in images.skipped}),
        "validation": validation.latest,
    }


def _turn(
    task: Task,
    ways: Sequence[RunConfig],
    optimizers: dict[str, Any],
    loader: Iterator[Tensor | DataError],
    step: int,
    turn: int,
    accelerator: Accelerator,
    folder: Path,
) -> dict[str, float]:
    """One turn: `accumulate` batches of each way of making pairs, then one change by every optimiser with a loss."""
    recipe = task.recipe
    parts = recipe.accumulate * len(ways)
    losses: dict[str, float] = {}
    for part in range(parts):
        way = ways[part % len(ways)]
        batch = next(loader)
        if isinstance(batch, DataError):
            raise batch
        high = batch.to(accelerator.device, non_blocking=True)
        generator = seeded(recipe.seed, step, turn, part, accelerator.process_index)
        # What draws from torch's own generators (augmentation, for one) is seeded as well.
        torch.manual_seed(generator.initial_seed())
        low, high = make_pair(high, recipe.scale, way.degradation, way.radiometry, generator)
        pair = Pair(low, high)
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
                raise _not_finite("loss", update, pair, step, folder)
            accelerator.backward(update.loss / parts)
            if part == parts - 1:
                if not _change(task, update.optimizer, optimizers[update.optimizer], step, accelerator):
                    raise _not_finite("gradient", update, pair, step, folder)
    return losses


def _change(task: Task, name: str, optimizer: Any, step: int, accelerator: Accelerator) -> bool:
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


def _not_finite(what: str, update: Update, pair: Pair, step: int, folder: Path) -> TrainingError:
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


def _optimizer(parameters: list[nn.Parameter], config: OptimizerConfig) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if config.kind == "adamw" else torch.optim.Adam
    return kind(parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)


def _save(
    task: Task, optimizers: dict[str, Any], mean: EMAModel | None, folder: Path, accelerator: Accelerator, step: int
) -> None:
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


def _resume(
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
def _running_mean(mean: EMAModel | None, task: Task) -> Iterator[None]:
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


def _read(
    batches: Turns, numbers: range, loaders: int, device: torch.device
) -> Generator[Tensor | DataError, None, None]:
    """The batches of those numbers, read ahead by `loaders` processes, which are gone once this is closed."""
    reader: Any = iter(
        DataLoader(
            _Told(batches),
            batch_size=None,
            sampler=numbers,
            num_workers=loaders,
            worker_init_fn=_deaf,
            generator=torch.Generator(),
            pin_memory=device.type == "cuda",
        )
    )
    try:
        yield from reader
    finally:
        # A traceback would keep the reader, and the exit would wait for processes that are deaf to its signal.
        if loaders:
            reader._shutdown_workers()


class _Told(Dataset[Tensor | DataError]):
    """Batches that hand a DataError over: a loader's process would raise it wrapped in its own traceback."""

    def __init__(self, batches: Turns) -> None:
        self.batches = batches

    def __getitem__(self, n: int) -> Tensor | DataError:
        try:
            return self.batches[n]
        except DataError as error:
            return error


def _deaf(_: int) -> None:
    """For processes that read images: a cluster signals every process of a job, and the run itself says when to end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
