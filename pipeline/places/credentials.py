"""Headers for servers that want to know who asks: RSUP_HEADERS in, those that one address may be asked with out.

A line is `NAME: VALUE`, for the server of the catalogue, the scene or the product that the user names, or `https://HOST
NAME: VALUE`, for that one. They go nowhere else, wherever a server leads to, and never over plain http where https was
named; no file, message or record holds a value. Passwords in ~/.netrc (or NETRC) are requests' and curl's own affair.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rsup.models.base.errors import ArgumentError
from rsup.models.base.progress import say

if TYPE_CHECKING:
    from requests import PreparedRequest

VARIABLE = "RSUP_HEADERS"
AUTHORIZATION = "authorization"
_LINE = re.compile(r"(?:(https?://\S+)\s+)?([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(?!//)([\x20-\x7e\xa0-\xff]+)")
"""A server's address, a name (a token of RFC 9110) and a value, in Latin-1 without control characters."""
Origin = tuple[str, str, int]
"""Scheme, host and port."""

_trusted: set[Origin] = set()
"""Servers of catalogues that the user named to this process."""
_said: set[str] = set()


def trust(catalogue: str | None) -> None:
    """Let headers that name no server go to the catalogue's; None for one that is a file. Says which go where.

    Raises ArgumentError, without a value, for what are no headers.
    """
    lines = _lines(os.environ.get(VARIABLE, ""))
    if catalogue is not None:
        _trusted.update(_origins(catalogue))
    for origin, name, _ in lines:
        server = urlsplit(origin or catalogue or "").netloc.rpartition("@")[2]
        news = (
            f"{VARIABLE}: {name} is sent to {server or 'nobody: the catalogue is a file; put https://HOST before it'}"
        )
        if news not in _said:
            _said.add(news)
            say(news)


def headers_for(address: str) -> dict[str, str]:
    """The headers that an address may be asked with; none but for http(s) and the servers that are named."""
    lines = _lines(os.environ.get(VARIABLE, ""))
    asked = _origin(address) if lines else None
    if asked is None:
        return {}
    return {name: value for origin, name, value in lines if asked in (_origins(origin) if origin else _trusted)}


def auth_for(address: str) -> Callable[[PreparedRequest], PreparedRequest] | None:
    """For requests, which would otherwise put the password of ~/.netrc in the place of an Authorization given here."""
    given = {name: value for name, value in headers_for(address).items() if name.casefold() == AUTHORIZATION}

    def add(request: PreparedRequest) -> PreparedRequest:
        request.headers.update(given)
        return request

    return add if given else None


def login_for(address: str) -> dict[str, str]:
    """The Authorization that the server of a scene or a product is asked with, which the user himself has named.

    It is the only header that obstore, as GDAL, leaves behind where a server leads to another: no other is sent there.
    """
    lines = _lines(os.environ.get(VARIABLE, ""))
    asked = _origin(address) if lines else None
    meant = (line for line in lines if line[0] is None or asked in _origins(line[0]))
    values = [value for _, name, value in meant if name.casefold() == AUTHORIZATION]
    return {"Authorization": values[-1]} if values else {}


def introduce(address: str) -> None:
    """Say which headers go to the server of a scene or a product, and which do not. Raises ArgumentError as `trust`."""
    asked = _origin(address)
    if asked is None:  # of this machine, or in an object store
        return
    for origin, name, _ in _lines(os.environ.get(VARIABLE, "")):
        if origin is not None and asked not in _origins(origin):
            continue
        server = urlsplit(address).netloc
        sent = f"{name} is sent to {server}"
        if name.casefold() != AUTHORIZATION:
            sent = f"{name} is not sent to {server}: whomever that leads to would get it as well"
        if sent not in _said:
            _said.add(sent)
            say(f"{VARIABLE}: {sent}")


@lru_cache(maxsize=4)
def _lines(text: str) -> tuple[tuple[str | None, str, str], ...]:
    """Address (None: the catalogue's), name and value of each line."""
    found = []
    for number, line in enumerate((line.strip() for line in re.split(r"[\r\n]+", text.strip())), start=1):
        match = _LINE.fullmatch(line) if line else None
        if line and (match is None or (match[1] and _origin(match[1]) is None)):
            raise ArgumentError(
                f"{VARIABLE}: its line {number} is no header: write NAME: VALUE, or https://HOST NAME: VALUE"
            )
        if match:
            found.append((match[1], match[2], match[3]))
    return tuple(found)


def _origin(address: str) -> Origin | None:
    try:
        parts = urlsplit(address)
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme, 0)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.scheme in ("http", "https") and parts.hostname else None


def _origins(address: str) -> set[Origin]:
    """The server of an address; one of plain http may come to speak https."""
    origin = _origin(address)
    if origin is None:
        return set()
    scheme, host, port = origin
    return {origin, ("https", host, 443)} if (scheme, port) == ("http", 80) else {origin}
