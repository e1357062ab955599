"""A stranger's store before zarr opens it: no link out, no pipe, no device, no codec that runs code."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import Any

import zarr

from rsup.models.base.errors import SceneError

from .remote import ScenePath, is_there, main_object

_DOCUMENTS = ("zarr.json", ".zgroup", ".zattrs", ".zarray", ".zmetadata")
LARGEST_DOCUMENT = 64 * 2**20
"""Bytes of a metadata document: some thousand items fit in."""
_NUMCODECS = "numcodecs."
CODECS = {
    *("bytes", "blosc", "lz4", "zstd", "zlib", "gzip", "bz2", "lzma", "transpose", "sharding_indexed"),
    *("crc32", "crc32c", "adler32", "fletcher32", "shuffle", "delta", "bitround", "fixedscaleoffset", "packbits"),
    *("astype", "quantize"),
    "vlen-utf8",  # of names along a dimension
}
"""What may stand between a chunk's file and its numbers. Others (a pickle, say) run what the file tells them to."""


def files_of(
    path: ScenePath, array: zarr.Array[Any], index: tuple[slice, ...]
) -> Iterator[tuple[ScenePath, tuple[slice, ...]]]:
    """The files that hold the chunks of a part of an array, with the part of the array that each covers."""
    sizes = array.shards or array.chunks
    axes = [range(part.start // size, -(-part.stop // size)) for part, size in zip(index, sizes, strict=True)]
    for place in product(*axes):
        covered = tuple(slice(i * size, (i + 1) * size) for i, size in zip(place, sizes, strict=True))
        yield path / array.path / array.metadata.encode_chunk_key(place), covered


def check_inside(path: ScenePath, file: ScenePath, *, absent_is_lost: bool = False) -> None:
    """Raise where a store's file is a pipe, a device or a link that leads elsewhere, or lost."""
    if not (isinstance(path, Path) and isinstance(file, Path)):
        if absent_is_lost and not is_there(file):
            raise SceneError(f"{file} is lost; fetch the scene anew, or copy it from where it is whole")
        return
    try:
        found = file.stat()
        elsewhere = not file.resolve().is_relative_to(path.resolve())
    except FileNotFoundError:
        if absent_is_lost or file.is_symlink():
            raise SceneError(f"{file} is lost; fetch the scene anew, or copy it from where it is whole") from None
        return
    except OSError as error:
        raise SceneError(f"{file} cannot be opened ({error.strerror}): check its name and who may read it") from error
    if elsewhere:
        raise SceneError(f"{file} leads out of the scene's folder; put a copy of what it stands for in its place")
    if not stat.S_ISREG(found.st_mode):
        raise SceneError(f"{file} is no file; fetch the scene anew, or copy it from where it is whole")


def check_documents(path: ScenePath) -> None:
    """Raise where a metadata document cannot be read, is none, or is huge, before zarr opens it.

    zarr reads the root's at once and reports the first that fails; asyncio prints what else failed as tracebacks where
    the program ends right then.
    """
    if not isinstance(path, Path):
        if main_object(path).size > LARGEST_DOCUMENT:
            raise SceneError(f"{path} is larger than any metadata; it is no scene store of rsup's or xarray's")
        return
    try:
        for file in _documents(path):
            check_inside(path, file)
            with suppress(FileNotFoundError):
                if file.stat().st_size > LARGEST_DOCUMENT:
                    raise SceneError(f"{file} is larger than any metadata; it is no scene store of rsup's or xarray's")
                file.open("rb").close()
    except OSError as error:
        raise SceneError(
            f"{error.filename} cannot be opened ({error.strerror}): check its name and who may read it"
        ) from error


def _documents(path: Path) -> Iterator[Path]:
    """Where the metadata of the root (first: who may not read it may not list it) and of its arrays may stand."""
    yield from (path / name for name in _DOCUMENTS)
    for entry in path.iterdir():
        if entry.is_dir():
            yield from (entry / name for name in _DOCUMENTS)


def check_codecs(path: ScenePath, array: zarr.Array[Any]) -> None:
    """Raise SceneError where an array of the store `path` needs a codec that is none of CODECS: some run code."""
    described: Any = array.metadata.to_dict()
    if array.metadata.zarr_format == 2:
        found = [codec["id"] for codec in (*(described["filters"] or ()), described["compressor"]) if codec]
    else:
        found = list(_codec_names(described["codecs"]))
    for name in found:
        if str(name).removeprefix(_NUMCODECS) not in CODECS:
            raise SceneError(
                f"{path}: {array.basename} is written with the codec {str(name)[:80]!r}, which rsup does not run; "
                "write it with xarray's own, such as zstd"
            )


def _codec_names(codecs: Any) -> Iterator[str]:
    for codec in codecs:
        yield codec["name"]
        inner = codec.get("configuration") or {}
        for key in ("codecs", "index_codecs"):
            yield from _codec_names(inner.get(key) or ())
