"""What each loss does: a student trained a little with it and without, as Markdown tables; run by hand.

`python tests/benchmarks/ablation.py IMAGES TRAINING -o RUNS --scale 4 [--steps 100] [--scratch] [--only ROW ...]
[--teacher FILE] [--limit N] [--json FILE]`, half an hour and more on a core.

TRAINING is what the shipped student learned from, IMAGES what `table.py` measures on. All rows start from the shipped
student, or with `--scratch` from the same random weights, and see the same pairs at the same rates, so they differ by
their losses alone. A finished run in RUNS is not repeated, a stopped one goes on. FILE holds a wider student of the
recipe, such as `rsup train student --recipe recipes/compact/student-x4.toml --set student.channels=[72,144] --set
student.deep_channels=288` makes; its rows want `--scratch`, for adapters take hundreds of steps to learn.
"""

import argparse
import json
import sys
from pathlib import Path

from table import markdown, measure

from rsup.models.base.errors import RsupError
from rsup.models.registry import DEFAULT, descriptor_of
from rsup.models.train import TrainRequest, train

RECIPES = Path(__file__).parents[2] / "recipes/compact"
GOING_ON = ("optimizer.lr=3e-4", "optimizer.warmup=10", "ema=0.98")
"""A rate that moves a trained student without undoing it, and a running mean as short as the runs."""
FROM_SCRATCH = ("optimizer.warmup=50", "ema=0.99")
L1 = ("losses.l1=1", "losses.perceptual=none", "losses.spectrum_weight=0", "losses.gan_weight=0")
FOURIER = (*L1, "losses.perceptual=frequency", "losses.perceptual_weight=0.1")
LOSSES = {
    "l1": L1,
    "l1-fourier": FOURIER,
    "l1-fourier-spectrum": (*FOURIER, "losses.spectrum_weight=3e-4"),
    "l1-fourier-discriminator": (
        *FOURIER,
        "losses.gan_weight=0.003",
        "discriminator.backbone=patch",
        "discriminator.width=64",
        "discriminator.augmentation=[]",
        "discriminator_optimizer.kind=adam",
        "discriminator_optimizer.lr=2e-4",
    ),
}
DISTILLED = {
    "l1-fourier-teacher": (*FOURIER, "distillation.mse=1", "distillation.mmd=0.1"),
    "l1-fourier-faint-teacher": (*FOURIER, "distillation.mse=0.05", "distillation.mmd=0.005"),
}
"""Rows where a teacher is given: the paper's weights, and a twentieth of them, for no LPIPS stands beside them here."""


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("training", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--scale", type=int, choices=(4, 8), required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--scratch", action="store_true", help="from random weights, not from the shipped student")
    parser.add_argument("--only", choices=(*LOSSES, *DISTILLED), action="append", help="this row; may be given again")
    parser.add_argument("--teacher", type=Path, help="weights of a wider student")
    parser.add_argument("--limit", type=int, help="most images")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    options = parser.parse_args()
    rows = dict(LOSSES)
    if options.teacher:
        rows |= {name: (*losses, f"teacher={options.teacher.resolve()}") for name, losses in DISTILLED.items()}
    chosen = options.only or rows
    if not rows.keys() >= set(chosen):
        parser.error("rows with a teacher need --teacher")
    try:
        weights = [learn(options, name, losses) for name, losses in rows.items() if name in chosen]
        table = argparse.Namespace(images=options.images, limit=options.limit, model=weights, baselines=None)
        measured = measure(table, options.scale)
    except RsupError as error:
        sys.exit(str(error))
    sys.stdout.write("\n".join(markdown(run) for run in measured))
    if options.json:
        options.json.write_text(json.dumps(measured, indent=2) + "\n")


def learn(options: argparse.Namespace, name: str, losses: tuple[str, ...]) -> Path:
    """One row's run; its weights file."""
    folder = options.output / f"x{options.scale}-{name}"
    shipped = descriptor_of(DEFAULT, options.scale).path
    start = FROM_SCRATCH if options.scratch else (f"initialise={shipped}", *GOING_ON)
    every = [f"{setting}={options.steps}" for setting in ("steps", "validate_every", "checkpoint_every")]
    request = TrainRequest(
        "student", RECIPES / f"student-x{options.scale}.toml", options.training, folder,
        (*start, *every, *losses), resume=True,
    )  # fmt: skip

    def progress(done: int, total: int, _: str) -> None:
        sys.stderr.write(f"\r{folder.name}: {done}/{total} steps" + "\n" * (done == total))

    done = train(request, progress)
    if done["stopped"]:
        sys.exit(f"{folder} was stopped: give the same command to go on")
    return Path(done["weights"])


if __name__ == "__main__":
    main()
