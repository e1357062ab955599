"""What a request to fetch comes to: the ground, the items over it, and how much there is to read and write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from rsup.pipeline.lattice import Chunk, Window, chunks, count_chunks

from .footprint import box_of, window_in
from .request import FetchRequest
from .stac.items import ItemReference, LeftOut


@dataclass(frozen=True)
class FetchPlan:
    """What a request comes to."""

    request: FetchRequest
    aoi: Window
    """The ground asked for, snapped outwards to the lattice of `request.utm`."""
    window: Window
    """All that is stored: `aoi` and the margin."""
    items: tuple[ItemReference, ...]
    """Best first."""
    left_out: tuple[LeftOut, ...] = ()
    """What answers the request as well, and lacks what is needed."""

    def of(self, items: Iterable[ItemReference], gone: Iterable[LeftOut]) -> FetchPlan:
        """The same of the items that can be used, without those that turned out to lack something."""
        return replace(self, items=tuple(items), left_out=(*self.left_out, *gone))

    def chunks(self) -> Iterator[Chunk]:
        """Every chunk of the scene."""
        return chunks(self.window, self.request.chunk)

    def over(self, window: Window) -> list[int]:
        """Indexes of the items whose footprint touches a window."""
        box = box_of(window, self.request.utm)
        return [i for i, item in enumerate(self.items) if item.geometry is None or item.geometry.touches(box)]

    def _pixels_under(self, item: ItemReference) -> int:
        """Pixels of the chunks that an item can reach: those of the rectangle around its footprint."""
        part = box_of(self.window, self.request.utm)
        if item.geometry is not None:
            part = item.geometry.part_of(part)
        common = window_in(part, self.request.utm).intersect(self.window)
        if common is None:
            return 0
        side, (rows, cols) = self.request.chunk, common.within(self.window)
        height, width = (
            min(-(-s.stop // side) * side, length) - s.start // side * side
            for s, length in ((rows, self.window.height), (cols, self.window.width))
        )
        return int(height * width)

    def to_dict(self) -> dict[str, Any]:
        """The plan for --dry-run; sizes in bytes before compression, those to read at most."""
        pixels = self.window.height * self.window.width
        bands = len(self.request.bands)
        read = 2 * (bands + 1) * sum(self._pixels_under(item) for item in self.items)
        return {
            "output": str(self.request.output),
            "crs": self.request.utm,
            "aoi": self.aoi.bounds,
            "aoi_pixels": (self.aoi.height, self.aoi.width),
            "stored_bounds": self.window.bounds,
            "stored_pixels": (self.window.height, self.window.width),
            "chunks": count_chunks(self.window, self.request.chunk),
            "bytes_to_read": read,
            "bytes_to_write": pixels * (2 * bands + 3),
            "items": [
                {key: getattr(item, key) for key in ("id", "datetime", "cloud", "tile", "baseline")}
                for item in self.items
            ],
            "left_out": [each.to_dict() for each in self.left_out],
        }
