"""From measured seconds and bytes a unit to hours, GPUs and terabytes for a country; run by hand.

`python tests/benchmarks/sizing.py` prints the tables of docs/sizing.md from the inputs below.
`python tests/benchmarks/sizing.py measure FOLDER [MODEL]` measures bytes a pixel again, on real scenes in FOLDER.
`python tests/benchmarks/sizing.py unit [SIDE]` times `rsup upscale` of a made scene at x4 here, on the GPU if there is
one, with the default model and with nearest; with SIDE 2048 these are the inputs COMMAND of the machine it runs on.
"""

from __future__ import annotations

import heapq
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SIDE, MARGIN = 2048, 128
"""Of a unit in scene pixels, and what is fetched around it on each side."""
PIXELS = SIDE**2

# Measured by `measure` on a real scene of 512 px (Mol, red, green and blue) at x4 with the default model.
COG_BYTES = {4: 4.12, 8: 4.12}
"""COG, a pixel of the mosaic, all bands; that of x8 is assumed to be as at x4."""
STORE_BYTES = {4: 5.08, 8: 5.08}
"""Zarr store, likewise."""
SOURCE_BYTES = 1.46
"""Of an item's files, a pixel and band, as they are published."""
# NVIDIA H200 with 16 cores: `rsup upscale` of one scene of 2,048 px at x4, and the network alone in bfloat16.
COMMAND = {"compact-x4": 80.0, "nearest": 37.0}
NETWORK = 105e6, 47e6
"""Pixels of output a second: 64 tiles at a time, and the 4 that the command takes."""

# Assumed.
AREA = 357_600e6
"""Of Germany, in square metres."""
EDGE = 1.15
"""Cells are whole where the area ends."""
ITEMS = 3
"""Of six passes a month, one every five days, that are clear enough to be read."""
READING = 40e6
"""Pixels and bands a second that one runner reads, decodes and fuses."""
LINK, NODE_LINK = 10e9 / 8, 5e9 / 8
"""Bytes a second that the catalogue's store gives to all runners, and to one."""
PUTS = 3_500
"""Requests a second that a prefix of an object store takes."""
DISK = 1e9
"""Bytes a second of a runner's own disk; every byte of output is written three times, and read twice."""


@dataclass(frozen=True)
class Unit:
    """What one takes."""

    fetched: float
    """Bytes from the catalogue's store."""
    reading: float
    """Seconds of decoding and fusing."""
    command: float
    """Seconds of `rsup upscale` with its GPU and its cores; a pixel of output takes as long at x8 as at x4."""
    network: tuple[float, float]
    """Of those, seconds in the network, at best and as measured in small batches."""
    written: float
    """Bytes of its outputs."""
    puts: float
    """Requests that would write these to an object store."""


def unit_of(scale: int) -> Unit:
    """Of 2,048 scene pixels, three bands."""
    out = PIXELS * scale**2
    stored = (SIDE + 2 * MARGIN) ** 2 * ITEMS * 3
    chunks = (SIDE / 512) ** 2 * 3 * 4 / 3
    written = out * (COG_BYTES[scale] + STORE_BYTES[scale])
    fast, slow = NETWORK
    return Unit(
        stored * SOURCE_BYTES,
        stored / READING,
        COMMAND["compact-x4"] * out / (PIXELS * 16),
        (out / fast, out / slow),
        written,
        chunks + written / 8e6,
    )


def simulate(unit: Unit, units: int, runners: int) -> float:
    """Seconds until the last of the units is done: each runner fetches, reads and computes one after another.

    Runners that fetch at once share the link; nothing else is shared. Event by event.
    """
    waiting, now = units, 0.0
    fetching: dict[int, float] = {}
    busy: list[tuple[float, int]] = []
    idle = list(range(runners))
    while waiting or fetching or busy:
        while idle and waiting:
            fetching[idle.pop()] = unit.fetched
            waiting -= 1
        rate = min(NODE_LINK, LINK / len(fetching)) if fetching else 0.0
        step = min(
            min(fetching.values()) / rate if fetching else float("inf"), busy[0][0] - now if busy else float("inf")
        )
        now += step
        fetching = {runner: left - rate * step for runner, left in fetching.items()}
        for runner in [runner for runner, left in fetching.items() if left <= 1e-3]:
            del fetching[runner]
            heapq.heappush(busy, (now + unit.reading + unit.command, runner))
        while busy and busy[0][0] <= now + 1e-9:
            idle.append(heapq.heappop(busy)[1])
    return now


def loads(unit: Unit, units: int, runners: int, seconds: float) -> dict[str, float]:
    """The share of the time for which each thing is busy."""
    return {
        "CPU pipeline": units * (unit.reading + unit.command - unit.network[1]) / runners / seconds,
        "GPU, in the network": units * unit.network[1] / runners / seconds,
        "catalogue's bandwidth": units * unit.fetched / LINK / seconds,
        "a runner's disk": units * 5 * unit.written / DISK / runners / seconds,
        "object store, requests": units * unit.puts / PUTS / seconds,
    }


def tables() -> None:
    """Those of the page."""
    units = round(AREA / (PIXELS * 100) * EDGE)
    say(f"{units} units a month of {SIDE} px; the country's ground is {AREA / 1e11:.2f} billion scene pixels of 10 m\n")
    say("| | x4 | x8 |\n|---|---|---|")
    pair = [unit_of(scale) for scale in (4, 8)]
    for name, value in (
        ("fetched a unit", "{0.fetched:.0f}"),
        ("fetch and fuse, seconds a unit", "{0.reading:.1f}"),
        ("`upscale`, seconds a unit", "{0.command:.0f}"),
        ("of these in the network, at best and in batches of 4", "{0.network[0]:.1f}, {0.network[1]:.1f}"),
    ):
        cells = [value.format(unit) if "fetched" not in name else f"{unit.fetched / 1e6:.0f} MB" for unit in pair]
        say(f"| {name} | {' | '.join(cells)} |")
    say(f"| written a unit | {' | '.join(f'{unit.written / 1e9:.2f} GB' for unit in pair)} |")
    say(f"| fetched a month | {' | '.join(f'{units * unit.fetched / 1e12:.2f} TB' for unit in pair)} |")
    say(f"| kept a month | {' | '.join(f'{units * unit.written / 1e12:.2f} TB' for unit in pair)} |")
    say(f"| kept a year | {' | '.join(f'{12 * units * unit.written / 1e12:.1f} TB' for unit in pair)} |\n")
    for scale, unit in zip((4, 8), pair, strict=True):
        say(f"x{scale}:\n\n| H100, each with 16 cores | hours a month of images | GPU hours | busiest | then |")
        say("|---|---|---|---|---|")
        for runners in (1, 8, 64):
            seconds = simulate(unit, units, runners)
            first, *others = sorted(loads(unit, units, runners, seconds).items(), key=lambda each: -each[1])
            then = ", ".join(f"{name} {100 * share:.2g} %" for name, share in others[:3])
            say(
                f"| {runners} | {seconds / 3600:.2f} | {seconds * runners / 3600:.1f} | "
                f"{first[0]} {100 * first[1]:.3g} % | {then} |"
            )
        say("")


def unit(side: int = SIDE) -> None:
    """Seconds of a scene of that side, a field of waves and noise, by this machine's default device."""
    from rsup.pipeline.jobs.upscale import upscale
    from rsup.pipeline.jobs.upscale_plan import UpscaleRequest
    from rsup.pipeline.lattice import Window
    from rsup.pipeline.scenes.writer import create_scene

    y, x = np.mgrid[:side, :side].astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 60, (3, side, side))
    waves = [2500 + 700 * np.sin(x / (5 + band)) * np.cos(y / 7) for band in range(3)]
    with tempfile.TemporaryDirectory() as out:
        path = Path(out) / "scene.zarr"
        writer = create_scene(path, Window(-568_628, 65_536, side, side), "EPSG:32631", ("red", "green", "blue"), side)
        none = np.zeros((side, side))
        writer.write((0, 0), (waves + noise).astype(np.uint16), none.astype(np.uint8), none.astype(np.uint16))
        for model in ("default", "nearest"):
            start = time.monotonic()
            upscale(UpscaleRequest(path, 4, Path(out) / model, model))
            seconds = time.monotonic() - start
            say(f"{model}: {side} px in {seconds:.0f} s, {16 * side**2 / seconds / 1e6:.2f} Mpx of output a second")


def measure(folder: Path, model: str = "default") -> None:
    """Bytes and seconds of two real scenes, on this machine."""
    from sentinel2_scenes import read_scene, sources

    from rsup.pipeline.jobs.upscale import upscale
    from rsup.pipeline.jobs.upscale_plan import UpscaleRequest
    from rsup.pipeline.lattice import Window
    from rsup.pipeline.scenes.writer import create_scene

    known = {source.name: source for source in sources(folder)}
    side, bands = 512, ("red", "green", "blue")
    for name in ("mol L1C", "fortmckay L2A, lake"):
        whole = read_scene(folder, known[name])
        scene = whole.cut(side)
        sizes = [(folder / file).stat().st_size for file in known[name].files[:3]]
        pixels = scene.dn[:3]
        say(f"{name}: published {sum(sizes) / 3 / whole.dn[0].size:.2f} bytes a pixel and band")
        for scale in (4, 8):
            with tempfile.TemporaryDirectory() as out:
                window = Window(-568_628, 65_536, side, side)
                path = Path(out) / "scene.zarr"
                writer = create_scene(path, window, "EPSG:32631", bands, side)
                writer.write((0, 0), pixels, np.zeros((side, side), np.uint8), np.zeros((side, side), np.uint16))
                start = time.monotonic()
                upscale(UpscaleRequest(path, scale, Path(out), model, device="cpu"))
                seconds = time.monotonic() - start
                fine = (side * scale) ** 2
                cog = (Path(out) / f"scene_x{scale}.tif").stat().st_size
                store = sum(each.stat().st_size for each in (Path(out) / f"scene_x{scale}.zarr").rglob("*"))
                say(f"  x{scale}: COG {cog / fine:.2f}, store {store / fine:.2f} bytes a pixel, {seconds:.0f} s")


def say(line: str) -> None:
    """A line of the report."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measure(Path(sys.argv[2]), *sys.argv[3:])
    elif sys.argv[1:2] == ["unit"]:
        unit(*map(int, sys.argv[2:]))
    else:
        tables()
