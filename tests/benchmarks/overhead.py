"""What `rsup upscale` costs around its network, on the CPU; run by hand, on a machine that does nothing else.

`python tests/benchmarks/overhead.py nearest [CHECKOUT]`: the command with a network that costs nothing, x4 of 2,048 px
and x8 of 1,024 px, with the code of another checkout beside it where one is given, in turn.
`... growth`: the same at x4 of 1,024, 2,048 and 4,096 px: seconds and memory a pixel.
`... shipped`: the command with the shipped students over the bare network, on as few of its tiles as cover the ground
and as many at once as the command runs; half of them before it, half after.
`... tile`: the command with the shipped students on one core, as seconds a whole Sentinel-2 tile.
`... uncertainty`: the command on four bands with `--uncertainty` over the command without, in turn.
`... operator`: the step that holds tiles to their scene over the network before it, in CPU seconds on one core.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from processes import Cost, cost

from rsup.models.base.radiometry import from_network, to_network
from rsup.models.consistency import SensorConsistency
from rsup.models.sensors.sentinel2 import SENTINEL2
from rsup.models.upscaler import load
from rsup.pipeline.lattice import Window
from rsup.pipeline.memory import WORKER_ENVIRONMENT
from rsup.pipeline.scenes.writer import create_scene
from rsup.pipeline.workers.pool import Pool

HERE = Path(__file__).resolve().parents[2]
BANDS = ("red", "green", "blue")
FOUR = (*BANDS, "nir")
CHUNK = 1024
"""Side of the scene's chunks, as fetch makes them."""
ROUNDS = 3
PAIRS = 7


def main() -> None:
    """Make scenes, time what is asked for, print a table."""
    if not WORKER_ENVIRONMENT.items() <= os.environ.items():
        # What runs in this process is to find memory as the command's workers do.
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | WORKER_ENVIRONMENT)
    with tempfile.TemporaryDirectory() as name:
        folder, (what, *others) = Path(name), sys.argv[1:]
        modes = {each.__name__: each for each in (nearest, growth, shipped, tile, uncertainty, operator)}
        modes[what](folder, *map(Path, others))


def nearest(folder: Path, other: Path | None = None) -> None:
    """MB of pixels a second and core, here and there, and how many times as fast."""
    cores = len(os.sched_getaffinity(0))
    for scale, size in ((4, 2048), (8, 1024)):
        scene, trees = make_scene(folder, size), [HERE, *([other] if other else [])]
        runs: dict[Path, list[Cost]] = {tree: [] for tree in trees}
        for _ in range(ROUNDS):
            for tree in trees:
                runs[tree].append(upscale(tree, folder, scene, scale, "nearest"))
        raw = (size * scale) ** 2 * len(BANDS) * 2 / 1e6
        medians = {tree: Cost(*map(statistics.median, zip(*each, strict=True))) for tree, each in runs.items()}
        for tree, (wall, cpu, memory) in medians.items():
            sys.stdout.write(
                f"x{scale} of {size} px, {raw:.0f} MB, {tree.name}: {wall:.1f} s, {cpu:.1f} s of CPU, {memory:.0f} MB; "
                f"{raw / wall / cores:.1f} MB/s a core, {raw / cpu:.1f} MB a second of CPU\n"
            )
        if other:
            wall, cpu = (medians[other][k] / medians[HERE][k] for k in (0, 1))
            sys.stdout.write(f"times as fast: {wall:.2f} by the clock, {cpu:.2f} in CPU\n")


def growth(folder: Path) -> None:
    """Seconds, CPU and memory at three sizes, and each over what the next smaller one makes of it."""
    before = None
    for size in (1024, 2048, 4096):
        run = upscale(HERE, folder, make_scene(folder, size), 4, "nearest")
        sys.stdout.write(f"{size} px: {run.wall:.1f} s, {run.cpu:.1f} s of CPU, {run.memory:.0f} MB")
        if before:
            wall, cpu, memory = (new / old for new, old in zip(run, before, strict=True))
            sys.stdout.write(f"; {wall / 4:.2f}, {cpu / 4:.2f} a pixel, memory {memory:.2f}")
        sys.stdout.write("\n")
        before = run


def shipped(folder: Path) -> None:
    """The command's wall time over that of the bare network on the same ground."""
    for scale, size in ((4, 2048), (8, 1024)):
        scene = make_scene(folder, size)
        tiles = (-(-size // load("default", scale).descriptor.tile)) ** 2
        first = bare(scale, tiles // 2)
        run = upscale(HERE, folder, scene, scale, "default")
        network = first + bare(scale, tiles - tiles // 2)
        sys.stdout.write(
            f"x{scale} of {size} px: command {run.wall:.1f} s ({run.memory:.0f} MB), network on {tiles} tiles "
            f"{network:.1f} s: ratio {run.wall / network:.2f}\n"
        )


def tile(folder: Path) -> None:
    """Seconds and CPU seconds of 10,980 x 10,980 px on one core, by those of 1,024 x 1,024 px, start-up included."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    for bands in (BANDS, FOUR):
        place = folder / str(len(bands))
        place.mkdir()
        scene = make_scene(place, 1024, bands)
        for scale in (4, 8):
            run = upscale(HERE, place, scene, scale, "default", bands)
            wall, cpu = (taken * (10980 / 1024) ** 2 / 3600 for taken in (run.wall, run.cpu))
            sys.stdout.write(f"x{scale}, {len(bands)} bands: {run.wall:.1f} s, {run.cpu:.1f} of CPU; ")
            sys.stdout.write(f"a tile {wall:.2f} h, {cpu:.2f} of CPU\n")
            sys.stdout.flush()


def uncertainty(folder: Path) -> None:
    """What writing the uncertainty costs, by the clock and in CPU: the median over pairs of runs, one after the other:
    a machine's speed drifts by more.
    """
    for scale, size in ((4, 1024), (8, 512)):
        scene = make_scene(folder, size, FOUR)
        pairs = []
        for _ in range(PAIRS):
            runs = [upscale(HERE, folder, scene, scale, "default", FOUR, *more) for more in ((), ("--uncertainty",))]
            pairs.append([run.wall for run in runs] + [run.cpu for run in runs])
        wall, more_wall, cpu, more_cpu = (statistics.median(each) for each in zip(*pairs, strict=True))
        ratios = [statistics.median(pair[k + 1] / pair[k] for pair in pairs) for k in (0, 2)]
        sys.stdout.write(
            f"x{scale} of {size} px, four bands: {wall:.1f} s, {cpu:.1f} of CPU; with uncertainty {more_wall:.1f} s, "
            f"{more_cpu:.1f} of CPU: {ratios[0]:.3f}, {ratios[1]:.3f}\n"
        )
        sys.stdout.flush()


@torch.inference_mode()
def operator(_: Path) -> None:
    """Milliseconds of CPU of a tile's step and of its network, and the one over the other."""
    torch.set_num_threads(1)
    consistency = SensorConsistency({band: SENTINEL2.response(band) for band in FOUR})
    for scale in (4, 8):
        model = load("default", scale, "cpu", 1)
        scene = (2000 + 300 * torch.randn(1, len(FOUR), model.descriptor.tile, model.descriptor.tile)).round()
        network, step = [], []
        for _ in range(PAIRS):
            start = time.process_time()
            tiles = from_network(model(to_network(scene)))
            between = time.process_time()
            consistency.tiles(tiles, scene, scale, FOUR, None)
            network.append(between - start)
            step.append(time.process_time() - between)
        ours, theirs = (1000 * statistics.median(each) for each in (step, network))
        sys.stdout.write(f"x{scale}: step {ours:.0f} ms, network {theirs:.0f} ms: {ours / theirs:.3f}\n")


def make_scene(folder: Path, size: int, bands: Sequence[str] = BANDS) -> Path:
    """A scene store of ground with the spectrum of land (amplitudes fall with frequency) and the sensor's noise."""
    path = folder / f"s{size}.zarr"
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    frequency[0, 0] = 1

    def land() -> NDArray[np.float64]:
        fields = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) / frequency**1.3, (size, size))
        return np.asarray(fields / fields.std())

    common = land()
    noise = rng.standard_normal((len(bands), size, size))
    dn = np.stack([2000 + 450 * common + 200 * land() + 20 * each for each in noise])
    dn = np.clip(dn, 1, 65535).astype(np.uint16)
    writer = create_scene(path, Window(-568_628, 65_536, size, size), "EPSG:32631", bands, CHUNK)
    for row in range(0, size, CHUNK):
        for col in range(0, size, CHUNK):
            part = dn[:, row : row + CHUNK, col : col + CHUNK]
            rest = np.zeros(part.shape[1:], np.uint8), np.zeros(part.shape[1:], np.uint16)
            writer.write((row // CHUNK, col // CHUNK), part, *rest)
    return path


def upscale(
    tree: Path, folder: Path, scene: Path, scale: int, model: str, bands: Sequence[str] = BANDS, *more: str
) -> Cost:
    """Run the command with the code of `tree`."""
    options = ["--scale", scale, "--model", model, "--bands", ",".join(bands), "--device", "cpu", "--overwrite", *more]
    command = [
        sys.executable,
        "-m",
        "rsup.pipeline.cli",
        "upscale",
        scene,
        *options,
        "-o",
        folder / "".join([tree.name, *more]),
    ]
    # Whoever has the last one set compiles rsup anew in each process, which is no cost of rsup's.
    own = {*WORKER_ENVIRONMENT, "PYTHONDONTWRITEBYTECODE"}
    environment = {name: value for name, value in os.environ.items() if name not in own}
    return cost(command, environment | {"PYTHONPATH": os.pathsep.join([str(tree / ".src"), str(tree)])})


def bare(scale: int, tiles: int) -> float:
    """Seconds that the network alone needs for so many tiles."""
    model = load("default", scale, "cpu", Pool.plan("cpu", None).cores)
    batch = torch.rand(model.batch, len(model.descriptor.bands), model.descriptor.tile, model.descriptor.tile) * 2 - 1
    model(batch)
    start = time.monotonic()
    for first in range(0, tiles, model.batch):
        model(batch[: min(model.batch, tiles - first)])
    return time.monotonic() - start


if __name__ == "__main__":
    main()
