"""STAC documents as others wrote them: JSON in, checked objects out; what is not as it must be is a ValueError.

This is where catalogues come in: the code behind meets only what these models promise. They hold what rsup uses and
ignore the rest. Texts are printable, dates in UTC, numbers finite, footprints such that shapely can work with them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from rsup.pipeline.public import printable
from rsup.pipeline.sources.footprint import Footprint

CATALOG_FILE = "catalog.json"
"""The root document of a static catalogue that is named by its folder."""
LONGEST_LABEL = 512
"""Characters of an id: names of files, tags and table cells are made of it."""


def _label(text: str) -> str:
    """An id or a name, for people: nothing in it that a terminal, a page or a TIFF tag obeys."""
    if not 0 < len(text) <= LONGEST_LABEL:
        raise ValueError(f"must have 1 to {LONGEST_LABEL} characters")
    return printable(text)


def _moment(text: Any) -> datetime:
    """A date and time in UTC, which it is meant in where it names no zone."""
    if not isinstance(text, str):
        raise ValueError("must be a text such as 2024-06-01T10:00:00Z")
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # year 1 at +14:00 lies before the calendar
        raise ValueError("is no date and time of the calendar") from None


def _footprint(value: Any) -> Footprint | None:
    """The geometry of an item; STAC allows none."""
    if value is not None and not isinstance(value, dict):
        raise ValueError("must be an object")
    return None if value is None else Footprint(value)


def _links(value: Any) -> list[Any]:
    """Those links that can be followed at all; what else a document lists there is nobody's harm."""
    entries = value if isinstance(value, list) else []
    return [each for each in entries if isinstance(each, dict) and {"rel", "href"} <= each.keys()]


Label = Annotated[str, AfterValidator(_label)]
Moment = Annotated[datetime, BeforeValidator(_moment)]


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, arbitrary_types_allowed=True)


class Link(_Document):
    """Where a document leads to."""

    rel: Any
    href: Any
    method: Any = "GET"
    body: Any = None
    merge: Any = False


class Node(_Document):
    """A catalogue, a collection, a page of items, or an item: what kind it is, and its links."""

    type: Any = None
    id: Any = None
    links: Annotated[tuple[Link, ...], BeforeValidator(_links)] = ()
    features: list[dict[str, Any]] = []
    """Of a FeatureCollection."""

    def to(self, rel: str) -> list[Link]:
        """The links of one relation."""
        return [link for link in self.links if link.rel == rel and isinstance(link.href, str)]


def _percent(value: Any) -> Any:
    """A number beyond 0..100 is how some catalogues say that nobody looked."""
    known = not isinstance(value, int | float) or 0 <= value <= 100 or value != value or abs(value) > 1e9
    return value if known else None


class Properties(_Document):
    """What a search is filtered by."""

    datetime: Moment | None = None
    start_datetime: Moment | None = None
    cloud: Annotated[float | None, Field(alias="eo:cloud_cover", ge=0, le=100), BeforeValidator(_percent)] = None
    """Percent; None where it is not known."""


class Dated(_Document):
    """An item as far as its date."""

    id: Label
    properties: Properties

    @property
    def moment(self) -> datetime:
        """When it was sensed. Raises ValueError where it does not say."""
        moment = self.properties.datetime or self.properties.start_datetime
        if moment is None:
            raise ValueError("properties.datetime: is missing")
        return moment


class Item(Dated):
    """An item as far as it decides whether it is wanted; its assets are looked at afterwards."""

    collection: Label | None = None
    geometry: Annotated[Footprint | None, BeforeValidator(_footprint)] = None


class RasterBand(_Document):
    """What an asset says of the numbers in one of its bands."""

    scale: Annotated[float | None, Field(ge=-1e6, le=1e6)] = None
    offset: Annotated[float | None, Field(ge=-1e6, le=1e6)] = None
    nodata: Annotated[float | Literal["nan", "inf", "-inf"] | None, Field(union_mode="left_to_right")] = None


class Asset(_Document):
    """A file of an item."""

    href: Annotated[str, Field(min_length=1, max_length=8192)]
    rasters: tuple[RasterBand, ...]
    """Of each band, by `raster:bands` (raster extension 1) and `bands` (2); the asset's own fields come last."""
    checksum: str | None = None
    """`file:checksum`: a multihash in hex."""
    size: Annotated[int | None, Field(ge=0, le=2**63)] = None
    """`file:size`, in bytes."""

    @model_validator(mode="before")
    @classmethod
    def _of_every_extension(cls, fields: Any) -> Any:
        if not isinstance(fields, dict):
            raise ValueError("must be an object")
        rows: list[dict[str, Any]] = []
        for key in ("raster:bands", "bands"):
            listed = fields.get(key) or []
            if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
                raise ValueError(f"{key} must be a list of objects")
            rows += listed
        described = [
            {key: row.get(f"raster:{key}", row.get(key)) for key in RasterBand.model_fields} for row in (*rows, fields)
        ]
        return {
            "href": fields.get("href"),
            "rasters": described,
            "checksum": fields.get("file:checksum"),
            "size": fields.get("file:size"),
        }

    def described(self) -> dict[str, Any]:
        """What it says, in the words of the raster and file extensions."""
        fields = {
            "raster:bands": [row.model_dump(exclude_none=True) for row in self.rasters],
            "file:checksum": self.checksum,
            "file:size": self.size,
        }
        return {name: value for name, value in fields.items() if value is not None}


def problem(error: ValueError) -> str:
    """The first thing that is wrong with a document, on one line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}"
    return str(error)
