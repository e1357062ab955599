"""What a SAFE product says of itself in MTD_MSIL2A.xml or MTD_MSIL1C.xml: bytes in, level, dates, numbers' meaning out.

ESA, Sentinel-2 Products Specification Document (14 and 15), and before it the names of 2015 and of Sen2Cor 2.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from xml.etree.ElementTree import Element

from rsup.pipeline.public import printable

from .xml import LARGEST, first, parse, texts

METADATA = re.compile(r"(?:MTD_MSIL(?:1C|2A)|S2._(?:OPER|USER)_MTD_SAFL(?:1C|2A)_[A-Za-z0-9_]+)\.xml")
"""What a product calls its metadata."""
TILE_METADATA = re.compile(r"(?:MTD_TL|S2._(?:OPER|USER)_MTD_L(?:1C|2A)_TL_[A-Za-z0-9_.]+)\.xml")
"""What a granule calls its own."""
LEVELS = {"Level-1C_User_Product": "1C", "Level-2A_User_Product": "2A"}
BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12")
"""By the number that metadata give them."""
LEAST, MOST = 100, 100_000
"""Numbers a reflectance of 1 may be stored as."""


@dataclass(frozen=True)
class SafeMetadata:
    """What is needed of it."""

    level: str
    """1C or 2A."""
    file: str
    """Its own name, for what is said of it."""
    product: str | None
    """The product's name, without its ending."""
    sensed: datetime
    cloud: float | None
    """Percent of the product."""
    quantification: float
    """Numbers a unit of reflectance."""
    offsets: dict[str, int]
    """To be added to a band's numbers, by BANDS; 0 for all where none is stated."""
    states_offsets: bool
    granules: dict[str, str]
    """Names of granules to those of their datastrips."""
    properties: dict[str, Any]
    """As STAC items of such products have them."""


def read_metadata(name: str, content: bytes) -> SafeMetadata:
    """Raises ValueError with what is wrong."""
    if len(content) > LARGEST:
        raise ValueError("it is too long")
    root = parse(content)
    level = LEVELS.get(str(root.tag))
    if level is None:
        raise ValueError(f"it is a {printable(str(root.tag))[:60]}, not the metadata of a product of level 1C or 2A")
    said = {
        "uri": first(root, "PRODUCT_URI_2A", "PRODUCT_URI") if level == "2A" else first(root, "PRODUCT_URI"),
        "baseline": first(root, "PROCESSING_BASELINE"),
        "generated": first(root, "GENERATION_TIME"),
        "platform": first(root, "SPACECRAFT_NAME"),
        "cloud": first(root, "Cloud_Coverage_Assessment", "CLOUD_COVERAGE_ASSESSMENT"),
    }
    uri = printable(said["uri"] or "").removesuffix(".SAFE")[:200] or None
    datatake = next((each.get("datatakeIdentifier") for each in root.iter("Datatake")), None)
    properties = {
        "s2:product_uri": uri,
        "s2:processing_baseline": said["baseline"],
        "s2:generation_time": said["generated"],
        "s2:datatake_id": datatake,
        "platform": said["platform"],
    }
    offsets = _offsets(root, level)
    return SafeMetadata(
        level=level,
        file=name,
        product=uri,
        sensed=_moment(first(root, "PRODUCT_START_TIME", "DATATAKE_SENSING_START")),
        cloud=_percent(said["cloud"]),
        quantification=_quantification(root, level),
        offsets={band: offsets.get(band, 0) for band in BANDS},
        states_offsets=bool(offsets),
        granules=_granules(root),
        properties={key: printable(value)[:200] for key, value in properties.items() if value is not None},
    )


def _moment(text: str | None) -> datetime:
    try:
        found = datetime.fromisoformat(text or "")
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("it does not say when the product was sensed (PRODUCT_START_TIME)") from None


def _percent(text: str | None) -> float | None:
    try:
        found = float(text or "nan")
    except ValueError:
        return None
    return found if 0 <= found <= 100 else None


def _quantification(root: Element, level: str) -> float:
    names = ("BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE") if level == "2A" else ("QUANTIFICATION_VALUE",)
    said = {text for _, text in texts(root, *names)}
    if len(said) != 1:
        raise ValueError(
            f"it states {'no' if not said else 'two'} {names[0]}: what the product's numbers mean is unknown"
        )
    (text,) = said
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not LEAST <= found <= MOST:
        raise ValueError(f"its {names[0]} is {printable(text)[:40]!r}, which makes no reflectance")
    return found


def _offsets(root: Element, level: str) -> dict[str, int]:
    """What is stated, by band; all of it must be whole numbers, and name a band."""
    name = "BOA_ADD_OFFSET" if level == "2A" else "RADIO_ADD_OFFSET"
    found: dict[str, int] = {}
    for element, text in texts(root, name):
        try:
            band = BANDS[int(element.get("band_id", ""))]
            offset = int(text)
        except (ValueError, IndexError):
            shown = printable(f"{element.get('band_id')}: {text}")[:60]
            raise ValueError(f"its {name} of band {shown} cannot be understood") from None
        if found.setdefault(band, offset) != offset:
            raise ValueError(f"it states two {name} of {band}")
    if found and (absent := [band for band in BANDS if band not in found and (level, band) != ("2A", "B10")]):
        raise ValueError(f"it states {name} of some bands and not of {', '.join(absent)}")
    return found


def _granules(root: Element) -> dict[str, str]:
    found = {}
    for name in ("Granule", "Granules"):
        for element in root.iter(name):
            granule, strip = element.get("granuleIdentifier"), element.get("datastripIdentifier")
            if granule and strip:
                found[printable(granule)] = printable(strip)
    return found
