"""From measured seconds and bytes a unit to hours, nodes and terabytes for a country; run by hand.

`python tests/benchmarks/sizing.py` prints the tables of docs/sizing.md from the inputs below.
What a unit takes on cores is measured by `overhead.py nearest` and `overhead.py shipped`, beside this file.
`python tests/benchmarks/sizing.py measure FOLDER [MODEL]` measures bytes a pixel again, on real scenes in FOLDER.
"""

from __future__ import annotations

import heapq
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SIDE, MARGIN = 2048, 128
"""Of a unit in scene pixels, and what is fetched around it on each side."""
PIXELS = SIDE**2

# Measured on 2 cores (AMD EPYC) by `overhead.py`, by the clock, with starting up; x8 on 1,024 px, a quarter of a unit.
AROUND = {4: 14.5, 8: 4 * 15.2}
"""Seconds of `rsup upscale` of a unit with `nearest`, whose network costs nothing."""
ON_CORES = {4: 73.0, 8: 4 * 48.9}
"""Seconds with the default model."""
# Measured on an NVIDIA H200 with 16 cores by an earlier version, which took twice as long around its network.
ON_CARD = {4: 80.0, 8: 4 * 80.0}
"""Seconds with the default model, of one command that has card and cores for itself; x8 by as many pixels as at x4."""
# Measured by `measure` on a real scene of 512 px (Mol, red, green and blue) with the default model.
COG_BYTES = {4: 4.44, 8: 3.82}
"""COG, a pixel of the mosaic, all bands."""
STORE_BYTES = {4: 5.72, 8: 5.48}
"""Zarr store, likewise."""
SOURCE_BYTES = 1.46
"""Of an item's files, a pixel and band, as they are published."""
# The network alone, compact-x4 in bfloat16, on an NVIDIA H200.
NETWORK = 105e6, 47e6
"""Pixels of output a second: 64 tiles at a time, and 4."""

# Assumed.
RUNNERS = 8
"""Of a node of 16 cores: each has two, as those were measured, and all of them its card."""
AREA = 357_600e6
"""Of Germany, in square metres."""
EDGE = 1.15
"""Cells are whole where the area ends."""
ITEMS = 3
"""Of six passes a month, one every five days, that are clear enough to be read."""
READING = 40e6
"""Pixels and bands a second that one runner reads, decodes and fuses."""
LINK, NODE_LINK = 10e9 / 8, 5e9 / 8
"""Bytes a second that the catalogue's store gives to all nodes, and to one."""
PUTS = 3_500
"""Requests a second that a prefix of an object store takes."""
DISK = 1e9
"""Bytes a second of a node's own disk; every byte of output is written three times, and read twice, at most."""


@dataclass(frozen=True)
class Unit:
    """What one takes."""

    fetched: float
    """Bytes from the catalogue's store."""
    runner: float
    """Seconds of a runner: decoding, fusing, and all of `rsup upscale` that a card does not do."""
    card: float
    """Seconds of the node's card besides, at the slower rate; 0 where it has none."""
    disk: float
    """Seconds of the node's disk besides."""
    written: float
    """Bytes of its outputs."""
    puts: float
    """Requests that would write these to an object store."""


def unit_of(scale: int, taken: dict[int, float], *, card: bool = False, disk: bool = True) -> Unit:
    """Of 2,048 scene pixels, three bands; `taken`: seconds of `rsup upscale` by scale, without card and disk."""
    out = PIXELS * scale**2
    stored = (SIDE + 2 * MARGIN) ** 2 * ITEMS * 3
    chunks = (SIDE / 512) ** 2 * 3 * 4 / 3
    written = out * (COG_BYTES[scale] + STORE_BYTES[scale])
    return Unit(
        fetched=stored * SOURCE_BYTES,
        runner=stored / READING + taken[scale],
        card=out / NETWORK[1] if card else 0.0,
        disk=5 * written / DISK if disk else 0.0,
        written=written,
        puts=chunks + written / 8e6,
    )


def simulate(unit: Unit, units: int, nodes: int, runners: int = RUNNERS) -> float:
    """Seconds until the last of the units is done: each runner fetches and computes one after another.

    Runners that fetch at once share their node's link and the catalogue's; those of a node take turns at its card and
    at its disk. Event by event.
    """
    waiting, now = units, 0.0
    fetching: dict[int, float] = {}
    busy: list[tuple[float, int]] = []
    idle = list(range(nodes * runners))
    card, disk = [0.0] * nodes, [0.0] * nodes
    """When those of each have done what they were given."""
    while waiting or fetching or busy:
        while idle and waiting:
            fetching[idle.pop(0)] = unit.fetched
            waiting -= 1
        here = Counter(runner % nodes for runner in fetching)
        rates = {each: min(NODE_LINK / here[each % nodes], LINK / len(fetching)) for each in fetching}
        steps = [left / rates[each] for each, left in fetching.items()] + [end - now for end, _ in busy[:1]]
        now += (step := min(steps))
        fetching = {each: left - rates[each] * step for each, left in fetching.items()}
        for each in [each for each, left in fetching.items() if left <= 1e-3]:
            del fetching[each]
            node = each % nodes
            card[node] = max(now + unit.runner, card[node]) + unit.card
            disk[node] = max(card[node], disk[node]) + unit.disk
            heapq.heappush(busy, (disk[node], each))
        while busy and busy[0][0] <= now + 1e-9:
            idle.append(heapq.heappop(busy)[1])
    return now


def loads(unit: Unit, units: int, nodes: int, seconds: float) -> dict[str, float]:
    """The share of the time for which each thing is busy."""
    return {
        "cores": units * unit.runner / nodes / RUNNERS / seconds,
        "card": units * unit.card / nodes / seconds,
        "catalogue's link": units * unit.fetched / LINK / seconds,
        "a node's disk": units * unit.disk / nodes / seconds,
        "object store, requests": units * unit.puts / PUTS / seconds,
    }


def tables() -> None:
    """Those of the page."""
    units = round(AREA / (PIXELS * 100) * EDGE)
    say(f"{units} units a month of {SIDE} px; the country's ground is {AREA / 1e11:.2f} billion scene pixels of 10 m\n")
    say("| | x4 | x8 |\n|---|---|---|")
    both = [(unit_of(scale, AROUND, card=True), unit_of(scale, ON_CORES)) for scale in (4, 8)]
    rows = {
        "fetched a unit": [f"{unit.fetched / 1e6:.0f} MB" for unit, _ in both],
        "seconds of a runner a unit, with a card": [f"{unit.runner:.0f}" for unit, _ in both],
        "seconds of the card a unit": [f"{unit.card:.1f}" for unit, _ in both],
        "seconds of a runner a unit, without a card": [f"{unit.runner:.0f}" for _, unit in both],
        "written a unit": [f"{unit.written / 1e9:.2f} GB" for unit, _ in both],
        "fetched a month": [f"{units * unit.fetched / 1e12:.2f} TB" for unit, _ in both],
        "kept a month": [f"{units * unit.written / 1e12:.2f} TB" for unit, _ in both],
        "kept a year": [f"{12 * units * unit.written / 1e12:.1f} TB" for unit, _ in both],
    }
    for name, cells in rows.items():
        say(f"| {name} | {' | '.join(cells)} |")
    for scale, (on_card, on_cores) in zip((4, 8), both, strict=True):
        say(f"\nx{scale}, an H100 and 16 cores a node:\n")
        say("| nodes | hours a month, one command a node, as measured | eight a node | busiest of these | then |")
        say("|---|---|---|---|---|")
        for nodes in (1, 8, 64):
            alone = simulate(unit_of(scale, ON_CARD, disk=False), units, nodes, 1)
            say(f"| {nodes} | {alone / 3600:.2f} | {_row(on_card, units, nodes)}")
        say(f"\nx{scale}, 16 cores a node and no card:\n")
        say("| nodes | hours a month, eight commands a node | busiest | then |")
        say("|---|---|---|---|")
        for nodes in (1, 8, 64):
            say(f"| {nodes} | {_row(on_cores, units, nodes)}")


def _row(unit: Unit, units: int, nodes: int) -> str:
    """Hours, and what is busy."""
    seconds = simulate(unit, units, nodes)
    first, *others = sorted(loads(unit, units, nodes, seconds).items(), key=lambda each: -each[1])
    then = ", ".join(f"{name} {100 * share:.2g} %" for name, share in others[:3])
    return f"{seconds / 3600:.2f} | {first[0]} {100 * first[1]:.3g} % | {then} |"


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
    else:
        tables()
