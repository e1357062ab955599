"""Whether a JPEG 2000 file is all there, without decoding it: an open file in, a ValueError out where it is cut off.

ISO/IEC 15444-1, Annexes A and I: boxes of a length and a type, and in the codestream tile-parts, each of which says
how long it is.
"""

from __future__ import annotations

import struct
from typing import IO

SIGNATURE = b"\0\0\0\x0cjP  \r\n\x87\n"
CODESTREAM = b"jp2c"
SOC, SOT, EOC = b"\xff\x4f", b"\xff\x90", b"\xff\xd9"
"""Markers: start of the codestream, start of a tile-part, end of the codestream."""
MOST = 200_000
"""Boxes, header segments and tile-parts that are followed."""
CUT = "it is cut off"


def check_whole(file: IO[bytes], size: int) -> None:
    """Raise ValueError with the reason where a file of `size` bytes is no JPEG 2000, or less than it says."""
    if file.read(len(SIGNATURE)) != SIGNATURE:
        raise ValueError("it is no JPEG 2000 file" if size else "it is empty")
    position = len(SIGNATURE)
    for _ in range(MOST):
        file.seek(position)
        head = file.read(16)
        if len(head) < 8:
            break
        length, header = struct.unpack(">I", head[:4])[0], 8
        if length == 1 and len(head) == 16:
            length, header = struct.unpack(">Q", head[8:])[0], 16
        end = size if length == 0 else position + length
        if length and length < header:
            raise ValueError("its boxes make no sense")
        if end > size:
            raise ValueError(CUT)
        if head[4:8] == CODESTREAM:
            _check_codestream(file, position + header, end)
            return
        position = end
    raise ValueError(f"{CUT}, or holds no image")


def _check_codestream(file: IO[bytes], position: int, end: int) -> None:
    """Follow the segments of the main header, and then from tile-part to tile-part to the end."""
    file.seek(position)
    if file.read(2) != SOC:
        raise ValueError("its codestream is damaged")
    position += 2
    for _ in range(MOST):
        file.seek(position)
        marker = file.read(12)
        if marker[:2] == EOC:
            return
        if position >= end or len(marker) < 12:
            raise ValueError(CUT)
        if marker[:2] == SOT:
            length = struct.unpack(">I", marker[6:10])[0]
            if length == 0:  # to the end of the codestream
                file.seek(end - 2)
                if file.read(2) != EOC:
                    raise ValueError(CUT)
                return
            if length < 14 or position + length > end:
                raise ValueError(CUT if length >= 14 else "its tiles make no sense")
            position += length
        elif marker[0] == 0xFF:
            position += 2 + struct.unpack(">H", marker[2:4])[0]
        else:
            raise ValueError("its codestream is damaged")
    raise ValueError("it has more tiles than an image has")
