"""Figures of one band over all of its pixels, gathered part by part.

In: stored numbers, uint16 [y, x], 0 = nodata. Out: what GDAL and STAC call a band's statistics, of the stored numbers.
Sums are of integers, so neither the order nor the size of the parts changes a figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from rsup.models.base.radiometry import DN_MAX, NODATA

PIECE = 1 << 18
"""Pixels that are squared at once: what that takes stays in a core's own cache."""


@dataclass
class Statistics:
    """Of one band; `minimum` and those after it need a valid pixel."""

    pixels: int = 0
    """All of them."""
    count: int = 0
    """The valid ones."""
    minimum: int = DN_MAX
    maximum: int = NODATA
    total: int = 0
    squares: int = 0

    def add(self, part: NDArray[np.uint16]) -> None:
        """Count the pixels of a part in."""
        count = int(np.count_nonzero(part))
        minimum, maximum, total, squares = DN_MAX, NODATA, 0, 0
        if count:
            # Nodata, 0, wraps round to the largest number there is.
            minimum, maximum = int((part - np.uint16(1)).min()) + 1, int(part.max())
        flat = part.reshape(-1)
        for start in range(0, part.size if count else 0, PIECE):
            piece = flat[start : start + PIECE]
            total += int(piece.sum(dtype=np.uint64))
            values = piece.astype(np.uint32)
            squares += int((values * values).sum(dtype=np.uint64))
        self.include(Statistics(part.size, count, minimum, maximum, total, squares))

    def include(self, other: Statistics) -> None:
        """Count the pixels of other parts in."""
        self.pixels += other.pixels
        self.count += other.count
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        self.total += other.total
        self.squares += other.squares

    def figures(self) -> dict[str, float]:
        """As STAC names them; nothing where no pixel is valid.

        `stddev` is that of all valid pixels (divided by their number), as GDAL has it.
        """
        if not self.count:
            return {}
        # Exact until the division: the squares of a large mosaic's sums have more digits than a float.
        variance = (self.count * self.squares - self.total**2) / self.count**2
        return {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "mean": self.total / self.count,
            "stddev": sqrt(variance),
            "valid_percent": 100 * self.count / self.pixels,
        }
