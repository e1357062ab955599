"""Small questions to servers of others: a text that may not be long, the length of a file. Neither takes for ever.

Asked by requests, which follows no redirect but to http(s) and knows logins in addresses. Pixels are GDAL's.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import TypeVar

import requests

LONGEST = 4 << 20
"""Bytes of a text; a product's metadata have 60 kB."""
SECONDS = 20.0
"""For a whole answer, names resolved and redirects followed."""

T = TypeVar("T")


def scheme_of(href: str) -> str:
    """ "https" of a URL, "" of a path."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", href)
    return found[1].lower() if found else ""


def text(href: str) -> str | None:
    """What a URL or a path leads to; None where it cannot be had, is too long, or takes too long."""
    scheme = scheme_of(href)
    if scheme in ("http", "https"):
        body = _in_time(lambda: _body(href))
    elif scheme:
        return None
    else:
        body = _file(Path(href))
    try:
        return None if body is None or len(body) > LONGEST else body.decode()
    except UnicodeDecodeError:
        return None


def length(href: str) -> int | None:
    """Bytes of the file behind a URL; None where the server does not say."""
    return _in_time(lambda: _length(href))


def _in_time(ask: Callable[[], T | None]) -> T | None:
    """The answer, or None where there is none in SECONDS.

    In a thread of its own, given up when the time is over: a server that sends a byte a second keeps every time-out
    of sockets content.
    """
    answers: list[T | None] = []

    def run() -> None:
        try:
            answers.append(ask())
        except Exception:  # requests, urllib3, http.client and codecs have errors of their own; each means: no answer
            answers.append(None)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(SECONDS)
    return answers[0] if answers else None


def _body(href: str) -> bytes | None:
    with requests.get(href, stream=True, timeout=SECONDS) as response:
        response.raise_for_status()
        return bytes(response.raw.read(LONGEST + 1, decode_content=True))


def _length(href: str) -> int | None:
    headers = {"Range": "bytes=0-0", "Accept-Encoding": "identity"}
    with requests.get(href, stream=True, timeout=SECONDS, headers=headers) as response:
        response.raise_for_status()
        if response.status_code == 206:
            whole = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
            return int(whole[1]) if whole else None
        encoded = response.headers.get("Content-Encoding", "identity") != "identity"
        return None if encoded else int(response.headers["Content-Length"])


def _file(path: Path) -> bytes | None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before it is opened: a pipe would wait for its writer
            return None
        with path.open("rb") as file:
            return file.read(LONGEST + 1)
    except (OSError, ValueError):
        return None
