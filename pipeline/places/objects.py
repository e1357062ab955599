"""Objects of S3 by their addresses: an address in, its bytes, its version, what lies below it, whole writes out.

Credentials, region and endpoint come from the environment (AWS_*), or from the role of the machine, and go nowhere
else: of what a server answers to a refusal only its code is told.
"""

from __future__ import annotations

import mimetypes
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

from rsup.models.base.errors import ArgumentError, OutputError, RsupError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Store

T = TypeVar("T")
SCHEME = "s3://"
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
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
_TYPES = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
}


@dataclass(frozen=True, order=True)
class Keyed:
    """What is written and joined as a path, and is none of this machine's."""

    root: str
    """A bucket, or a server with its scheme."""
    key: str
    """Below it, without a slash at either end."""

    def __truediv__(self, name: str | PurePath) -> Self:
        more = name.as_posix() if isinstance(name, PurePath) else name
        return replace(self, key=f"{self.key}/{more}" if self.key else more)

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return PurePath(self.name).stem

    @property
    def parent(self) -> Self:
        """The prefix it lies below."""
        return replace(self, key=self.key.rpartition("/")[0])

    def is_dir(self) -> bool:
        """Whether it is taken for many objects, a store: by its name, for nobody asks."""
        return PurePath(self.name).suffix.lower() not in (".tif", ".tiff")


class ObjectPath(Keyed):
    """An object of S3, or all that lies below a prefix."""

    @property
    def bucket(self) -> str:
        """The one it is in."""
        return self.root

    @classmethod
    def parse(cls, address: str) -> ObjectPath:
        """The object or prefix of "s3://bucket/key". Raises ArgumentError for what is none."""
        bucket, _, key = address.removeprefix(SCHEME).partition("/")
        if "@" in bucket:  # not repeated: it may be a password
            raise ArgumentError("an address of s3:// holds no login: credentials come from the environment (AWS_*)")
        if not address.startswith(SCHEME) or not _BUCKET.fullmatch(bucket):
            raise ArgumentError(f"{address} is no address of an object store: write s3://bucket/prefix")
        names = key.rstrip("/").split("/") if key.rstrip("/") else []
        if not all(map(is_plain, names)):
            raise ArgumentError(f"{SCHEME}{bucket}: its key has an empty or an odd part; write s3://bucket/prefix")
        return cls(bucket, "/".join(names))

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}" if self.key else f"{SCHEME}{self.bucket}"


def is_plain(name: str) -> bool:
    """Whether a part of a key can be written in an address as it is."""
    return name not in ("", ".", "..") and name.isprintable() and not set(name) & set("?#%")


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
    """The server that the environment names; "" for AWS's own."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def store_of(bucket: str, prefix: str = "") -> S3Store:
    """The bucket, or what is below a prefix, as zarr and obstore take it.

    Raises ArgumentError where it would be asked over plain http.
    """
    return _store(bucket, prefix, endpoint(), os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true", "yes"))


@lru_cache(maxsize=64)
def _store(bucket: str, prefix: str, endpoint: str, allow_http: bool) -> S3Store:
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
    more: dict[str, Any] = {"disable_bulk_delete": True} | ({"endpoint": endpoint} if endpoint else {})
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
            if _code(error) == "NoSuchBucket":
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
    return _put_if(place, data, {"e_tag": tag})


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
            if _code(error) == "NoSuchBucket":
                raise
            return False
        return True


def keeps_conditions(place: ObjectPath, data: bytes) -> bool:
    """Whether the store refuses what is asked on a condition that is not met, seen on an object that holds `data`.

    Not all that speak S3 do: some write whatever the condition.
    """
    return not (_is_accepted(place, data, "create") or _is_accepted(place, data, {"e_tag": f'"{"0" * 32}"'}))


def remove(place: ObjectPath) -> None:
    """Delete an object; what is not there is left at that. Raises OutputError."""
    import obstore

    with answering(place, OutputError):
        try:
            obstore.delete(store_of(place.bucket), place.key)
        except FileNotFoundError as error:
            if _code(error) == "NoSuchBucket":
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
    import obstore

    with answering(place, OutputError):
        found = obstore.list_with_delimiter(store_of(place.bucket), place.key or None)
        return sorted(ObjectPath(place.bucket, each.rstrip("/")).name for each in found["common_prefixes"])


def _code(error: Exception) -> str:
    """What the server calls its refusal ("NoSuchBucket"), or "" where it says nothing; no other word of it."""
    found = re.search(r"<Code>([A-Za-z0-9.]{1,60})</Code>", str(error))
    status = re.search(r"status code: (\d{3})\b", str(error))
    return found[1] if found else f"status {status[1]}" if status else ""


@contextmanager
def answering(place: Keyed, kind: type[RsupError]) -> Iterator[None]:
    """What the store refuses in the block becomes a `kind`, in one sentence of our own."""
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except (BaseError, OSError) as error:
        code, said = _code(error), str(error)
        if isinstance(error, OSError) and error.strerror:  # a file that is uploaded
            raise kind(f"{place} cannot be written ({error.strerror}): mend that, and run the same command") from None
        if code in ("NoSuchBucket", "status 404"):
            words = f"there is no bucket {place.root}: create it, or correct the address"
        elif code in _BAD_LOGIN or (isinstance(error, UnauthenticatedError) and not code):
            words = (
                f"the credentials are refused ({code or 'unauthenticated'}): check AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
            )
        elif isinstance(error, PermissionDeniedError | UnauthenticatedError) or code in ("AccessDenied", "status 403"):
            words = f"access is denied ({code or 'denied'}): let these credentials read, write, list and delete there"
        elif "169.254.169.254" in said or "credential" in said.lower():
            words = "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a role"
        elif not code:
            words = "the object store does not answer: check AWS_ENDPOINT_URL and the network, and run it again"
        else:
            words = f"the object store refuses ({code}): try again later; the same command then goes on"
        raise kind(f"{place}: {words}") from None


_BAD_LOGIN = (
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "InvalidClientTokenId",
    "AuthorizationHeaderMalformed", "RequestTimeTooSkewed",
)  # fmt: skip
