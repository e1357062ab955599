"""What `rsup fetch` was asked: options in, a checked request out, or an ArgumentError that names the option."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast

from rsup.models.base.errors import ArgumentError
from rsup.models.sensors import DEFAULT, sensor_of
from rsup.models.sensors.profile import Sensor
from rsup.pipeline.lattice import Window
from rsup.pipeline.public import public_address

from .footprint import Box, utm_of
from .stac.documents import CATALOG_FILE
from .stac.items import ItemReference

Composite = Literal["first", "median"]


@dataclass(frozen=True)
class FetchRequest:
    """Options of `rsup fetch`, as given; what follows from them is checked and worked out at once."""

    bbox: tuple[float, ...]
    """West, south, east, north in degrees; west > east crosses the antimeridian."""
    date: str | None
    """YYYY, YYYY-MM, YYYY-MM-DD, or two of them with a slash; `..` leaves an end open. UTC, ends included.
    None for any date."""
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
    """`auto`, or one of the sensor's for all items, whatever they say."""
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

    def __post_init__(self) -> None:
        def settle(name: str, value: object) -> None:
            object.__setattr__(self, name, value)  # the dataclass is frozen for everyone else

        settle("box", Box.of(tuple(self.bbox)))
        settle("utm", utm_of(self.box) if self.crs is None else _utm(self.crs))
        start, end = (None, None) if self.date is None else _interval(self.date)
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
        offsets = [str(offset) for offset in self.sensor.offsets]
        if self.offset not in ("auto", *offsets):
            raise ArgumentError(f"--offset {self.offset}: choose auto, {' or '.join(offsets)}")
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

    @property
    def wanted_offset(self) -> int | None:
        """`offset` as a number; None for auto."""
        return None if self.offset == "auto" else int(self.offset)


def _utm(crs: str) -> str:
    match = re.fullmatch(r"(?i:epsg:)?(32[67])(\d\d)", crs.strip())
    if not match or not 1 <= int(match.group(2)) <= 60:
        raise ArgumentError(f"--crs {crs}: give a UTM zone on WGS 84, EPSG:32601-32660 or EPSG:32701-32760")
    return f"EPSG:{match.group(1)}{match.group(2)}"


def _interval(text: str) -> tuple[datetime | None, datetime | None]:
    """First and last moment of a date or a range of dates."""
    parts = text.strip().split("/")
    if len(parts) > 2:
        raise ArgumentError(f"--date {text}: give one date, or two with a slash between")
    first, last = parts[0], parts[-1]
    if first in ("", "..") and last in ("", ".."):
        raise ArgumentError(f"--date {text}: at least one end must be a date")
    start = None if first in ("", "..") else _span(first, text)[0]
    end = None if last in ("", "..") else _span(last, text)[1]
    if start and end and start > end:
        raise ArgumentError(f"--date {text} is reversed: it ends before it starts")
    return start, end


def _span(date: str, text: str) -> tuple[datetime, datetime]:
    """First and last second of a year, month or day."""
    match = re.fullmatch(r"(\d{4})(?:-(\d\d)(?:-(\d\d))?)?", date.strip())
    try:
        if not match:
            raise ValueError
        year, month, day = (int(part) if part else None for part in match.groups())
        last_month = month or 12
        last_day = day or calendar.monthrange(cast(int, year), last_month)[1]
        start = datetime(cast(int, year), month or 1, day or 1, tzinfo=UTC)
        return start, datetime(cast(int, year), last_month, last_day, 23, 59, 59, 999999, tzinfo=UTC)
    except ValueError:  # of the calendar as well: no 31st of June
        raise ArgumentError(f"--date {text}: {date!r} is no date; write YYYY, YYYY-MM or YYYY-MM-DD") from None
