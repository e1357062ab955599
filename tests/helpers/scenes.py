"""Scene stores made from arrays."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rsup.pipeline.lattice import Window, chunks
from rsup.pipeline.scenes.opening import open_scene
from rsup.pipeline.scenes.scene import Scene
from rsup.pipeline.scenes.writer import create_scene


def write_scene(
    path: Path, dn: NDArray[np.uint16], bands: Sequence[str], window: Window, crs: str, aoi: Window | None = None
) -> Scene:
    """Stored numbers [band, y, x] as a scene store."""
    writer = create_scene(
        path, window, crs, bands, 256, aoi, {"items": [{"id": "made", "datetime": "2024-06-01T10:00:00Z"}]}
    )
    for index, part in chunks(window, 256):
        rows, cols = part.within(window)
        empty = np.zeros((part.height, part.width), np.uint8)
        writer.write(index, dn[:, rows, cols], empty, empty.astype(np.uint16))
    return open_scene(path)
