"""XML of strangers: elements without namespaces, and no entity of any kind."""

import time
from xml.etree import ElementTree

import pytest
from safes import metadata

from rsup.pipeline.sources.products.safe.xml import first, parse, texts


def test_elements_are_those_of_another_parser_without_namespaces() -> None:
    text = metadata("a")
    ours, theirs = parse(text.encode()), ElementTree.fromstring(text.partition("?>")[2])
    assert [each.tag for each in ours.iter()] == [each.tag.rpartition("}")[2] for each in theirs.iter()]
    assert [each.attrib for each in ours.iter()] == [each.attrib for each in theirs.iter()]
    assert [(each.text or "").strip() for each in ours.iter()] == [(each.text or "").strip() for each in theirs.iter()]
    assert first(ours, "NOTHING", "PRODUCT_URI") == "a.SAFE"
    assert len(list(texts(ours, "BOA_ADD_OFFSET"))) == 13


LAUGHS = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f'<!DOCTYPE a [<!ENTITY e0 "ha">{LAUGHS}]><a>&e11;</a>', "declares a document type"),
        ('<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><a>&e;</a>', "declares a document type"),
        ('<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd"><a/>', "declares a document type"),
        ('<!DOCTYPE a [<!ENTITY % p SYSTEM "file:///etc/passwd">%p;]><a/>', "declares a document type"),
        ("<a>&undeclared;</a>", "is no XML"),
        ("<a>" * 100 + "</a>" * 100, "deeper"),
        ("<a><b></a>", "is no XML"),
        ("", "is no XML"),
        ("\0\1\2", "is no XML"),
        ('<?xml version="1.0" encoding="rot13"?><a/>', "is no XML"),
    ],
)
def test_what_could_harm_is_refused_at_once(text: str, sentence: str) -> None:
    start = time.monotonic()
    with pytest.raises(ValueError, match=sentence):
        parse(text.encode())
    assert time.monotonic() - start < 2
