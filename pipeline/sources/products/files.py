"""The files of a product, in a folder of this machine: names in, bounded texts and addresses out.

Whoever made a product chose its names and what lies behind them: nothing outside of its folder is read, and no pipe or
device is opened.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from rsup.models.base.errors import SceneError

MOST_ENTRIES = 20_000
"""In a folder: a product has some dozens."""
MACOS = "._"
"""How names begin of what macOS writes beside each file, by the same name, on disks of other systems."""


class Files(Protocol):
    """What a folder and a zip have in common. Names are relative, with slashes; "" is the whole of it."""

    @property
    def title(self) -> str:
        """What sentences call it."""

    def children(self, folder: str) -> tuple[list[str], list[str]]:
        """Names of the files and of the folders right in a folder, each in order; none where there is no such."""

    def size(self, name: str) -> int:
        """Bytes of a file, which is one and lies inside. Raises SceneError."""

    def read(self, name: str, most: int) -> bytes:
        """All of a file, of `most` bytes at most. Raises SceneError."""

    def open(self, name: str) -> IO[bytes]:
        """A file, to be read in places. Raises SceneError."""

    def check(self, name: str) -> None:
        """Raise SceneError where a file is not what its container says that it is."""

    def href(self, name: str) -> str:
        """What GDAL and `asset_file` open it by. Raises SceneError where it is no file that lies inside."""

    def public(self, name: str) -> str:
        """The same to be stored: without folders of this machine."""


@dataclass(frozen=True)
class Folder:
    """A folder of this machine."""

    root: Path
    """Absolute, links resolved."""

    @property
    def title(self) -> str:
        """As Files."""
        return str(self.root)

    def children(self, folder: str) -> tuple[list[str], list[str]]:
        """As Files."""
        files: list[str] = []
        folders: list[str] = []
        try:
            with os.scandir(self.root / folder) as entries:
                for number, entry in enumerate(entries):
                    if number == MOST_ENTRIES:
                        raise SceneError(f"{self.root / folder} holds more than {MOST_ENTRIES} files: it is no product")
                    if not entry.name.startswith(MACOS):
                        (folders if entry.is_dir() else files).append(entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return [], []
        except OSError as error:
            raise SceneError(
                f"{self.root / folder} cannot be opened ({error.strerror}): check its name and who may read it"
            ) from error
        return sorted(files), sorted(folders)

    def size(self, name: str) -> int:
        """As Files."""
        return self._inside(name).stat().st_size

    def read(self, name: str, most: int) -> bytes:
        """As Files."""
        with self.open(name) as file:
            content = file.read(most + 1)
        return bounded(f"{self.root / name}", content, most)

    def open(self, name: str) -> IO[bytes]:
        """As Files."""
        path = self._inside(name)
        try:
            return path.open("rb")
        except OSError as error:
            raise SceneError(f"{path} cannot be opened ({error.strerror}): check who may read it") from error

    def check(self, name: str) -> None:
        """As Files: a folder says nothing of its files, but they lie inside."""
        self._inside(name)

    def href(self, name: str) -> str:
        """As Files."""
        return str(self._inside(name))

    def public(self, name: str) -> str:
        """As Files."""
        return f"{self.root.name}/{name}"

    def _inside(self, name: str) -> Path:
        """Where a file lies, links resolved."""
        path = self.root / name
        try:
            target = path.resolve(strict=True)
            mode = target.stat().st_mode
        except (OSError, RuntimeError, ValueError) as error:  # a link to nowhere, or in a circle
            reason = getattr(error, "strerror", None) or "links in a circle"
            raise SceneError(f"{path} cannot be opened ({reason}): get the product anew") from error
        if not target.is_relative_to(self.root):
            raise SceneError(f"{path} leads out of its product; put a copy of what it stands for in its place")
        if not stat.S_ISREG(mode):
            raise SceneError(f"{path} is no regular file: get the product anew")
        return target


def bounded(title: str, content: bytes, most: int) -> bytes:
    """`content`, of which one byte more than `most` was asked for. Raises SceneError where it was had."""
    if len(content) > most:
        raise SceneError(f"{title} has more than {most >> 20} MiB, and metadata have not: it is no part of a product")
    return content
