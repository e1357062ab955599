"""RSD's students of one step beside the teacher that they learned from, in all of its steps; run by hand.

`python tests/benchmarks/rsd.py TEACHER_RUN STUDENT_RUN... --data IMAGES [--gsd 2.5] [--limit N]`

Each is measured as its product, behind the step that holds mosaics to their scenes, under the sensor's noise, on the
validation images. `spread`: how far two results are apart that differ in the noise
they start from alone, RMS over pixels, in stored numbers and before that step, and after it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from rsup.models.base.radiometry import from_network
from rsup.models.data.images import DataConfig
from rsup.models.data.measured import splits_of, whole_images
from rsup.models.degradation.pairs import RadiometryConfig, make_pair
from rsup.models.degradation.sensor import SensorDegradation
from rsup.models.evaluate import Enlarge, EvaluateRequest, evaluate, held
from rsup.models.methods.rsd import load_resshift
from rsup.models.metrics.judge import WHITE
from rsup.models.networks.interpolation import interpolator
from rsup.models.networks.resshift.one_step import RsdStudent, assemble
from rsup.models.training.run_folder import WEIGHTS
from rsup.models.weights_file import load_student

BANDS = ("red", "green", "blue")
SCALE = 4
FIGURES = (
    "psnr_y",
    "ssim_y",
    "vif_y",
    "feature_lite1",
    "feature_lite2",
    "frechet_lite1",
    "spectrum_db",
    "acutance",
    "lattice_db",
)

Restore = Callable[[Tensor, int], Tensor]
"""Enlarged images whose sides fit, and a seed of the noise -> images of the same shape."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("teacher", type=Path)
    parser.add_argument("students", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--gsd", type=float)
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    many, multiple = all_steps(options.teacher)
    runs = {"teacher": many} | {run.name: one_step(run / WEIGHTS) for run in options.students}
    models = {name: enlarging(restore, multiple) for name, restore in runs.items()}
    sensor = SensorDegradation(bands=BANDS)
    beside: dict[str, Enlarge] = {name: held(model(0), SCALE, sensor.responses) for name, model in models.items()}
    request = EvaluateRequest(
        "bicubic", options.data, SCALE, "sentinel2", gsd=options.gsd, bands=BANDS, limit=options.limit, device="cpu"
    )
    result = evaluate(request, beside=beside)
    columns = {"bicubic": result, "classical": result["classical"], **result["beside"]}
    say(f"{result['images']} images, " + (f"at {options.gsd:g} m" if options.gsd else "as they are") + "\n")
    say(f"| | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|")
    for figure in FIGURES:
        say(f"| {figure} | {' | '.join(f'{column[figure]:.4g}' for column in columns.values())} |")
    reading = DataConfig(bands=BANDS, gsd=options.gsd)
    apart = {name: spread(model, options.data, reading, sensor, options.limit) for name, model in models.items()}
    for which, title in enumerate(("spread, the network alone", "spread, the product")):
        cells = (f"{apart[name][which]:.1f}" if name in apart else "" for name in columns)
        say(f"| {title} | {' | '.join(cells)} |")


def all_steps(run: Path) -> tuple[Restore, int]:
    """A residual-shifting run's network in all of its steps, and what image sides must be multiples of."""
    network, latents = load_resshift(run)
    network.eval()

    def restore(image: Tensor, seed: int) -> Tensor:
        return latents.decode(network.sample(latents.encode(image), torch.Generator().manual_seed(seed)))

    return restore, latents.config.factor * network.config.denoiser.multiple


def one_step(weights: Path) -> Restore:
    """A student, with noise of its own for each seed."""
    student = load_student(weights)
    assert isinstance(student, RsdStudent)
    return lambda image, seed: assemble(student.network, student.latents, seed=seed)(image)


def enlarging(restore: Restore, multiple: int) -> Callable[[int], Enlarge]:
    """Of a seed, what takes images of any size at low resolution."""
    first = interpolator("bicubic", SCALE)

    def of(seed: int) -> Enlarge:
        def enlarge(low: Tensor) -> Tensor:
            image = first(low)
            height, width = image.shape[-2:]
            padded = F.pad(image, (0, -width % multiple, 0, -height % multiple), mode="replicate")
            return restore(padded, seed)[..., :height, :width]

        return enlarge

    return of


def spread(
    model: Callable[[int], Enlarge], data: Path, reading: DataConfig, sensor: SensorDegradation, limit: int | None
) -> list[float]:
    """RMS between two seeds, before and after the step, in stored numbers: the root of the images' mean square."""
    squares: list[list[float]] = [[], []]
    splits = splits_of(data, reading, {}, every=False)
    settings = RadiometryConfig(kind="reflectance", span=(WHITE, WHITE))
    for _, sharp in whole_images(splits, min(limit or 10**9, sum(map(len, splits))), SCALE):
        low, _ = make_pair(sharp[None], SCALE, sensor, settings, torch.Generator().manual_seed(0))
        for each, step in zip(
            squares, (lambda made: made, lambda made: held(made, SCALE, sensor.responses)), strict=True
        ):
            one, other = (from_network(step(model(seed))(low).clamp(-1, 1)).double() for seed in (0, 1))
            each.append((one - other).square().mean().item())
    return [statistics.fmean(each) ** 0.5 for each in squares]


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
