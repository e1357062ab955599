"""The index of footprints names every footprint that touches a box, wherever on the globe both lie, and few others."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rsup.pipeline.sources.footprint import Box, Footprint
from rsup.pipeline.sources.stac.nearby import Nearby


def square(west: float, south: float, side: float, turn: int = 0) -> dict[str, Any]:
    """A footprint as catalogues write it: on any turn of the globe."""
    west += 360 * turn
    ring = [(west, south), (west + side, south), (west + side, south + side), (west, south + side), (west, south)]
    return {"type": "Polygon", "coordinates": [ring]}


def cut(west: float, south: float, side: float) -> dict[str, Any]:
    """One that crosses the antimeridian, cut there in two (RFC 7946) or torn from -180 to 180."""
    parts = [square(west, south, 180 - west), square(-180, south, west + side - 180)]
    return {"type": "MultiPolygon", "coordinates": [part["coordinates"] for part in parts]}


degrees = st.floats(-180, 180)
footprints = st.one_of(
    st.builds(square, degrees, st.floats(-80, 70), st.floats(0.1, 9), st.integers(-1, 1)),
    st.builds(square, degrees, st.floats(-80, -10), st.floats(100, 200)),
    st.builds(cut, st.floats(171, 179.9), st.floats(-80, 70), st.floats(9, 10)),
)
boxes = st.builds(
    lambda west, south, width, height: Box(west, south, west + width, south + height),
    degrees, st.floats(-80, 80), st.floats(0.01, 5), st.floats(0.01, 5),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.none(), footprints), max_size=8), boxes)
def test_none_that_touches_is_left_out(geometries: list[dict[str, Any] | None], box: Box) -> None:
    known = []
    for each in geometries:
        try:
            known.append(None if each is None else Footprint(each))
        except ValueError:  # beyond the poles
            continue
    found = Nearby(known).around(box)
    assert found == sorted(set(found))
    assert {n for n, each in enumerate(known) if each is None or each.touches(box)} <= set(found)


def test_of_thousands_few_are_looked_at() -> None:
    corners = [(west, south) for west in np.arange(-180, 180, 6) for south in np.arange(-78, 78, 6)]
    index = Nearby([Footprint(square(west, south, 6)) for west, south in corners])
    for box in (Box(13.2, 52.2, 13.4, 52.4), Box(179.9, 0.1, 180.1, 0.3), Box(-179.9, 0.1, -179.8, 0.3)):
        assert 1 <= len(index.around(box)) <= 2
    assert Nearby([]).around(Box(0, 0, 1, 1)) == []
