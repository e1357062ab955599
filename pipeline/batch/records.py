"""What stands beside the outputs of a job: which job they are of, and what became of each unit. No database.

Records are small JSON files that appear whole or not at all, hold no times of day and no machines, and are read and
written here alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from rsup.models.base.errors import OutputError
from rsup.models.base.files import writing
from rsup.pipeline.places import objects
from rsup.pipeline.places.address import ObjectPath
from rsup.pipeline.places.place import Place, read, read_all, remove, write
from rsup.pipeline.public import printable, public_text

from .leases.holding import alone

JOB = "job.json"
RECORD = "unit.json"
FAILURE = "failure.json"


class Record(BaseModel):
    """What a unit has come to. What else a later version says in it is left at that: the unit is done all the same."""

    model_config = ConfigDict(frozen=True)

    state: Literal["done", "empty"]
    sources: tuple[str, ...]
    """Ids of the items that it was made of, or that have no pixel of it."""
    model: str | None = None
    """SHA-256 of the model that a mosaic was made with."""
    newest: str | None = None
    """Of an empty unit: when the last item was sensed that is there and too cloudy."""
    left_out: tuple[dict[str, str], ...] | None = None
    """Items that lacked something: id and reason of each."""


class Failure(BaseModel):
    """Why the last attempt at a unit was one; what was done before stands."""

    model_config = ConfigDict(frozen=True)

    sources: tuple[str, ...]
    reason: str


def claim(output: Place, identity: dict[str, Any], *, renew: bool = False) -> None:
    """Make `output` the job's. Raises OutputError where it is another's, holds something else or cannot be written.

    With `renew`, mosaics of another model are no other job's: they are stale from now on.
    """
    if isinstance(output, ObjectPath):
        _claim_prefix(output, identity, renew=renew)
        return
    if check(output, identity, renew=renew):
        return
    with writing(output, OutputError):
        output.mkdir(parents=True, exist_ok=True)
        with alone(output):
            if not check(output, identity, renew=renew):
                write(output / JOB, _bytes(identity))


def _claim_prefix(output: ObjectPath, identity: dict[str, Any], *, renew: bool) -> None:
    if not check(output, identity, renew=renew):
        before = objects.look(output / JOB)
        if before is None:
            objects.create(output / JOB, _bytes(identity))
        elif not check(output, identity, renew=renew):
            objects.swap(output / JOB, before.tag, _bytes(identity))
        check(output, identity)  # another job may have come first
    if not objects.keeps_conditions(output / JOB, _bytes(identity)):
        raise OutputError(
            f"{output}: the object store does not keep to the condition of a write, so runners could not keep from "
            "each other's units; use one that knows If-None-Match and If-Match"
        )


def check(output: Place, identity: dict[str, Any], *, renew: bool = False) -> bool:
    """Whether `output` is the job's already; False where nothing is there. Raises OutputError as `claim`.

    False as well, with `renew`, where the model alone is another one.
    """
    said, there = _found(output)
    if said is None:
        if there:
            raise OutputError(f"{output} holds something that is no archive of a job; choose another output")
        return False
    try:
        theirs = json.loads(said)
    except (ValueError, RecursionError):
        theirs = None
    if not isinstance(theirs, dict):
        raise OutputError(f"{output / JOB} is damaged, so nobody knows whose archive it is; choose another output")
    before, now = _model(theirs), _model(identity)
    if before != now and _without_model(theirs) == _without_model(identity):
        if renew:
            return False
        raise OutputError(
            f"{output} was made with another model (SHA-256 {before[:12]}, and {now[:12]} now): `rsup batch run "
            "--renew` makes its mosaics again with this one; else name the weights of then as model, or another output"
        )
    if differing := sorted(key for key in theirs.keys() | identity if theirs.get(key) != identity.get(key)):
        raise OutputError(f"{output} belongs to another job ({', '.join(differing)} differ); choose another output")
    return True


def _found(output: Place) -> tuple[bytes | None, bool]:
    """What says whose `output` is, and whether there is anything at all."""
    if isinstance(output, ObjectPath):
        there = any(True for _ in objects.below(output))  # first: what another runner writes next says whose it is
        return read(output / JOB), there
    with writing(output, OutputError):
        there = output.exists() and not output.is_dir()
        there = there or (output.is_dir() and any(each.name != f".{JOB}.new" for each in output.iterdir()))
        return (output / JOB).read_bytes() if (output / JOB).is_file() else None, there


def _model(identity: dict[str, Any]) -> str:
    upscale = identity.get("upscale")
    return str(upscale.get("model")) if isinstance(upscale, dict) else ""


def _without_model(identity: dict[str, Any]) -> dict[str, Any]:
    upscale = identity.get("upscale")
    return identity | {"upscale": upscale | {"model": None} if isinstance(upscale, dict) else upscale}


def record_of(folder: Place) -> Record | None:
    """The record of the unit in `folder`; None where there is none that can be read."""
    found: Record | None = _read(folder / RECORD, Record)
    return found


def failure_of(folder: Place) -> Failure | None:
    """Why the last attempt at the unit in `folder` failed; None where it did not."""
    found: Failure | None = _read(folder / FAILURE, Failure)
    return found


def said_of(folders: Sequence[Place]) -> Iterator[tuple[Failure | None, Record | None]]:
    """As `failure_of` and `record_of`, of many units."""
    found = read_all([folder / name for folder in folders for name in (FAILURE, RECORD)])
    for failure, record in zip(found, found, strict=True):
        yield _understood(failure, Failure), _understood(record, Record)


def write_record(folder: Place, record: Record) -> None:
    """Raises OutputError where the disk refuses."""
    _write(folder / RECORD, record)


def write_failure(folder: Place, sources: tuple[str, ...], reason: str) -> None:
    """Raises OutputError where the disk refuses."""
    _write(folder / FAILURE, Failure(sources=sources, reason=printable(public_text(reason))))


def forget_failure(folder: Place) -> None:
    """Raises OutputError where the disk refuses."""
    remove(folder / FAILURE)


def _read(path: Place, kind: type[Any]) -> Any:
    return _understood(read(path), kind)


def _understood(said: bytes | None, kind: type[Any]) -> Any:
    try:
        return None if said is None else kind.model_validate_json(said)
    except ValidationError:
        return None


def _write(path: Place, said: BaseModel) -> None:
    write(path, _bytes(said.model_dump(mode="json", exclude_none=True)))


def _bytes(said: dict[str, Any]) -> bytes:
    return (json.dumps(said, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
