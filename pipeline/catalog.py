"""STAC catalogues: a question about ground, time and cloud in, references to distinct Sentinel-2 items out.

Searches APIs (pystac-client) and walks static catalogues, retries what is worth it, filters again on this side
(not every server does), drops duplicates and sorts. What a catalogue says is untrusted: hrefs are checked here,
ids are labels and never paths.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from pystac_client.exceptions import APIError
from pystac_client.item_search import ItemSearch
from pystac_client.stac_api_io import StacApiIO
from urllib3 import BaseHTTPResponse, Retry

from .errors import ArgumentError, CatalogError
from .footprint import Box, touches
from .sentinel2 import BANDS, SCL, datatake_of, processing_baseline, segment_of, tile_of

CATALOGS = {
    "earth-search": "https://earth-search.aws.element84.com/v1",
    "planetary-computer": "https://planetarycomputer.microsoft.com/api/stac/v1",
}
PAGE = 100
"""Items a page: Earth Search answers 500 above 267."""
TIMEOUT = (10.0, 30.0)
"""Seconds to connect and between two bytes."""
BACKOFF = 0.5
"""Seconds: waits of 0, 1, 2 and 4 before the four repetitions of a request."""
LONGEST_WAIT = 60
"""Seconds: a Retry-After beyond this is cut short, so that a search ends."""


@dataclass(frozen=True)
class Query:
    """What is asked of a catalogue."""

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
class ItemReference:
    """One Sentinel-2 item: what fetch needs of it, and nothing that expires."""

    id: str
    collection: str | None
    datetime: str
    """ISO 8601, UTC."""
    cloud: float | None
    """Percent; None where the item does not say."""
    tile: str | None
    datatake: str | None
    segment: str | None
    baseline: str | None
    geometry: dict[str, Any] | None
    href: str | None
    """The item itself."""
    hrefs: dict[str, str]
    """Asset of each band asked for, of the evidence band, and of `scl` where there is one; unsigned."""
    evidence_band: str
    """Whose dark pixels and metadata say which offset the item carries; the same whatever bands are asked for."""
    evidence_asset: dict[str, Any]
    product_metadata: str | None
    """MTD_MSIL2A.xml, where the item has it."""
    properties: dict[str, Any]
    """Those that speak of processing."""


class _BoundedRetry(Retry):
    """Retries with back-off, heeding Retry-After up to LONGEST_WAIT."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        seconds = super().get_retry_after(response)
        return None if seconds is None else min(seconds, LONGEST_WAIT)


class _CatalogIO(StacApiIO):
    """Reads a catalogue's documents; a local one may only name files inside its own folder."""

    def __init__(self) -> None:
        retry = _BoundedRetry(
            total=4,
            connect=2,
            read=1,
            backoff_factor=BACKOFF,
            status_forcelist=(429, 500, 502, 503, 504),
            allowed_methods=None,  # a search by POST changes nothing
            raise_on_status=False,
        )
        super().__init__(timeout=TIMEOUT, max_retries=retry)

    def document(self, href: str) -> dict[str, Any]:
        """The JSON object behind a URL or a path."""
        document = self.read_json(href)
        if not isinstance(document, dict):
            raise CatalogError(f"{href} is JSON but no STAC object; check --catalog")
        return document

    def json_loads(self, txt: str, *_: Any, **__: Any) -> dict[str, Any]:
        try:
            return json.loads(txt)  # type: ignore[no-any-return]
        except ValueError as error:
            start = " ".join(txt[:40].split())
            raise CatalogError(
                f"the catalogue answers something that is no JSON (it starts with {start!r}); check --catalog"
            ) from error


def search(query: Query) -> list[ItemReference]:
    """Distinct items that meet the query, least cloud first, then by date and id.

    Raises CatalogError where the catalogue cannot be asked, answers nonsense, or has nothing.
    """
    href, root = locate(query.catalog)
    try:
        found = [_reference(raw, base, root, query) for raw, base in _items(_CatalogIO(), href, root, query)]
    except CatalogError as error:
        raise CatalogError(f"{query.catalog}: {error}") from error
    except APIError as error:
        raise CatalogError(f"{query.catalog} {_reason(error)}") from error
    except OSError as error:
        raise CatalogError(f"{query.catalog}: cannot read {error.filename}: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # Not its repr, which may hold all that was answered.
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise CatalogError(f"{query.catalog} answers something that is no STAC ({reason}); check --catalog") from error
    candidates = [item for item in found if item is not None]
    clear = [item for item in candidates if item.cloud is None or item.cloud <= query.max_cloud]
    if not clear:
        raise CatalogError(_nothing_found(query, candidates))
    unknown_last = 101.0
    return sorted(
        distinct(clear), key=lambda item: (unknown_last if item.cloud is None else item.cloud, item.datetime, item.id)
    )


def locate(catalog: str) -> tuple[str, Path | None]:
    """URL or path of a catalogue's root document, and the folder a local one may not leave."""
    url = CATALOGS.get(catalog, catalog)
    with suppress(ValueError, OSError):  # no URL, whatever it looks like; too long for a file name
        if urlsplit(url).scheme in ("http", "https"):
            return url, None
        path = Path(catalog)
        path = path / "catalog.json" if path.is_dir() else path
        if path.is_file():
            path = path.resolve()
            return str(path), path.parent
    raise ArgumentError(
        f"--catalog {catalog!r} is neither {' nor '.join(CATALOGS)}, nor a URL, nor a file: give one of these"
    )


def resolve(href: str, base: str, root: Path | None) -> str:
    """The absolute form of an href in the document `base`, or CatalogError where it may not be followed.

    Catalogues are written by others: http(s) and s3 are followed; files only by a local catalogue (`root` is its
    folder) and only inside that folder, links resolved; everything else, GDAL's virtual file systems included, not.
    """
    scheme = urlsplit(href).scheme
    if scheme in ("http", "https", "s3"):
        return href
    if root is None:
        joined = urljoin(base, href)
        if scheme or href.startswith("/vsi") or urlsplit(joined).scheme not in ("http", "https"):
            raise CatalogError(f"it points to {href!r}; a remote catalogue may only name http(s) or s3 addresses")
        return joined
    path = urlsplit(href).path if scheme == "file" else href
    if scheme not in ("", "file") or path.startswith("/vsi"):
        raise CatalogError(f"it points to {href!r}, which is no http(s), s3 or file address")
    target = (Path(base).parent / path).resolve()
    if not target.is_relative_to(root):
        raise CatalogError(f"it points to {href!r}, outside its own folder {root}; move the file there")
    return str(target)


def distinct(items: Iterable[ItemReference]) -> list[ItemReference]:
    """Drop duplicates: by id, then by datatake, tile and downlink segment, keeping the highest baseline.

    Where an item names no segment, all of the highest baseline stay: they may be distinct segments.
    """
    by_id = {item.id: item for item in items}
    groups: dict[Any, list[ItemReference]] = {}
    for item in by_id.values():
        known = item.datatake is not None and item.tile is not None
        groups.setdefault((item.datatake, item.tile, item.segment) if known else item.id, []).append(item)
    kept: list[ItemReference] = []
    for group in groups.values():
        highest = max(item.baseline or "" for item in group)
        best = sorted((item for item in group if (item.baseline or "") == highest), key=_generation)
        kept += best[-1:] if best[0].segment else best
    return kept


def _generation(item: ItemReference) -> tuple[str, str]:
    """When the product was made, for telling the later of two of one baseline."""
    stamps = re.findall(r"\d{8}T\d{6}", str(item.properties.get("s2:product_uri", item.id)))
    return str(item.properties.get("s2:generation_time", "")), stamps[-1] if stamps else item.id


def _items(io: _CatalogIO, href: str, root: Path | None, query: Query) -> Iterator[tuple[dict[str, Any], str]]:
    """Every item document that may answer the query, with the address its relative hrefs start from."""
    document = io.document(href)
    links = document.get("links") or []
    endpoints = [link for link in links if link.get("rel") == "search"]
    if not endpoints:
        yield from _walk(io, document, href, root, {href})
        return
    post = [link for link in endpoints if link.get("method") == "POST"]
    address = resolve((post or endpoints)[0]["href"], href.rstrip("/") + "/", None)
    seen: set[str] = set()
    for box in query.box.split():
        found = ItemSearch(
            url=address,
            method="POST" if post else "GET",
            stac_io=io,
            limit=PAGE,
            max_items=None,
            bbox=box,
            datetime="/".join(_stamp(moment) or ".." for moment in (query.start, query.end)),
            collections=[query.collection],
            # Cloud is filtered on this side: servers differ in the query language they understand, and some
            # answer nothing at all to one they do not.
        )
        for page in found.pages_as_dicts():
            new = [feature for feature in page["features"] if feature["id"] not in seen]
            if not new:
                break  # the server pages in circles
            for feature in new:
                seen.add(feature["id"])
                own = [link["href"] for link in feature.get("links", ()) if link.get("rel") == "self"]
                yield feature, urljoin(address, own[0]) if own else address


def _walk(
    io: _CatalogIO, document: dict[str, Any], href: str, root: Path | None, seen: set[str]
) -> Iterator[tuple[dict[str, Any], str]]:
    """The items of a static catalogue, depth first; each document is read once."""
    kind = document.get("type")
    if kind == "Feature":
        yield document, href
    elif kind == "FeatureCollection":
        for feature in document["features"]:
            yield feature, href
    elif kind in ("Catalog", "Collection"):
        for link in document.get("links") or []:
            if link.get("rel") in ("child", "item"):
                target = resolve(link["href"], href, root)
                if target not in seen:
                    seen.add(target)
                    yield from _walk(io, io.document(target), target, root, seen)
    else:
        raise CatalogError(f"{href} is no STAC catalogue, collection or item; check --catalog")


def _reference(raw: dict[str, Any], base: str, root: Path | None, query: Query) -> ItemReference | None:
    """The item in rsup's words; None where it is of another collection, ground or time."""
    properties, item_id = raw["properties"], str(raw["id"])
    moment = _moment(properties.get("datetime") or properties.get("start_datetime"))
    if (
        raw.get("collection") not in (None, query.collection)
        or (query.start and moment < query.start)
        or (query.end and moment > query.end)
        or not touches(raw.get("geometry"), query.box)
    ):
        return None
    assets = raw["assets"]
    found = {band.name: key for band in (*BANDS.values(), SCL) for key in reversed(band.asset_keys) if key in assets}
    evidence = next((band for band in ("blue", "red", "green", *query.bands) if band in found), None)
    missing = [band for band in query.bands if band not in found]
    if missing or evidence is None:
        keys = ", ".join(BANDS[missing[0]].asset_keys)
        raise CatalogError(f"item {item_id} has no asset for band {missing[0]} (looked for {keys})")
    wanted = dict.fromkeys((*query.bands, evidence, *([SCL.name] if SCL.name in found else ())))
    try:
        hrefs = {band: _unsigned(resolve(assets[found[band]]["href"], base, root)) for band in wanted}
        xml = next((assets[key] for key in ("product_metadata", "product-metadata") if key in assets), None)
        metadata = _unsigned(resolve(xml["href"], base, root)) if xml else None
    except CatalogError as error:
        raise CatalogError(f"item {item_id!r}: {error}") from error
    cloud = properties.get("eo:cloud_cover")
    return ItemReference(
        id=item_id,
        collection=raw.get("collection"),
        datetime=_stamp(moment) or "",
        cloud=None if cloud is None else float(cloud),
        tile=tile_of(item_id, properties),
        datatake=datatake_of(item_id, properties),
        segment=segment_of(properties),
        baseline=processing_baseline(item_id, properties),
        geometry=raw.get("geometry"),
        href=base if base != query.catalog else None,
        hrefs=hrefs,
        evidence_band=evidence,
        evidence_asset=assets[found[evidence]],
        product_metadata=metadata,
        properties={k: v for k, v in properties.items() if k.split(":")[0] in ("s2", "earthsearch", "processing")},
    )


def _unsigned(href: str) -> str:
    """An Azure href without its signature, which expires in under an hour and is made anew when reading."""
    parts = urlsplit(href)
    azure = (parts.hostname or "").endswith(".blob.core.windows.net")
    return parts._replace(query="").geturl() if azure else href


def _moment(text: Any) -> datetime:
    """A STAC date and time, UTC where it names no zone."""
    moment = datetime.fromisoformat(str(text))
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _stamp(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _reason(error: APIError) -> str:
    """What went wrong with a request, in words."""
    status, text = getattr(error, "status_code", None), str(error)
    if status == 429:
        return "asks to be left alone for a while (HTTP 429); try again later"
    if status is not None:
        return f"answered HTTP {status}; " + ("try again later" if status >= 500 else "check --catalog")
    for sign, words in {
        "timed out": "did not answer in time; try again later",
        "refused": "refused the connection; check --catalog and that its server is running",
        "resolve": "has no address that can be resolved; check --catalog and the network",
    }.items():
        if sign in text:
            return words
    return f"cannot be reached ({text[:200]}); check --catalog and the network"


def _nothing_found(query: Query, cloudy: list[ItemReference]) -> str:
    date = "/".join((_stamp(moment) or "..")[:10] for moment in (query.start, query.end))
    asked = f"{query.catalog} has no {query.collection} item over {query.bbox} in {date}"
    if not cloudy:
        return f"{asked}; widen --date, or check --bbox and --collection"
    least = min(item.cloud or 0.0 for item in cloudy)
    return (
        f"{asked} with at most {query.max_cloud:g} % cloud; "
        f"the least cloudy of {len(cloudy)} has {least:.0f} %: raise --max-cloud or widen --date"
    )
