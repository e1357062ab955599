"""What a command costs with all of its processes; arguments in, seconds and bytes out."""

import subprocess
import time
from collections.abc import Sequence
from typing import NamedTuple

import psutil

LOOK = 0.02
"""Seconds between looks at the processes."""


class Cost(NamedTuple):
    """Of a command and all of its processes."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds of processors."""
    memory: float
    """The most that was resident at once, MB."""


def cost(command: Sequence[object], environment: dict[str, str] | None = None) -> Cost:
    """Run a command; what it writes to standard output is dropped. Exits where it fails."""
    start, used, most = time.monotonic(), dict[int, float](), 0
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, env=environment) as process:
        parent = psutil.Process(process.pid)
        while process.poll() is None:
            resident = 0
            for each in [parent, *parent.children(recursive=True)]:
                try:
                    times = each.cpu_times()
                    used[each.pid] = times.user + times.system
                    resident += each.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            most = max(most, resident)
            time.sleep(LOOK)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed")
    return Cost(time.monotonic() - start, sum(used.values()), most / 1e6)
