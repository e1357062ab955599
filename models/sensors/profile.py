"""What a satellite's instrument is to rsup: the type of the one value that each file of this folder makes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

from rsup.models.base.errors import SceneError

from .response import Response


class UndecidedError(SceneError):
    """An item whose evidence does not say what its numbers mean: its user has to."""


@dataclass(frozen=True)
class Band:
    """One band, and what catalogues and files call it."""

    name: str
    """Common name."""
    gsd: int
    """Native ground sampling distance in metres."""
    asset_keys: tuple[str, ...]
    """Keys of its asset in STAC items, in the order in which they are tried."""
    aliases: tuple[str, ...] = ()
    """What else it is called at its own resolution."""
    response: Response | None = None
    """None where it is not known; of a sensor's first band it must be."""
    stac_name: str | None = None
    """What STAC's eo extension calls it, where that is not its common name here."""
    wavelength: float | None = None
    """Centre of what it sees, in micrometres; None where it is not known."""
    width: float | None = None
    """Full width of that at half its maximum, in micrometres."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of its names."""
        return tuple(dict.fromkeys((self.name, *self.asset_keys, *self.aliases)))


@dataclass(frozen=True)
class Classes:
    """A scene classification that comes with the bands."""

    band: Band
    names: tuple[str, ...]
    """Of the classes 0, 1, ..., where 0 is no data."""
    masked: tuple[int, ...]
    """What --mask-clouds drops."""
    dark: tuple[int, ...]
    """Ground that may be 0 in every band: shade, water."""


@dataclass(frozen=True)
class Identity:
    """Which acquisition an item shows, as far as it says so; None where it does not."""

    platform: str | None = None
    tile: str | None = None
    segment: str | None = None
    """Start of its downlink segment, YYYYMMDDTHHMMSS: parts of one pass over one tile differ in it."""
    baseline: str | None = None
    """Version of the processing; of two items of one acquisition the higher one is taken."""
    generation: tuple[str, ...] = ()
    """What tells a later product of one baseline from an earlier one: compared in order."""


@dataclass(frozen=True)
class Evidence:
    """All that is known of an item's numbers before it is said what they mean."""

    item_id: str
    properties: Mapping[str, Any]
    described: int | None
    """The offset that the STAC asset of a band claims, in numbers."""
    header: int | None
    """The offset in the file's own header, in numbers."""
    product: int | None
    """The offset in the product's own metadata, in numbers."""
    pixels: NDArray[np.uint16]
    """A coarse look at the whole item, numbers of the product; 0 where there is none."""


@dataclass(frozen=True)
class NumberRule:
    """What an item's numbers need: reflectance = (number + offset) / 10000."""

    offset: int
    shifted: bool = False
    """The archive changed the product's numbers: small ones may have wrapped around."""
    baseline: str | None = None
    evidence: tuple[str, ...] = ()
    """In words, for the scene's attributes."""
    by_user: bool = False
    """Decided by --offset, against whatever is declared."""
    overrules: bool = False
    """What is declared, or the dark pixels, say otherwise with one voice."""


@dataclass(frozen=True)
class Sensor:
    """One instrument. Its functions do no I/O."""

    name: str
    title: str
    """For people."""
    bands: tuple[Band, ...]
    """Those that rsup fetches."""
    classes: Classes | None
    collections: tuple[str, ...]
    """STAC collections of its items."""
    since: datetime
    """Of its first light: no image is older."""
    attribution: str
    """What its licence asks for, before the years of acquisition."""
    evidence_bands: tuple[str, ...]
    """In the order in which they are taken for what tells of an item's numbers."""
    kept_properties: tuple[str, ...]
    """Prefixes of the item properties that `identify` and `number_rule` look at."""
    metadata_assets: tuple[str, ...]
    """Keys of the asset with the product's own metadata."""
    offsets: tuple[int, ...]
    """What --offset may be given."""
    identify: Callable[[str, Mapping[str, Any]], Identity]
    """Item id, properties -> which acquisition it is."""
    product_offset: Callable[[str], int | None]
    """The product's metadata -> the offset they state; None where they state none."""
    number_rule: Callable[[Evidence, int | None], NumberRule]
    """What is known, and the user's --offset (None: auto) -> what the numbers need. Raises SceneError for evidence that
    disagrees or is none."""
    to_stored: Callable[[NDArray[np.uint16], NumberRule], NDArray[np.uint16]]
    """An item's pixels -> stored numbers (reflectance * 10000 + 1000); 0 stays nodata, valid never becomes 0."""
    suffix: str = r"\Z"
    """Expression for what may follow a band's name in files."""
    constellation: str | None = None
    """As STAC has it, and so the others: in small letters."""
    instruments: tuple[str, ...] = ()
    platforms: Mapping[str, str] = field(default_factory=dict)
    """By what `identify` calls them."""
    provider: tuple[str, str] | None = None
    """Name and address of who makes the items and licenses them."""
    terms: str | None = None
    """Address of that licence."""

    @property
    def classification(self) -> str | None:
        """The name of the classes' band, if there is one."""
        return self.classes.band.name if self.classes else None

    @property
    def layers(self) -> tuple[Band, ...]:
        """The bands, and the classes' after them."""
        return (*self.bands, self.classes.band) if self.classes else self.bands

    def band(self, name: str) -> Band:
        """The band, or the classification's, of a common name. Raises KeyError."""
        return self._bands[name]

    def native(self, gsd: int) -> tuple[str, ...]:
        """The bands it has at that ground sampling distance, natural colours first."""
        colours = ("red", "green", "blue")
        found = [band.name for band in self.bands if band.gsd == gsd]
        return tuple(sorted(found, key=lambda name: colours.index(name) if name in colours else len(colours)))

    def response(self, name: str) -> Response:
        """How it sees the band of that common name; as its first band, where nothing is known of the other.

        Raises ValueError where that of the first one is not known either: a sensor has to state it.
        """
        band = self._bands.get(name)
        response = (band and band.response) or self.bands[0].response
        if response is None:
            raise ValueError(f"{self.title} states the response of no band")
        return response

    def common_name(self, name: str) -> str | None:
        """The common name of what others call a band; None for what is none of this sensor's."""
        plain = name.strip().casefold()
        return self._spellings.get(plain) or self._spellings.get(re.sub(self.suffix, "", plain))

    @cached_property
    def _bands(self) -> dict[str, Band]:
        return {band.name: band for band in self.layers}

    @cached_property
    def _spellings(self) -> dict[str, str]:
        """Every name of a band, in small letters, to its common name."""
        return {name.casefold(): band.name for band in self._bands.values() for name in band.names}
