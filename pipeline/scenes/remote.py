"""A scene that lies in an object store or behind a web server, as the readers of scenes need it.

In: its place. Out: what zarr and GDAL open, whether an object is there, and a fingerprint. There are no links, pipes or
devices there; bytes and codecs are a stranger's all the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import rasterio

from rsup.models.base.errors import SceneError
from rsup.pipeline.places import objects
from rsup.pipeline.places.address import ObjectPath
from rsup.pipeline.places.credentials import login_for
from rsup.pipeline.places.refusals import answering
from rsup.pipeline.places.web import Head, Remote, WebPath, head, reading

DOCUMENT = "zarr.json"
ScenePath = Path | ObjectPath | WebPath


def opened(path: ScenePath) -> Any:
    """What zarr opens as a store, to read."""
    if isinstance(path, Path):
        return path
    from zarr.storage import ObjectStore

    return ObjectStore(reading(path, below=True), read_only=True)


@contextmanager
def answered(path: ScenePath) -> Iterator[None]:
    """What a server refuses in the block becomes a SceneError; files are left to their readers."""
    from obstore.exceptions import BaseError

    try:
        yield
    except BaseError as error:
        if isinstance(path, Path):
            raise
        with answering(path, SceneError):
            raise error


def is_there(path: ScenePath) -> bool:
    """Whether there is such a file or object. Raises SceneError where a server does not say."""
    return path.exists() if isinstance(path, Path) else head(path, SceneError) is not None


@lru_cache(maxsize=64)
def is_complete(mark: Remote) -> bool:
    """As `is_there`, once a process: asked for every window of a scene."""
    return is_there(mark)


def main_object(path: Remote) -> Head:
    """What is said of the file, or of a store's root. Raises SceneError where there is none."""
    found = head(path / DOCUMENT if path.is_dir() else path, SceneError)
    if found is None:
        raise SceneError(f"{path} does not exist: give a scene store made by `rsup fetch` (Zarr 3), or a GeoTIFF")
    return found


def fingerprint(path: Remote) -> str:
    """SHA-256 (hex) over keys and ETags of its objects; of a web server, which lists none, of what its root says."""
    digest = hashlib.sha256()
    if isinstance(path, ObjectPath) and path.is_dir():
        for place, tag in sorted(objects.below(path, SceneError)):
            digest.update(f"{place.key.removeprefix(path.key)}\0{tag}\n".encode())
    else:
        said = main_object(path)
        digest.update(f"{said.size}\0{said.tag}\0{said.modified.timestamp()}".encode())
    return digest.hexdigest()


def dataset(path: ScenePath, driver: str) -> rasterio.DatasetReader:
    """A raster, opened by one driver of GDAL and with no other file beside it. Raises errors of rasterio."""
    if isinstance(path, Path):
        return rasterio.open(path, driver=driver)
    options: dict[str, Any] = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_HTTP_MAX_RETRY": 5}
    if isinstance(path, WebPath):
        name = f"/vsicurl/{path}"
        if login := login_for(path.root):
            options["GDAL_HTTP_HEADERS"] = "\r\n".join(f"{key}: {value}" for key, value in login.items())
    else:
        name = f"/vsis3/{path.bucket}/{path.key}"
        options |= objects.gdal_settings(path.bucket)
    with rasterio.Env(session=None, **options):
        return rasterio.open(name, driver=driver)
