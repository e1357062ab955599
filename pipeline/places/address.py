"""Addresses of what is not on this machine: a text in, its parts out, joined as paths are."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Self

from rsup.models.base.errors import ArgumentError

SCHEME = "s3://"
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")


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
