"""SAFE products of levels 1C and 2A: the files of one in, its granules as items out.

Both layouts, with compact names (since 2016) and with long ones, of ESA and of Sen2Cor on users' machines. What is
where is told by the files that are there, for metadata of Sen2Cor list files that it has not written; what numbers
mean, by the product's metadata, band by band.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rsup.models.base.errors import SceneError
from rsup.models.sensors import sensor_of
from rsup.models.sensors.profile import Sensor
from rsup.pipeline.public import printable
from rsup.pipeline.sources.asset_file import read_header
from rsup.pipeline.sources.products.archive import Archive
from rsup.pipeline.sources.products.files import Files
from rsup.pipeline.sources.products.product import LEVEL_1C, Product, described
from rsup.pipeline.sources.retry import item_band, persevere
from rsup.pipeline.sources.stac.interval import stamp
from rsup.pipeline.sources.stac.items import ItemReference

from .jpeg2000 import check_whole
from .metadata import BANDS, METADATA, SafeMetadata, read_metadata
from .xml import LARGEST

GRANULES, IMAGES = "GRANULE", "IMG_DATA"
IMAGE = re.compile(r"_(B\d\d|B8A|SCL)(?:_L2A_TL_\w*?)?(?:_(10|20|60)m)?\.jp2", re.IGNORECASE)
"""The end of an image's name: its band and, in level 2A, its resolution."""
TILE = re.compile(r"_T(\d{2}[C-X][A-Z]{2})(?:_|\.|$)")
MOST_GRANULES = 500
"""Of one product: those of 2015 had some dozens."""
NEW_NUMBERS = "04.00"
"""The baseline since which products state offsets."""


@dataclass(frozen=True)
class Layout:
    """Where a product lies among files, and which of its granules are meant."""

    files: Files
    root: str
    """Of the product, "" or with a slash at its end."""
    metadata: str
    granule: str | None = None
    """The name of one; None for all."""


def metadata_in(files: Files, root: str) -> str | None:
    """The name of the product's metadata in the folder `root`; None where it has none."""
    found = [name for name in files.children(root.rstrip("/"))[0] if METADATA.fullmatch(name)]
    return max(found) if found else None  # level 2A before 1C


def layouts_in(archive: Archive) -> list[Layout]:
    """Every product in a zip, however deep."""
    found = []
    for folder in archive.folders():
        root = f"{folder}/" if folder else ""
        if GRANULES not in folder.split("/") and (name := metadata_in(archive, root)):
            found.append(Layout(archive, root, name))
    return found


def read_safe(layout: Layout, bands: Sequence[str]) -> list[Product]:
    """The granules of a product as items with the assets of `bands` (common names), and of the classes if it has any.

    Raises SceneError, naming the file, for what is missing, damaged or no product.
    """
    files = layout.files
    name = f"{layout.root}{layout.metadata}"
    try:
        about = read_metadata(layout.metadata, files.read(name, LARGEST))
    except ValueError as error:
        raise SceneError(f"{files.title}: {printable(name)} cannot be used: {error}; get the product anew") from error
    home = f"{layout.root}{GRANULES}"
    granules = files.children(home)[1] if layout.granule is None else [layout.granule]
    if not 0 < len(granules) <= MOST_GRANULES:
        raise SceneError(
            f"{files.title}: {printable(home)} holds {len(granules) or 'no'} granules: the product is incomplete or "
            "none; get it anew"
        )
    alone = layout.granule is None and len(granules) == 1
    return [_granule(layout, about, granule, bands, alone) for granule in granules]


def _granule(layout: Layout, about: SafeMetadata, granule: str, bands: Sequence[str], alone: bool) -> Product:
    files, sensor = layout.files, sensor_of("sentinel-2-l2a")
    home = f"{layout.root}{GRANULES}/{granule}"
    images = _images(files, home)
    chosen = {band: _image(files, home, images, sensor, band) for band in bands}
    scl = sensor.classification
    if scl is not None and (name := images.get(("SCL", sensor.band(scl).gsd))):
        chosen[scl] = name
    tile = TILE.search(granule)
    properties = about.properties | ({"s2:mgrs_tile": tile[1]} if tile else {})
    if strip := _datastrip(about, granule, alone):
        properties["s2:datastrip_id"] = strip
    folder = layout.root.rstrip("/").rpartition("/")[2] or files.title.rpartition("/")[2]
    product = about.product or printable(folder).removesuffix(".zip").removesuffix(".SAFE")
    item = _item(layout, about, product if alone else _named(product, granule), bands, chosen, properties)
    for band, name in chosen.items():
        files.check(name)
        try:
            with files.open(name) as file:
                check_whole(file, files.size(name))
        except (ValueError, OSError) as error:
            raise SceneError(
                f"{item_band(item, band)}: {files.title}: {printable(name)} cannot be used ({error}): "
                "get the product anew"
            ) from error
    band = item.evidence_band
    header = persevere(item, band, lambda fresh: read_header(item_band(item, band), item.hrefs[band], sensor, fresh))
    return Product.of(item, header.grid)


def _item(
    layout: Layout,
    about: SafeMetadata,
    item_id: str,
    bands: Sequence[str],
    chosen: dict[str, str],
    properties: dict[str, Any],
) -> ItemReference:
    files, sensor = layout.files, sensor_of("sentinel-2-l2a")
    identity = sensor.identify(item_id, properties)
    kind = "BOA_ADD_OFFSET" if about.level == "2A" else "RADIO_ADD_OFFSET"
    unit = 10_000 / about.quantification
    offsets = {band: round(about.offsets[_number(sensor, band)] * unit) for band in bands}
    # What nobody states where a baseline means it, or states as no product has it, is for the evidence to decide.
    certain = set(offsets.values()) <= set(sensor.offsets) and (
        about.states_offsets or (identity.baseline or "00.00") < NEW_NUMBERS
    )
    said = {band: about.offsets[_number(sensor, band)] for band in bands} if about.states_offsets else {}
    words = [f"{band} {offset}" for band, offset in said.items()] if len(set(said.values())) > 1 else []
    evidence = [f"{about.file}: {kind} {', '.join(words) or next(iter(said.values()), 'none')}"]
    evidence.append(f"{about.file}: quantification {about.quantification:g}")
    if about.level == "1C":
        evidence.append(LEVEL_1C)
    assets = {
        band: described(1 / about.quantification, said[band] / about.quantification if said else None) for band in bands
    }
    return ItemReference(
        sensor=sensor,
        id=item_id,
        collection=f"sentinel-2-l{about.level.lower()}",
        datetime=stamp(about.sensed),
        cloud=about.cloud,
        platform=identity.platform,
        tile=identity.tile,
        segment=identity.segment,
        baseline=identity.baseline,
        generation=identity.generation,
        geometry=None,
        hrefs={band: files.href(name) for band, name in chosen.items()},
        assets=assets | {band: {} for band in chosen if band not in assets},
        evidence_band=bands[0],
        product_metadata=None,
        properties=properties,
        public_hrefs={band: printable(files.public(name)) for band, name in chosen.items()},
        offsets=offsets if certain else {},
        stated=tuple(evidence),
    )


def _named(product: str, granule: str) -> str:
    tile = TILE.search(granule)
    return product if tile and f"_T{tile[1]}" in product else printable(granule)


def _number(sensor: Sensor, band: str) -> str:
    """What ESA calls a band: B04."""
    return next(name for name in sensor.band(band).names if name in BANDS)


def _images(files: Files, home: str) -> dict[tuple[str, int | None], str]:
    """The images of a granule by band and resolution; None where the name says none, as in level 1C."""
    found: dict[tuple[str, int | None], str] = {}
    top, below = files.children(f"{home}/{IMAGES}")
    names = [*top, *(f"{folder}/{name}" for folder in below for name in files.children(f"{home}/{IMAGES}/{folder}")[0])]
    for name in names:
        match = IMAGE.search(name)
        if match is None or match.end() != len(name):
            continue
        key = match[1].upper(), int(match[2]) if match[2] else None
        if key in found:
            raise SceneError(
                f"{files.title}: {printable(home)} holds two images of {key[0]}, {printable(found[key])} and "
                f"{printable(name)}: get the product anew"
            )
        found[key] = f"{home}/{IMAGES}/{name}"
    return found


def _image(files: Files, home: str, images: dict[tuple[str, int | None], str], sensor: Sensor, band: str) -> str:
    number, gsd = _number(sensor, band), sensor.band(band).gsd
    for key in ((number, gsd), (number, None)):
        if key in images:
            return images[key]
    raise SceneError(
        f"{files.title}: {printable(home)} has no image of {band} ({number} at {gsd} m): the product is incomplete; "
        "get it anew, or leave the band out of --bands"
    )


def _datastrip(about: SafeMetadata, granule: str, alone: bool) -> str | None:
    """That of a granule, whose folder and identifier are called differently, but for their tile."""
    tile = TILE.search(granule)
    near = [strip for name, strip in about.granules.items() if tile and f"_T{tile[1]}" in name]
    strips = near or (list(about.granules.values()) if alone else [])
    return strips[0] if len(set(strips)) == 1 else None
