"""What `rsup fetch` was asked: options in, a checked request out, or an ArgumentError that names the option."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from rsup.models.base.errors import ArgumentError
from rsup.models.sensors import DEFAULT, sensor_of
from rsup.models.sensors.profile import Sensor
from rsup.pipeline.lattice import Window
from rsup.pipeline.public import public_address

from .footprint import Box, utm_of
from .stac.documents import CATALOG_FILE
from .stac.interval import interval
from .stac.items import ItemReference

Composite = Literal["first", "median"]


@dataclass(frozen=True)
class FetchRequest:
    """Options of `rsup fetch`, as given; what follows from them is checked and worked out at once."""

    bbox: tuple[float, ...]
    """West, south, east, north in degrees; west > east crosses the antimeridian."""
    date: str | None
    """A date or time, or two of them with a slash; `..` leaves an end open (stac/interval.py). None for any date."""
    output: Path
    catalog: str = "earth-search"
    collection: str = DEFAULT.collections[0]
    max_cloud: float = 20.0
    """Percent of the whole item."""
    bands: tuple[str, ...] = ("red", "green", "blue")
    composite: str = "first"
    """`first`: each pixel from the least cloudy item that has it; `median`: of all items, band by band."""
    mask_clouds: bool = False
    """Leave out what the scene classification calls cloud, cirrus, shadow or saturated."""
    crs: str | None = None
    """Output UTM zone as "EPSG:32633"; None for that of the bbox's centre."""
    offset: str = "auto"
    """`auto`: by each item's evidence. Else one of the sensor's for all items, whatever they say, and `ID=VALUE` for
    one of them; separated by commas."""
    strict: bool = False
    """Whether an item that lacks something ends the run; else it is left out."""
    overwrite: bool = False
    chunk: int = 1024
    """Side of a chunk of the store, in pixels."""
    items: tuple[ItemReference, ...] = ()
    """Of products, best first, in the place of a catalogue's."""
    ground: Window | None = None
    """What is asked for where that is no bbox: `bbox` then lies around it."""
    box: Box = field(init=False, compare=False)
    utm: str = field(init=False, compare=False)
    start: datetime | None = field(init=False, compare=False)
    end: datetime | None = field(init=False, compare=False)
    offsets: dict[str | None, int] = field(init=False, compare=False)
    """What `offset` says of items by their ids, and under None of all others."""

    def __post_init__(self) -> None:
        def settle(name: str, value: object) -> None:
            object.__setattr__(self, name, value)  # the dataclass is frozen for everyone else

        settle("box", Box.of(tuple(self.bbox)))
        settle("utm", utm_of(self.box) if self.crs is None else _utm(self.crs))
        start, end = (None, None) if self.date is None else interval(self.date)
        settle("start", start)
        settle("end", end)
        settle("bands", tuple(self.sensor.common_name(band) or band for band in self.bands))
        known = [band.name for band in self.sensor.bands]
        unknown = [band for band in self.bands if band not in known]
        if unknown or not self.bands:
            raise ArgumentError(f"--bands {','.join(unknown)}: choose from {', '.join(known)}")
        if len(set(self.bands)) < len(self.bands):
            raise ArgumentError(f"--bands {','.join(self.bands)} names a band twice")
        if self.composite not in ("first", "median"):
            raise ArgumentError(f"--composite {self.composite}: choose first or median")
        settle("offsets", _offsets(self.offset, self.sensor))
        if not 0 <= self.max_cloud <= 100:
            raise ArgumentError(f"--max-cloud {self.max_cloud:g} is no percentage: choose 0 to 100")
        if not 64 <= self.chunk <= 8192:
            raise ArgumentError(f"--chunk {self.chunk}: choose 64 to 8192 pixels")

    @property
    def public_catalog(self) -> str:
        """`catalog` as it may be stored: without secrets, and without the folders of this machine; "" for products."""
        if self.items:
            return ""
        if "://" in self.catalog:
            return public_address(self.catalog)
        return CATALOG_FILE if Path(self.catalog).is_dir() else Path(self.catalog).name

    @property
    def sensor(self) -> Sensor:
        """Whose collection it is."""
        return sensor_of(self.collection)

    def wanted_offset(self, item_id: str) -> int | None:
        """What the user decided of an item; None where its evidence decides."""
        return self.offsets.get(item_id, self.offsets.get(None))

    def check_offsets(self, items: Iterable[str]) -> None:
        """Raise ArgumentError where `offset` speaks of an item that is none of those found."""
        if unknown := sorted({name for name in self.offsets if name is not None} - set(items)):
            raise ArgumentError(
                f"--offset {unknown[0]}=...: no item of that id is found; --dry-run lists those that are"
            )


def _offsets(text: str, sensor: Sensor) -> dict[str | None, int]:
    """By item id; under None for all the others. Raises ArgumentError."""
    known = {str(offset): offset for offset in sensor.offsets}
    made: dict[str | None, int] = {}
    for part in (part.strip() for part in text.split(",")):
        name, found, value = part.rpartition("=")
        key = name.strip() if found else None
        if part == "auto" and key not in made:
            continue
        if value.strip() not in known or key == "":
            raise ArgumentError(f"--offset {part}: choose auto, {' or '.join(known)}, or ID=VALUE for one item")
        if key in made:
            raise ArgumentError(f"--offset {part}: decides twice of {'the same item' if key else 'all items'}")
        made[key] = known[value.strip()]
    return made


def _utm(crs: str) -> str:
    match = re.fullmatch(r"(?i:epsg:)?(32[67])(\d\d)", crs.strip(), re.ASCII)
    if not match or not 1 <= int(match.group(2)) <= 60:
        raise ArgumentError(f"--crs {crs}: give a UTM zone on WGS 84, EPSG:32601-32660 or EPSG:32701-32760")
    return f"EPSG:{match.group(1)}{match.group(2)}"
