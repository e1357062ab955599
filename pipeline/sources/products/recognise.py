"""Which product a path or an address is, by what it says of itself: places in, products out."""

from __future__ import annotations

import re
import stat
import tarfile
from collections.abc import Sequence
from pathlib import Path

from rsup.models.base.errors import SceneError
from rsup.pipeline.places.web import scene_place
from rsup.pipeline.public import printable
from rsup.pipeline.scenes import remedies
from rsup.pipeline.scenes.remote import ScenePath

from .archive import Archive
from .eopf import is_eopf, read_eopf
from .files import Folder
from .others import find_others, kind_of_file, read_other
from .product import Product
from .safe.granules import GRANULES, IMAGES, Layout, layouts_in, metadata_in, read_safe
from .safe.metadata import METADATA, TILE_METADATA
from .zarr_store import roots_in

TAKEN = (
    "give a SAFE product of Sentinel-2, level 1C or 2A (its folder, its MTD_MSIL2A.xml, a folder of its GRANULE, its "
    "zip), an EOPF product in Zarr, or a folder or zip of Theia's level 2A or HLS S30"
)
MANIFEST = "manifest.safe"
PART = re.compile(r"IMG_DATA|R[126]0m")
"""Folders in a granule."""
ZIP = (b"PK\3\4", b"PK\5\6")
"""How zips begin, the empty one too."""


def is_product(place: ScenePath) -> bool:
    """Whether it is a product, whole or damaged, or something near one, and no scene.

    What cannot be looked at here is none. Raises SceneError where a server does not say.
    """
    if not isinstance(place, Path):
        return _is_named_zip(place) or (place.is_dir() and is_eopf(place))
    return _is_one(place) or _hint(place) is not None


def _is_one(place: Path) -> bool:
    try:
        return _is_product(place)
    except (SceneError, OSError, ValueError):  # for the reader of scenes to say
        return False


def _is_product(place: Path) -> bool:
    if place.is_dir():
        inside = [path.name for path in place.iterdir()]
        if {GRANULES, IMAGES} & {*inside, place.name} or any(map(METADATA.fullmatch, inside)):
            return True
        return bool(find_others(Folder(place.resolve()))) or is_eopf(place)
    named = METADATA.fullmatch(place.name) or TILE_METADATA.fullmatch(place.name) or place.name == MANIFEST
    return bool(named) or _is_zip(place)


def read_product(text: str, bands: Sequence[str]) -> list[Product]:
    """The granules of the product at a path or an address, with the assets of `bands` (common names).

    Raises SceneError where it is none, or is damaged; ArgumentError for an address of what nothing can be read from.
    """
    place = scene_place(text)
    if not isinstance(place, Path):
        if not _is_named_zip(place) and place.is_dir() and is_eopf(place):
            return [read_eopf(place, bands)]
        if _is_named_zip(place):
            raise SceneError(f"{place} lies elsewhere, and zips are read in place: download it, and give its path here")
        raise SceneError(f"{place} is no product that is taken: {TAKEN}")
    try:
        mode = place.stat().st_mode
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SceneError(f"{place} cannot be opened ({reason}): check its name and who may read it") from error
    if stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and (place.suffix == ".xml" or place.name == MANIFEST)):
        layout = _layout(place)
        if layout is None and (place / GRANULES).is_dir():
            raise SceneError(
                f"{place} has no MTD_MSIL2A.xml or MTD_MSIL1C.xml, which say what its numbers mean: "
                "get the product anew"
            )
        if layout is not None:
            return read_safe(layout, bands)
        if stat.S_ISDIR(mode) and (others := find_others(Folder(place.resolve()))):
            return [read_other(Folder(place.resolve()), *other, bands) for other in others]
        if stat.S_ISDIR(mode) and is_eopf(place):
            return [read_eopf(place, bands)]
    elif stat.S_ISREG(mode) and _is_zip(place):
        archive = Archive(place)
        if found := layouts_in(archive):
            return [product for layout in found for product in read_safe(layout, bands)]
        roots = [f"{folder}/" if folder else "" for folder in archive.folders()]
        if others := find_others(archive, roots):
            return [read_other(archive, *other, bands) for other in others]
        if is_eopf(place):
            return [read_eopf(place, bands)]
        raise SceneError(f"{place} holds no product: {_other_in(archive) or TAKEN}")
    raise SceneError(f"{place} is no product: {_hint(place) or TAKEN}")


def _other_in(archive: Archive) -> str | None:
    """What to do with a zip of a zip, of a scene store or of one GeoTIFF; None for another."""
    if stores := roots_in(archive):
        what = (
            "a store that is no product" if len(stores) == 1 else f"{len(stores)} stores, and only a zip of one is read"
        )
        return f"it holds {what}; {remedies.unpack(archive.path, printable(stores[0].rstrip('/')))}"
    images = []
    for folder in archive.folders():
        names = archive.children(folder)[0]
        packed = [f"{folder}/{name}".removeprefix("/") for name in names if name.lower().endswith(".zip")]
        if packed:
            return f"it holds {printable(packed[0])[:200]}; unpack it, and give that"
        images += [f"{folder}/{name}".removeprefix("/") for name in names if name.lower().endswith((".tif", ".tiff"))]
    if len(images) == 1:
        return f"it holds a GeoTIFF that is no product; {remedies.unpack(archive.path, printable(images[0]))}"
    return None


def _hint(place: Path) -> str | None:
    """What to give in the place of something near a product; None for what is near none."""
    try:
        if place.is_dir():
            if PART.fullmatch(place.name) and (around := _product_around(place)):
                return around
            inside = sorted(place.iterdir())
            if {"zarr.json", ".zgroup", ".zarray"} & {path.name for path in inside}:
                return None
            found = next((path.name for path in inside if not path.name.startswith(".") and _is_one(path)), None)
            return found and f"it holds {printable(found)[:200]}; give that"
        if not place.is_file():
            return None
        if _is_tar(place):
            return "it is a tar archive, which cannot be read in place; unpack it, and give the folder in it"
    except (OSError, ValueError):
        return None
    if place.suffix.lower() == ".jp2":
        return _product_around(place)
    if kind := kind_of_file(place.name):
        return f"it is one file of {kind.title}; give the folder that the product lies in"
    if _is_named_zip(place):
        return "it is called a zip and does not begin as one, as a server's message in its place; download it anew"
    return None


def _product_around(place: Path) -> str | None:
    """Which SAFE product a part of one lies in, as what to give instead; None for a part of none."""
    above = (each for each in place.resolve().parents[:5] if metadata_in(Folder(each), ""))
    return next((f"it lies in {each}; give that" for each in above), None)


def _is_tar(path: Path) -> bool:
    """Whether it is one that holds anything: a file of zeros would be an empty one."""
    try:
        with tarfile.open(path) as tar:
            return tar.next() is not None
    except tarfile.TarError:
        return False


def _is_named_zip(place: ScenePath) -> bool:
    return place.name.lower().endswith(".zip")


def _is_zip(path: Path) -> bool:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            return file.read(4) in ZIP
    except (OSError, ValueError):
        return False


def _layout(place: Path) -> Layout | None:
    """Of a folder or a file of metadata that a product is named by; None where it is neither."""
    place = place.resolve()
    if place.name in (GRANULES, MANIFEST):
        place = place.parent
    folder = place if place.is_dir() else place.parent
    if place != folder and METADATA.fullmatch(place.name):
        return Layout(Folder(folder), "", place.name)
    if place == folder and (name := metadata_in(Folder(folder), "")):
        return Layout(Folder(folder), "", name)
    if (place != folder and not TILE_METADATA.fullmatch(place.name)) or not (folder / IMAGES).is_dir():
        return None
    product = folder.parent.parent
    if folder.parent.name != GRANULES or not (name := metadata_in(Folder(product), "")):
        raise SceneError(
            f"{place} is a granule without its product: MTD_MSIL2A.xml, two folders above, says what its numbers mean; "
            "get the product anew"
        )
    return Layout(Folder(product), "", name, folder.name)
