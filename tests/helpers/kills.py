"""Actions that are killed: run in a process of their own, which ends itself where a test wants it to."""

import os
import traceback
from collections.abc import Callable
from typing import Any

KILLED = 137
"""What such a process ends itself with, as one does that was sent SIGKILL."""


def was_killed(action: Callable[[], Any]) -> bool:
    """Run it; False where it was over before its process ended itself."""
    child = os.fork()
    if child == 0:
        code = 0
        try:
            action()
        except BaseException:
            traceback.print_exc()
            code = 1
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED)
    return code == KILLED
