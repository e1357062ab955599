"""Sentinel-2 domain facts: bands, scene classification, tiles, and which offset an item's pixels carry.

In: a STAC item's own words (properties, asset fields, product metadata) and a look at its dark pixels. Out:
which number its pixels need, with the evidence; or a SceneError where the evidence disagrees. No I/O.
Since processing baseline 04.00 a product stores reflectance * 10000 + 1000 (BOA_ADD_OFFSET -1000); some
archives take the 1000 off again in their copies. Dates say nothing: Collection-1 reprocessed the archive.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rsup.models.base.errors import SceneError


@dataclass(frozen=True)
class Band:
    """One band of the MSI and what the catalogues call it."""

    name: str
    """Common name, as Earth Search uses it for its assets."""
    number: str
    """ESA's name; Planetary Computer's asset key."""
    gsd: int
    """Native ground sampling distance in metres."""
    aliases: tuple[str, ...] = ()
    """Other common names: those of version 2 of STAC's eo extension."""

    @property
    def asset_keys(self) -> tuple[str, ...]:
        """Keys of this band's asset, in the order they are tried: Earth Search, Planetary Computer, CDSE."""
        return (self.name, self.number, f"{self.number}_{self.gsd}m")

    @property
    def names(self) -> tuple[str, ...]:
        """All it is called at its own resolution: `asset_keys`, EOPF's b04, Earth Engine's B4, other common names."""
        earth_engine = self.number.replace("B0", "B")
        return tuple(dict.fromkeys((*self.asset_keys, self.number.lower(), earth_engine, *self.aliases)))


BANDS = {
    band.name: band
    for band in (
        Band("blue", "B02", 10),
        Band("green", "B03", 10),
        Band("red", "B04", 10),
        Band("rededge1", "B05", 20, ("rededge071",)),
        Band("rededge2", "B06", 20, ("rededge075",)),
        Band("rededge3", "B07", 20, ("rededge078",)),
        Band("nir", "B08", 10),
        Band("nir08", "B8A", 20),
        Band("swir16", "B11", 20),
        Band("swir22", "B12", 20),
    )
}
"""Bands rsup fetches; the 60 m ones say nothing about the surface at 10 m."""
SCL = Band("scl", "SCL", 20)

_SPELLINGS = {name.casefold(): band.name for band in (*BANDS.values(), SCL) for name in band.names}
"""Every name of a band, in small letters, to its common name."""
_GRID = re.compile(r"_(?:10|20|60)m$|, central wavelength \d+ nm$")
"""What may follow a band's name: the grid it is on (CDSE), and what GDAL's SENTINEL2 driver adds."""


def common_name(name: str) -> str:
    """A band's common name, whoever named it: "red" for Red, B04, b04, B4 and B04_10m; other names as they are."""
    plain = name.strip().casefold()
    return _SPELLINGS.get(plain) or _SPELLINGS.get(_GRID.sub("", plain), name)


CLASS_NAMES = (
    "no_data",
    "saturated",
    "dark_area",
    "cloud_shadow",
    "vegetation",
    "bare_soil",
    "water",
    "unclassified",
    "cloud_medium_probability",
    "cloud_high_probability",
    "thin_cirrus",
    "snow",
)
"""Scene classification (SCL) classes 0..11, in order."""
MASKED_CLASSES = (0, 1, 3, 8, 9, 10)
"""What --mask-clouds drops: nothing known, saturated, shadow, cloud, cirrus."""
DARK_CLASSES = (2, 3, 6)
"""Shade and water: the ground that may be 0 in every band."""

RAW_OFFSET = -1000
"""BOA_ADD_OFFSET of products since baseline 04.00: what their numbers need before / 10000."""
STORED_SHIFT = -RAW_OFFSET
"""Stored numbers (scene store) are those of baseline >= 04.00: reflectance * 10000 + 1000."""
DARK = 900
"""Below this a raw number of baseline >= 04.00 is a reflectance under -0.01: a pixel may be, not 1 % of them."""
UNDERFLOW = 64000
"""From here to 65534 a shifted uint16 is a small number minus 1000 that wrapped around."""
SATURATED = 65535

Offset = Literal["auto", "0", "-1000"]


@dataclass(frozen=True)
class OffsetDecision:
    """What an item's pixels need: reflectance = (DN + offset) / 10000."""

    offset: int
    """0 or -1000."""
    shifted: bool
    """The archive took 1000 off a baseline >= 04.00 product: small numbers may have wrapped around."""
    baseline: str | None
    evidence: tuple[str, ...]
    by_user: bool = False
    """Decided by --offset, against whatever is declared."""


def processing_baseline(item_id: str, properties: Mapping[str, Any]) -> str | None:
    """Processing baseline as "05.09": a property of the item, or part of its product's name (N0509)."""
    for key in ("s2:processing_baseline", "processing:version", "processing:baseline"):
        match = re.fullmatch(r"(\d\d)\.(\d\d)", str(properties.get(key, "")))
        if match:
            return match.group(0)
    names = (properties.get("s2:product_uri"), properties.get("s2:datatake_id"), item_id)
    for name in names:
        match = re.search(r"_N(\d\d)\.?(\d\d)(?:_|\.|$)", str(name))
        if match:
            return f"{match.group(1)}.{match.group(2)}"
    return None


def tile_of(item_id: str, properties: Mapping[str, Any]) -> str | None:
    """MGRS tile as "33TWL"; None where the item does not say."""
    for key in ("grid:code", "s2:mgrs_tile", "s2:product_uri"):
        match = re.search(r"(?:^|MGRS-|_T)(\d{1,2}[C-X][A-Z]{2})(?:_|\.|$)", str(properties.get(key, "")))
        if match:
            return match.group(1).zfill(5)
    match = re.search(r"_T?(\d{1,2}[C-X][A-Z]{2})(?:_|$)", item_id)
    return match.group(1).zfill(5) if match else None


def platform_of(item_id: str, properties: Mapping[str, Any]) -> str | None:
    """Which of the satellites, as "2A"; None where the item does not say."""
    for name in (
        properties.get("platform"),
        properties.get("s2:datatake_id"),
        properties.get("s2:product_uri"),
        item_id,
    ):
        match = re.search(r"(?:^|G)S(?:entinel-?)?(2[A-D])(?:_|$)", str(name), re.IGNORECASE)
        if match:
            return match.group(1).upper()
    return None


def segment_of(properties: Mapping[str, Any]) -> str | None:
    """Sensing start of the datastrip: distinct for distinct downlink segments, kept by reprocessing."""
    for key in ("s2:datastrip_id", "eopf:datastrip_id"):
        match = re.search(r"_S(\d{8}T\d{6})", str(properties.get(key, "")))
        if match:
            return match.group(1)
    return None


def asset_field(asset: Mapping[str, Any], name: str) -> Any:
    """`scale`, `offset` or `nodata` of a band's asset; None where it says nothing.

    Places: `raster:bands` (raster extension 1), `bands` or the asset itself (extension 2, STAC 1.1).
    """
    lists = [asset.get(key) for key in ("raster:bands", "bands")]
    for fields in (*(entry for entries in lists if isinstance(entries, list) for entry in entries), asset):
        for key in (f"raster:{name}", name):
            if isinstance(fields, Mapping) and fields.get(key) is not None:
                return fields[key]
    return None


def asset_offset(asset: Mapping[str, Any]) -> int | None:
    """The offset a band's asset claims, in numbers: -1000 for -0.1; None where it claims nothing."""
    offset = asset_field(asset, "offset")
    if not isinstance(offset, int | float) or not abs(offset) < 1e30:
        return None
    if offset == 0 and asset_field(asset, "scale") == 1:
        return None  # GDAL's word for "not said", which some catalogues copy
    return round(float(offset) * 10000)


def product_offset(metadata: str) -> int | None:
    """BOA_ADD_OFFSET of product metadata (MTD_MSIL2A.xml); None where every band has none."""
    offsets = {int(number) for number in re.findall(r"<BOA_ADD_OFFSET[^>]*>\s*(-?\d+)\s*<", metadata)}
    return offsets.pop() if len(offsets) == 1 else None


def dark_level(pixels: NDArray[np.uint16]) -> float | None:
    """The first percentile of valid numbers of a coarse look at an item; None where too few are valid."""
    valid = pixels[(pixels > 0) & (pixels < UNDERFLOW)]
    return float(np.percentile(valid, 1)) if valid.size >= 100 else None


def decide_offset(
    item_id: str,
    properties: Mapping[str, Any],
    asset: Mapping[str, Any],
    dark: float | None,
    product: int | None = None,
    wanted: Offset = "auto",
    header: int | None = None,
) -> OffsetDecision:
    """Decide which offset an item's pixels carry, from all it says of itself and from its dark pixels.

    `asset` is the STAC asset of a band, `dark` its `dark_level`, `product` the `product_offset` where it was
    read, `wanted` the user's word, `header` the offset in the file's own header. What is said must agree; where it
    does not (Earth Search repeats the product's offset for pixels it has shifted), dark pixels decide. Pixels too dark
    for the claim refute it.
    Raises SceneError where the evidence disagrees or there is none.
    """
    baseline = processing_baseline(item_id, properties)
    claims: list[tuple[str, int]] = []
    described = asset_offset(asset)
    if described is not None:
        claims.append((f"the asset's offset is {described}", described))
    if header is not None and header != described:
        claims.append((f"its file's offset is {header}", header))
    applied = properties.get("earthsearch:boa_offset_applied")
    if product is None and baseline is not None:
        product = RAW_OFFSET if baseline >= "04.00" else 0
        source = f"processing baseline {baseline}"
    else:
        source = "product metadata"
    if applied is True:
        claims.append(("earthsearch:boa_offset_applied is true", 0))
    elif product is not None:
        claims.append((f"{source}: {product}", product))
    says = {offset for _, offset in claims}
    evidence = [text for text, _ in claims]
    if dark is not None:
        evidence.append(f"dark pixels (1st percentile) {dark:.0f}")
    is_dark = dark is not None and dark < DARK

    if wanted != "auto":
        offset = int(wanted)
        evidence.append(f"decided by --offset {wanted}")
    elif not says <= {0, RAW_OFFSET}:
        raise SceneError(
            f"{item_id}: an offset of {', '.join(map(str, sorted(says - {0, RAW_OFFSET})))} is neither 0 nor "
            f"{RAW_OFFSET} ({'; '.join(evidence)}); decide with --offset 0 or --offset -1000"
        )
    elif is_dark and (0 in says or not says):
        offset = 0
    elif len(says) == 1 and not is_dark:
        offset = next(iter(says))
    else:
        problem = "the evidence for its offset disagrees" if says else "nothing says which offset its pixels carry"
        raise SceneError(
            f"{item_id}: {problem} ({'; '.join(evidence) or 'no evidence'}); decide with --offset 0 or --offset -1000"
        )
    shifted = offset == 0 and (applied is True or product != 0)
    return OffsetDecision(offset, shifted, baseline, tuple(evidence), wanted != "auto")


def to_stored(numbers: NDArray[np.uint16], decision: OffsetDecision) -> NDArray[np.uint16]:
    """An item's pixels -> stored numbers (those of baseline >= 04.00); 0 stays nodata, valid never becomes 0.

    Saturated (65535) stays so; in shifted copies 64000..65534 are small numbers that wrapped below zero.
    """
    if decision.offset == RAW_OFFSET:
        return numbers
    wide = numbers.astype(np.int32)
    if decision.shifted:
        wide = np.where((wide >= UNDERFLOW) & (wide < SATURATED), wide - 65536, wide)
    stored = np.clip(wide + STORED_SHIFT, 1, SATURATED)
    stored[numbers == 0] = 0
    return stored.astype(np.uint16)
