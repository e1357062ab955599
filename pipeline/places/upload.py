"""Finished outputs on their way to an object store: what says that the others are there goes first and comes last.

In: files and Zarr stores of this machine, and the address each shall have. A store has no rename, so objects come one
by one, each whole. What tells a reader that all is there (a store's root, a STAC item, a record) is taken away before
anything else is touched, and written again when all is there: whoever asks for it first never sees half of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from . import objects
from .address import ObjectPath

ROOT = "zarr.json"
MARK = ".uploading"
"""An object in a store that is not whole yet: what else lies there is an upload's own."""


def upload(moves: Mapping[Path, ObjectPath]) -> None:
    """Write files and stores to their addresses, whatever lies there; nothing else of an old store stays.

    Stores' roots come before the other documents, and these in the order given. Raises OutputError; then, or after a
    kill, the same call again ends it.
    """
    heads: dict[Path, ObjectPath] = {}
    bodies: dict[Path, ObjectPath] = {}
    documents = {fresh: final for fresh, final in moves.items() if fresh.suffix == ".json"}
    for fresh, final in moves.items():
        if fresh.is_dir():
            found = {file: final / file.relative_to(fresh) for file in sorted(fresh.rglob("*")) if file.is_file()}
            heads[fresh / ROOT] = found.pop(fresh / ROOT)
            bodies |= found
        elif fresh not in documents:
            bodies[fresh] = final
    heads |= documents
    stores = {fresh: final for fresh, final in moves.items() if fresh.is_dir()}
    for store in stores.values():
        objects.put(store / MARK, b"")
    for place in reversed(heads.values()):
        objects.remove(place)
    for fresh, final in stores.items():
        wanted = {place for file, place in bodies.items() if file.is_relative_to(fresh)} | {final / MARK}
        objects.each(objects.remove, (place for place, _ in objects.below(final) if place not in wanted))
    objects.each(lambda body: objects.put(body[1], body[0]), bodies.items())
    for file, place in heads.items():
        objects.put(place, file)
        if file.parent in stores:
            objects.remove(place.parent / MARK)
