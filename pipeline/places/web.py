"""What is only read, wherever it lies: addresses of s3:// and https://, beside paths of this machine.

In: what a user names as a scene. Out: its place, and what a server says of an object without its bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

from rsup.models.base.errors import ArgumentError, RsupError

from .address import SCHEME, Keyed, ObjectPath, is_plain
from .credentials import login_for
from .objects import PATIENCE, RETRY, store_of
from .refusals import answering

if TYPE_CHECKING:
    from obstore.store import ClientConfig, HTTPStore, S3Store


class WebPath(Keyed):
    """A file behind a web server, or all that lies below an address."""

    @classmethod
    def parse(cls, address: str) -> WebPath:
        """That of "https://server/key". Raises ArgumentError for what is none."""
        try:
            parts = urlsplit(address)
            login = parts.username is not None or parts.password is not None
        except ValueError:
            raise ArgumentError("a scene's address cannot be understood: write https://server/scene.zarr") from None
        if login or parts.query or parts.fragment:  # not repeated: they may be secrets
            raise ArgumentError(
                f"{parts.scheme}://{parts.hostname}: give a scene by an address without login and query"
            )
        names = parts.path.strip("/").split("/")
        if not parts.hostname or not all(map(is_plain, names)):
            raise ArgumentError(f"{parts.scheme}://{parts.netloc}: write https://server/scene.zarr, and no odd parts")
        return cls(f"{parts.scheme}://{parts.netloc}", "/".join(names))

    def __str__(self) -> str:
        return f"{self.root}/{self.key}"


Remote: TypeAlias = ObjectPath | WebPath


@dataclass(frozen=True)
class Head:
    """What a server says of an object."""

    size: int
    tag: str
    modified: datetime


def scene_place(text: str | Path) -> Path | Remote:
    """A path, or an address of s3://, https:// or http://. Raises ArgumentError for one of anything else."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text) if isinstance(text, str) else None
    if found is None:
        return Path(text)
    scheme = found[1].lower()
    if scheme in ("https", "http"):
        return WebPath.parse(str(text))
    if scheme != SCHEME.partition(":")[0]:
        raise ArgumentError(
            f"nothing can be read from {scheme}://: give a path, s3://bucket/key or https://server/path"
        )
    return ObjectPath.parse(SCHEME + str(text)[len(SCHEME) :])


def reading(place: Remote, below: bool = False) -> S3Store | HTTPStore:
    """The bucket or server of a place, or (`below`) the place itself, as zarr and obstore take it."""
    if isinstance(place, ObjectPath):
        return store_of(place.bucket, place.key if below else "")
    return _web(str(place) if below else place.root, tuple(login_for(place.root).items()))


@lru_cache(maxsize=64)
def _web(address: str, headers: tuple[tuple[str, str], ...]) -> HTTPStore:
    from obstore.store import HTTPStore

    options: ClientConfig = {**PATIENCE, "allow_http": True}
    if headers:
        options["default_headers"] = dict(headers)
    return HTTPStore(address, client_options=options, retry_config=RETRY)


def head(place: Remote, kind: type[RsupError]) -> Head | None:
    """None where there is no such object. Raises `kind` where the server does not say."""
    import obstore

    with answering(place, kind):
        try:
            found = obstore.head(reading(place), place.key)
        except FileNotFoundError:
            return None
    return Head(found["size"], found["e_tag"] or "", found["last_modified"])
