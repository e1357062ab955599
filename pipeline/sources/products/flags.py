"""Masks of bits that products carry instead of scene classes: a raster of flags in, Sentinel-2's classes out.

Its address is flags-KIND: before that of the raster; no catalogue can name one.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsup.models.base.errors import SceneError
from rsup.models.sensors.profile import Sensor
from rsup.pipeline.sources import asset_file
from rsup.pipeline.sources.asset_file import Header

UNKNOWN, SHADE, SHADOW, WATER, DOUBT, CLOUD, CIRRUS, SNOW = 7, 2, 3, 6, 8, 9, 10, 11
"""Classes of SCL: unclassified, dark area, cloud shadow, water, cloud of medium and high probability, cirrus, snow."""

KINDS: dict[str, tuple[tuple[tuple[int, int], ...], int | None]] = {
    # Theia's MG2: water, cloud, snow, shadow of clouds, shadow of mountains; the others speak of slopes.
    "theia": (((0, WATER), (4, SHADE), (2, SNOW), (3, SHADOW), (1, CLOUD)), None),
    # HLS's Fmask: cirrus, cloud, beside cloud or shadow, shadow, snow or ice, water; then aerosol.
    "hls": (((5, WATER), (4, SNOW), (2, DOUBT), (3, SHADOW), (0, CIRRUS), (1, CLOUD)), 255),
}
"""By their names: bits and their classes, a later one over an earlier one; and the number of no data."""
_PREFIX = re.compile(r"flags-([a-z]+):")


def href_of(kind: str, href: str) -> str:
    """The address of a raster of flags of one of KINDS."""
    return f"flags-{kind}:{href}"


def is_flags(href: str) -> bool:
    """Whether it is such an address."""
    return bool(_PREFIX.match(href))


def classes_of(kind: str, flags: NDArray[Any]) -> NDArray[np.uint8]:
    """Scene classes of flags, unclassified where no flag is set that means one."""
    bits, nothing = KINDS[kind]
    found = np.full(flags.shape, UNKNOWN, np.uint8)
    for bit, name in bits:
        found[(flags >> bit) & 1 == 1] = name
    if nothing is not None:
        found[flags == nothing] = 0
    return found


def read_header(label: str, href: str, sensor: Sensor, fresh: bool) -> Header:
    """As asset_file's, of the classes. Raises SceneError where the raster holds anything but bytes, too."""
    header = asset_file.read_header(label, _PREFIX.sub("", href), sensor, fresh)
    if header.dtype != "uint8":
        raise SceneError(f"{label}: its mask is {header.dtype}, not a byte of flags; get the product anew")
    return replace(header, nodata=None)


def read_window(href: str, header: Header, rows: slice, cols: slice, fresh: bool) -> NDArray[Any]:
    """Classes [y, x] in `rows` and `cols`."""
    match = _PREFIX.match(href)
    assert match is not None
    return classes_of(match[1], asset_file.read_window(href[match.end() :], header, rows, cols, fresh))


def read_coarse(href: str, header: Header, fresh: bool) -> NDArray[Any]:
    """Some of the flags, from all over it."""
    return asset_file.read_coarse(_PREFIX.sub("", href), header, fresh)
