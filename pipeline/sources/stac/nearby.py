"""Which of many footprints may touch a box: footprints in, an index out, so that no box is held against them all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely

from rsup.pipeline.sources.footprint import Box, Footprint, around


class Nearby:
    """Footprints by where they lie; one that is unknown, or as wide as half the globe, lies everywhere."""

    def __init__(self, footprints: Sequence[Footprint | None]) -> None:
        boxes = [None if each is None else each.around() for each in footprints]
        self._everywhere = [number for number, box in enumerate(boxes) if box is None]
        self._numbers = np.array([number for number, box in enumerate(boxes) if box is not None], dtype=int)
        edges = np.array([(box.west, box.south, box.east, box.north) for box in boxes if box], dtype=float)
        west, south, east, north = edges.reshape(-1, 4).T
        # A box may lie on any turn of the globe between -180 and 540 degrees.
        turns = [shapely.box(west + turn, south, east + turn, north) for turn in (-360, 0, 360)]
        self._tree = shapely.STRtree(np.concatenate(turns))

    def around(self, box: Box) -> list[int]:
        """Numbers, in order, of those that may come within SLACK of the box: all that do, and few more."""
        found = self._numbers[self._tree.query(around(box)) % max(1, len(self._numbers))]
        return sorted({*self._everywhere, *found.tolist()})
