"""A catalogue's documents, by their addresses, within bounds: what a server sends, however much and slowly, ends.

In: an address of the catalogue's own origin, or a path inside a local catalogue's folder. Out: a JSON object, or a
CatalogError. A server decides nothing here but what it answers: methods, headers and hosts are this side's.
"""

from __future__ import annotations

import json
import socket
import stat
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, Retry
from urllib3.exceptions import HTTPError

from rsup.models.base.errors import CatalogError
from rsup.models.base.progress import say
from rsup.pipeline.places.credentials import auth_for, headers_for
from rsup.pipeline.public import printable, public_address, public_text

TIMEOUT = (10.0, 30.0)
"""Seconds to connect and between two bytes."""
BACKOFF = 0.5
"""Seconds: waits of 0, 1, 2 and 4 before the four repetitions of a request."""
LONGEST_WAIT = 20.0
"""Seconds: a Retry-After beyond this is cut short, so that a search ends."""
DOCUMENT_BYTES = 64 << 20
"""Most bytes of one document, decompressed: a page of 100 items has about one million."""
ANSWER_SECONDS = 180.0
"""Most that one document may take, its repetitions and their waits included."""
SEARCH_SECONDS = 1800.0
"""Most that all documents of a search may take."""
REDIRECTS = 10
"""Most redirects on the way to one document."""
DOCUMENTS = 20_000
"""Most documents of a search."""


class _BoundedRetry(Retry):
    """Retries with back-off, heeding Retry-After up to LONGEST_WAIT and saying so."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, LONGEST_WAIT)

    def sleep_for_retry(self, response: BaseHTTPResponse) -> bool:
        if (seconds := self.get_retry_after(response)) and seconds >= 1:
            say(f"the catalogue asks to wait (HTTP {response.status}); trying again in {seconds:.0f} s")
        return super().sleep_for_retry(response)


def is_web(address: str) -> bool:
    """Whether an address is an http(s) one; raises ValueError where it is none at all."""
    return urlsplit(address).scheme in ("http", "https")


def same_host(one: str, other: str) -> bool:
    """Whether two http(s) addresses lead to one server; http and https of their usual ports count as one."""
    try:
        places = [urlsplit(address) for address in (one, other)]
        ports = [place.port or (443 if place.scheme == "https" else 80) for place in places]
    except ValueError:
        return False
    usual = {port in (80, 443) for port in ports}
    return (
        is_web(one)
        and is_web(other)
        and places[0].hostname == places[1].hostname
        and (ports[0] == ports[1] or usual == {True})
    )


def is_inward(address: str) -> bool:
    """Whether an http(s) address names this machine, or its link, where clouds keep the keys of their machines.

    By what it says alone: a name that a name server turns into such an address is not looked up.
    """
    host = urlsplit(address).hostname or ""
    if host.rstrip(".").rpartition(".")[2] == "localhost":
        return True
    try:
        # inet_aton reads all that connecting does: 2130706433, 0x7f.1, 127.1.
        place = ip_address(host if ":" in host else socket.inet_aton(host))
    except (OSError, ValueError):
        return False
    mapped = getattr(place, "ipv4_mapped", None) or place
    return bool(mapped.is_loopback or mapped.is_link_local or mapped.is_unspecified)


def elsewhere(address: str) -> str:
    """An address that is not followed, for a sentence, and what can be done about it."""
    advice = "; give that address to --catalog if it is to be trusted" if address.startswith("http") else ""
    return f"{printable(public_address(address))[:200]}, which is not its own server{advice}"


class CatalogIO:
    """Reads the documents of one search, and counts them and the time they take."""

    def __init__(self) -> None:
        retry = _BoundedRetry(
            total=4,
            connect=2,
            read=1,
            backoff_factor=BACKOFF,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=None,  # a search by POST changes nothing
            raise_on_status=False,
        )
        self._session = requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=retry))
        self._end = time.monotonic() + SEARCH_SECONDS
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def get(self, address: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        """The document behind an http(s) address or a path. Raises CatalogError."""
        self._account()
        if is_web(address):
            return self._ask(address, lambda: self._send("GET", address, params=parameters))
        return _parse(_read(Path(address)), address)

    def post(self, address: str, body: dict[str, Any]) -> dict[str, Any]:
        """What a search address answers to a JSON body. Raises CatalogError."""
        self._account()
        return self._ask(address, lambda: self._send("POST", address, json=body))

    def _send(self, method: str, address: str, **what: Any) -> requests.Response:
        """The answer, after redirects inside the same server; they keep method and body, which libraries drop."""
        for _ in range(REDIRECTS):
            response = self._session.request(
                method,
                address,
                timeout=TIMEOUT,
                stream=True,
                allow_redirects=False,
                headers=headers_for(address),
                auth=auth_for(address),
                **what,
            )
            target = self._session.get_redirect_target(response)
            if target is None:
                return response
            there = urljoin(address, target)
            response.close()
            if not same_host(address, there) or (address.startswith("https:") and there.startswith("http:")):
                raise CatalogError(f"redirects to {elsewhere(there)}")
            if response.status_code == 303:  # see other: the answer lies there, and is got
                method, what = "GET", {}
            login = urlsplit(address).netloc.rpartition("@")[:2]
            place = urlsplit(there)
            address = place._replace(netloc="".join(login) + place.netloc.rpartition("@")[2]).geturl()
            what.pop("params", None)  # they are in the address by now
        raise CatalogError(f"redirects more than {REDIRECTS} times; check --catalog")

    def _account(self) -> None:
        self._count += 1
        if self._count > DOCUMENTS:
            raise CatalogError(f"has more than {DOCUMENTS} documents to look through; narrow --bbox and --date")

    def _ask(self, address: str, send: Callable[[], requests.Response]) -> dict[str, Any]:
        """Send and read in a thread that is left behind where it takes too long: bytes may come one a minute."""
        outcome: SimpleQueue[bytes | BaseException] = SimpleQueue()

        def work() -> None:
            try:
                with send() as response:
                    outcome.put(_body(response))
            except BaseException as error:
                outcome.put(error)

        seconds = min(ANSWER_SECONDS, self._end - time.monotonic())
        Thread(target=work, daemon=True).start()
        try:
            result = outcome.get(timeout=max(seconds, 0.001))
        except Empty:
            raise CatalogError("did not answer in time; try again later, or narrow --bbox and --date") from None
        if isinstance(result, CatalogError):
            raise result
        if isinstance(result, BaseException):
            raise CatalogError(_reason(result)) from result
        return _parse(result, address)


def _body(response: requests.Response) -> bytes:
    """The bytes of an answer, decompressed; raises CatalogError for one that is none or too long."""
    if response.status_code == 429:
        raise CatalogError("asks to be left alone for a while (HTTP 429); try again later")
    if response.status_code in (401, 403):
        raise CatalogError(
            f"answered HTTP {response.status_code}: it wants credentials, or those it was given are wrong or have "
            "expired; give them in RSUP_HEADERS or ~/.netrc"
        )
    if not 200 <= response.status_code < 300:
        advice = "try again later" if response.status_code >= 500 else "check --catalog"
        raise CatalogError(f"answered HTTP {response.status_code}; {advice}")
    parts, length = [], 0
    for part in response.iter_content(16 << 10):  # small: what is compressed grows a thousandfold
        length += len(part)
        if length > DOCUMENT_BYTES:
            raise CatalogError(f"answers with a document of more than {DOCUMENT_BYTES >> 20} MiB; check --catalog")
        parts.append(part)
    return b"".join(parts)


def _read(path: Path) -> bytes:
    """A file's bytes; anything else (a pipe, a device) is not opened."""
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise CatalogError(f"{path} is no file; check --catalog")
        if about.st_size > DOCUMENT_BYTES:
            raise CatalogError(f"{path} has more than {DOCUMENT_BYTES >> 20} MiB, too much for a STAC document")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        raise CatalogError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _parse(data: bytes, address: str) -> dict[str, Any]:
    where = printable(public_address(address))
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        start = " ".join(data[:40].decode(errors="replace").split())
        reason = "is nested too deeply" if isinstance(error, RecursionError) else f"it starts with {start!r}"
        raise CatalogError(f"answers something that is no JSON ({reason}) at {where}; check --catalog") from error
    if not isinstance(document, dict):
        raise CatalogError(f"answers JSON that is no STAC object at {where}; check --catalog")
    return document


def _reason(error: BaseException) -> str:
    """What went wrong with a request, in words."""
    text = public_text(str(error))
    if isinstance(error, (requests.Timeout, TimeoutError)) or "timed out" in text:
        return "did not answer in time; try again later"
    for sign, words in {
        "refused": "refused the connection; check --catalog and that its server is running",
        "resolve": "has no address that can be resolved; check --catalog and the network",
        "IncompleteRead": "broke off in the middle of an answer; try again later",
    }.items():
        if sign in text:
            return words
    if isinstance(error, (requests.RequestException, HTTPError, OSError, ValueError)):
        return f"cannot be reached ({text[:200]}); check --catalog and the network"
    raise error
