"""Runs a command for as long as standard input stays open: `python -m rsup.pipeline.demo.guard COMMAND...`.

A server started through it ends with whoever started it, also when that process is killed and tidies nothing up:
the kernel closes the pipe, the guard reads its end and stops the command.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

GRACE = 5.0
"""Seconds between asking the command to stop and killing it."""


def main(command: list[str]) -> int:
    """Run `command`; return its exit status, or 0 where it was stopped because standard input ended."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to the command as well
    closed = threading.Event()

    def stop_at_end_of_input() -> None:
        while os.read(0, 4096):
            pass
        closed.set()
        child.terminate()
        try:
            child.wait(GRACE)
        except subprocess.TimeoutExpired:
            child.kill()

    threading.Thread(target=stop_at_end_of_input, daemon=True).start()
    status = child.wait()
    return 0 if closed.is_set() else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
