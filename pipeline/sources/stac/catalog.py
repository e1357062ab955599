"""STAC catalogues: a question about ground, time and cloud in, references to distinct items out.

What a catalogue lists is filtered again on this side (not every server does) before anything more is asked of it; then
duplicates are dropped and the rest is sorted. What a catalogue says is untrusted: ids are labels and never paths.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

from rsup.models.base.errors import ArgumentError, CatalogError
from rsup.models.sensors.profile import Sensor
from rsup.pipeline.places import credentials
from rsup.pipeline.public import public_address
from rsup.pipeline.sources.footprint import Box

from .documents import CATALOG_FILE, Dated, Item, Node, problem
from .interval import stamp
from .io import CatalogIO, is_web
from .items import ItemReference, LeftOut, distinct
from .nearby import Nearby
from .references import Candidate, reference
from .search import Question, features

CATALOGS = {
    "earth-search": "https://earth-search.aws.element84.com/v1",
    "planetary-computer": "https://planetarycomputer.microsoft.com/api/stac/v1",
}


@dataclass(frozen=True)
class Query:
    """What is asked of a catalogue."""

    sensor: Sensor
    catalog: str
    """A name of CATALOGS, a URL, or the path of a catalogue file."""
    collection: str
    bbox: str
    """As the user wrote it, for what is said of it."""
    box: Box
    """The ground to be covered."""
    start: datetime | None
    end: datetime | None
    max_cloud: float
    """Percent of the whole item."""
    bands: tuple[str, ...]
    classified: bool = False
    """Whether items are of no use without their scene classification."""
    strict: bool = False
    """Whether an item that lacks something ends the search; else it is left out."""


class NothingFoundError(CatalogError):
    """A catalogue that answers, and has nothing for the question."""

    def __init__(self, sentence: str, newest: datetime | None) -> None:
        """`newest`: when the last of the items was sensed that are there and too cloudy; None where there is none."""
        super().__init__(sentence)
        self.newest = newest


@dataclass(frozen=True)
class Listing:
    """What a catalogue listed for a question; it answers every question about less of the same ground and time."""

    root: Path | None
    """The folder that a local catalogue may not leave."""
    candidates: tuple[Candidate, ...]
    _read: dict[tuple[object, ...], ItemReference | LeftOut] = field(default_factory=dict, compare=False)
    """What has been asked for already."""
    _sorted: dict[tuple[object, ...], tuple[list[ItemReference], list[LeftOut]]] = field(
        default_factory=dict, compare=False
    )
    """What has been chosen already: neighbouring ground has the same items."""

    @cached_property
    def _nearby(self) -> Nearby:
        return Nearby([each.item.geometry for each in self.candidates])

    def choose(self, query: Query) -> list[ItemReference]:
        """Distinct items that meet the query, least cloud first, then by date and id.

        Raises NothingFoundError where there is none, ArgumentError where none has what `query` needs beside bands, and
        CatalogError for one that is not as it must be, or where none is left of those that lack something.
        """
        return list(self._chosen(query)[0])

    def left_out(self, query: Query) -> list[LeftOut]:
        """The items that would meet the query as well, had they what it needs, by id. Raises as `choose`."""
        return list(self._chosen(query)[1])

    def _chosen(self, query: Query) -> tuple[list[ItemReference], list[LeftOut]]:
        near = self._nearby.around(query.box)
        listed = tuple(number for number in near if _is_asked_for(self.candidates[number].item, query))
        asked = listed, query.collection, query.bands, query.max_cloud, query.classified, query.strict
        if asked not in self._sorted:
            self._sorted[asked] = self._best([self.candidates[number] for number in listed], query)
        return self._sorted[asked]

    def _best(self, listed: list[Candidate], query: Query) -> tuple[list[ItemReference], list[LeftOut]]:
        """Of those that meet the query, but for their cloud."""
        clear = [each for each in listed if (each.item.properties.cloud or 0.0) <= query.max_cloud]
        if not clear:
            cloudy = [each.item for each in listed]
            newest = max((item.moment for item in cloudy), default=None)
            raise NothingFoundError(f"{public_address(query.catalog)} {_nothing_found(query, cloudy)}", newest)
        with _naming(query.catalog):
            read = [self._reference(each, query) for each in clear]
            found = [each for each in read if isinstance(each, ItemReference)]
            lacking = sorted((each for each in read if isinstance(each, LeftOut)), key=lambda each: each.id)
            if lacking and (query.strict or not found):
                _refuse(lacking, found)
        unknown_last = 101.0
        best = sorted(
            distinct(found),
            key=lambda item: (unknown_last if item.cloud is None else item.cloud, item.datetime, item.id),
        )
        return best, lacking

    def _reference(self, each: Candidate, query: Query) -> ItemReference | LeftOut:
        asked = each.item.id, query.collection, query.bands, query.classified
        if asked not in self._read:
            self._read[asked] = reference(each, self.root, query.sensor, query.bands, query.classified)
        return self._read[asked]


def _refuse(lacking: list[LeftOut], found: list[ItemReference]) -> None:
    """Raise for items that lack something, where that ends the search."""
    if not found and all(each.blind for each in lacking):
        raise ArgumentError(
            f"--mask-clouds needs scene classification, which no item found has ({lacking[0].id}); do without it"
        )
    others = "" if found or len(lacking) == 1 else f"; nor can any of the other {len(lacking) - 1} items be used"
    raise CatalogError(f"{lacking[0].reason}{others}")


def search(query: Query) -> list[ItemReference]:
    """Distinct items that meet the query, least cloud first, then by date and id.

    Raises CatalogError where the catalogue cannot be asked, answers nonsense, or has nothing.
    """
    return ask(query).choose(query)


def ask(query: Query) -> Listing:
    """Everything over the query's ground in its time, whatever its cloud.

    Raises CatalogError where the catalogue cannot be asked or answers nonsense.
    """
    href, root = locate(query.catalog)
    credentials.trust(href if root is None else None)
    with _naming(query.catalog), CatalogIO() as io:
        return Listing(root, tuple(_candidates(io, href, root, query)))


@contextmanager
def _naming(catalog: str) -> Iterator[None]:
    """A sentence about a catalogue begins with its address."""
    try:
        yield
    except CatalogError as error:
        raise CatalogError(f"{public_address(catalog)} {error}") from error


def _is_asked_for(item: Item, query: Query) -> bool:
    """Whether its ground and time meet those of the query."""
    early = query.start is not None and item.moment < query.start
    late = query.end is not None and item.moment > query.end
    return not early and not late and (item.geometry is None or item.geometry.touches(query.box))


def locate(catalog: str) -> tuple[str, Path | None]:
    """URL or path of a catalogue's root document, and the folder a local one may not leave."""
    url = CATALOGS.get(catalog, catalog)
    with suppress(ValueError, OSError):  # no URL, whatever it looks like; too long for a file name
        if is_web(url):
            return url, None
        path = Path(catalog)
        path = path / CATALOG_FILE if path.is_dir() else path
        if path.is_file():
            path = path.resolve()
            return str(path), path.parent
    known = " nor ".join(CATALOGS)
    raise ArgumentError(
        f"--catalog {public_address(catalog)!r} is neither {known}, nor a URL, nor a file: give one of these"
    )


def _candidates(io: CatalogIO, href: str, root: Path | None, query: Query) -> Iterator[Candidate]:
    """The items of the collection, ground and time asked for, each once."""
    interval = "/".join(stamp(moment) if moment else ".." for moment in (query.start, query.end))
    seen: set[str] = set()
    question = Question(query.collection, query.box, interval)
    for document, found_in, alone in features(io, href, root, question):
        if document.get("collection") not in (None, query.collection):
            continue  # whatever else is wrong with it
        try:
            moment = Dated.model_validate(document).moment
            if (query.start and moment < query.start) or (query.end and moment > query.end):
                continue
            item = Item.model_validate(document)
        except ValueError as error:
            raise CatalogError(f"lists {_named(document)}, which is no STAC item ({problem(error)})") from error
        if item.id not in seen and (item.geometry is None or item.geometry.touches(query.box)):
            seen.add(item.id)
            address = found_in if alone else _self_address(document, found_in)
            yield Candidate(item, document, found_in if root or address is None else address, address)


def _named(document: dict[str, Any]) -> str:
    """An item that may be anything, for a sentence."""
    name = document.get("id")
    return f"item {name[:100]!r}" if isinstance(name, str) and name else "an item without an id"


def _self_address(document: dict[str, Any], found_in: str) -> str | None:
    """Where an item of a page of them says that it lies: http(s), whatever the page is."""
    for link in Node.model_validate({"links": document.get("links")}).to("self"):
        with suppress(ValueError):
            address: str = urljoin(found_in, link.href)
            if is_web(address):
                return address
    return None


def _nothing_found(query: Query, cloudy: list[Item]) -> str:
    date = "/".join(stamp(moment)[:10] if moment else ".." for moment in (query.start, query.end))
    asked = f"has no {query.collection} item over {query.bbox} in {date}"
    if not cloudy:
        return f"{asked}; widen --date, or check --bbox and --collection"
    least = min(item.properties.cloud or 0.0 for item in cloudy)
    return (
        f"{asked} with at most {query.max_cloud:g} % cloud; "
        f"the least cloudy of {len(cloudy)} has {least:.0f} %: raise --max-cloud or widen --date"
    )
