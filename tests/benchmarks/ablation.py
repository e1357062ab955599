"""What learning through the consistency step does: a student trained with it and without, as Markdown tables.

`python tests/benchmarks/ablation.py IMAGES TRAINING START -o RUNS --scale 4 [--steps 100] [--only ROW ...] [--limit N]
[--json FILE]`, run by hand, half an hour and more on a core.

TRAINING is what the shipped student learned from, IMAGES what `table.py` measures on, START the weights that
`recipes/compact/student-x4-sensor.toml` (or x8's) starts from. All rows start there and see the same pairs at the same
rates. A finished run in RUNS is not repeated, a stopped one goes on.
"""

import argparse
import json
import sys
from pathlib import Path

from table import markdown, measure

from rsup.models.base.errors import RsupError
from rsup.models.train import TrainRequest, train

RECIPES = Path(__file__).parents[2] / "recipes/compact"
ROWS = {
    "half-behind": (),
    "all-in-front": ("through=0",),
    "all-behind": ("through=1",),
    "l1": ("losses.l1=1", "losses.decibels_weight=0"),
}
"""Settings that differ from the recipe's: which share of the losses is taken behind the step, and which loss. Put
through the step, as the tables do, `all-in-front` is a student that has not learned through it."""


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("training", type=Path)
    parser.add_argument("start", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--scale", type=int, choices=(4, 8), required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--only", choices=ROWS, action="append", help="this row; may be given again")
    parser.add_argument("--limit", type=int, help="most images")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    options = parser.parse_args()
    try:
        weights = [learn(options, name, ROWS[name]) for name in options.only or ROWS]
        table = argparse.Namespace(images=options.images, limit=options.limit, model=weights, baselines=None)
        measured = measure(table, options.scale)
    except RsupError as error:
        sys.exit(str(error))
    sys.stdout.write("\n".join(markdown(run) for run in measured))
    if options.json:
        options.json.write_text(json.dumps(measured, indent=2) + "\n")


def learn(options: argparse.Namespace, name: str, settings: tuple[str, ...]) -> Path:
    """One row's run; its weights file."""
    folder = options.output / f"x{options.scale}-{name}"
    every = [f"{setting}={options.steps}" for setting in ("steps", "validate_every", "checkpoint_every")]
    request = TrainRequest(
        "student", RECIPES / f"student-x{options.scale}-sensor.toml", options.training, folder,
        (f"initialise={options.start.resolve()}", "ema=0.98", *every, *settings), resume=True,
    )  # fmt: skip

    def progress(done: int, total: int, _: str) -> None:
        sys.stderr.write(f"\r{folder.name}: {done}/{total} steps" + "\n" * (done == total))

    done = train(request, progress)
    if done["stopped"]:
        sys.exit(f"{folder} was stopped: give the same command to go on")
    return Path(done["weights"])


if __name__ == "__main__":
    main()
