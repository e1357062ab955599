"""Weights for workers elsewhere, by digest: what came with rsup, what the cache has, else what the client offers.

The client hands their bytes to the scheduler, once a run; a worker that lacks them fetches them from there, also one
that joins late, and keeps them for the next run. No worker needs the path of the client's file.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from distributed import Client, get_client, get_worker

from rsup.models.base.errors import ModelError, OutputError, unwritable
from rsup.models.upscaler import ModelDescriptor, shipped_file

from .vigil import CLOSING, LOST, answer, lost

SENDING = 300.0
"""Seconds in which the scheduler must have taken the weights, perhaps over a slow line."""


@contextmanager
def offered(client: Client, name: str, model: ModelDescriptor) -> Iterator[None]:
    """While the block runs, `local_weights(name, model)` finds the weights on every worker; `name` is the run's own.

    Raises ModelError where the file is no longer the planned one, and ChunkError where the cluster is lost.
    """
    if model.path is None:
        yield
        return
    data = _read(Path(model.path))
    if data is None or _digest(data) != model.sha256:
        raise ModelError(
            f"{model.path} is no longer the model this run was planned with: put that file back and run the same "
            "command again"
        )
    try:
        # What a killed run of that name has left is its own: the same weights.
        answer(client, lambda: client.publish_dataset(data, name=name, override=True), SENDING)
    except LOST as error:
        raise lost(client) from error
    try:
        yield
    finally:
        with suppress(Exception):  # the cluster may be gone; what matters is already being raised
            answer(client, lambda: client.unpublish_dataset(name), CLOSING)


def local_weights(name: str, model: ModelDescriptor) -> str:
    """On a worker: the path of a file with the planned digest, or the name of a model without weights."""
    if model.path is None:
        return model.name
    if (shipped := shipped_file(model.sha256)) is not None:
        return str(shipped)
    kept = f"{model.sha256}.safetensors"
    folders = [*_cache(), Path(get_worker().local_directory)]
    for folder in folders:
        data = _read(folder / kept)
        if data is not None and _digest(data) == model.sha256:
            return str(folder / kept)
    data = get_client().get_dataset(name)
    for folder in folders:
        try:
            _keep(folder / kept, data)
        except OSError as error:  # a home that is read-only, or none
            refused = error
        else:
            return str(folder / kept)
    raise OutputError(unwritable(folders[-1], refused)) from refused


def _cache() -> list[Path]:
    """Where this user's programs keep what they can get again."""
    with suppress(RuntimeError):  # a user without a home
        return [Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rsup" / "weights"]
    return []


def _keep(path: Path, data: bytes) -> None:
    """Give the bytes that name at once: other workers of this machine may write or read the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as fresh:
        try:
            fresh.write(data)
            fresh.flush()
            os.replace(fresh.name, path)
        except OSError:
            os.unlink(fresh.name)
            raise


def _read(path: Path) -> bytes | None:
    with suppress(OSError):
        return path.read_bytes()
    return None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
