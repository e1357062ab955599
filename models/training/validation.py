"""Validation while training: the task's prediction of held-out images in, figures by step and panels of images out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from rsup.models.base.errors import TrainingError
from rsup.models.base.files import write_whole
from rsup.models.data.images import Images
from rsup.models.metrics.image import psnr_y, ssim_y
from rsup.models.networks.interpolation import interpolator

from .task import Task, pair_of, seeded

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


PANELS = 4
"""Images shown side by side: low resolution, bicubic, restored, truth."""


class Validation:
    """Held-out images, cut and degraded once the same way for every step and every run of a seed."""

    def __init__(self, task: Task, data: Path, accelerator: Accelerator, folder: Path) -> None:
        """Raises DataError where `data` has no image left for validation."""
        self.task, self.accelerator, self.path = task, accelerator, folder / "validation.jsonl"
        recipe = task.recipe
        variants = recipe.per_variant()
        # Variants that read alike share what has been read.
        kinds = dict.fromkeys((variant.data, variant.crop) for variant in variants.values())
        held_out = {kind: Images(data, "validation", *kind).centres(recipe.validation_images) for kind in kinds}
        self.images = [
            (name, variant, number, image)
            for name, variant in variants.items()
            for number, image in enumerate(held_out[variant.data, variant.crop])
        ]
        self.latest: dict[str, float] = {}
        self._enlarge = interpolator("bicubic", recipe.scale)

    def truncate(self, step: int) -> None:
        """Forget the figures of steps after `step`, which will be made again, as will all of them from step 0.

        Raises TrainingError where the file is damaged.
        """
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        try:
            # A line without its end was being written when the run was killed.
            rows = [json.loads(line) for line in lines if line.endswith("\n")]
            rows = [row for row in rows if 0 < step >= row["step"]]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise TrainingError(f"{self.path} is damaged ({error}): move it away and go on with --resume") from error
        self.latest = {key: value for key, value in rows[-1].items() if key != "step"} if rows else {}
        if self.accelerator.is_main_process and self.path.exists():
            # At once: other processes read it now, and the run may be killed again.
            write_whole(self.path, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def run(self, step: int, writer: SummaryWriter | None) -> dict[str, float]:
        """Means over the images: the task's losses, PSNR-Y and SSIM-Y of its prediction and of bicubic's.

        With several variants, PSNR-Y is also there for each, under its name.
        """
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        modes = {name: network.training for name, network in self.task.networks.items()}
        for network in self.task.networks.values():
            network.eval()
        found: list[dict[str, float]] = []
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            for index in range(rank, len(self.images), world):
                figures, panel = self._one(index)
                found.append(figures)
                if writer and index < PANELS:
                    writer.add_image(f"validation/{index}", panel, step)
        for name, mode in modes.items():
            self.task.networks[name].train(mode)
        found = gather_object(found)
        names = sorted({name for each in found for name in each})
        values = {name: [each[name] for each in found if name in each] for name in names}
        self.latest = {name: sum(each) / len(each) for name, each in values.items()}
        if self.accelerator.is_main_process:
            with open(self.path, "a") as file:
                file.write(json.dumps({"step": step, **self.latest}) + "\n")
        for name, value in self.latest.items():
            if writer:
                writer.add_scalar(f"validation/{name}", value, step)
        return self.latest

    def _one(self, index: int) -> tuple[dict[str, float], Tensor]:
        """Figures of one image, and its panel [3, h, 4 w] in [0, 1]."""
        device = self.accelerator.device
        name, variant, number, sharp = self.images[index]
        # Not of the training's seeds: the same images are degraded alike whatever the recipe's seed and other variants.
        generator = seeded(number)
        torch.manual_seed(generator.initial_seed())
        high = torch.from_numpy(sharp)[None].to(device)
        pair = pair_of(high, variant, generator)
        with self.accelerator.autocast():
            image, losses = self.task.predict(pair, generator)
        bicubic = self._enlarge.to(device)(pair.low)
        truth = _shown(pair.high)
        figures = {term: float(value) for term, value in losses.items()}
        for suffix, each in (("", image), ("_bicubic", bicubic)):
            figures[f"psnr_y{suffix}"] = psnr_y(_shown(each), truth, variant.scale)
            figures[f"ssim_y{suffix}"] = ssim_y(_shown(each), truth, variant.scale)
            if name:
                figures[f"psnr_y{suffix}_{name}"] = figures[f"psnr_y{suffix}"]
        nearest = F.interpolate(pair.low, scale_factor=variant.scale, mode="nearest")
        return figures, torch.cat([_shown(nearest), _shown(bicubic), _shown(image), truth], 2).cpu()


def _shown(image: Tensor) -> Tensor:
    """[1, band, h, w] in the network's range -> the first three bands [3, h, w] in [0, 1]."""
    return ((image[0, :3].float() + 1) / 2).clamp(0, 1)
