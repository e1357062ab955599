"""The loop, on a task of two convolutions: going on after any end, means, faults, signals."""

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from rsup.models.base.errors import DataError, TrainingError
from rsup.models.data.batches import Batches
from rsup.models.data.images import Images
from rsup.models.degradation.pairs import make_pair
from rsup.models.losses.adversarial import frozen
from rsup.models.training.checkpoint import State, save
from rsup.models.training.loop import fit
from rsup.models.training.run_config import OptimizerConfig, RunConfig
from rsup.models.training.task import Pair, Task, Update, seeded

Fit = Callable[..., dict[str, Any]]


class Toy(Task):
    """Draws from the generator it is given and from torch's own; has two optimisers and, if wanted, two turns."""

    exported = "image"

    def __init__(self, **settings: Any) -> None:
        small = {"steps": 6, "batch": 2, "crop": 32, "validation_images": 2, "loaders": 0, "ema": 0.5}
        often = {"validate_every": 2, "checkpoint_every": 2}
        optimizer = {"clip_norm": settings.pop("clip_norm", 1.0), "warmup": settings.pop("warmup", 0)}
        self.turns = settings.pop("turns", 1)
        self.recipe = RunConfig(**small | often | settings)
        torch.manual_seed(self.recipe.seed)
        self.image, self.judge = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 1, 3)
        self.networks = {"image": self.image, "judge": self.judge}
        self.optimizers = {
            "image": OptimizerConfig(kind="adamw", lr=0.01, weight_decay=0.1, schedule="cosine", **optimizer),
            "judge": OptimizerConfig(kind="adam", lr=0.003),
        }
        self.fault: tuple[int, str] | None = None
        self.exports = 0

    def to(self, device: torch.device) -> None:
        self.image.to(device)
        self.judge.to(device)

    def updates(self, pair: Pair, step: int, turn: int, generator: torch.Generator) -> Iterator[Update]:
        noise = torch.randn(pair.high.shape, generator=generator)
        out = self.image(self._enlarged(pair) + 0.1 * noise)
        if turn == self.turns - 1:
            with frozen(self.judge):
                gan = self.judge(out).square().mean()
            loss = (out - pair.high).abs().mean() + torch.rand(()) * gan
            if self.fault == (step, "loss"):
                loss = loss + torch.log(-loss.detach())
            if self.fault == (step, "gradient"):
                loss = loss + torch.sqrt(0 * loss)
            yield Update("image", loss, {"gan": gan})
        yield Update("judge", (self.judge(out.detach()) - 1).square().mean())

    def predict(self, pair: Pair, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        out = self.image(self._enlarged(pair))
        return out, {"loss": (out - pair.high).abs().mean()}

    def export(self, path: Path, data: str, metrics: dict[str, float]) -> None:
        save_file({name: tensor.clone() for name, tensor in self.image.state_dict().items()}, path)
        self.exports += 1
        if self.fault == (self.exports, "export"):
            raise KeyboardInterrupt

    def _enlarged(self, pair: Pair) -> Tensor:
        return pair.low.repeat_interleave(self.recipe.scale, 2).repeat_interleave(self.recipe.scale, 3)


@pytest.fixture
def run(training_images: Path, tmp_path: Path) -> Iterator[Fit]:
    """`run(task, folder, at=step, do=...)`: fit, and call `do` after that step, before its checkpoint."""

    def go(
        task: Task, folder: str, at: int = 0, do: Callable[[], None] | None = None, data: Path = training_images
    ) -> dict[str, Any]:
        def progress(done: int, total: int, losses: str) -> None:
            if done == at and do:
                do()

        AcceleratorState._reset_state(True)
        return fit(task, data, tmp_path / folder, Accelerator(), progress)

    yield go
    AcceleratorState._reset_state(True)
    # Deaf to signals as they are, they would keep this process from its end.
    assert not multiprocessing.active_children()


def interrupt() -> None:
    raise KeyboardInterrupt


def bits(folder: Path) -> dict[str, Any]:
    """Everything a run leaves, but for curves and older checkpoints."""
    last = sorted((folder / "checkpoints").iterdir())[-1]
    rows = (folder / "validation.jsonl").read_text()
    files = {path.name: path.read_bytes() for path in (folder / "weights.safetensors", *last.iterdir())}
    return {"last": last.name, "rows": rows, **files}


TWO_WAYS = [
    {"name": "photograph"},
    {
        "name": "sensor",
        "batch": 1,
        "crop": 64,
        "degradation": {"kind": "sentinel2"},
        "radiometry": {"kind": "reflectance"},
    },
]


@pytest.mark.parametrize(
    "settings",
    [{}, {"ema": 0}, {"accumulate": 2, "turns": 2, "variants": TWO_WAYS}, {"loaders": 1}],
    ids=["plain", "no mean", "parts, turns and variants", "a loader"],
)
def test_a_killed_run_goes_on_bit_for_bit(settings: dict[str, Any], run: Fit, tmp_path: Path) -> None:
    run(Toy(**settings), "whole")
    wanted = bits(tmp_path / "whole")
    assert wanted["last"] == "step-00000006" and [json.loads(row)["step"] for row in wanted["rows"].splitlines()] == [
        0, 2, 4, 6,
    ]  # fmt: skip
    for at in (3,) if settings else (1, 4, 6):
        folder = f"killed-{at}"
        with pytest.raises(KeyboardInterrupt):
            run(Toy(**settings), folder, at, interrupt)
        result = run(Toy(**settings), folder)
        assert result["steps"] == 6 and not result["stopped"]
        assert bits(tmp_path / folder) == wanted, at


@pytest.mark.parametrize("export", [1, 3])
def test_killed_between_weights_and_checkpoint(export: int, run: Fit, tmp_path: Path) -> None:
    run(Toy(), "whole")
    task = Toy()
    task.fault = (export, "export")
    with pytest.raises(KeyboardInterrupt):
        run(task, "killed")
    run(Toy(), "killed")
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")


def test_a_torn_validation_line_is_forgotten(run: Fit, tmp_path: Path) -> None:
    run(Toy(), "whole")
    with pytest.raises(KeyboardInterrupt):
        run(Toy(), "killed", 5, interrupt)
    with open(tmp_path / "killed/validation.jsonl", "a") as file:
        file.write('{"step": 6, "lo')
    run(Toy(), "killed")
    assert bits(tmp_path / "killed") == bits(tmp_path / "whole")


def test_what_was_put_into_a_run_is_told(run: Fit, tmp_path: Path) -> None:
    """A checkpoint of another network, and figures that are none."""
    run(Toy(steps=1), "run")
    save(tmp_path / "run/checkpoints", State(2, {"network/image/weight": torch.zeros(7)}), keep=9)
    with pytest.raises(TrainingError, match="checkpoint of step 2 in .* does not fit this run") as caught:
        run(Toy(steps=3), "run")
    assert "\n" not in str(caught.value)
    shutil.rmtree(tmp_path / "run/checkpoints/step-00000002")
    (tmp_path / "run/validation.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(TrainingError, match="validation.jsonl is damaged"):
        run(Toy(steps=3), "run")


def test_a_finished_run_stays_as_it_is_and_can_be_made_longer(run: Fit, tmp_path: Path) -> None:
    def constant(steps: int) -> Toy:
        task = Toy(steps=steps)
        task.optimizers["image"] = task.optimizers["judge"]
        return task

    run(constant(4), "short")
    before = bits(tmp_path / "short")
    result = run(constant(4), "short")
    assert bits(tmp_path / "short") == before and result["steps"] == 4
    assert result["validation"] == {k: v for k, v in json.loads(before["rows"].splitlines()[-1]).items() if k != "step"}
    run(constant(6), "short")
    run(constant(6), "long")
    assert bits(tmp_path / "short") == bits(tmp_path / "long")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop(number: int, run: Fit, tmp_path: Path) -> None:
    run(Toy(), "whole")
    handler = signal.getsignal(number)
    result = run(Toy(), "told", 3, lambda: os.kill(os.getpid(), number))
    assert result["stopped"] and result["steps"] == 3 and signal.getsignal(number) is handler
    assert [path.name for path in sorted((tmp_path / "told/checkpoints").iterdir())] == [
        "step-00000002", "step-00000003",
    ]  # fmt: skip
    assert (tmp_path / "told/weights.safetensors").exists()
    assert not run(Toy(), "told")["stopped"]
    assert bits(tmp_path / "told") == bits(tmp_path / "whole")


def test_told_at_the_last_step_is_done(run: Fit) -> None:
    result = run(Toy(), "told", 6, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert not result["stopped"] and result["steps"] == 6


@pytest.fixture
def heeded_ctrl_c() -> Iterator[None]:
    """Ctrl-C as Python has it; a shell's background job is born with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded_ctrl_c")
def test_the_second_signal_acts_at_once(run: Fit, tmp_path: Path) -> None:
    def twice() -> None:
        # Not by kill: another thread may receive those, and two that come close together count as one.
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(Toy(), "told", 3, twice)
    assert not (tmp_path / "told/checkpoints/step-00000003").exists()


def replay(task: Toy, data: Path, step: int, part: int = 0) -> tuple[Pair, torch.Generator]:
    """The batch of a step, made apart from the loop; torch's own generator is left as the loop leaves it."""
    variants = list(task.recipe.per_variant().values())
    variant = variants[part % len(variants)]
    images = Images(data, "train", variant.data, variant.crop)
    high = Batches(images, variant.batch, variant.seed)[step * variant.accumulate * len(variants) + part]
    generator = seeded(variant.seed, step, 0, part, 0)
    torch.manual_seed(generator.initial_seed())
    return Pair(*make_pair(high, variant.scale, variant.degradation, variant.radiometry, generator)), generator


@pytest.mark.parametrize(("parts", "settings"), [(3, {"accumulate": 3}), (4, {"accumulate": 2, "variants": TWO_WAYS})])
def test_parts_of_a_step_are_averaged(
    parts: int, settings: dict[str, Any], run: Fit, training_images: Path, tmp_path: Path
) -> None:
    settings = settings | {"steps": 1, "clip_norm": 1e9}
    run(Toy(**settings), "run")
    task = Toy(**settings)
    losses = []
    for part in range(parts):
        pair, generator = replay(task, training_images, 0, part)
        assert pair.high.shape == ((1, 3, 64, 64) if parts == 4 and part % 2 else (2, 3, 32, 32))
        update = next(task.updates(pair, 0, 0, generator))
        (update.loss.double() / parts).backward()
        losses.append(float(update.loss.detach()))
    saved = load_file(tmp_path / "run/checkpoints/step-00000001/tensors.safetensors")
    for index, parameter in enumerate(task.image.parameters()):
        assert parameter.grad is not None
        torch.testing.assert_close(
            saved[f"optimizer/image/{index}/exp_avg"], 0.1 * parameter.grad, rtol=1e-4, atol=1e-7
        )
        assert saved[f"optimizer/image/{index}/step"] == 1
    curves = EventAccumulator(str(tmp_path / "run/tensorboard"))
    curves.Reload()
    assert curves.Scalars("train/image")[0].value == pytest.approx(np.mean(losses), rel=1e-5)
    assert {"train/gan", "train/judge", "validation/psnr_y"} <= set(curves.Tags()["scalars"])
    assert {"validation/0", "validation/1"} <= set(curves.Tags()["images"])


def test_validation_tells_the_variants_apart(run: Fit, training_images: Path, tmp_path: Path) -> None:
    run(Toy(steps=1, variants=TWO_WAYS), "both")
    both = json.loads((tmp_path / "both/validation.jsonl").read_text().splitlines()[0])
    alone = {}
    for variant in TWO_WAYS:
        name = str(variant["name"])
        run(Toy(steps=1, **{key: value for key, value in variant.items() if key != "name"}), name)
        alone[name] = json.loads((tmp_path / name / "validation.jsonl").read_text().splitlines()[0])
        assert both[f"psnr_y_{name}"] == alone[name]["psnr_y"]
        assert both[f"psnr_y_bicubic_{name}"] == alone[name]["psnr_y_bicubic"]
    assert both["psnr_y"] == pytest.approx(np.mean([each["psnr_y"] for each in alone.values()]))
    assert alone["sensor"]["psnr_y_bicubic"] > alone["photograph"]["psnr_y_bicubic"] + 1


def test_long_gradients_are_cut_and_rates_rise(run: Fit, training_images: Path, tmp_path: Path) -> None:
    settings = {"steps": 1, "clip_norm": 1e-3, "warmup": 4, "ema": 0}
    run(Toy(**settings), "run")
    task = Toy(**settings)
    pair, generator = replay(task, training_images, 0)
    next(task.updates(pair, 0, 0, generator)).loss.backward()
    gradients = [parameter.grad for parameter in task.image.parameters() if parameter.grad is not None]
    norm = torch.cat([gradient.flatten() for gradient in gradients]).double().norm()
    saved = load_file(tmp_path / "run/checkpoints/step-00000001/tensors.safetensors")
    for index, (name, parameter) in enumerate(task.image.named_parameters()):
        cut = gradients[index].double() * 1e-3 / norm
        torch.testing.assert_close(saved[f"optimizer/image/{index}/exp_avg"].double(), 0.1 * cut, rtol=1e-3, atol=1e-9)
        # Adam's first step is the rate times g / (|g| + eps), after the decay: a quarter of 0.01, at the first of 4.
        wanted = parameter.detach() * (1 - 0.0025 * 0.1) - 0.0025 * cut / (cut.abs() + 1e-8)
        torch.testing.assert_close(saved[f"network/image/{name}"], wanted.float(), rtol=1e-4, atol=1e-6)


def test_exported_is_the_running_mean(run: Fit, tmp_path: Path) -> None:
    task = Toy(ema=0.25, steps=6, validate_every=1, keep=9, checkpoint_every=1)
    run(task, "run")
    saved = [load_file(path / "tensors.safetensors") for path in sorted((tmp_path / "run/checkpoints").iterdir())]
    assert len(saved) == 6
    for name, exported in load_file(tmp_path / "run/weights.safetensors").items():
        mean = saved[0][f"network/image/{name}"].double()
        for n, state in enumerate(saved[1:], 1):
            decay = min(0.25, (1 + n) / (10 + n))
            mean = decay * mean + (1 - decay) * state[f"network/image/{name}"].double()
        torch.testing.assert_close(exported.double(), mean, rtol=1e-5, atol=1e-7)
        assert not torch.equal(exported, saved[-1][f"network/image/{name}"])
    # Validation sees what is exported, too: of the last row, on the first of the held-out images.
    rows = [json.loads(line) for line in (tmp_path / "run/validation.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"] and rows[-1]["psnr_y_bicubic"] == rows[0]["psnr_y_bicubic"]


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_ends_the_run(what: str, run: Fit, training_images: Path, tmp_path: Path) -> None:
    task = Toy()
    task.fault = (3, what)
    with pytest.raises(TrainingError, match=f"the {what} of image is not finite at step 4") as caught:
        run(task, "run")
    path = tmp_path / "run/not-finite-step-00000003.safetensors"
    assert str(path) in str(caught.value) and "lower learning rate" in str(caught.value)
    pair, _ = replay(Toy(), training_images, 3)
    kept = load_file(path)
    assert torch.equal(kept["low"], pair.low) and torch.equal(kept["high"], pair.high) and "term/gan" in kept
    assert all(torch.isfinite(parameter).all() for parameter in task.image.parameters())
    # The last checkpoint is whole: with the cause gone the run goes on as if nothing had been.
    run(Toy(), "run")
    run(Toy(), "whole")
    assert bits(tmp_path / "run") == bits(tmp_path / "whole")


@pytest.mark.parametrize("loaders", [0, 1])
def test_images_that_fail_later_are_one_sentence(loaders: int, run: Fit, training_images: Path, tmp_path: Path) -> None:
    settings = RunConfig(steps=1, batch=1, crop=32)
    damaged = {image: (training_images / image).read_bytes() for image in os.listdir(training_images)}
    learning = {Path(name).name for name in Images(training_images, "train", settings.data, 32).names()}
    data = tmp_path / "images"
    data.mkdir()
    for name, content in damaged.items():
        (data / name).write_bytes(content[:900] if name in learning else content)
    with pytest.raises(DataError) as caught:
        run(Toy(loaders=loaders), "run", data=data)
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)


def test_no_images_no_folder(run: Fit, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for data in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(DataError):
            run(Toy(), "run", data=data)
    assert not (tmp_path / "run").exists()
