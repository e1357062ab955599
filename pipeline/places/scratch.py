"""Where what goes to an object store is made first: a folder of this machine's own, and of this user's.

In: what it is of. Out: always the same folder for the same, so that what a killed run left there is found again.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

from rsup.models.base.errors import OutputError
from rsup.models.base.files import foreign, writing


def scratch(*about: object) -> Path:
    """The folder for `about`, plain JSON: below $TMPDIR, or else in the user's cache. Nothing is made.

    Machines that share a home have one each.
    """
    said = json.dumps([*about, socket.gethostname()], sort_keys=True)
    return _root() / hashlib.sha256(said.encode()).hexdigest()[:24]


def own_scratch(folder: Path) -> None:
    """Make it, for nobody else to read or write. Raises OutputError where it cannot be made, or is somebody else's."""
    with writing(folder, OutputError, inside=True):
        folder.parent.parent.mkdir(parents=True, exist_ok=True)
        for each in (folder.parent, folder):
            each.mkdir(mode=0o700, exist_ok=True)
            found = os.lstat(each)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                raise foreign(each)


def leave_scratch(folder: Path) -> None:
    """Remove it where nothing unfinished is left in it."""
    with suppress(OSError):
        folder.rmdir()
        folder.parent.rmdir()


def _root() -> Path:
    if temporary := os.environ.get("TMPDIR"):
        return Path(temporary) / f"rsup-{os.geteuid()}"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rsup"
