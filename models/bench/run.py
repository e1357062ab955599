"""`rsup bench`: a device in, how long each network takes there for a tile, what it costs, and what a full tile takes.

A pass that warms up, then rounds in which all take turns; medians. On a CPU on one core, tile by tile.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from rsup.models.base.progress import Progress
from rsup.models.upscaler import FLOAT32, arithmetic_on, chosen, reduced_precision

from .contender import SIDE, Row, Where
from .own import REFERENCE
from .turns import CONTENDERS, Seat, missing, seat

FULL = 10_980
"""Pixels of 10 m along a side of a full Sentinel-2 tile."""

ROUNDS = 5
"""Turns at most."""
SECONDS = 8.0
"""Of a contender's turns, after which it takes no more: what takes a minute takes one turn."""


def bench(
    device: str, progress: Progress = lambda done, total, note="": None, names: Iterable[str] = CONTENDERS
) -> dict[str, Any]:
    """Time the networks on `auto`, `cpu`, `cuda` or `cuda:N`.

    `device`, `machine`, `cores`, `arithmetic`, `torch`; `networks`: a line each (see `_line`); `skipped`: the name and
    the reason of each that could not take part. Raises ModelError where the device is not there.
    """
    name = chosen(device)
    arithmetic = arithmetic_on(name)
    where = Where(torch.device(name), reduced_precision(torch.device(name)), 1 if name == "cpu" else 4)
    # In float32 the student as its authors run it is the student as written.
    names = [each for each in names if each != "float32" or arithmetic != FLOAT32]
    skipped = {each: f"{package} is not installed" for each in names if (package := missing(each))}
    seats = [seat(each, where) for each in names if each not in skipped]
    try:
        for done, each in enumerate(seats):
            progress(done, len(seats), f"building {each.name}")
            each.sizes = each.hear() or {}
        _take_turns([each for each in seats if not each.why], progress)
    finally:
        for each in seats:
            each.pipe.close()
            each.process.terminate()
            each.process.join()
    skipped |= {each.name: each.why for each in seats if each.why}
    cores = len(os.sched_getaffinity(0)) if where.device.type == "cpu" else None
    lines = [_line(row, each, cores) for each in seats if not each.why for row in CONTENDERS[each.name].rows]
    reference = next((line["seconds"] for line in lines if line["name"] == REFERENCE), None)
    return {
        "device": name,
        "machine": machine(where.device),
        "cores": cores,
        "arithmetic": arithmetic,
        "torch": torch.__version__,
        "networks": [line | {"ratio": line["seconds"] / reference if reference else None} for line in lines],
        "skipped": [
            {"name": row.name, "reason": reason} for each, reason in skipped.items() for row in CONTENDERS[each].rows
        ],
    }


def _take_turns(seats: list[Seat], progress: Progress) -> None:
    """Round by round; the first, which fetches kernels and memory, does not count."""
    playing = list(seats)
    for turn in range(ROUNDS + 1):
        for done, each in enumerate(playing):
            progress(turn * len(seats) + done, (ROUNDS + 1) * len(seats), each.name)
            if each.take_turn() and turn == 0:
                each.seconds.clear()
        playing = [each for each in playing if not each.why and sum(map(_total, each.seconds)) < SECONDS]


def _total(seconds: Mapping[str, float]) -> float:
    return sum(seconds.values())


def _line(row: Row, taken: Seat, cores: int | None) -> dict[str, Any]:
    """`name`, `scale`, `seconds` a tile of 512 x 512 output pixels (of one core, or of the card), `turns`,
    `parameters`, `gmac`, `peak_bytes`, `full_tile_hours` of this machine (all its cores) or card, each pixel once,
    `for_an_hour`, how many of them do a full tile in an hour, and `note`.
    """
    passes = {key: taken.sizes[key] for key in row.passes}
    seconds = statistics.median(sum(times * turn[key] for key, times in row.passes.items()) for turn in taken.seconds)
    tiles = (FULL * row.scale / SIDE) ** 2
    hours = seconds * tiles / 3600 / (cores or 1)
    return {
        "name": row.name,
        "scale": row.scale,
        "seconds": seconds,
        "turns": len(taken.seconds),
        "parameters": sum(size.parameters for size in passes.values()),
        "gmac": sum(times * passes[key].gmac for key, times in row.passes.items()),
        "peak_bytes": taken.peak,
        "full_tile_hours": hours,
        "for_an_hour": math.ceil(hours),
        "note": row.note,
    }


def machine(device: torch.device) -> str:
    """What a device is called: a card's own name, a CPU's as Linux gives it, and whether it multiplies matrices."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{name}, AMX" if torch.cpu.get_capabilities().get("amx_bf16") else name


def table(result: Mapping[str, Any]) -> str:
    """The result of `bench` as lines for people."""
    cores = result["cores"]
    here = f"{result['machine']}, {cores} cores" if cores else result["machine"]
    unit = "core" if cores else "card"
    rows = [("", f"s a tile, {unit}", "ratio", "M params", "GMAC", "peak GB", "full tile, h", "for an hour")]
    for line in result["networks"]:
        ratio = line["ratio"]
        rows.append(
            (
                f"{line['name']}, x{line['scale']}",
                f"{line['seconds']:.3g}",
                "-" if ratio is None else f"{ratio:.3g}",
                f"{line['parameters'] / 1e6:.4g}",
                f"{line['gmac']:.4g}",
                f"{line['peak_bytes'] / 1e9:.2f}",
                f"{line['full_tile_hours']:.3g}",
                str(line["for_an_hour"]),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"{here}, {result['arithmetic']}, torch {result['torch']}; tiles of {SIDE} x {SIDE} output pixels"]
    lines += ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    lines += [f"{line['name']}: {line['note']}" for line in result["networks"] if line["note"]]
    lines += [f"left out {each['name']}: {each['reason']}" for each in result["skipped"]]
    return "\n".join(lines)
