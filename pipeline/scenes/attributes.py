"""What a scene says of itself beyond its pixels, as far as rsup heeds it: the boundary that foreign attributes pass.

In: a store's attributes or a GeoTIFF's tags, any JSON at all. Out: items with known fields of known types, whose text
is printable and whose addresses are public; the area asked for; when it was taken. What is not understood of the items
counts as not said: in a store of somebody else's the name may mean anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WrapValidator
from pydantic_core.core_schema import ValidatorFunctionWrapHandler

from rsup.pipeline.public import printable, public_address

_SPANS = (
    ("time_coverage_start", "time_coverage_end"),  # ACDD 1.3
    ("start_datetime", "end_datetime"),  # STAC
    ("datetime", "datetime"),
    ("ACQUISITIONDATETIME", "ACQUISITIONDATETIME"),  # GDAL's domain IMAGERY
    ("TIFFTAG_DATETIME", "TIFFTAG_DATETIME"),  # "of image creation": the last to be asked
)
"""Where files keep when they were taken: first and last moment, the most telling first."""

T = TypeVar("T")


def _if_understood(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    try:
        return handler(value)
    except ValidationError:
        return None


def _objects(value: Any) -> Any:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


Text = Annotated[str, Field(max_length=4096), AfterValidator(printable)]
Address = Annotated[Text, AfterValidator(public_address)]
Lenient = Annotated[T | None, WrapValidator(_if_understood)]


class SourceItem(BaseModel):
    """One item that a scene was made of; a field that is no such thing counts as not said."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    id: Lenient[Text] = None
    collection: Lenient[Text] = None
    datetime: Lenient[Text] = None
    cloud: Lenient[Annotated[float, Field(ge=0, le=100)]] = None
    tile: Lenient[Text] = None
    href: Lenient[Address] = None
    baseline: Lenient[Text] = None
    offset: Lenient[Annotated[int, Field(ge=-65535, le=65535)]] = None
    evidence: Lenient[list[Text]] = None


class LeftOutItem(BaseModel):
    """An item that answered the request and lacked something."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    id: Lenient[Text] = None
    reason: Lenient[Text] = None


class SceneAttributes(BaseModel):
    """What is heeded of a scene's attributes."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    items: Annotated[list[SourceItem], BeforeValidator(_objects)] = Field(default_factory=list)
    left_out: Annotated[list[LeftOutItem], BeforeValidator(_objects)] = Field(default_factory=list)
    aoi: Annotated[list[Annotated[float, Field(allow_inf_nan=False)]], Field(min_length=4, max_length=4)] | None = None
    """West, south, east, north, in metres."""


def interval(words: Mapping[str, Any]) -> tuple[datetime, datetime] | None:
    """When an image was taken, first and last moment, by the file's own attributes or tags; None where it is silent."""
    for keys in _SPANS:
        first, last = (moment(words.get(key)) for key in keys)
        if first and last and first <= last:
            return first, last
    return None


def moment(text: Any) -> datetime | None:
    """A date and time in ISO 8601 or as TIFF writes it, in UTC; one without a zone counts as UTC."""
    if not isinstance(text, str):
        return None
    for form in (None, "%Y:%m:%d %H:%M:%S"):
        try:
            found = datetime.strptime(text.strip(), form) if form else datetime.fromisoformat(text.strip())
            return found.replace(tzinfo=found.tzinfo or UTC).astimezone(UTC)
        except (ValueError, OverflowError):  # the year 1 of a zone east of Greenwich is no year of UTC
            continue
    return None
