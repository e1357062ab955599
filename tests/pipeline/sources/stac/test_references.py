"""What an item lacks: it is left out and named, and its acquisition is seen by the listing that has all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from catalogues import item, query, write_static

from rsup.models.base.errors import ArgumentError, CatalogError
from rsup.pipeline.sources.stac.catalog import ask, search


def assets(*keys: str) -> dict[str, Any]:
    return {key: {"href": f"https://example.org/{key}.tif"} for key in keys}


def test_items_that_lack_something_are_left_out_by_id(tmp_path: Path) -> None:
    path = write_static(
        tmp_path,
        item("whole"),
        item("no-green", assets=assets("red", "blue", "scl")),
        item("nothing", assets={}),
        item("blind", assets=assets("red", "green", "blue")),
        item("cloudy", cloud=99, assets={}),  # nobody asks it for anything
    )
    asked = query(path)
    listing = ask(asked)
    assert {found.id for found in listing.choose(asked)} == {"whole", "blind"}
    assert [(each.id, each.reason) for each in listing.left_out(asked)] == [
        ("no-green", "item no-green has no asset for band green (looked for green, B03, B03_10m)"),
        ("nothing", "item nothing has no asset for band red (looked for red, B04, B04_10m)"),
    ]
    masking = query(path, classified=True)
    assert [found.id for found in listing.choose(masking)] == ["whole"]
    assert [each.id for each in listing.left_out(masking)] == ["blind", "no-green", "nothing"]
    with pytest.raises(CatalogError, match="item no-green has no asset for band green .*B03_10m.$"):
        search(query(path, strict=True))


def test_the_listing_of_an_acquisition_that_has_all_is_taken(tmp_path: Path) -> None:
    """Though the other one is of a later baseline."""
    same = {"grid:code": "MGRS-33TWL", "platform": "sentinel-2b"}
    path = write_static(
        tmp_path,
        item("old", properties=same | {"s2:processing_baseline": "04.00"}),
        item("new", properties=same | {"s2:processing_baseline": "05.00"}, assets=assets("red", "scl")),
    )
    assert [found.id for found in search(query(path))] == ["old"]
    assert [found.id for found in search(query(path, bands=("red",)))] == ["new"]


def test_where_none_is_left_the_first_is_named(tmp_path: Path) -> None:
    path = write_static(tmp_path, item("b", assets=assets("red")), item("a", assets=assets("red")))
    with pytest.raises(CatalogError, match="catalog.json item a has no .*; nor can any of the other 1 items be used"):
        search(query(path))
    blind = write_static(tmp_path / "blind", item("a", assets=assets("red", "green", "blue")))
    with pytest.raises(ArgumentError, match=r"--mask-clouds needs scene classification, which no item found has .a.;"):
        search(query(blind, classified=True))
