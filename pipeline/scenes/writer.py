"""The writer of the scene store that fetch makes: chunk by chunk, each durable when it is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from rsup.models.base.errors import OutputError
from rsup.models.base.files import sync, sync_tree, writing
from rsup.models.sensors import sensor_of
from rsup.models.sensors.profile import Sensor
from rsup.pipeline.cf import add_array, add_grid, consolidate, sync_chunk
from rsup.pipeline.lattice import Window

from .contract import CLASSES
from .store import COMPLETE, SOURCE


class SceneWriter:
    """Writes the chunks of a scene store; calls on different chunks may come from different threads."""

    def __init__(self, path: Path, window: Window, bands: Sequence[str], chunk: int) -> None:
        self.path = path
        self.window = window
        self.bands = tuple(bands)
        self.chunk = chunk
        # Chunks of nodata too, which zarr leaves out by itself: then one that is not there was lost.
        with zarr.config.set({"array.write_empty_chunks": True}):
            names = (*self.bands, CLASSES, SOURCE)
            self._arrays = {name: zarr.open_array(path / name, mode="r+") for name in names}

    def write(
        self,
        index: tuple[int, int],
        data: NDArray[np.uint16],
        classes: NDArray[np.uint8],
        source: NDArray[np.uint16],
    ) -> None:
        """Write chunk `index` (row, column of the chunk grid): data [band, y, x], classes and source [y, x].

        Durable when it returns. Raises OutputError where the disk refuses.
        """
        row, col = index[0] * self.chunk, index[1] * self.chunk
        rows, cols = slice(row, row + data.shape[1]), slice(col, col + data.shape[2])
        planes = dict(zip(self.bands, data, strict=True)) | {CLASSES: classes, SOURCE: source}
        with writing(self.path, OutputError, goes_on=True):
            if not (mark := self.path / COMPLETE).exists():
                mark.touch()
                sync(mark)
                sync(mark.parent)
            for name, plane in planes.items():
                self._arrays[name][rows, cols] = plane
            sync_chunk(self.path, list(planes), index)


def create_scene(
    path: Path,
    window: Window,
    crs: str,
    bands: Sequence[str],
    chunk: int,
    aoi: Window | None = None,
    attributes: dict[str, Any] | None = None,
    sensor: Sensor | None = None,
) -> SceneWriter:
    """Create an empty scene store at `path` (which must not exist) and return its writer.

    `chunk` is the side of a chunk in pixels; chunks are counted from the window's north-west corner. On the disk when
    it returns. `sensor`: whose classes it has; None for the one that is taken where nothing is said. Raises OutputError
    where the disk refuses.
    """
    sensor = sensor or sensor_of(None)
    names = sensor.classes.names if sensor.classes else ("no_data",)
    shape = (window.height, window.width)
    described = {"Conventions": "CF-1.11", **(attributes or {}), "bands": list(bands)}
    described["aoi"] = list((aoi or window).bounds)
    with writing(path, OutputError):
        group = zarr.create_group(path, attributes=described)
        add_grid(group, window.transform(), shape, crs)
        for band in bands:
            add_array(group, band, shape, chunk)
        flags = {
            "long_name": f"{sensor.title} scene classification",
            "flag_values": list(range(len(names))),
            "flag_meanings": " ".join(names),
            "grid_mapping": "spatial_ref",
        }
        add_array(group, CLASSES, shape, chunk, "uint8", flags)
        origin = {
            "long_name": "1 + index into the attribute `items`, 0 = none or many",
            "grid_mapping": "spatial_ref",
        }
        add_array(group, SOURCE, shape, chunk, "uint16", origin)
        consolidate(path)
        sync_tree(path)
    return SceneWriter(path, window, bands, chunk)
