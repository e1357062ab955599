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
from urllib.parse import urljoin, urlsplit

from rsup.models.base.errors import ArgumentError, CatalogError
from rsup.models.sensors.profile import Sensor
from rsup.pipeline.public import public_address
from rsup.pipeline.sources.footprint import Box

from .documents import CATALOG_FILE, Asset, Dated, Item, Node, problem
from .io import CatalogIO, is_web
from .items import ItemReference, distinct
from .nearby import Nearby
from .search import Question, features, resolve

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


@dataclass(frozen=True)
class _Candidate:
    """An item that was asked for, its assets not looked at yet."""

    item: Item
    document: dict[str, Any]
    base: str
    """The address that its relative hrefs start from."""
    address: str | None
    """Where it lies itself; None where nothing says so."""


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
    candidates: tuple[_Candidate, ...]
    _read: dict[tuple[str, str, tuple[str, ...]], ItemReference] = field(default_factory=dict, compare=False)
    """What has been asked for already."""
    _sorted: dict[tuple[object, ...], list[ItemReference]] = field(default_factory=dict, compare=False)
    """What has been chosen already: neighbouring ground has the same items."""

    @cached_property
    def _nearby(self) -> Nearby:
        return Nearby([each.item.geometry for each in self.candidates])

    def choose(self, query: Query) -> list[ItemReference]:
        """Distinct items that meet the query, least cloud first, then by date and id.

        Raises NothingFoundError where there is none, and CatalogError for one that is not as it must be.
        """
        near = self._nearby.around(query.box)
        listed = tuple(number for number in near if _is_asked_for(self.candidates[number].item, query))
        asked = listed, query.collection, query.bands, query.max_cloud
        if asked not in self._sorted:
            self._sorted[asked] = self._best([self.candidates[number] for number in listed], query)
        return list(self._sorted[asked])

    def _best(self, listed: list[_Candidate], query: Query) -> list[ItemReference]:
        """Of those that meet the query, but for their cloud."""
        clear = [each for each in listed if (each.item.properties.cloud or 0.0) <= query.max_cloud]
        if not clear:
            cloudy = [each.item for each in listed]
            newest = max((item.moment for item in cloudy), default=None)
            raise NothingFoundError(f"{public_address(query.catalog)} {_nothing_found(query, cloudy)}", newest)
        with _naming(query.catalog):
            found = [self._reference(each, query) for each in clear]
        unknown_last = 101.0
        return sorted(
            distinct(found),
            key=lambda item: (unknown_last if item.cloud is None else item.cloud, item.datetime, item.id),
        )

    def _reference(self, each: _Candidate, query: Query) -> ItemReference:
        asked = each.item.id, query.collection, query.bands
        if asked not in self._read:
            self._read[asked] = _reference(each, self.root, query)
        return self._read[asked]


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


def _candidates(io: CatalogIO, href: str, root: Path | None, query: Query) -> Iterator[_Candidate]:
    """The items of the collection, ground and time asked for, each once."""
    interval = "/".join(_stamp(moment) or ".." for moment in (query.start, query.end))
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
            yield _Candidate(item, document, found_in if root or address is None else address, address)


def _named(document: dict[str, Any]) -> str:
    """An item that may be anything, for a sentence."""
    name = document.get("id")
    return f"item {name[:100]!r}" if isinstance(name, str) and name else "an item without an id"


def _reference(candidate: _Candidate, root: Path | None, query: Query) -> ItemReference:
    """The item in rsup's words. Raises CatalogError where it lacks a band or an asset is not as it must be."""
    item, document, base, sensor = candidate.item, candidate.document, candidate.base, query.sensor
    try:
        assets = document.get("assets")
        if not isinstance(assets, dict):
            raise CatalogError("assets: must be an object")
        keys = {band.name: key for band in sensor.layers for key in reversed(band.names) if key in assets}
        evidence = next((band for band in (*sensor.evidence_bands, *query.bands) if band in keys), None)
        missing = [band for band in query.bands if band not in keys]
        if missing or evidence is None:
            tried = ", ".join(sensor.band(missing[0]).asset_keys)
            raise CatalogError(f"has no asset for band {missing[0]} (looked for {tried})")
        classes = [sensor.classification] if sensor.classification in keys else []
        wanted = dict.fromkeys((*query.bands, evidence, *classes))
        described = {band: _asset(keys[band], assets[keys[band]]) for band in wanted}
        hrefs = {band: _unsigned(resolve(asset.href, base, root)) for band, asset in described.items()}
        xml = next((key for key in sensor.metadata_assets if key in assets), None)
        metadata = _unsigned(resolve(_asset(xml, assets[xml]).href, base, root)) if xml else None
    except CatalogError as error:
        raise CatalogError(f"item {item.id} {error}") from error
    properties = document["properties"]
    identity = sensor.identify(item.id, properties)
    return ItemReference(
        sensor=sensor,
        id=item.id,
        collection=item.collection,
        datetime=_stamp(item.moment) or "",
        cloud=item.properties.cloud,
        platform=identity.platform,
        tile=identity.tile,
        segment=identity.segment,
        baseline=identity.baseline,
        generation=identity.generation,
        geometry=item.geometry,
        hrefs=hrefs,
        assets={band: asset.described() for band, asset in described.items()},
        evidence_band=evidence,
        product_metadata=metadata,
        properties={k: v for k, v in properties.items() if k.split(":")[0] in sensor.kept_properties},
        public_href=None if candidate.address is None else _stored(candidate.address, root),
        public_hrefs={band: _stored(address, root) for band, address in hrefs.items()},
    )


def _self_address(document: dict[str, Any], found_in: str) -> str | None:
    """Where an item of a page of them says that it lies: http(s), whatever the page is."""
    for link in Node.model_validate({"links": document.get("links")}).to("self"):
        with suppress(ValueError):
            address: str = urljoin(found_in, link.href)
            if is_web(address):
                return address
    return None


def _asset(key: str, fields: Any) -> Asset:
    try:
        return Asset.model_validate(fields)
    except ValueError as error:
        raise CatalogError(f"has an asset {key} that is not as STAC has it ({problem(error)})") from error


def _stored(address: str, root: Path | None) -> str:
    """An address as it may be stored: without secrets, and relative to the folder of a local catalogue."""
    path = Path(address)
    return path.relative_to(root).as_posix() if root and path.is_relative_to(root) else public_address(address)


def _unsigned(href: str) -> str:
    """An Azure href without its signature, which expires in under an hour and is made anew when reading."""
    parts = urlsplit(href)
    azure = (parts.hostname or "").endswith(".blob.core.windows.net")
    return parts._replace(query="").geturl() if azure else href


def _stamp(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def _nothing_found(query: Query, cloudy: list[Item]) -> str:
    date = "/".join((_stamp(moment) or "..")[:10] for moment in (query.start, query.end))
    asked = f"has no {query.collection} item over {query.bbox} in {date}"
    if not cloudy:
        return f"{asked}; widen --date, or check --bbox and --collection"
    least = min(item.properties.cloud or 0.0 for item in cloudy)
    return (
        f"{asked} with at most {query.max_cloud:g} % cloud; "
        f"the least cloudy of {len(cloudy)} has {least:.0f} %: raise --max-cloud or widen --date"
    )
