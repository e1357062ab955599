"""Samples a second of a recipe's training step, and what its parts take: reading, pairs, network, optimiser.

`python tests/benchmarks/training.py RECIPE IMAGES [CHECKOUT...] [--steps N]`: checkouts take turns, step for step
alike, each in a process of its own on one thread; without one it is this checkout. In CPU seconds, which a busy machine
changes least; the first steps, which decode images and warm caches, are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PARTS = ("reading", "pairs", "network", "optimiser")
WARM = 2
"""Steps that are not counted."""


def measure(recipe_path: Path, images: Path, steps: int) -> dict[str, float]:
    """CPU seconds a step of each part, and `samples` a step; in the checkout that Python finds first."""
    import torch

    from rsup.models.data.batches import Batches
    from rsup.models.data.images import Images
    from rsup.models.methods import METHODS
    from rsup.models.training.optimise import optimizer_of
    from rsup.models.training.recipe import load_recipe
    from rsup.models.training.task import pair_of, seeded

    torch.set_num_threads(1)
    recipe: Any = load_recipe(recipe_path, ["initialise=random"])
    task: Any = METHODS[recipe.method].task(recipe)
    task.to(torch.device("cpu"))
    optimizers = {name: optimizer_of(task.parameters(name), config) for name, config in task.optimizers.items()}
    variants = list(recipe.per_variant().values())
    sources = [Batches(Images(images, "train", each.data, each.crop), each.batch, recipe.seed) for each in variants]
    taken: dict[str, list[float]] = {part: [] for part in PARTS}
    for step in range(WARM + steps):
        spent = dict.fromkeys(PARTS, 0.0)
        for part, (variant, batches) in enumerate(zip(variants, sources, strict=True)):
            start = time.process_time()
            high = batches[step]
            read = time.process_time()
            generator = seeded(recipe.seed, step, 0, part, 0)
            pair = pair_of(high, variant, generator)
            paired = time.process_time()
            for update in task.updates(pair, step, 0, generator):
                (update.loss / len(variants)).backward()
            learned = time.process_time()
            for name, seconds in zip(PARTS, (read - start, paired - read, learned - paired), strict=False):
                spent[name] += seconds
        start = time.process_time()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        spent["optimiser"] = time.process_time() - start
        if step >= WARM:
            for name, seconds in spent.items():
                taken[name].append(seconds)
    return {name: statistics.median(each) for name, each in taken.items()} | {
        "samples": float(sum(variant.batch for variant in variants))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("checkouts", type=Path, nargs="*", default=[Path(__file__).parents[2]])
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2, help="times that each checkout takes its turn")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        sys.stdout.write(json.dumps(measure(given.recipe, given.images, given.steps)))
        return
    found: dict[Path, list[dict[str, float]]] = {each: [] for each in given.checkouts}
    for _ in range(given.rounds):
        for checkout in given.checkouts:
            command = [sys.executable, __file__, given.recipe, given.images, "--here", f"--steps={given.steps}"]
            where = os.environ | {"PYTHONPATH": f"{checkout / '.src'}:{checkout}"}
            done = subprocess.run(command, env=where, stdout=subprocess.PIPE, text=True, check=True)
            found[checkout].append(json.loads(done.stdout))
    sys.stdout.write(f"| {given.recipe.name}, CPU s a step | {' | '.join(PARTS)} | all | samples a CPU s |\n")
    sys.stdout.write(f"|---|{'---|' * (len(PARTS) + 2)}\n")
    for checkout, rounds in found.items():
        best = {name: min(each[name] for each in rounds) for name in (*PARTS, "samples")}
        whole = sum(best[name] for name in PARTS)
        cells = " | ".join(f"{best[name]:.3f}" for name in PARTS)
        sys.stdout.write(f"| {checkout} | {cells} | {whole:.3f} | {best['samples'] / whole:.2f} |\n")


if __name__ == "__main__":
    main()
