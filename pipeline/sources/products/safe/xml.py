"""Metadata of products in XML: bytes of a stranger in, elements without namespaces out.

No document type and so no entities, which could name files or grow without end; bounded in size and depth. Python's own
ElementTree expands entities, and can only be kept from it through what it is made of: expat.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

LARGEST = 16 << 20
"""Bytes of a document; those of a product have 60 kB, those of a granule 600."""
DEEPEST = 64
"""Elements within one another; those of a product come to ten."""
MOST = 500_000
"""Elements of a document."""


def parse(content: bytes) -> Element:
    """The root of a document, every tag without its namespace. Raises ValueError with the reason."""
    builder, parser = TreeBuilder(), expat.ParserCreate(namespace_separator=" ")
    depth = count = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, count
        depth, count = depth + 1, count + 1
        if depth > DEEPEST or count > MOST:
            raise ValueError("it has more elements, or deeper ones, than metadata have")
        builder.start(_plain(tag), {_plain(name): value for name, value in attributes.items()})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(_plain(tag))

    def refuse(*_: object) -> Any:
        raise ValueError("it declares a document type, and with it entities, which no product does")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = parser.UnparsedEntityDeclHandler = refuse
    try:
        parser.Parse(content, True)
        return builder.close()
    except (expat.ExpatError, AssertionError, LookupError) as error:
        raise ValueError(f"it is no XML: {error}") from error


def _plain(tag: str) -> str:
    return tag.rpartition(" ")[2]


def texts(root: Element, *names: str) -> Iterator[tuple[Element, str]]:
    """Every element of one of these names, with its text without spaces around; those without text are left out."""
    for element in root.iter():
        if element.tag in names and (text := (element.text or "").strip()):
            yield element, text


def first(root: Element, *names: str) -> str | None:
    """The text of the first element that has one, by names in the order in which they are tried."""
    return next((text for name in names for _, text in texts(root, name)), None)
