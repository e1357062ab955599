"""What may be shown and stored: addresses without their secrets, and text without what a terminal or a page obeys.

In: addresses and texts that others wrote (catalogues, servers, libraries, file names). Out: the same for people.
"""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import urlsplit

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"<>()]+")
"""An address inside a sentence."""
_REQUEST = re.compile(r"(\burl: /[^\s?#]*)[?#][^\s)]*")
"""The path of one, as urllib3 writes it: `HTTPConnectionPool(...): Max retries exceeded with url: /search?key=...`."""
_LAYOUT = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode's categories of control characters, lone surrogates, and separators of lines and paragraphs."""
DIRECTION = ("\u061c", "\u200e", "\u200f", *map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A)))
"""Marks, embeddings, overrides and isolates that change in which order a line is read (UAX 9)."""


def public_address(address: str) -> str:
    """An address without login, query and fragment, where passwords and signatures stand; a path as it is."""
    if "://" not in address:
        return address
    try:
        parts = urlsplit(address)
    except ValueError:  # a bracket that is never closed: no library will follow it
        scheme, _, rest = address.partition("://")
        return f"{scheme}://{re.split('[?#]', rest)[0].rpartition('@')[2]}"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def public_text(text: str) -> str:
    """A sentence of a library or a server whose addresses are public."""
    return _REQUEST.sub(r"\1", _ADDRESS.sub(lambda found: public_address(found[0]), text))


def printable(text: str) -> str:
    """One line of text: control characters, line ends, changes of direction and lone surrogates as \\x1b, \\u202e."""
    return "".join(escaped(char) if _is_obeyed(char) else char for char in text)


def _is_obeyed(char: str) -> bool:
    return unicodedata.category(char) in _LAYOUT or char in DIRECTION


def escaped(char: str) -> str:
    """A character as Python writes it in a string: \\x1b, \\u202e."""
    return char.encode("unicode_escape").decode("ascii")
