"""Products of others made from Sentinel-2: Theia's level 2A (MAJA) and HLS S30, files in, an item out.

Theia: a GeoTIFF a band of reflectance corrected for slopes (FRE), int16, -10000 is nodata, and the mask MG2 (CESBIO,
MAJA's output format). HLS: one a band of 30 m, int16, -9999 is nodata, and Fmask (HLS User Guide 2.0).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rsup.models.base.errors import SceneError
from rsup.models.sensors import sensor_of
from rsup.pipeline.public import printable
from rsup.pipeline.sources.asset_file import Header, check_blocks, read_header
from rsup.pipeline.sources.retry import item_band, persevere
from rsup.pipeline.sources.stac.interval import stamp
from rsup.pipeline.sources.stac.items import ItemReference

from . import flags
from .files import Files
from .product import Product
from .safe.metadata import BANDS
from .safe.xml import LARGEST, parse, texts


@dataclass(frozen=True)
class Kind:
    """What such a product calls its files."""

    name: str
    """Of the kind, and of its mask's flags."""
    title: str
    collection: str
    image: re.Pattern[str]
    """What the product is called, and the band."""
    mask: str
    """The mask's name after the product's."""
    masks: str
    """Its folder below the product's, "" for the same."""
    beside: re.Pattern[str]
    """What is called like the product and is no image that is read."""
    nodata: int
    sensed: re.Pattern[str]
    moment: str
    """How `sensed` writes it, for strptime."""


KINDS = (
    Kind(
        "theia",
        "Theia's level 2A",
        "theia-sentinel-2-l2a",
        re.compile(r"(SENTINEL2[A-D]_\d{8}-\d{6}-\d+_L2A_T\w{5}_\w_V[\d-]+)_FRE_(B\d{1,2}A?)\.tif"),
        "_MG2_R1.tif",
        "MASKS/",
        re.compile(r"SENTINEL2._.*_L2A_.*_(MTD_ALL\.xml|SRE_B\d{1,2}A?\.tif|MG2_R\d\.tif)"),
        -10_000,
        re.compile(r"_(\d{8}-\d{6})-"),
        "%Y%m%d-%H%M%S",
    ),
    Kind(
        "hls",
        "HLS S30",
        "hls2-s30",
        re.compile(r"(HLS\.S30\.T\w{5}\.\d{7}T\d{6}\.v\d+\.\d+)\.(B\d[\dA])\.tif"),
        ".Fmask.tif",
        "",
        re.compile(r"HLS\.S30\..*\.Fmask\.tif"),
        -9999,
        re.compile(r"\.(\d{7}T\d{6})\."),
        "%Y%jT%H%M%S",
    ),
)


def find_others(files: Files, roots: Sequence[str] = ("",)) -> list[tuple[Kind, str]]:
    """Which kinds lie in these folders ("" or with a slash at its end), and each in which."""
    listed = {root: files.children(root.rstrip("/"))[0] for root in roots}
    return [(kind, root) for root, names in listed.items() for kind in KINDS if any(map(kind.image.fullmatch, names))]


def kind_of_file(name: str) -> Kind | None:
    """The kind of product that a file is a part of, by its name; None for another file."""
    return next((kind for kind in KINDS if kind.image.fullmatch(name) or kind.beside.fullmatch(name)), None)


def read_other(files: Files, kind: Kind, root: str, bands: Sequence[str]) -> Product:
    """The product as an item with the assets of `bands` (common names), and of the classes where it has its mask.

    Raises SceneError for what is missing or no such product.
    """
    sensor = sensor_of("sentinel-2-l2a")
    images = [match for name in files.children(root.rstrip("/"))[0] if (match := kind.image.fullmatch(name))]
    products = {match[1] for match in images}
    if len(products) != 1:
        raise SceneError(f"{files.title} holds {len(products)} products of {kind.title}; give each a folder of its own")
    (name,) = products
    chosen: dict[str, str] = {}
    for band in bands:
        number = next(each for each in sensor.band(band).names if each in BANDS)
        found = [match[0] for match in images if match[2] in (number, number.replace("B0", "B"))]
        if not found:
            raise SceneError(
                f"{files.title} has no image of {band} ({number}): the product is incomplete; get it anew, or leave "
                "the band out of --bands"
            )
        if len(found) > 1:
            raise SceneError(f"{files.title} has two images of {band}, {' and '.join(found)}: get the product anew")
        chosen[band] = f"{root}{found[0]}"
    quantification = _quantification(files, root, name) if kind.name == "theia" else 10_000.0
    hrefs = {band: files.href(path) for band, path in chosen.items()}
    mask, scl = f"{root}{kind.masks}{name}{kind.mask}", sensor.classification
    folder, _, last = mask.rpartition("/")
    if scl is not None and last in files.children(folder)[0]:
        hrefs[scl] = flags.href_of(kind.name, files.href(mask))
        chosen[scl] = mask
    described = {"raster:bands": [{"scale": 1 / quantification, "offset": 0.0, "nodata": kind.nodata}]}
    item = _item(kind, name, hrefs, {band: described if band in bands else {} for band in hrefs}, bands)
    headers = {}
    for band, path in chosen.items():
        files.check(path)
        label, href, size = item_band(item, band), files.href(path), files.size(path)

        def look(fresh: bool, label: str = label, href: str = href, size: int = size) -> Header:
            check_blocks(label, href, size)
            return read_header(label, href, sensor, fresh)

        headers[band] = persevere(item, band, look)
        if headers[band].dtype.startswith(("float", "complex")):
            raise SceneError(
                f"{label}: its image is {headers[band].dtype}, not the whole numbers of {kind.title}; get it anew"
            )
    public = {band: printable(files.public(path)) for band, path in chosen.items()}
    item.public_hrefs.update(public)
    return Product.of(item, headers[bands[0]].grid)


def _item(
    kind: Kind, name: str, hrefs: dict[str, str], assets: dict[str, dict[str, Any]], bands: Sequence[str]
) -> ItemReference:
    sensor = sensor_of("sentinel-2-l2a")
    dated = kind.sensed.search(name)
    try:
        sensed = datetime.strptime(dated[1] if dated else "", kind.moment).replace(tzinfo=UTC)
    except ValueError:
        raise SceneError(f"{printable(name)}: its name holds no date; get the product anew") from None
    platform = re.match(r"SENTINEL(2[A-D])_", name)
    tile = re.search(r"[_.]T(\d\d[C-X][A-Z]{2})[_.]", name)
    scale = assets[bands[0]]["raster:bands"][0]["scale"]
    return ItemReference(
        sensor=sensor,
        id=name,
        collection=kind.collection,
        datetime=stamp(sensed),
        cloud=None,
        platform=platform[1] if platform else None,
        tile=tile[1] if tile else None,
        segment=None,
        baseline=None,
        generation=(),
        geometry=None,
        hrefs=hrefs,
        assets=assets,
        evidence_band=bands[0],
        product_metadata=None,
        properties={},
        offsets=dict.fromkeys(bands, 0),
        stated=(f"{kind.title}: reflectance = number * {scale:g}, {kind.nodata} is nodata",),
    )


def _quantification(files: Files, root: str, name: str) -> float:
    """By Theia's own metadata, which must be there."""
    path = f"{root}{name}_MTD_ALL.xml"
    try:
        document = parse(files.read(path, LARGEST))
        said = {text for _, text in texts(document, "REFLECTANCE_QUANTIFICATION_VALUE")}
        if len(said) != 1:
            raise ValueError(f"it states {'two values' if said else 'none'} as REFLECTANCE_QUANTIFICATION_VALUE")
        value = float(said.pop())
        if not 100 <= value <= 100_000:
            raise ValueError(f"its REFLECTANCE_QUANTIFICATION_VALUE is {value:g}, which makes no reflectance")
    except ValueError as error:
        raise SceneError(f"{files.title}: {printable(path)} cannot be used: {error}; get the product anew") from error
    return value
