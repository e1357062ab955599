"""A pyramid of tiled images as one BigTIFF, laid out to be read from afar: what is where, then tiles, coarse first.

In: the tags of a small TIFF that GDAL wrote, the sides of each level, tiles as they are stored. Out: a file whose every
level has these tags and its own tiles. Where tiles lie is known when the last one is written, so room is kept for it at
the front; each tile is written once and never read.

TIFF 6.0; BigTIFF (Aware Systems' design: 8-byte offsets); the cloud-optimised layout, OGC 21-026.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple

SUBFILE, WIDTH, LENGTH, TILE_WIDTH, TILE_LENGTH, OFFSETS, BYTE_COUNTS = 254, 256, 257, 322, 323, 324, 325
STRUCTURE = {258, 259, 262, 277, 284, 317, TILE_WIDTH, TILE_LENGTH, 338, 339, 42113}
"""Tags without which pixels cannot be understood; the others tell of the whole image and stand at its first level."""
LONG, LONG8 = 4, 16
SIZES = {1: 1, 2: 1, 3: 2, LONG: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, LONG8: 8, 17: 8, 18: 8}
"""Bytes of a value, by its type."""


class Tag(NamedTuple):
    """One field of a directory."""

    number: int
    type: int
    values: int
    """How many."""
    data: bytes
    """They themselves, little-endian."""


@dataclass
class Level:
    """One resolution, and where its tiles lie, row by row."""

    shape: tuple[int, int]
    """Rows and columns, in pixels."""
    grid: tuple[int, int]
    """Rows and columns of its tiles."""
    offsets: list[int] = field(init=False)
    sizes: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.offsets, self.sizes = ([0] * (self.grid[0] * self.grid[1]) for _ in range(2))


class Pyramid:
    """A BigTIFF that is being written: every tile of every level once, then `close`."""

    def __init__(self, file: BinaryIO, tags: Sequence[Tag], shapes: Sequence[tuple[int, int]]) -> None:
        """`file`: empty and open for writing. `tags`: those of a TIFF of the same kind. `shapes`: rows and columns of
        each level, finest first.
        """
        self._file, self._tags = file, tags
        known = {tag.number: int.from_bytes(tag.data, "little") for tag in tags if tag.values == 1}
        tall, wide = known[TILE_LENGTH], known[TILE_WIDTH]
        self.levels = [Level((rows, cols), (-(-rows // tall), -(-cols // wide))) for rows, cols in shapes]
        file.write(self._front())

    def add(self, level: int, row: int, col: int, tile: bytes) -> None:
        """Write the tile at this place of the level's tile grid. Levels come coarsest first, for so they are read."""
        where = self.levels[level]
        index = row * where.grid[1] + col
        where.offsets[index], where.sizes[index] = self._file.tell(), len(tile)
        self._file.write(tile)

    def close(self) -> None:
        """Say where all tiles are."""
        self._file.seek(0)
        self._file.write(self._front())

    def _front(self) -> bytes:
        """The header and the directories, finest level first; of one length whatever is known of tiles."""
        front = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16)
        for index, level in enumerate(self.levels):
            last = index == len(self.levels) - 1
            front += _directory(self._of(level, index > 0), len(front), last)
        return front

    def _of(self, level: Level, reduced: bool) -> list[Tag]:
        count = len(level.offsets)
        own = {
            SUBFILE: Tag(SUBFILE, LONG, 1, struct.pack("<L", int(reduced))),
            WIDTH: Tag(WIDTH, LONG, 1, struct.pack("<L", level.shape[1])),
            LENGTH: Tag(LENGTH, LONG, 1, struct.pack("<L", level.shape[0])),
            OFFSETS: Tag(OFFSETS, LONG8, count, struct.pack(f"<{count}Q", *level.offsets)),
            BYTE_COUNTS: Tag(BYTE_COUNTS, LONG, count, struct.pack(f"<{count}L", *level.sizes)),
        }
        shared = {tag.number: tag for tag in self._tags if tag.number in STRUCTURE or not reduced}
        return [tag for _, tag in sorted((shared | own).items())]


def _directory(tags: Sequence[Tag], start: int, last: bool) -> bytes:
    """An image file directory that begins at byte `start`, with the values that do not fit into it behind it."""
    length = 8 + 20 * len(tags) + 8
    entries, values = b"", b""
    for tag in tags:
        where = tag.data.ljust(8, b"\0")
        if len(tag.data) > 8:
            where = struct.pack("<Q", start + length + len(values))
            values += tag.data + b"\0" * (-len(tag.data) % 8)
        entries += struct.pack("<HHQ", tag.number, tag.type, tag.values) + where
    following = 0 if last else start + length + len(values)
    return struct.pack("<Q", len(tags)) + entries + struct.pack("<Q", following) + values


def read_tags(data: bytes) -> list[Tag]:
    """The first directory of a little-endian BigTIFF in memory. Raises ValueError for anything else."""
    if data[:4] != b"II\x2b\0":
        raise ValueError("no little-endian BigTIFF")
    (start,) = struct.unpack_from("<Q", data, 8)
    (count,) = struct.unpack_from("<Q", data, start)
    tags = []
    for entry in range(start + 8, start + 8 + 20 * count, 20):
        number, kind, values = struct.unpack_from("<HHQ", data, entry)
        size = SIZES[kind] * values
        at = entry + 12 if size <= 8 else struct.unpack_from("<Q", data, entry + 12)[0]
        tags.append(Tag(number, kind, values, data[at : at + size]))
    return tags
