"""Holding units, wherever a job's output is: files with locks in a folder, objects with conditions in a store."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TypeAlias

from rsup.pipeline.places.address import ObjectPath
from rsup.pipeline.places.place import Place

from . import bucket, folder
from .bucket import ObjectLease
from .folder import Lease

Held: TypeAlias = Lease | ObjectLease


def acquire(output: Place, name: str) -> Held | None:
    """The lease of the unit `name`, or None where another runner has it. Raises OutputError."""
    return bucket.acquire(output, name) if isinstance(output, ObjectPath) else folder.acquire(output, name)


def leased(output: Place) -> set[str]:
    """Names of the units that some runner works on. Raises OutputError where a store does not say."""
    return bucket.leased(output) if isinstance(output, ObjectPath) else folder.leased(output)


def sweep(output: Place) -> None:
    """Remove the leases of the dead, whose units need nothing any more. Raises OutputError."""
    if isinstance(output, ObjectPath):
        bucket.sweep(output)
    else:
        folder.sweep(output)


def alone(output: Place) -> AbstractContextManager[None]:
    """While the block runs, no other process of this machine is in one of the same folder; no store needs that."""
    return nullcontext() if isinstance(output, ObjectPath) else folder.alone(output)
