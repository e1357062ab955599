"""Figures of one band over all of its pixels, gathered part by part.

In: stored numbers, uint16 [y, x], 0 = nodata. Out: what GDAL and STAC call a band's statistics, of the stored numbers,
and medians of several bands together. How many pixels have each number is counted, from which all follow: neither the
order nor the size of the parts changes a figure.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from rsup.models.base.radiometry import DN_MAX, NODATA

PIECE = 1 << 18
"""Pixels that are counted at once: what that takes stays in a core's own cache."""


class Statistics:
    """Of one band."""

    def __init__(self) -> None:
        self.counts = np.zeros(DN_MAX + 1, np.int64)
        """Pixels of each stored number, nodata's too."""

    def add(self, part: NDArray[np.uint16]) -> None:
        """Count the pixels of a part in."""
        flat = part.reshape(-1)
        for start in range(0, flat.size, PIECE):
            found = np.bincount(flat[start : start + PIECE])
            self.counts[: len(found)] += found

    def include(self, other: Statistics) -> None:
        """Count the pixels of other parts in."""
        self.counts += other.counts

    def figures(self) -> dict[str, float]:
        """As STAC names them; nothing where no pixel is valid.

        `stddev` is that of all valid pixels (divided by their number), as GDAL has it.
        """
        values = np.flatnonzero(self.counts)
        values = values[values != NODATA]
        if not values.size:
            return {}
        # Python's whole numbers: the squares of a large mosaic's sums have more digits than a float, or 64 bits.
        numbers, counts = values.astype(object), self.counts[values].astype(object)
        count, total, squares = counts.sum(), (counts * numbers).sum(), (counts * numbers**2).sum()
        return {
            "minimum": int(values[0]),
            "maximum": int(values[-1]),
            "mean": total / count,
            "stddev": sqrt((count * squares - total**2) / count**2),
            "valid_percent": 100 * count / int(self.counts.sum()),
        }


def median_of(bands: Iterable[Statistics]) -> float | None:
    """Median of the valid pixels of all bands together, the lower of two in the middle; None where none is valid."""
    counts = sum((band.counts for band in bands), np.zeros(DN_MAX + 1, np.int64))
    counts[NODATA] = 0
    below = counts.cumsum()
    return float(np.searchsorted(below, (below[-1] + 1) // 2)) if below[-1] else None
