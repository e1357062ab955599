"""Which products the made archive holds: tiles, dates, baselines, clouds; small facts, no pixels."""

from __future__ import annotations

from dataclasses import dataclass

TILE_SIDE = 109_800
"""Side of a Sentinel-2 tile, metres."""
# Upper left corners on the tiles' own 60 m grids; the landscape lies where all three overlap.
_CORNER = {
    "33UTQ": ("EPSG:32633", 199_980, 5_500_020),
    "33UUQ": ("EPSG:32633", 300_000, 5_500_020),
    "32UQV": ("EPSG:32632", 699_960, 5_500_020),
}

_OFFSET_SINCE = (4, 0)  # first processing baseline with an offset in its numbers


@dataclass(frozen=True)
class Acquisition:
    """One product: a tile, as one datatake saw it and one processing baseline made it."""

    tile: str
    platform: str
    datetime: str
    """Sensing time, UTC."""
    orbit: int
    """Relative orbit."""
    baseline: str
    cloud: float
    """Share of the landscape under cloud, 0..1; the same for all products of a datatake."""
    swath: tuple[float, float] | None = None
    """Share of the landscape's width where the swath ends in the north and in the south; None: elsewhere."""
    swath_side: str = "west"
    """Side of the swath's edge that has pixels."""
    share: float = 1.0
    """Side of the square of ground the product holds, as a share of the landscape's."""
    gain: float = 1.0
    """Error of the atmospheric correction: what reflectance is multiplied by."""
    sequence: int = 0

    @property
    def crs(self) -> str:
        """UTM zone of the tile."""
        return _CORNER[self.tile][0]

    @property
    def tile_bounds(self) -> tuple[float, float, float, float]:
        """West, south, east, north of the whole tile, metres in crs."""
        _, west, north = _CORNER[self.tile]
        return west, north - TILE_SIDE, west + TILE_SIDE, north

    @property
    def item_id(self) -> str:
        """Id in the manner of Earth Search."""
        return f"S2{self.platform[-1].upper()}_{self.tile}_{self.day}_{self.sequence}_L2A"

    @property
    def day(self) -> str:
        """Sensing day, YYYYMMDD."""
        return self.datetime[:10].replace("-", "")

    @property
    def sensed(self) -> str:
        """Sensing time, YYYYMMDDTHHMMSS."""
        return f"{self.day}T{self.datetime[11:19].replace(':', '')}"

    @property
    def datatake(self) -> str:
        """Datatake id: what products of one overpass share, whatever their tile."""
        return f"GS2{self.platform[-1].upper()}_{self.sensed}_{self.orbit:06d}"

    @property
    def generated(self) -> str:
        """When the product was made, YYYYMMDDTHHMMSS: later for a later baseline."""
        return f"{self.day}T{10 + int(self.baseline[:2])}{self.baseline[3:]}00"

    @property
    def offset(self) -> int:
        """BOA_ADD_OFFSET of the product's numbers: -1000 from processing baseline 04.00 on."""
        major, minor = self.baseline.split(".")
        return -1000 if (int(major), int(minor)) >= _OFFSET_SINCE else 0


ACQUISITIONS = (
    # One overpass of two tiles; the landscape straddles the first one's eastern edge.
    Acquisition("33UTQ", "sentinel-2b", "2024-06-12T10:10:31.024Z", 22, "05.10", 0.03),
    Acquisition("33UUQ", "sentinel-2b", "2024-06-12T10:10:31.024Z", 22, "05.10", 0.03, swath=(0.72, 0.62)),
    # The first product as an earlier processing had made it: darker, to be passed over.
    Acquisition("33UTQ", "sentinel-2b", "2024-06-12T10:10:31.024Z", 22, "05.00", 0.03, gain=0.8, sequence=1),
    # The neighbouring orbit, clearest of all, sees the east only.
    Acquisition(
        "33UUQ",
        "sentinel-2a",
        "2024-06-15T10:20:31.024Z",
        65,
        "05.10",
        0.01,
        swath=(0.45, 0.30),
        swath_side="east",
    ),
    # A hazier overpass that fills what the clouds of the clearer ones leave open, in two UTM zones.
    Acquisition("33UUQ", "sentinel-2a", "2024-06-17T10:10:29.024Z", 22, "05.10", 0.10),
    Acquisition("32UQV", "sentinel-2a", "2024-06-17T10:10:29.024Z", 22, "05.10", 0.10, share=0.5),
    Acquisition("33UUQ", "sentinel-2b", "2024-06-22T10:10:31.024Z", 22, "05.10", 0.65),
    # Made before the offset came into the numbers.
    Acquisition("33UUQ", "sentinel-2a", "2021-06-18T10:10:29.024Z", 22, "03.00", 0.05),
)
"""What the archive holds."""
