"""A Zarr store of a product, in a folder, a zip, a bucket or behind a web server: documents and arrays out of it.

Each array's own document is what counts: consolidated ones may list what is not there. Where the scale and the offset
of numbers stand in codecs, these are taken off and told: the numbers then are those below them, scaled by nobody yet.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr import AsyncArray
from zarr.core.sync import sync
from zarr.storage import LocalStore, StorePath, ZipStore

from rsup.models.base.errors import SceneError
from rsup.pipeline.places.web import scene_place
from rsup.pipeline.scenes.contract import check_chunks, reason
from rsup.pipeline.scenes.guard import LARGEST_DOCUMENT, check_codecs, check_inside, files_of
from rsup.pipeline.scenes.remote import ScenePath, answered, is_there, opened

from .archive import Archive

SCALERS = ("scale_offset", "fixedscaleoffset", "numcodecs.fixedscaleoffset")
"""Codecs that make numbers of reflectances: (reflectance - offset) * scale."""
CASTS = ("cast_value", "numcodecs.astype", "astype")


@dataclass(frozen=True)
class ZarrArray:
    """One array, its numbers as they are stored."""

    array: zarr.Array[Any]
    attributes: dict[str, Any]
    scaled: tuple[float, float] | None
    """Scale and offset of its codecs, which were taken off; None where it has none."""


class ZarrStore:
    """To be had of `store_at`."""

    def __init__(self, place: ScenePath) -> None:
        self.place = place
        self._archive = Archive(place) if isinstance(place, Path) and not place.is_dir() else None
        roots = [] if self._archive is None else roots_in(self._archive)
        self.prefix = roots[0] if len(roots) == 1 else ""

    @property
    def title(self) -> str:
        """What sentences call it."""
        return str(self.place)

    @property
    def name(self) -> str:
        """Of its folder, without its ending."""
        name = self.prefix.rstrip("/").rpartition("/")[2] or self.place.name
        return name.removesuffix(".zip").removesuffix(".zarr").removesuffix(".SAFE")

    def document(self, name: str) -> dict[str, Any] | None:
        """A JSON document by its name in the store; None where there is none. Raises SceneError for what is none."""
        content = self._read(name)
        if content is None:
            return None
        try:
            found = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise SceneError(f"{self.title}: {name} is no JSON ({reason(error)}): get the product anew") from error
        if not isinstance(found, dict):
            raise SceneError(f"{self.title}: {name} is no metadata of Zarr: get the product anew")
        return found

    def attributes(self, path: str) -> dict[str, Any]:
        """Of the group at `path`, "" for the root; none where it says nothing that can be understood."""
        for name in ("zarr.json", ".zattrs"):
            try:
                found = self.document(f"{path}/{name}" if path else name)
            except SceneError:
                continue
            if found is not None:
                inner = found.get("attributes", {}) if name == "zarr.json" else found
                return inner if isinstance(inner, dict) else {}
        return {}

    def has(self, name: str) -> bool:
        """Whether there is such a file or object."""
        if self._archive is not None:
            folder, _, last = f"{self.prefix}{name}".rpartition("/")
            return last in self._archive.children(folder)[0]
        with answered(self.place):
            return is_there(self.place / name)

    def has_group(self, path: str) -> bool:
        """Whether there is a group, by its own document or, to save requests, by a consolidated one."""
        content = self._read("zarr.json")
        if content is None:
            return self.has(f"{path}/.zgroup")
        try:
            root = json.loads(content)
        except (ValueError, RecursionError):
            return False
        if not isinstance(root, dict):
            return False
        listed = root.get("consolidated_metadata")
        listed = listed.get("metadata") if isinstance(listed, dict) else None
        return path in listed if isinstance(listed, dict) and listed else self.has(f"{path}/zarr.json")

    def array(self, path: str) -> ZarrArray | None:
        """The array at `path`; None where there is none. Raises SceneError where it cannot be read."""
        described, attributes = self.document(f"{path}/zarr.json"), None
        if described is None:
            described = self.document(f"{path}/.zarray")
            attributes = self.document(f"{path}/.zattrs") or {}
        if described is None:
            return None
        try:
            with answered(self.place):
                return self._array(path, described, attributes)
        except SceneError:
            raise
        except Exception as error:  # of zarr, for metadata of any kind
            raise SceneError(f"{self.title}: {path} cannot be read ({reason(error)}): get the product anew") from error

    def _array(self, path: str, described: dict[str, Any], attributes: dict[str, Any] | None) -> ZarrArray:
        from zarr.core.metadata import ArrayV2Metadata, ArrayV3Metadata

        own = described.get("attributes", {}) if attributes is None else attributes
        plain, scaled = _without_scalers(described)
        metadata: Any
        if attributes is None:
            metadata = ArrayV3Metadata.from_dict({**plain, "attributes": {}})
        else:
            metadata = ArrayV2Metadata.from_dict({**plain, "attributes": {}})
        array = zarr.Array(AsyncArray(metadata, StorePath(self._zarr, f"{self.prefix}{path}")))
        check_codecs(self.place, array)
        if array.ndim == 2:
            check_chunks(self.place, path, array.chunks, array.shape, array.dtype.itemsize)
        return ZarrArray(array, own if isinstance(own, dict) else {}, scaled)

    def read(self, path: str, found: ZarrArray, rows: slice, cols: slice) -> NDArray[Any]:
        """Numbers [y, x] of a part that lies in one chunk; NaN where that chunk is not there.

        Raises SceneError, and OSError where a chunk is damaged.
        """
        ((file, _),) = files_of(self.place, found.array, (rows, cols))
        try:
            with answered(self.place):
                if self._archive is None:
                    check_inside(self.place, file)
                if not self.has(f"{path}/{found.array.metadata.encode_chunk_key(_chunk_of(found.array, rows, cols))}"):
                    return np.full((rows.stop - rows.start, cols.stop - cols.start), np.nan, np.float32)
                return np.asarray(found.array[rows, cols])
        except SceneError:
            raise
        except Exception as error:  # every codec has errors of its own
            raise OSError(reason(error)) from error

    @property
    def lists(self) -> bool:
        """Whether it tells which chunks are there without a request for each."""
        return self._archive is not None or isinstance(self.place, Path)

    def head(self, name: str, most: int) -> tuple[bytes, int] | None:
        """How a file of a store that `lists` begins, and how long it is; None where there is no such file.

        Raises SceneError for one that lies elsewhere, or has not the checksum of its zip.
        """
        if self._archive is not None:
            if not self.has(name):
                return None
            self._archive.check(f"{self.prefix}{name}")
            with self._archive.open(f"{self.prefix}{name}") as file:
                return file.read(most), self._archive.size(f"{self.prefix}{name}")
        path = Path(str(self.place)) / name
        if not os.path.lexists(path):
            return None
        check_inside(self.place, path)
        with path.open("rb") as file:
            return file.read(most), path.stat().st_size

    @cached_property
    def _zarr(self) -> Any:
        if self._archive is not None:
            return sync(ZipStore.open(self._archive.path, mode="r"))
        return LocalStore(self.place, read_only=True) if isinstance(self.place, Path) else opened(self.place)

    def _read(self, name: str) -> bytes | None:
        if self._archive is not None:
            return self._archive.read(f"{self.prefix}{name}", LARGEST_DOCUMENT) if self.has(name) else None
        if isinstance(self.place, Path):
            check_inside(self.place, self.place / name)
            content: bytes | None
            try:
                with (self.place / name).open("rb") as file:
                    content = file.read(LARGEST_DOCUMENT + 1)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except OSError as error:
                raise SceneError(f"{self.place / name} cannot be opened ({error.strerror})") from error
        else:
            content = _remote(self.place, name)
        if content is not None and len(content) > LARGEST_DOCUMENT:
            raise SceneError(f"{self.title}: {name} is larger than any metadata; get the product anew")
        return content


@lru_cache(maxsize=64)
def store_at(address: str) -> ZarrStore:
    """The store in a folder, in a zip, or at an address of s3:// or https://."""
    return ZarrStore(scene_place(address))


@lru_cache(maxsize=512)
def array_at(address: str, path: str) -> ZarrArray:
    """An array of it, which is there. Raises SceneError."""
    found = store_at(address).array(path)
    if found is None:
        raise SceneError(f"{address} has no {path}: get the product anew")
    return found


def _remote(place: Any, name: str) -> bytes | None:
    import obstore

    from rsup.pipeline.places.refusals import answering
    from rsup.pipeline.places.web import head, reading

    target = place / name
    if (said := head(target, SceneError)) is None:
        return None
    if said.size > LARGEST_DOCUMENT:
        raise SceneError(f"{target} is larger than any metadata; get the product anew")
    with answering(place, SceneError):
        return bytes(obstore.get(reading(target), target.key).bytes())


def roots_in(archive: Archive) -> list[str]:
    """The folders of a zip that are roots of stores, each "" or with a slash at its end."""
    marked = [
        folder
        for folder in archive.folders()
        if {"zarr.json", ".zgroup", ".zmetadata"} & set(archive.children(folder)[0])
    ]
    tops = [each for each in marked if not any(each.startswith(f"{o}/" if o else "") and o != each for o in marked)]
    return [f"{folder}/" if folder else "" for folder in tops]


def _chunk_of(array: zarr.Array[Any], rows: slice, cols: slice) -> tuple[int, int]:
    height, width = array.shards or array.chunks
    return rows.start // height, cols.start // width


def _without_scalers(described: dict[str, Any]) -> tuple[dict[str, Any], tuple[float, float] | None]:
    """An array's document without codecs that scale, and the scale and offset that they stand for.

    Raises ValueError where they stand for anything else than whole numbers with one scale and one offset.
    """
    second = "zarr_format" in described and described["zarr_format"] == 2
    key = "filters" if second else "codecs"
    codecs = [each for each in described.get(key) or () if isinstance(each, dict)]
    named = [(str(each.get("id" if second else "name")), each) for each in codecs]
    scalers = [number for number, (name, _) in enumerate(named) if name in SCALERS]
    if not scalers:
        return described, None
    if scalers != [0]:
        raise ValueError("its codecs scale its numbers more than once, or what is no reflectance")
    settings = named[0][1] if second else named[0][1].get("configuration", {})
    scale, offset = (float(settings[name]) for name in ("scale", "offset"))
    if not math.isfinite(scale) or not math.isfinite(offset) or scale <= 0:
        raise ValueError(f"its codec scales by {scale:g} and {offset:g}")
    taken, dtype = 1, settings.get("astype")
    if dtype is None and len(named) > 1 and named[1][0] in CASTS:
        cast = named[1][1] if second else named[1][1].get("configuration", {})
        taken, dtype = 2, cast.get("data_type") or cast.get("encode_dtype")
    if dtype is None:
        raise ValueError("its codec scales reflectances and keeps them as fractions")
    whole = np.dtype(dtype)
    if whole.kind not in "ui":
        raise ValueError(f"its codec makes {whole} of reflectances")
    rest = list(described.get(key) or ())[taken:]
    plain = {name: value for name, value in described.items() if name not in (key, "fill_value")}
    if second:
        return {**plain, "filters": rest or None, "fill_value": 0, "dtype": whole.str}, (1 / scale, offset)
    return {**plain, "codecs": rest, "fill_value": 0, "data_type": whole.name}, (1 / scale, offset)
