"""Items as fetch knows them, and which of them are one acquisition seen twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain
from typing import Any

from rsup.models.sensors.profile import Sensor
from rsup.pipeline.sources.footprint import Footprint

PASS = timedelta(minutes=30)
"""A platform is over a tile again after an orbit, 100 minutes, at the earliest; parts of one pass lie closer."""
TOGETHER = timedelta(seconds=5)
"""Sensing times of one acquisition differ by a second or two between listings and baselines."""
ALIKE = 0.5
"""Footprints that share more of their ground than this are one part of a tile; parts of a pass meet at their edges."""


@dataclass(frozen=True)
class ItemReference:
    """One item: what fetch needs of it."""

    sensor: Sensor
    id: str
    collection: str | None
    datetime: str
    """ISO 8601, UTC."""
    cloud: float | None
    """Percent; None where the item does not say."""
    platform: str | None
    """Which of the sensor's satellites."""
    tile: str | None
    segment: str | None
    """Sensing start of the datastrip, YYYYMMDDTHHMMSS."""
    baseline: str | None
    generation: tuple[str, ...]
    """What tells a later product of one baseline from an earlier one."""
    geometry: Footprint | None
    hrefs: dict[str, str]
    """Where the asset of each band asked for is read, of the evidence band, and of the classes where there are any:
    addresses with whatever login and signature the catalogue gave them, or paths. Never to be stored."""
    assets: dict[str, dict[str, Any]]
    """What the item says of the same files: `raster:bands`, `file:size`, `file:checksum`, whichever it has."""
    evidence_band: str
    """Whose dark pixels and metadata say which offset the item carries; the same whatever bands are asked for."""
    product_metadata: str | None
    """Where the product's own metadata are read, if the item has them."""
    properties: dict[str, Any]
    """Those that speak of processing."""
    public_href: str | None = None
    """The item itself, to be stored: without secrets; relative to the catalogue where that is a folder."""
    public_hrefs: dict[str, str] = field(default_factory=dict)
    """`hrefs`, to be stored."""
    offsets: dict[str, int] = field(default_factory=dict)
    """Of each band, in numbers, as the product's own metadata state them beyond doubt; none of a catalogue's item."""
    stated: tuple[str, ...] = ()
    """Their words, as evidence."""
    spares: tuple[ItemReference, ...] = field(default=(), repr=False)
    """What else shows the same acquisition, best first, should this one's files be gone."""


@dataclass(frozen=True)
class LeftOut:
    """An item that answers the request and lacks what is needed of it."""

    id: str
    reason: str
    """A sentence that names it, without secrets."""
    blind: bool = False
    """Whether what it lacks is the scene classification, which not every request needs."""

    def to_dict(self) -> dict[str, str]:
        """As scenes and mosaics record it."""
        return {"id": self.id, "reason": self.reason}


def distinct(items: Iterable[ItemReference]) -> list[ItemReference]:
    """Drop items that show an acquisition that a better item shows: each has one vote, however often it is listed.

    The better one keeps them as its spares.

    Better is the higher baseline, then the later product, then the later id. One acquisition is what a platform saw of
    a tile in one pass; downlink segments, which share the tile's ground between them, are told apart by their
    datastrips or else by their footprints.
    """
    kept: dict[str | None, list[ItemReference]] = defaultdict(list)
    spares: dict[str, list[ItemReference]] = defaultdict(list)
    for item in sorted(items, key=_goodness, reverse=True):
        near = chain(*kept.values()) if item.tile is None else chain(kept[item.tile], kept[None])
        better = next((each for each in near if _same_acquisition(item, each)), None)
        if better is None:
            kept[item.tile].append(item)
        elif item.id != better.id:
            spares[better.id].append(item)
    best = chain(*kept.values())
    return [replace(item, spares=tuple(spares[item.id])) if item.id in spares else item for item in best]


def _goodness(item: ItemReference) -> tuple[str, tuple[str, ...], str]:
    return item.baseline or "", item.generation, item.id


def _same_acquisition(one: ItemReference, other: ItemReference) -> bool:
    if one.id == other.id:
        return True
    apart = abs(datetime.fromisoformat(one.datetime) - datetime.fromisoformat(other.datetime))
    if one.platform is None or other.platform is None:
        near = apart <= TOGETHER
    else:
        near = apart <= PASS and one.platform == other.platform
    if not near:
        return False
    alike = None
    if one.geometry is not None and other.geometry is not None:
        alike = one.geometry.overlap(other.geometry) > ALIKE
    if one.tile is None or other.tile is None:
        return bool(alike) and apart <= TOGETHER
    if one.tile != other.tile:
        return False
    if one.segment is not None and other.segment is not None:
        return abs(datetime.fromisoformat(one.segment) - datetime.fromisoformat(other.segment)) <= TOGETHER
    return alike is not False
