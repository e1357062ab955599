"""The country's layout: irregular regions, what each is used for, and the ways along their borders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .noise import mix, uniform

if TYPE_CHECKING:
    from numpy.typing import NDArray

CELL = 620.0
"""Mean distance between the centres of neighbouring regions, metres."""
FIELDS, VILLAGE, LAKE, WOOD = range(4)
"""Uses of a region."""

# i + 4 j modulo 13 takes all its values in every 4 x 4 block of regions: any 2.5 km of country has every use.
_USES = np.array([VILLAGE, FIELDS, WOOD, LAKE, FIELDS, FIELDS, VILLAGE, FIELDS, FIELDS, WOOD, FIELDS, FIELDS, FIELDS])


@dataclass(frozen=True)
class Regions:
    """The regions of one window: k of them, and for each of n points the one it lies in."""

    index: NDArray[np.intp]
    """Region of each point, [n]."""
    border: NDArray[np.float32]
    """Metres from each point to its region's border, [n]."""
    frontier: NDArray[np.uint32]
    """Hash of each point's nearest border, the same seen from either side, [n]."""
    use: NDArray[np.intp]
    """FIELDS, VILLAGE, LAKE or WOOD of each region, [k]."""
    bits: NDArray[np.uint32]
    """Hash of each region, [k]."""
    centre: NDArray[np.float32]
    """x, y of each region's centre, [k, 2]."""

    def frame(
        self, points: NDArray[np.intp], x: NDArray[np.float32], y: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Coordinates u, v of the points x, y, turned by their own region's angle and centred on it."""
        k = self.index[points]
        angle = (uniform(self.bits, 11) * np.float32(np.pi))[k]
        dx, dy = x - self.centre[k, 0], y - self.centre[k, 1]
        cosine, sine = np.cos(angle), np.sin(angle)
        return cosine * dx + sine * dy, cosine * dy - sine * dx


def regions_at(x: NDArray[np.float32], y: NDArray[np.float32], seed: int) -> Regions:
    """The regions at points x, y (metres, [n]): Voronoi cells of a jittered grid.

    Centres up to two cells away are looked at, which include the nearest two of any point, so the answer does
    not depend on which other points are asked for at once.
    """
    columns = np.arange(np.floor(x.min() / CELL) - 2, np.floor(x.max() / CELL) + 3).astype(np.int64)
    rows = np.arange(np.floor(y.min() / CELL) - 2, np.floor(y.max() / CELL) + 3).astype(np.int64)
    i, j = (grid.ravel() for grid in np.meshgrid(columns, rows))
    bits = mix(i, j, seed)
    jitter = ((n + 0.5 + 0.76 * (uniform(bits, draw) - 0.5)) * CELL for draw, n in ((1, i), (2, j)))
    centre = np.stack(list(jitter), axis=1).astype(np.float32)

    # A centre matters where it can be nearer than the second nearest of some point: few do.
    low, high = (np.array([edge(x), edge(y)], np.float32) for edge in (np.min, np.max))
    closest = np.hypot(*np.maximum(np.maximum(low - centre, centre - high), 0).T)
    farthest = np.hypot(*np.maximum(np.abs(centre - low), np.abs(centre - high)).T)
    candidates = np.flatnonzero(closest <= np.partition(farthest, 1)[1] + 1)

    nearest = np.full(x.shape, np.inf, np.float32)
    second = nearest.copy()
    index = np.zeros(x.shape, np.intp)
    neighbour = index.copy()
    for k in candidates:
        east, north = centre[k]
        square = (x - east) ** 2 + (y - north) ** 2
        wins, places = square < nearest, square < second
        neighbour = np.where(wins, index, np.where(places, k, neighbour))
        second = np.where(wins, nearest, np.where(places, square, second))
        index = np.where(wins, k, index)
        nearest = np.where(wins, square, nearest)

    apart = np.hypot(*(centre[index] - centre[neighbour]).T)
    return Regions(
        index=index,
        border=(second - nearest) / (2 * apart),
        frontier=bits[index] ^ bits[neighbour],
        use=_USES[(i + 4 * j + seed) % len(_USES)],
        bits=bits,
        centre=centre,
    )
