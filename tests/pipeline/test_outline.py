"""Edges against the rectangle they go round, and against pyproj point by point on both sides of the antimeridian."""

from __future__ import annotations

import numpy as np
import pytest
from pyproj import Transformer

from rsup.pipeline.lattice import Window
from rsup.pipeline.outline import ring, ring_in_degrees


@pytest.mark.parametrize("steps", [1, 4, 7])
def test_a_ring_goes_once_round_its_rectangle_anticlockwise(steps: int) -> None:
    x, y = ring((3.0, -2.0), (5.0, 7.0), steps)
    assert x.shape == y.shape == (4 * steps + 1,)
    assert (x[0], y[0]) == (x[-1], y[-1]) == (3.0, -2.0)
    corners = list(zip(x[::steps], y[::steps], strict=True))
    assert corners == [(3.0, -2.0), (8.0, -2.0), (8.0, 5.0), (3.0, 5.0), (3.0, -2.0)]
    lengths = np.hypot(np.diff(x), np.diff(y))
    np.testing.assert_allclose(lengths, np.repeat([5 / steps, 7 / steps] * 2, steps))
    assert ((x == 3) | (x == 8) | (y == -2) | (y == 5)).all()


@pytest.mark.parametrize(
    ("window", "crs", "crosses"),
    [
        (Window(-520_000, 50_000, 300, 4000), "EPSG:32633", False),
        (Window(-103_000, 10_000, 2000, 10_000), "EPSG:32601", True),
        (Window(-103_000, 78_000, 2000, 10_000), "EPSG:32660", True),
        (Window(-810_000, 15_000, 2000, 6000), "EPSG:32701", True),
    ],
)
def test_degrees_are_those_of_pyproj_and_go_on_beyond_the_antimeridian(window: Window, crs: str, crosses: bool) -> None:
    lon, lat = ring_in_degrees(window, crs, 12)
    west, south, east, north = window.bounds
    back = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform((lon + 180) % 360 - 180, lat)
    for found, expected in zip(back, ring((west, south), (east - west, north - south), 12), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-3)
    assert np.abs(np.diff(lon)).max() < 1 and lon.min() >= -180
    assert (lon.max() > 180) == crosses
