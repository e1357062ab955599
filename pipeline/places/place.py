"""One place for both: a file or folder of this machine, or an object or prefix of a store.

Callers join names and call these functions; which of the two it is, is asked here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import PlainSerializer, PlainValidator

from rsup.models.base import files
from rsup.models.base.errors import ArgumentError, OutputError
from rsup.models.base.files import writing

from . import objects
from .address import SCHEME, ObjectPath

Place: TypeAlias = Path | ObjectPath


def place_of(text: str | Path) -> Place:
    """A path, or an address of s3://. Raises ArgumentError for an address of anything else, and for no name at all."""
    if "\0" in str(text):
        raise ArgumentError(f"{text} has a NUL in its name: give a folder, or s3://bucket/prefix")
    if not str(text).strip():
        raise ArgumentError("an empty name is no place to write to: give a folder, or s3://bucket/prefix")
    if isinstance(text, str) and (scheme := re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text)):
        if scheme[0].lower() != SCHEME:
            raise ArgumentError(f"nothing can be written to {scheme[0]}: give a folder, or s3://bucket/prefix")
        return ObjectPath.parse(SCHEME + text[len(SCHEME) :])
    return Path(text)


def _validated(value: Any) -> Place:
    if not isinstance(value, str | Path):
        raise ValueError("give a folder, or s3://bucket/prefix")
    if str(value).startswith("~"):
        raise ValueError(f"{value} would be a folder called ~, which a shell alone takes for a home: write it out")
    try:
        return place_of(value)
    except ArgumentError as error:
        raise ValueError(str(error)) from None


Output = Annotated[Path | ObjectPath, PlainValidator(_validated), PlainSerializer(str)]
"""A setting that names a place."""


def read(place: Place) -> bytes | None:
    """All of a file or an object; None where there is none. Raises OutputError where a store does not say."""
    if isinstance(place, ObjectPath):
        found = objects.look(place)
        return None if found is None else found.data
    try:
        return place.read_bytes()
    except OSError:
        return None


def read_all(places: Sequence[Place]) -> Iterator[bytes | None]:
    """As `read`, of many, in their order; a store is asked for several at once."""
    if places and isinstance(places[0], ObjectPath):
        found = objects.look_all([place for place in places if isinstance(place, ObjectPath)])
        yield from (None if each is None else each.data for each in found)
    else:
        yield from map(read, places)


def write(place: Place, data: bytes) -> None:
    """Write what appears whole or not at all, in a folder that is made where it is not there. Raises OutputError."""
    if isinstance(place, ObjectPath):
        objects.put(place, data)
        return
    with writing(place, OutputError):
        place.parent.mkdir(parents=True, exist_ok=True)
        files.write_whole(place, data)


def remove(place: Place) -> None:
    """Remove a file or an object, if it is there. Raises OutputError."""
    if isinstance(place, ObjectPath):
        objects.remove(place)
        return
    with writing(place, OutputError):
        files.remove(place)


def folders(place: Place) -> list[str]:
    """Names of what is a folder right in a place, sorted. Raises OutputError where a store does not say."""
    if isinstance(place, ObjectPath):
        return objects.folders(place)
    return sorted(each.name for each in _inside(place) if each.is_dir())


def names(place: Place) -> set[str]:
    """Those of what lies right in a place. Raises OutputError where a store does not say."""
    if isinstance(place, ObjectPath):
        return objects.names(place)
    return {each.name for each in _inside(place)}


def _inside(folder: Path) -> list[Path]:
    """What lies in a folder: nothing where it is none, or is none any more, for others may take it away at any time."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
