"""Which mosaics a path means: a folder of upscale's outputs, one of its files, or an archive's folder in; mosaics out.

An archive's items are others' words: a file is taken only where it lies in the folder of the item that names it, itself
and no link out of it.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from rsup.models.base.errors import ArgumentError
from rsup.pipeline.public import printable

COLLECTION = "collection.json"
LARGEST = 2**24
"""Bytes of an item or a collection at most."""
HERE = "give a folder that `rsup upscale -o` or `rsup batch run` has written, or a file in it"

Text = Annotated[str, Field(max_length=4096), AfterValidator(printable)]


class _Asset(BaseModel):
    href: str


class _Properties(BaseModel):
    title: Text = ""
    scale: Annotated[int, Field(alias="rsup:scale", ge=1, le=64)]
    model: Text = Field("", alias="rsup:model")
    sources: list[Text] = Field([], alias="rsup:sources")
    start: Text | None = Field(None, alias="start_datetime")
    end: Text | None = Field(None, alias="end_datetime")
    moment: Text | None = Field(None, alias="datetime")
    attribution: Text = ""


class Item(BaseModel):
    """A mosaic's STAC item, as far as the map needs it."""

    model_config = ConfigDict(frozen=True)

    id: Text
    properties: _Properties
    assets: dict[str, _Asset]


class _Link(BaseModel):
    rel: str
    href: str


class _Collection(BaseModel):
    links: list[_Link]


@dataclass(frozen=True)
class Found:
    """A mosaic's item and where its files lie."""

    folder: Path
    item: Item

    @property
    def cog(self) -> Path:
        """The mosaic. Raises ArgumentError where it is not there."""
        if (file := self._file("cog")) is None:
            raise ArgumentError(f"{self.folder}: {self.item.id} has no COG beside its item: {HERE}")
        return file

    @property
    def uncertainty(self) -> Path | None:
        """How far it may be off, where that was asked for."""
        return self._file("uncertainty")

    def _file(self, key: str) -> Path | None:
        asset = self.item.assets.get(key)
        return None if asset is None else own_file(self.folder, asset.href)


def own_file(folder: Path, href: str) -> Path | None:
    """A regular file in this very folder, no link; None for anything else that an item may name."""
    name = href.removeprefix("./")
    if not name or name in (".", "..") or "/" in name or "\\" in name or "\0" in name:
        return None
    path = folder / name
    try:
        return path if stat.S_ISREG(os.lstat(path).st_mode) else None
    except OSError:
        return None


def find(path: Path) -> list[Found]:
    """The mosaics that `path` means, by name. Raises ArgumentError where it means none."""
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:  # a name that no disk takes
        raise ArgumentError(f"{printable(str(path))} cannot be opened ({error}): {HERE}") from error
    if not exists:
        raise ArgumentError(f"{path} does not exist: {HERE}")
    if path.name == COLLECTION or (is_folder and (path / COLLECTION).is_file()):
        found = list(_archive(path if is_folder else path.parent))
    elif is_folder and path.suffix != ".zarr":
        found = list(_beside(path))
    else:
        path = path.resolve()
        found = [each for each in _beside(path.parent) if path.name in _names(each)]
    if not found:
        raise ArgumentError(f"{path} has no mosaic of rsup's: {HERE}")
    return sorted(found, key=lambda each: (str(each.folder), each.item.id))


def _names(found: Found) -> set[str]:
    """Of a mosaic's files: those that its item names, and the item."""
    return {f"{found.item.id}.json", *(asset.href.removeprefix("./") for asset in found.item.assets.values())} | {
        f"{found.item.id}_model.json"
    }


def _beside(folder: Path) -> Iterator[Found]:
    """Mosaics of the items right in a folder."""
    for file in sorted(folder.glob("*.json")):
        if (item := _item(folder, file.name)) is not None:
            yield Found(folder, item)


def _archive(folder: Path) -> Iterator[Found]:
    """Mosaics of a collection's items, which lie below it: INTERVAL/CELL/NAME.json."""
    document = _document(own_file(folder, COLLECTION))
    try:
        links = _Collection.model_validate(document).links
    except ValidationError as error:
        raise ArgumentError(f"{folder / COLLECTION} is no STAC collection: {HERE}") from error
    root = folder.resolve()
    for link in links:
        place = folder / link.href.removeprefix("./")
        if link.rel == "item" and "\0" not in link.href and place.parent.resolve().is_relative_to(root):
            if (item := _item(place.parent, place.name)) is not None:
                yield Found(place.parent, item)


def _item(folder: Path, name: str) -> Item | None:
    """The mosaic's item in a file; None for any other JSON."""
    document = _document(own_file(folder, name))
    try:
        item = Item.model_validate(document)
    except ValidationError:
        return None
    return item if "cog" in item.assets else None


def _document(file: Path | None) -> Any:
    """The JSON of a file; None where it is none, or too large for what it should be."""
    try:
        if file is None or file.stat().st_size > LARGEST:
            return None
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
