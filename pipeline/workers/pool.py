"""What this machine has for a run, its cores, cards and memory: a device request in, a plan of worker processes out.

Raises ArgumentError, with the figure, for what the machine does not carry, before anything is started.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

from rsup.models.base.errors import ArgumentError
from rsup.models.upscaler import ENGINES, check_packages
from rsup.pipeline.machine import free_memory

DRIVER_NODES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
"""One of these is there where torch could see a GPU: NVIDIA's driver, Windows' subsystem for Linux, AMD's driver."""

WORKERS_A_CORE = 2
"""Most CPU workers a core: while one reads or writes, another computes; a third would only wait."""

CACHE_BYTES = 512 << 20
"""Tiles a worker keeps for neighbouring chunks: the lower edges of a row of chunks 90 km long at x8."""

WORKER_BYTES = 640 << 20
"""What a worker holds before its first chunk: Python, torch and a compact network."""

ADDRESS_BYTES = 7 << 29
"""Address space, most of it never touched, without which torch cannot be loaded: what `ulimit -v` bounds."""

FILES_A_WORKER, FILES = 12, 100
"""Pipes and connections the command has to each worker, and what else it may have open at once."""

THREADS = 3
"""Chunks a worker works on at least: while one waits for its last tiles, one reads ahead and one writes behind."""
MOST_THREADS = 8
"""As many of its cores are given a chunk each: reading, rounding and packing take them, and memory."""


@dataclass(frozen=True)
class Pool:
    """The worker processes of this machine."""

    device: str
    """Of every worker: "cpu", one of ENGINES, which run there too, or "cuda", of which a worker sees only its own card.
    """
    pins: tuple[str | None, ...]
    """CUDA_VISIBLE_DEVICES of each worker, None on the CPU."""
    cores: int
    """CPU cores a worker's network may use."""

    @classmethod
    def plan(cls, device: str, workers: int | None) -> Pool:
        """`device` is auto, cpu, cuda (every visible card), cuda:N or one of ENGINES; `workers` None means one a card,
        or one CPU worker that has all cores. Raises ArgumentError where the machine lacks what is asked for,
        ModelError where an engine's packages are not installed.
        """
        check_count(workers)
        cores = len(os.sched_getaffinity(0))
        if device in ENGINES:
            check_packages(device, f"--device {device}")
        on_cpu = device == "cpu" or device in ENGINES
        cards = [] if on_cpu else visible_cards()
        if on_cpu or (device == "auto" and not cards):
            count, most = workers or 1, WORKERS_A_CORE * cores
            if count > most:
                raise ArgumentError(f"--workers {count}: this machine has {cores} cores, which carry {most} at most")
            return cls(device if on_cpu else "cpu", (None,) * count, max(1, cores // count))._within_limits()
        if device.startswith("cuda:"):
            index = device.removeprefix("cuda:")
            if not (index.isascii() and index.isdecimal()) or int(index) >= len(cards):
                raise ArgumentError(f"--device {device}: this machine shows {len(cards)} CUDA devices")
            cards = [cards[int(index)]]
        elif device not in ("auto", "cuda"):
            raise ArgumentError(f"--device {device}: choose auto, cpu, cuda, cuda:N, {' or '.join(ENGINES)}")
        elif not cards:
            raise ArgumentError("--device cuda: torch sees no CUDA device here; use --device cpu")
        count = workers or len(cards)
        if count > len(cards):
            raise ArgumentError(f"--workers {count}: there are {len(cards)} CUDA devices and one worker a device")
        return cls("cuda", tuple(cards[:count]), max(1, cores // count))._within_limits()

    def _within_limits(self) -> Pool:
        """Itself; raises ArgumentError where this process may not open what its workers need."""
        allowed, count = resource.getrlimit(resource.RLIMIT_NOFILE)[0], len(self.pins)
        if allowed != resource.RLIM_INFINITY and count * FILES_A_WORKER + FILES > allowed:
            needed = count * FILES_A_WORKER + FILES
            raise ArgumentError(
                f"{count} workers need {needed} open files, and {allowed} are allowed here: raise it with ulimit -n, "
                "or ask for fewer --workers"
            )
        return self

    def threads(self, task_bytes: int, cached: bool) -> int:
        """Chunks a worker may have in flight, of `task_bytes` each; `cached`: it keeps tiles for their neighbours.

        Raises ArgumentError where not even one fits the memory that is free.
        """
        held = WORKER_BYTES + (CACHE_BYTES if cached else 0)
        addresses = resource.getrlimit(resource.RLIMIT_AS)[0]
        if addresses != resource.RLIM_INFINITY and addresses < ADDRESS_BYTES + task_bytes:
            raise ArgumentError(
                f"a worker needs {(ADDRESS_BYTES + task_bytes) / 1e9:.1f} GB of address space, and ulimit -v allows "
                f"{addresses / 1e9:.1f} GB: raise it"
            )
        free, count = free_memory(), len(self.pins)
        if count * (held + task_bytes) > free:
            most, needed = free // (held + task_bytes), count * (held + task_bytes) / 1e9
            raise ArgumentError(
                f"{count} workers need {needed:.1f} GB of memory with chunks of this size, and {free / 1e9:.1f} GB are "
                "free: ask for a smaller --chunk" + (f" or --workers {most}" if most else "")
            )
        # Half of what is free: the other half is the network's, the reader's and the neighbours'.
        most = max(THREADS, min(self.cores, MOST_THREADS))
        return max(1, min(most, (free // 2 // count - held) // task_bytes))


def visible_cards() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may name here, one entry a card: indices, or the entries of the variable itself."""
    if not any(Path(node).exists() for node in DRIVER_NODES):
        return []  # and torch need not be imported, which takes seconds
    import torch

    count = torch.cuda.device_count()
    named = [entry.strip() for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry.strip()]
    return named[:count] if named else [str(index) for index in range(count)]


def check_count(workers: int | None) -> None:
    """Raise ArgumentError where fewer workers than one are asked for."""
    if workers is not None and workers < 1:
        raise ArgumentError(f"--workers {workers}: at least one worker is needed")
