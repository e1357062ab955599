"""Objects of S3 by their addresses: an address in, its bytes, its version, what lies below it, whole writes out.

Credentials, region and endpoint come from the environment (AWS_*), a profile that it names, or the role of the machine,
and go nowhere else: of what a server answers to a refusal only its code is told.
"""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from rsup.models.base.errors import ArgumentError, OutputError, RsupError

from . import profile
from .address import ObjectPath
from .refusals import answering, code_of

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Store

T = TypeVar("T")
AT_ONCE = 16
"""Requests in flight where many objects are read or written."""
PART = 8 << 20
"""Bytes of a part of an upload: of what is larger the parts come together when all are there, and nothing before."""
MOST_PARTS = 9_000
RETRY: RetryConfig = {
    "max_retries": 12,
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=4), "base": 2},
    "retry_timeout": timedelta(seconds=60),
}
"""Of answers like 503, and of servers that do not answer."""
PATIENCE: ClientConfig = {"connect_timeout": "10 seconds", "timeout": "120 seconds"}
_TYPES = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
}

_bare: set[str] = set()
"""Buckets whose server takes tags without their quotes."""


@dataclass(frozen=True)
class Version:
    """An object as it was when it was looked at."""

    data: bytes
    tag: str
    """Its ETag: what a change is made on condition of."""
    modified: datetime
    """By the server's clock."""


def access_of(environment: Mapping[str, str]) -> dict[str, str]:
    """What of an environment says how stores are reached, for a process that is to reach them as well."""
    return {name: value for name, value in environment.items() if name.startswith("AWS_")}


def endpoint() -> str:
    """The server that the environment or a profile names; "" for AWS's own. Raises ArgumentError for the profile."""
    said = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return said or profile.settings(os.environ).get("endpoint_url", "")


def store_of(bucket: str, prefix: str = "") -> S3Store:
    """The bucket, or what is below a prefix, as zarr and obstore take it.

    Raises ArgumentError where it would be asked over plain http, and for a profile that gives no access.
    """
    access = {name: value for name, value in profile.settings(os.environ).items() if name != "endpoint_url"}
    allow_http = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes")
    return _store(bucket, prefix, endpoint(), allow_http, tuple(sorted(access.items())))


def gdal_settings(bucket: str) -> dict[str, str]:
    """Where S3 is, for GDAL, which reads the rest of the environment itself. Raises ArgumentError as `store_of`."""
    store_of(bucket)
    parts = urlsplit(endpoint())
    if not parts.netloc:
        return {}
    secure = "NO" if parts.scheme == "http" else "YES"
    return {"AWS_S3_ENDPOINT": parts.netloc, "AWS_HTTPS": secure, "AWS_VIRTUAL_HOSTING": "FALSE"}


@lru_cache(maxsize=64)
def _store(bucket: str, prefix: str, endpoint: str, allow_http: bool, access: tuple[tuple[str, str], ...]) -> S3Store:
    from obstore.store import S3Store

    options: ClientConfig = {**PATIENCE}
    if endpoint.lower().startswith("http://"):
        if not (allow_http or _is_loopback(urlsplit(endpoint).hostname)):
            raise ArgumentError(
                "AWS_ENDPOINT_URL is plain http, by which everybody on the way reads along: give it as https, or set "
                "AWS_ALLOW_HTTP=true"
            )
        options["allow_http"] = True
    # One by one, in an order: not all that speak S3 delete many at once, and none says in which.
    more: dict[str, Any] = {"disable_bulk_delete": True} | ({"endpoint": endpoint} if endpoint else {}) | dict(access)
    return S3Store(bucket, prefix=prefix or None, client_options=options, retry_config=RETRY, **more)


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


def look(place: ObjectPath, kind: type[RsupError] = OutputError) -> Version | None:
    """The object and its version; None where there is none. Raises `kind` where the store does not say."""
    import obstore

    with answering(place, kind):
        try:
            found = obstore.get(store_of(place.bucket), place.key)
            return Version(bytes(found.bytes()), found.meta["e_tag"] or "", found.meta["last_modified"])
        except FileNotFoundError as error:
            if code_of(error) == "NoSuchBucket":
                raise
            return None


def is_there(place: ObjectPath) -> bool:
    """Whether there is such an object. Raises OutputError where the store does not say."""
    import obstore

    with answering(place, OutputError):
        try:
            obstore.head(store_of(place.bucket), place.key)
        except FileNotFoundError:  # a HEAD has no body that would tell a bucket that is not there
            return False
        return True


def beginning(place: ObjectPath, length: int) -> bytes | None:
    """The first bytes of an object, so many or all; None where there is none. Raises OutputError."""
    import obstore

    with answering(place, OutputError):
        try:
            store = store_of(place.bucket)
            size = obstore.head(store, place.key)["size"]
            return bytes(obstore.get_range(store, place.key, start=0, length=min(length, size))) if size else b""
        except FileNotFoundError:
            return None


def look_all(places: Sequence[ObjectPath]) -> Iterator[Version | None]:
    """As `look`, of many at once, in their order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(look, places)


def put(place: ObjectPath, data: bytes | Path) -> None:
    """Write an object, which appears whole or not at all. Raises OutputError."""
    import obstore

    size = data.stat().st_size if isinstance(data, Path) else len(data)
    kind = _TYPES.get(PurePath(place.name).suffix) or mimetypes.guess_type(place.name)[0] or "application/octet-stream"
    with answering(place, OutputError):
        obstore.put(
            store_of(place.bucket),
            place.key,
            data,
            attributes={"Content-Type": kind},
            use_multipart=size > PART,
            chunk_size=max(PART, -(-size // MOST_PARTS)),
            max_concurrency=4,
        )


def create(place: ObjectPath, data: bytes) -> bool:
    """Write an object that nobody else has written; whether `data` stands there now. Raises OutputError.

    By one conditional request. It may be answered late and asked again, so what stands there counts, not the answer:
    whoever wants to be the only one writes what nobody else does.
    """
    return _put_if(place, data, "create")


def swap(place: ObjectPath, tag: str, data: bytes) -> bool:
    """Replace an object where it is still the version `tag`; whether `data` stands there now. As `create`."""
    return _put_if(place, data, {"e_tag": tag.strip('"') if place.bucket in _bare else tag})


def _put_if(place: ObjectPath, data: bytes, mode: Any) -> bool:
    if _is_accepted(place, data, mode):
        return True
    found = look(place)
    return found is not None and found.data == data


def _is_accepted(place: ObjectPath, data: bytes, mode: Any) -> bool:
    import obstore
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    with answering(place, OutputError):
        try:
            obstore.put(store_of(place.bucket), place.key, data, mode=mode, use_multipart=False)
        except (AlreadyExistsError, PreconditionError):
            return False
        except FileNotFoundError as error:  # there is nothing to replace any more
            if code_of(error) == "NoSuchBucket":
                raise
            return False
        return True


def keeps_conditions(place: ObjectPath, data: bytes) -> bool:
    """Whether the store does what is asked on a condition that is met, and refuses it where it is not.

    Seen on an object that holds `data`, which is written again. Not all that speak S3 do: some write whatever the
    condition; some compare If-Match with a tag that has no quotes (Ceph's gateway up to 19), which `swap` then obeys.
    """
    if _is_accepted(place, data, "create") or _is_accepted(place, data, {"e_tag": f'"{"0" * 32}"'}):
        return False
    for _ in range(3):  # where equal bytes have other tags, somebody else who looks may come between
        found = look(place)
        if found is None or _is_accepted(place, data, {"e_tag": found.tag}):
            return found is not None
        if not _is_accepted(place, data, {"e_tag": "0" * 32}) and _is_accepted(
            place, data, {"e_tag": found.tag.strip('"')}
        ):
            _bare.add(place.bucket)
            return True
    return False


def remove(place: ObjectPath) -> None:
    """Delete an object; what is not there is left at that. Raises OutputError."""
    import obstore

    with answering(place, OutputError):
        try:
            obstore.delete(store_of(place.bucket), place.key)
        except FileNotFoundError as error:
            if code_of(error) == "NoSuchBucket":
                raise


def each(act: Callable[[T], object], things: Iterable[T]) -> None:
    """Do one thing with many, several at once. What the first raises that fails is raised, and no more is begun."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(act, things):
            pass


def below(place: ObjectPath, kind: type[RsupError] = OutputError) -> Iterator[tuple[ObjectPath, str]]:
    """Every object below a prefix, and its ETag. Raises `kind`."""
    import obstore

    with answering(place, kind):
        for found in obstore.list(store_of(place.bucket), place.key or None):
            for each in found:
                yield ObjectPath(place.bucket, each["path"]), each["e_tag"] or ""


def folders(place: ObjectPath) -> list[str]:
    """Names of the prefixes right below one, sorted. Raises OutputError."""
    return sorted(_right_below(place)[0])


def names(place: ObjectPath) -> set[str]:
    """Those of prefixes and objects right below a prefix. Raises OutputError."""
    return set().union(*_right_below(place))


def _right_below(place: ObjectPath) -> tuple[set[str], set[str]]:
    """Names of the prefixes, and of the objects."""
    import obstore

    with answering(place, OutputError):
        found = obstore.list_with_delimiter(store_of(place.bucket), place.key or None)
        keys = found["common_prefixes"], [each["path"] for each in found["objects"]]
    prefixes, there = ({ObjectPath(place.bucket, key.rstrip("/")).name for key in each} for each in keys)
    return prefixes, there
