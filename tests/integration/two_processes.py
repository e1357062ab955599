"""One of two processes that torchrun starts: a residual-shifting run of one step, one that is stopped, and an RSD run.

Called with the smoke recipe, the images and a folder; leaves each process's weights there, and what it was told.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from rsup.models.methods.rsd import ResShiftTask
from rsup.models.train import TrainRequest, train
from rsup.models.training.loop import fit
from rsup.models.training.recipe import RsdRecipe, load_recipe
from rsup.models.training.task import Pair, Update

SHORT = ("batch=1", "ema=0", "optimizer.clip_norm=1e9", "validate_every=1000", "validation_images=2")


class Told(ResShiftTask):
    """The second process, alone, is told to stop in the third step."""

    def updates(self, pair: Pair, step: int, turn: int, generator: torch.Generator) -> Iterator[Update]:
        if step == 2 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)
        yield from super().updates(pair, step, turn, generator)


def main(recipe: Path, images: Path, output: Path) -> None:
    torch.set_num_threads(1)
    rank, results = os.environ["RANK"], []
    accelerator = Accelerator(cpu=True)
    for name, kind, steps in (("one", ResShiftTask, 1), ("told", Told, 50)):
        settings = [f"train_teacher.{each}" for each in (*SHORT, f"steps={steps}")]
        whole = load_recipe(recipe, settings)
        assert isinstance(whole, RsdRecipe) and whole.train_teacher is not None
        task = kind(whole.train_teacher)
        results.append(fit(task, images, output / name, accelerator, lambda *_: None))
        save_file(task.teacher.state_dict(), output / f"{name}-{rank}.safetensors")
    small = ("batch=1", "steps=2", "rsd.fake_updates=1", "validation_images=2", "train_teacher.steps=2")
    request = TrainRequest("student", recipe, images, output / "rsd", (*small, "train_teacher.validation_images=2"))
    results.append(train(request, lambda *_: None))
    told: list[dict[str, Any]] = [{key: each[key] for key in ("steps", "stopped", "validation")} for each in results]
    (output / f"told-{rank}.json").write_text(json.dumps(told))
    accelerator.end_training()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
