"""Wall time of `rsup upscale` over that of the bare network on the same tiles; run by hand.

`python tests/benchmarks/overhead.py [SIZE]`: a SIZE px scene (1,024) at x4 with the full-size student, random weights.
The bare network runs the same tiles in the same precision, as many at once as the command runs, before and after it.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from rsup.models.networks.slimdiffsr.config import StudentConfig
from rsup.models.networks.slimdiffsr.student import Student
from rsup.models.upscaler import load
from rsup.models.weights_file import save_weights, student_header
from rsup.pipeline.lattice import Window
from rsup.pipeline.mosaics.passes import tiling_of
from rsup.pipeline.scenes.writer import create_scene
from rsup.pipeline.workers.pool import Pool

SCALE = 4


def main(size: int) -> None:
    """Make the weights and the scene, time both, print the ratio."""
    with tempfile.TemporaryDirectory() as folder:
        weights, scene = Path(folder) / "student.safetensors", Path(folder) / "scene.zarr"
        torch.manual_seed(0)
        config = StudentConfig()
        header = student_header(config, SCALE, licence="Apache-2.0", source="random numbers")
        save_weights(weights, Student(config).state_dict(), header)
        window = Window(-568_628, 65_536, size, size)
        numbers = np.random.default_rng(0).integers(1200, 3000, (3, size, size)).astype(np.uint16)
        writer = create_scene(scene, window, "EPSG:32631", ("red", "green", "blue"), size)
        writer.write((0, 0), numbers, np.zeros((size, size), np.uint8), np.zeros((size, size), np.uint16))

        tiles = len(tiling_of(load(str(weights), SCALE).descriptor).tiles(window))
        before = bare(weights, tiles // 2)
        start = time.monotonic()
        command = ["upscale", scene, "--scale", SCALE, "--model", weights, "--device", "cpu", "-o", folder]
        subprocess.run([sys.executable, "-m", "rsup.pipeline.cli", *map(str, command)], check=True)
        wall = time.monotonic() - start
        after = bare(weights, tiles - tiles // 2)
    sys.stdout.write(
        f"{tiles} tiles: command {wall:.1f} s, network {before + after:.1f} s "
        f"(first half {before:.1f}, second {after:.1f}), ratio {wall / (before + after):.3f}\n"
    )


def bare(weights: Path, tiles: int) -> float:
    """Seconds the network alone needs for so many tiles."""
    model = load(str(weights), SCALE, "cpu", Pool.plan("cpu", None).cores)
    batch = torch.rand(model.batch, 3, model.descriptor.tile, model.descriptor.tile) * 2 - 1
    model(batch)
    start = time.monotonic()
    for first in range(0, tiles, model.batch):
        model(batch[: min(model.batch, tiles - first)])
    return time.monotonic() - start


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1024)
