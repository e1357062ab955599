"""From a catalogue's address to every item document that may answer a question, wherever and however it lists them.

A STAC API is asked by its search; so is the API behind the address of one of its collections. Everything else is
walked: catalogues, collections, items, and feature collections with all of their pages. What a document leads to is
untrusted: pages and searches are asked of the catalogue's own server, by GET or POST, with nothing of the server's
choosing but a path, a query and a body; links to children may lead to other servers, by plain GET.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urljoin, urlsplit

from pystac_client.item_search import ItemSearch

from rsup.models.base.errors import CatalogError
from rsup.pipeline.public import printable, public_address
from rsup.pipeline.sources.footprint import Box

from .documents import Link, Node, problem
from .io import CatalogIO, elsewhere, is_inward, is_web, same_host

PAGE = 100
"""Items a page: Earth Search answers 500 above 267."""
PAGES = 500
"""Most pages of one feature collection."""
DEPTH = 32
"""Most catalogues below one another."""

Features = Iterator[tuple[dict[str, Any], str, bool]]
"""Item documents, each with the address of the document it was found in, and whether it is that document."""


@dataclass(frozen=True)
class Question:
    """What a server can be asked by itself; the answer is filtered again on this side, for not every server does."""

    collection: str
    box: Box
    interval: str
    """As RFC 3339, `..` for an open end."""

    def parameters(self, box: tuple[float, float, float, float], path: str) -> dict[str, str]:
        """The query of a page of features at `path`, as OGC API - Features and STAC API name it."""
        collections = {"collections": self.collection} if path.rstrip("/").endswith("/search") else {}
        return {"bbox": ",".join(map(str, box)), "datetime": self.interval, "limit": str(PAGE), **collections}


def features(io: CatalogIO, href: str, root: Path | None, question: Question) -> Features:
    """Every item document of the catalogue at `href` (URL, or path in the folder `root`) that may answer.

    Raises CatalogError where a document cannot be had or leads where it may not.
    """
    document = io.get(href)
    node = _node(document, href)
    if node.to("search"):
        yield from _search(io, node, href, question)
    elif node.type == "Collection" and root is None and (api := _api_of(io, node, href)):
        if node.id != question.collection:
            raise CatalogError(f"is the collection {printable(str(node.id))[:100]}: ask for it with --collection")
        yield from _search(io, *api, question)
    else:
        yield from _walk(io, document, href, root, question)


def resolve(href: str, base: str, root: Path | None) -> str:
    """The absolute form of an href in the document `base`, or CatalogError where it may not be followed.

    Catalogues are written by others: http(s) and s3 are followed, though not from elsewhere to this machine or its
    link (`is_inward`); files only by a local catalogue (`root` is its folder) and only inside that folder, links
    resolved; everything else, GDAL's virtual file systems included, not.
    """
    shown = repr(public_address(href))[:300]
    try:
        scheme = urlsplit(href).scheme
        joined = urljoin(base, href)
        if root is None and is_inward(joined) and not is_inward(base):
            raise CatalogError(f"it points to {shown}, inside this machine or its link; only what lies there may")
        if scheme in ("http", "https", "s3"):
            return href
        if root is None:
            if scheme or href.startswith("/vsi") or not is_web(joined):
                raise CatalogError(f"it points to {shown}; a remote catalogue may only name http(s) or s3 addresses")
            return joined
        path = unquote(urlsplit(href).path) if scheme == "file" else href
        if scheme not in ("", "file") or path.startswith("/vsi"):
            raise CatalogError(f"it points to {shown}, which is no http(s), s3 or file address")
        target = (Path(base).parent / path).resolve()
    except (ValueError, OSError, RuntimeError) as error:  # no URL, a NUL, too long, links in a circle
        raise CatalogError(f"it points to {shown}, which is no address ({error})") from error
    if not target.is_relative_to(root):
        raise CatalogError(f"it points to {shown}, outside its own folder {root}; move the file there")
    return str(target)


def _node(document: dict[str, Any], href: str) -> Node:
    try:
        return Node.model_validate(document)
    except ValueError as error:
        raise CatalogError(
            f"{printable(public_address(href))} is no STAC ({problem(error)}); check --catalog"
        ) from error


def _own(href: str, base: str) -> str:
    """The address a link leads to on the server that gave the document `base`; CatalogError where it is another's.

    It is asked with the scheme, the login and the port that the user gave: servers behind a proxy name others.
    """
    try:
        target = urljoin(base, href)
        if not same_host(base, target):
            raise CatalogError(f"leads to {elsewhere(target)}")
        here = urlsplit(base)
        return urlsplit(target)._replace(scheme=here.scheme, netloc=here.netloc).geturl()
    except ValueError as error:
        raise CatalogError(f"has a link to {href!r:.200}, which is no address") from error


def _api_of(io: CatalogIO, node: Node, href: str) -> tuple[Node, str] | None:
    """The landing page of the API that a collection's address belongs to, where it names one that can be searched."""
    for link in node.to("root"):
        address = _own(link.href, href)
        landing = _node(io.get(address), address)
        if landing.to("search"):
            return landing, address
    return None


def _search(io: CatalogIO, landing: Node, href: str, question: Question) -> Features:
    endpoints = landing.to("search")
    post = [link for link in endpoints if link.method == "POST"]
    address = _own((post or endpoints)[0].href, href.rstrip("/") + "/")
    for box in question.box.split():
        # Cloud is filtered on this side: servers differ in the query language they understand, and some answer
        # nothing at all to one they do not.
        asked = ItemSearch(
            url=address,
            method="POST" if post else "GET",
            limit=PAGE,
            bbox=box,
            datetime=question.interval,
            collections=[question.collection],
        )
        parameters: dict[str, Any] = asked.get_parameters()
        first = io.post(address, parameters) if post else io.get(address, parameters)
        yield from _pages(io, first, address, None, parameters if post else None)


def _pages(io: CatalogIO, page: dict[str, Any], href: str, root: Path | None, body: dict[str, Any] | None) -> Features:
    """The features of a page and of all that follow it; `body` is what it was asked for with, by POST."""
    asked, seen = {_key(href, body)}, 0
    while True:
        node = _node(page, href)
        for feature in node.features:
            yield feature, href, False
        link = next(iter(node.to("next")), None)
        if link is None:
            return
        seen += 1
        if seen == PAGES:
            raise CatalogError(
                f"has more than {PAGES} pages of items; narrow --bbox and --date, or name its API's root"
            )
        href, body = _next(link, href, root, body)
        if _key(href, body) in asked:
            return  # the server pages in circles
        asked.add(_key(href, body))
        page = io.get(href) if body is None else io.post(href, body)


def _key(href: str, body: dict[str, Any] | None) -> str:
    return href + json.dumps(body, sort_keys=True)


def _next(link: Link, href: str, root: Path | None, body: dict[str, Any] | None) -> tuple[str, dict[str, Any] | None]:
    """The address of the page a link leads to, and the body to ask it with; None for a GET."""
    method = str(link.method or "GET").upper()
    if method not in ("GET", "POST"):
        raise CatalogError(f"wants its next page asked by {printable(method)[:20]}; a search takes GET or POST")
    if root is not None:
        if method != "GET":
            raise CatalogError("has a next page that only its API can give; give that API's address to --catalog")
        return resolve(link.href, href, root), None
    if method == "GET":
        return _own(link.href, href), None
    given = link.body if isinstance(link.body, dict) else {}
    return _own(link.href, href), {**(body or {}), **given} if link.merge else given


def _walk(io: CatalogIO, document: dict[str, Any], href: str, root: Path | None, question: Question) -> Features:
    """The items of a static catalogue, depth first; each document is read once."""
    seen, found = {href}, False
    waiting = [(href, 0)]
    while waiting:
        href, depth = waiting.pop()
        if depth:
            document = io.get(href)
        folder = None if is_web(href) else root  # a local catalogue may lead to a remote one
        node = _node(document, href)
        if node.type == "Feature":
            found = True
            yield document, href, True
        elif node.type == "FeatureCollection":
            found = True
            yield from _asked(io, document, href, folder, question)
        elif node.type in ("Catalog", "Collection"):
            leads = [*node.to("child"), *node.to("item")] or node.to("items")
            targets = list(dict.fromkeys(resolve(link.href, href, folder) for link in leads))
            fresh = [target for target in targets if target not in seen]
            found |= bool(leads)
            if fresh and depth == DEPTH:
                raise CatalogError(f"has catalogues more than {DEPTH} deep; give one further down to --catalog")
            seen.update(fresh)
            waiting += [(target, depth + 1) for target in reversed(fresh)]
        else:
            shown = printable(public_address(href))
            raise CatalogError(f"{shown} is no STAC catalogue, collection or item; check --catalog")
    if not found:
        raise CatalogError("leads to no items and to no search: nothing could be looked for; check --catalog")


def _asked(io: CatalogIO, page: dict[str, Any], href: str, root: Path | None, question: Question) -> Features:
    """All features of a collection of them. A server that pages is asked again for the ground and dates alone."""
    if root is not None or not _node(page, href).to("next"):
        yield from _pages(io, page, href, root, None)
        return
    for box in question.box.split():
        parts = urlsplit(href)
        said = parse_qsl(parts.query, keep_blank_values=True)
        added = question.parameters(box, parts.path).items() - dict(said).items()
        query = [*said, *sorted((key, value) for key, value in added if key not in dict(said))]
        narrow = parts._replace(query=urlencode(query)).geturl()
        yield from _pages(io, io.get(narrow), narrow, None, None)
