"""Who holds a lease: this process in words that no other shares in, and whether whoever wrote such words still lives.

Linux says both. A process is told by when it began, in ticks since the machine did, for the time of day may be set
meanwhile.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

_STATE, _STARTED = 0, 19
"""Among the fields of /proc/PID/stat that follow the program's name (proc_pid_stat(5))."""


def this_process() -> dict[str, Any]:
    """What a lease says of its holder, as plain JSON."""
    return {"machine": machine(), "pid": os.getpid(), "started": _started(os.getpid())}


def is_gone(said: Any) -> bool | None:
    """Whether the holder that a lease speaks of has ended; None where nobody here knows, as of another machine's."""
    if not isinstance(said, dict) or said.get("machine") != machine() or not isinstance(said.get("pid"), int):
        return None
    return None if said.get("started") is None else _started(said["pid"]) != said["started"]


def machine() -> str:
    """Within which process IDs mean the same: a host since it was started, a container of it."""
    with suppress(OSError):
        started = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {started} {os.readlink('/proc/self/ns/pid')}"
    return socket.gethostname()


def _started(pid: int) -> int | None:
    """None for a process that is gone, or has ended and is only still listed."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()  # a name may hold anything
        return None if fields[_STATE] in (b"Z", b"X") else int(fields[_STARTED])
    return None
