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
        self.pixels += part.size
        valid = part[part != NODATA].astype(np.uint64)  # 65535 ** 2 times 4e9 pixels fit
        if not valid.size:
            return
        self.count += valid.size
        self.minimum = min(self.minimum, int(valid.min()))
        self.maximum = max(self.maximum, int(valid.max()))
        self.total += int(valid.sum())
        self.squares += int((valid * valid).sum())

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
