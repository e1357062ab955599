"""Small questions to servers of others: a text that may not be long, the length of a file. Neither takes for ever.

Asked by requests, which follows no redirect but to http(s) and knows logins in addresses. Pixels are GDAL's.
"""

from __future__ import annotations

import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TypeVar
from urllib.parse import urljoin

import requests

from rsup.pipeline.places.credentials import auth_for, headers_for

LONGEST = 4 << 20
"""Bytes of a text; a product's metadata have 60 kB."""
SECONDS = 20.0
"""For a whole answer, names resolved and redirects followed."""

DIRECT = 60.0
"""Seconds for which the end of a redirect is remembered: it may be signed, and expire."""
FIRST_BYTE = {"Range": "bytes=0-0", "Accept-Encoding": "identity"}

T = TypeVar("T")
_led: dict[str, tuple[str, float]] = {}
"""Where URLs led to, and when that was asked."""


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


def direct(href: str) -> str:
    """Where a URL leads in the end; asked anew when DIRECT seconds have passed. Raises OSError where nobody says."""
    now = time.monotonic()
    led = _led.get(href)
    if led is not None and now - led[1] < DIRECT:
        return led[0]
    found = _in_time(partial(_end, href))
    if found is None:
        raise OSError("its server does not answer")
    end, status = found
    if status >= 400:
        raise OSError(f"HTTP response code: {status}")
    _led[href] = end, now
    return end


def _end(href: str) -> tuple[str, int]:
    """Where a URL leads, and with which status that answers."""
    try:
        with _answer(href, **FIRST_BYTE) as response:
            return response.url, response.status_code
    except requests.HTTPError as error:
        return href, 500 if error.response is None else error.response.status_code


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
    with _answer(href) as response:
        return bytes(response.raw.read(LONGEST + 1, decode_content=True))


def _length(href: str) -> int | None:
    with _answer(href, **FIRST_BYTE) as response:
        if response.status_code == 206:
            whole = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
            return int(whole[1]) if whole else None
        encoded = response.headers.get("Content-Encoding", "identity") != "identity"
        return None if encoded else int(response.headers["Content-Length"])


@contextmanager
def _answer(href: str, **headers: str) -> Iterator[requests.Response]:
    """What a URL answers in the end. Raises errors of requests.

    Redirects are followed here: requests would take headers of the user's to whatever server it is led to.
    """
    with requests.Session() as session:
        for _ in range(session.max_redirects):
            with session.get(
                href,
                stream=True,
                timeout=SECONDS,
                headers={**headers, **headers_for(href)},
                auth=auth_for(href),
                allow_redirects=False,
            ) as response:
                target = session.get_redirect_target(response)
                if target is None:
                    response.raise_for_status()
                    yield response
                    return
                href = urljoin(href, target)
        raise requests.TooManyRedirects("too many redirects")


def _file(path: Path) -> bytes | None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # before it is opened: a pipe would wait for its writer
            return None
        with path.open("rb") as file:
            return file.read(LONGEST + 1)
    except (OSError, ValueError):
        return None
