"""Contenders in processes of their own, which take turns: no two networks compute at once, and none shares memory.

Side by side matters more than often: a machine that is busy for a while is so for all of them.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from .contender import Contender, Pass, Where
from .own import OWN
from .peers import PEERS

CONTENDERS: dict[str, Contender] = OWN | PEERS
"""Of a comparison, in the order of its table."""


@dataclass(frozen=True)
class Size:
    """Of a pass."""

    parameters: int
    gmac: float


@dataclass
class Seat:
    """A contender that takes turns."""

    name: str
    process: multiprocessing.process.BaseProcess
    pipe: Connection
    sizes: dict[str, Size] = field(default_factory=dict)
    seconds: list[dict[str, float]] = field(default_factory=list)
    """Of each pass for one tile, turn by turn."""
    peak: int = 0
    """Bytes of memory at most, beyond what its process had before the network."""
    why: str = ""
    """It takes no turns any more."""

    def hear(self) -> Any:
        """What the process says next; None where it says why it cannot go on, or has gone."""
        try:
            said = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            self.why = f"its process was ended with status {self.process.exitcode}, perhaps for want of memory"
            return None
        if isinstance(said, str):
            self.why = said
            return None
        return said

    def take_turn(self) -> bool:
        """One turn; whether it was one."""
        with suppress(OSError):  # where it has gone, `hear` says so
            self.pipe.send(None)
        said = self.hear()
        if said is None:
            return False
        seconds, self.peak = said
        self.seconds.append(seconds)
        return True


def seat(name: str, where: Where) -> Seat:
    """Start a contender; `hear` gives its sizes when it is built. Its package must be there (`missing`)."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(name, where, theirs), daemon=True)
    process.start()
    theirs.close()
    return Seat(name, process, pipe)


def missing(name: str) -> str | None:
    """The package that a contender needs and that is not installed."""
    package = CONTENDERS[name].package
    return package if package is not None and find_spec(package) is None else None


def _serve(name: str, where: Where, pipe: Connection) -> None:
    """Build, say how large it is, and take a turn whenever the other side asks, until it has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command ends this process
    warnings.simplefilter("ignore")  # of libraries of old
    try:
        torch.set_num_threads(1)
        used = _memory("VmRSS")
        passes = CONTENDERS[name].build(where)
        pipe.send({key: Size(each.parameters, each.gmac) for key, each in passes.items()})
        while True:
            pipe.recv()
            seconds = {key: _timed(each, where) for key, each in passes.items()}
            pipe.send((seconds, _peak(where, used)))
    except EOFError:
        return
    except Exception as error:  # of a library that is not ours, whatever it may be
        pipe.send(f"{type(error).__name__}: {error}".splitlines()[0])


def _timed(each: Pass, where: Where) -> float:
    """Seconds a tile: of the core on a CPU, where others may want it too, and of the clock on a card."""
    clock: Callable[[], float] = time.process_time
    if where.device.type == "cuda":
        clock = time.perf_counter
        torch.cuda.synchronize(where.device)
    start = clock()
    each.run()
    if where.device.type == "cuda":
        torch.cuda.synchronize(where.device)
    return (clock() - start) / each.tiles


def _peak(where: Where, used: int) -> int:
    if where.device.type == "cuda":
        return torch.cuda.max_memory_allocated(where.device)
    return max(0, _memory("VmHWM") - used)


def _memory(key: str) -> int:
    """A line of this process's status, in bytes; Linux alone has it, 0 elsewhere."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), 0)
