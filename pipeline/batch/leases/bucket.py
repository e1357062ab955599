"""Leases of an object store: one object a unit, created where there is none, changed where it has the ETag it had.

Whoever holds one says so anew while it lives, each time in other words, so that no two versions have one ETag. Ages
are told by the store's clock, never by a runner's. On the machine of its holder a lease ends with the process.
"""

from __future__ import annotations

import json
import secrets
import threading
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from rsup.models.base.errors import OutputError, RsupError
from rsup.pipeline.places import objects
from rsup.pipeline.places.address import ObjectPath
from rsup.pipeline.places.objects import Version

from . import folder as local
from .holder import is_gone, this_process

CLOCK = "clock"
"""An object that is written to read the time of day off it."""


class ObjectLease:
    """A unit that is held, while the block runs; `acquire` gives it."""

    def __init__(self, place: ObjectPath, said: dict[str, Any]) -> None:
        self.place, self._said = place, said
        self._over, self._turn = threading.Event(), threading.Lock()
        self._heart = threading.Thread(target=self._beat, name=f"lease {place.name}", daemon=True)

    def _beat(self) -> None:
        while not self._over.wait(local.BEAT):
            with suppress(RsupError):  # a store that does not answer now may do so at the next beat
                if not self._renewed():
                    return

    def _renewed(self) -> bool:
        with self._turn:
            tag = self._tag()  # anew: an answer may have been lost, and not what it answered
            self._said["beat"] += 1
            return tag is not None and objects.swap(self.place, tag, _bytes(self._said))

    def held(self) -> bool:
        """Whether it is still this process's: one that slept for long may have lost it. Raises OutputError."""
        with self._turn:
            return self._tag() is not None

    def _tag(self) -> str | None:
        found = objects.look(self.place)
        return found.tag if found is not None and self._said["token"].encode() in found.data else None

    def __enter__(self) -> ObjectLease:
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._heart.join()
        with suppress(RsupError):
            if self.held():  # beaten just now, so that nobody takes it over before it is gone
                objects.remove(self.place)


def acquire(output: ObjectPath, name: str) -> ObjectLease | None:
    """The lease of the unit `name`, or None where another runner has it. Raises OutputError."""
    place = output / local.FOLDER / f"{name}.json"
    said = this_process() | {"beat": 0, "token": secrets.token_hex(8)}
    if not objects.create(place, _bytes(said)):
        found = objects.look(place)
        if found is None or _is_alive(found, _now(output)) or not objects.swap(place, found.tag, _bytes(said)):
            return None
    return ObjectLease(place, said)


def leased(output: ObjectPath) -> set[str]:
    """Names of the units that some runner works on, by this machine's clock. Raises OutputError."""
    places = [place for place, _ in objects.below(output / local.FOLDER) if place.name != CLOCK]
    found = zip(places, objects.look_all(places), strict=True)
    now = datetime.now(UTC)
    return {place.stem for place, version in found if version is not None and _is_alive(version, now)}


def sweep(output: ObjectPath) -> None:
    """Remove the leases of the dead, whose units need nothing any more. Raises OutputError."""
    for place, _ in list(objects.below(output / local.FOLDER)):
        if place.name == CLOCK:
            objects.remove(place)
        elif (lease := acquire(output, place.stem)) is not None:  # as its holder, nobody else's can be removed
            with lease:
                pass


def _is_alive(found: Version, now: datetime) -> bool:
    gone = None
    with suppress(ValueError, RecursionError):  # nobody's words; its age counts
        gone = is_gone(json.loads(found.data))
    return not gone if gone is not None else (now - found.modified).total_seconds() < local.STALE


def _now(output: ObjectPath) -> datetime:
    """The time of day at the store."""
    clock = output / local.FOLDER / CLOCK
    for _ in range(10):
        objects.put(clock, b"")
        found = objects.look(clock)
        objects.remove(clock)
        if found is not None:  # another runner may have read the time as well
            return found.modified
    raise OutputError(f"{clock} is removed as soon as it is written: let nobody else write there")


def _bytes(said: dict[str, Any]) -> bytes:
    return json.dumps(said, sort_keys=True).encode()
