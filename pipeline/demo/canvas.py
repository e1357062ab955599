"""A window of landscape being painted: reflectance and scene classes of points, layer over layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .spectra import BANDS

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE = 1.25
"""Ground distance between samples of the truth, metres: edges are softened over this much."""

VEGETATION, BARE, WATER = 4, 5, 6
"""Codes of Sentinel-2's scene classification (SCL) that clear ground can have."""

SUN_AZIMUTH, SUN_ELEVATION = 150.0, 62.0
"""Where the sun stands in every acquisition, degrees: mid-June, 10:10 UTC, 49 degrees north."""
# Metres east and north that the shadow of something one metre high reaches.
SHADOW_EAST = -np.sin(np.radians(SUN_AZIMUTH)) / np.tan(np.radians(SUN_ELEVATION))
SHADOW_NORTH = -np.cos(np.radians(SUN_AZIMUTH)) / np.tan(np.radians(SUN_ELEVATION))


@dataclass
class Canvas:
    """Points of one window, in one list."""

    x: NDArray[np.float32]
    """Metres east of the landscape's origin, [n]."""
    y: NDArray[np.float32]
    """Metres north of it, [n]."""
    reflectance: NDArray[np.float32]
    """[band, n], in the order of spectra.BANDS."""
    scl: NDArray[np.uint8]
    """Scene class, [n]."""

    @classmethod
    def blank(cls, x: NDArray[np.float32], y: NDArray[np.float32]) -> Canvas:
        """A canvas without paint."""
        return cls(x, y, np.zeros((len(BANDS), x.size), np.float32), np.full(x.size, BARE, np.uint8))

    def paint(
        self,
        where: NDArray[np.intp],
        colour: NDArray[np.float32],
        cover: NDArray[np.float32],
        scl: int | None = None,
    ) -> None:
        """Lay `colour` ([band] or [band, m]) over the m points `where`, hiding the share `cover` of each.

        A point takes the class `scl`, where given, once it is mostly covered.
        """
        if where.size == 0:
            return
        colour = colour[:, np.newaxis] if colour.ndim == 1 else colour
        below = self.reflectance[:, where]
        self.reflectance[:, where] = below + cover * (colour - below)
        if scl is not None:
            self.scl[where[cover > 0.5]] = scl

    def darken(self, where: NDArray[np.intp], factor: NDArray[np.float32]) -> None:
        """Multiply the reflectance of the points `where` by `factor`, [m]."""
        self.reflectance[:, where] *= factor


def inside(distance: NDArray[np.floating]) -> NDArray[np.float32]:
    """Share of a sample covered by a shape whose edge is `distance` metres away (positive inside it)."""
    return np.asarray(np.clip(distance / SAMPLE + 0.5, 0, 1), np.float32)
