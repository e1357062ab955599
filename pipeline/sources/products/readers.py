"""Who reads an asset, by its address: rasters, tiles that are kept, arrays of Zarr, masks of flags."""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from rsup.models.sensors.profile import Sensor
from rsup.pipeline.sources import asset_file
from rsup.pipeline.sources.asset_file import Header

from . import flags, tiles, zarr_asset


class Reader(Protocol):
    """What each of these modules gives; `asset_file` says what comes in and what goes out."""

    def read_header(self, label: str, href: str, sensor: Sensor, fresh: bool) -> Header: ...
    def read_window(self, href: str, header: Header, rows: slice, cols: slice, fresh: bool) -> NDArray[Any]: ...
    def read_coarse(self, href: str, header: Header, fresh: bool) -> NDArray[Any]: ...


def reader_of(href: str) -> Reader:
    """The reader of the asset at an address."""
    if zarr_asset.is_array(href):
        return zarr_asset
    if flags.is_flags(href):
        return flags
    return tiles if tiles.has_tiles(href) else asset_file
