"""Sentinel-2's MSI, level 2A: bands and all their names, scene classes, tiles and datastrips.

ESA, Sentinel-2 Products Specification Document; the keys of assets are those of Earth Search, Planetary Computer, CDSE.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from .profile import Band, Classes, Identity, Sensor
from .response import Response
from .sentinel2_offset import RAW_OFFSET, number_rule, processing_baseline, product_offset, to_stored


def _band(
    name: str,
    number: str,
    gsd: int,
    light: tuple[float, float] | None = None,
    stac_name: str | None = None,
    response: Response | None = None,
) -> Band:
    """`number`: ESA's name. Files call a band also as EOPF (b04) and as Earth Engine (B4) do.

    `light`: central wavelength and bandwidth of Sentinel-2A, nm (ESA, Sentinel-2 User Handbook and spectral responses).
    """
    other = (number.lower(), number.replace("B0", "B"), *((stac_name,) if stac_name else ()))
    if response is not None:
        response = replace(response, ratio=gsd // 10)
    centre, width = (round(length / 1000, 4) for length in light) if light else (None, None)
    return Band(name, gsd, (name, number, f"{number}_{gsd}m"), other, response, stac_name, centre, width)


def _response(mtf: float, snr: float, radiance: float, irradiance: float) -> Response:
    """Of Sentinel-2A.

    MTF: in orbit, the values the literature on sharpening Sentinel-2 works with; those that CNES publishes with
    sensorsio differ by up to 0.044. SNR and radiance (W m-2 sr-1 um-1): mission requirement, User Handbook; solar
    irradiance (W m-2 um-1): product metadata.
    """
    return Response(mtf, snr, math.pi * radiance / irradiance)


CLASSES = Classes(
    band=_band("scl", "SCL", 20),
    names=(
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
    ),
    # Nothing known, saturated, shadow, cloud, cirrus.
    masked=(0, 1, 3, 8, 9, 10),
    dark=(2, 3, 6),
)
"""Scene classification (SCL)."""


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


def identify(item_id: str, properties: Mapping[str, Any]) -> Identity:
    """Which acquisition an item shows."""
    stamps = re.findall(r"\d{8}T\d{6}", str(properties.get("s2:product_uri", item_id)))
    return Identity(
        platform_of(item_id, properties),
        tile_of(item_id, properties),
        segment_of(properties),
        processing_baseline(item_id, properties),
        (str(properties.get("s2:generation_time", "")), stamps[-1] if stamps else ""),
    )


SENTINEL2 = Sensor(
    name="sentinel2",
    title="Sentinel-2",
    # The 60 m bands say nothing about the surface at 10 m.
    bands=(
        _band("blue", "B02", 10, (492.4, 66), response=_response(0.26, 154, 128, 1959.7)),
        _band("green", "B03", 10, (559.8, 36), response=_response(0.28, 168, 128, 1824.0)),
        _band("red", "B04", 10, (664.6, 31), response=_response(0.24, 142, 108, 1512.4)),
        _band("rededge1", "B05", 20, (704.1, 15), "rededge071", response=_response(0.38, 117, 74.6, 1424.64)),
        _band("rededge2", "B06", 20, (740.5, 15), "rededge075", response=_response(0.34, 89, 68.23, 1287.61)),
        _band("rededge3", "B07", 20, (782.8, 20), "rededge078", response=_response(0.34, 105, 66.7, 1162.08)),
        _band("nir", "B08", 10, (832.8, 106), response=_response(0.26, 174, 103, 1041.5)),
        _band("nir08", "B8A", 20, (864.7, 21), response=_response(0.33, 72, 52.39, 955.32)),
        _band("swir16", "B11", 20, (1613.7, 91), response=_response(0.22, 100, 4, 245.59)),
        _band("swir22", "B12", 20, (2202.4, 175), response=_response(0.23, 100, 1.7, 85.25)),
    ),
    classes=CLASSES,
    collections=("sentinel-2-l2a", "sentinel-2-c1-l2a"),
    since=datetime(2015, 6, 23, tzinfo=UTC),
    attribution="Contains modified Copernicus Sentinel data",
    evidence_bands=("blue", "red", "green"),
    kept_properties=("s2", "earthsearch", "processing"),
    metadata_assets=("product_metadata", "product-metadata"),
    offsets=(0, RAW_OFFSET),
    identify=identify,
    product_offset=product_offset,
    number_rule=number_rule,
    to_stored=to_stored,
    constellation="sentinel-2",
    instruments=("msi",),
    provider=("ESA", "https://sentinels.copernicus.eu"),
    terms="https://sentinels.copernicus.eu/documents/247904/690755/Sentinel_Data_Legal_Notice",
    platforms={f"2{unit}": f"sentinel-2{unit.lower()}" for unit in "ABCD"},
    # The grid it is on (CDSE), and what GDAL's SENTINEL2 driver adds.
    suffix=r"_(?:10|20|60)m$|, central wavelength \d+ nm$",
)
