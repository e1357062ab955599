"""The files of a product in a zip, read in place: nothing is unpacked, so that nothing can be unpacked elsewhere.

Whoever made a zip chose what it says of itself. Refused are names that lead out of it, links, entries that are there
twice (readers would differ in which they take), ciphers, and contents that are far larger than the zip: bombs.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import IO

from rsup.models.base.errors import SceneError
from rsup.pipeline.public import printable
from rsup.pipeline.scenes import remedies
from rsup.pipeline.sources.asset_file import IN_ZIP

from .files import MACOS, bounded

MOST_ENTRIES = 100_000
"""An EOPF product of small chunks has some thousands."""
LARGEST_DIRECTORY = 32 << 20
"""Bytes of the list of entries, which is held whole."""
LARGEST = 4 << 30
"""Bytes of an entry's content: a band has a seventh of that before compression."""
MOST_COMPRESSION = 200
"""Times smaller than its content an entry may be: images are compressed already, and metadata come to a tenth."""
SMALL = 1 << 20
"""Bytes of content that are nobody's harm, however well they are compressed."""
DOCUMENTS = {"zarr.json", ".zgroup", ".zarray", ".zattrs", ".zmetadata"}
"""Metadata of Zarr."""
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""That GDAL reads in place."""


class Archive:
    """A zip of this machine, looked through when it is opened. Raises SceneError for one that is not to be trusted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            size = path.stat().st_size
            _check_directory(path, size)
            self._zip = zipfile.ZipFile(path)
            entries = self._zip.infolist()
        except SceneError:
            raise
        except Exception as error:  # zipfile raises many kinds for what is none
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise SceneError(
                f"{path} cannot be read as a zip ({printable(reason)[:100]}): it is cut off or damaged; get it anew"
            ) from error
        if reason := _distrust(entries, size):
            raise SceneError(f"{path}: {reason}; nothing is read from such a zip, get the product anew")
        self._entries = {entry.filename: entry for entry in entries if not entry.is_dir()}
        names = Counter(entry.filename for entry in entries)
        if twice := next((name for name, count in names.items() if count > 1), None):
            raise SceneError(f"{path}: its entry {printable(twice)[:100]!r} is there twice, {self._remedy(twice)}")

    def _remedy(self, twice: str) -> str:
        """What to do about a name that is there twice. Zarr's ZipStore leaves such, and reads the last of them."""
        folder, _, last = twice.rpartition("/")
        if last not in DOCUMENTS:
            return "of which readers take this or that; nothing is read from such a zip, get the product anew"
        while DOCUMENTS & set(self.children(above := folder.rpartition("/")[0])[0]):
            folder = above
            if not folder:
                break
        return f"as zarr's ZipStore leaves it; {remedies.unpack(self.path, printable(folder))}"

    @property
    def title(self) -> str:
        """As Files."""
        return str(self.path)

    @cached_property
    def _tree(self) -> dict[str, tuple[set[str], set[str]]]:
        tree: dict[str, tuple[set[str], set[str]]] = {"": (set(), set())}
        for name in self._entries:
            folder, _, last = name.rpartition("/")
            if last.startswith(MACOS):
                continue
            tree.setdefault(folder, (set(), set()))[0].add(last)
            while folder:
                parent, _, last = folder.rpartition("/")
                known = parent in tree
                tree.setdefault(parent, (set(), set()))[1].add(last)
                if known and parent:
                    break
                folder = parent
        return tree

    def children(self, folder: str) -> tuple[list[str], list[str]]:
        """As Files."""
        files, folders = self._tree.get(folder, (set(), set()))
        return sorted(files), sorted(folders)

    def folders(self) -> list[str]:
        """Every folder in it, "" first."""
        return sorted(self._tree)

    def size(self, name: str) -> int:
        """As Files."""
        return self._entry(name).file_size

    def read(self, name: str, most: int) -> bytes:
        """As Files."""
        try:
            with self.open(name) as file:
                return bounded(f"{self.path}: {printable(name)}", file.read(most + 1), most)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise SceneError(f"{self.path}: {printable(name)} is damaged ({error}): get the product anew") from error

    def open(self, name: str) -> IO[bytes]:
        """As Files."""
        try:
            return self._zip.open(self._entry(name))
        except (zipfile.BadZipFile, NotImplementedError, OSError, RuntimeError) as error:
            raise SceneError(f"{self.path}: {printable(name)} is damaged ({error}): get the product anew") from error

    def check(self, name: str) -> None:
        """As Files: by its checksum."""
        try:
            with self.open(name) as file:
                while file.read(1 << 20):
                    pass
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise SceneError(f"{self.path}: {printable(name)} is damaged ({error}): get the product anew") from error

    def href(self, name: str) -> str:
        """As Files."""
        self._entry(name)
        path = str(self.path.resolve())
        if "{" in path or "}" in path:  # GDAL counts them
            raise SceneError(f"{self.path}: a zip is not read where braces are in its name or its folders'; move it")
        return f"{IN_ZIP}{{{path}}}/{name}"

    def public(self, name: str) -> str:
        """As Files."""
        return f"{self.path.name}/{name}"

    def _entry(self, name: str) -> zipfile.ZipInfo:
        entry = self._entries.get(name)
        if entry is None:
            raise SceneError(f"{self.path} has no {printable(name)}: get the product anew")
        if entry.compress_type not in METHODS:
            raise SceneError(
                f"{self.path}: {printable(name)} is compressed by method {entry.compress_type}, which is not read in "
                "place; unpack the zip and give its folder"
            )
        return entry


def _check_directory(path: Path, size: int) -> None:
    """Raise SceneError where the list of entries is too long to be held; what is no zip is for zipfile to say."""
    with path.open("rb") as file:
        file.seek(max(0, size - (1 << 16) - 22))
        tail = file.read()
    found = tail.rfind(b"PK\5\6")
    if found < 0 or len(tail) < found + 22:
        return
    length = struct.unpack_from("<I", tail, found + 12)[0]
    if length != 0xFFFFFFFF and length > LARGEST_DIRECTORY:
        raise SceneError(f"{path} lists more entries than a product has; nothing is read from such a zip")


def _distrust(entries: list[zipfile.ZipInfo], size: int) -> str | None:
    """Why a zip of `size` bytes with these entries is not read; None where it is."""
    if len(entries) > MOST_ENTRIES:
        return f"it has {len(entries):,} entries, more than a product"
    for entry in entries:
        name, shown = entry.orig_filename, repr(printable(entry.orig_filename))[:100]
        parts = name.rstrip("/").split("/")
        if not name or "\0" in name or "\\" in name or ".." in parts or "." in parts or "" in parts or ":" in parts[0]:
            return f"its entry {shown} leads out of it or nowhere"
        if stat.S_ISLNK(entry.external_attr >> 16):
            return f"its entry {shown} is a link"
        if entry.flag_bits & 1:
            return f"its entry {shown} is encrypted"
        if entry.file_size > LARGEST or entry.file_size > max(SMALL, MOST_COMPRESSION * entry.compress_size):
            return f"its entry {shown} would come to {entry.file_size / 1e6:,.0f} MB: a bomb, no image"
    if sum(entry.compress_size for entry in entries) > size:
        return "its entries lie over one another: a bomb"
    return None
