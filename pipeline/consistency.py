"""How well a finished mosaic keeps the radiometry of its scene: read from both stores, chunk by chunk.

In: a scene and the mosaic made of it. Out: the figures of the page, over up to 8 chunks of the mosaic spread
evenly over it, so that neither time nor memory grows with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from .grid import Window
from .quality import block_errors, spectral_angles
from .scene import Scene

CHUNKS = 8
"""Most chunks that are read."""


def consistency(scene: Scene, store: Path, bands: Sequence[str], scale: int) -> dict[str, float]:
    """Block means of the mosaic against the scene's pixels, and the angle between their spectra.

    Keys: `block_mean_error_mean` and `block_mean_error_p99` in DN, `sam_deg` in degrees. A figure that has no
    valid pixel is left out, and so is the angle of a single band, which is 0 by definition.
    """
    root = zarr.open_group(store, mode="r")
    arrays: list[Any] = [root[band] for band in bands]
    height, width = (length // scale for length in arrays[0].chunks)
    indices = list(product(*map(range, arrays[0].cdata_shape)))
    picks = np.unique(np.linspace(0, len(indices) - 1, min(len(indices), CHUNKS)).round().astype(int))
    errors, angles = [], []
    for row, col in (indices[pick] for pick in picks):
        corner = Window(scene.aoi.row + row * height, scene.aoi.col + col * width, height, width)
        window = corner.intersect(scene.aoi)
        assert window is not None  # the chunk grid is the area's own
        rows, cols = (slice(s.start * scale, s.stop * scale) for s in window.within(scene.aoi))
        sr = np.stack([array[rows, cols] for array in arrays])
        lr = scene.read(bands, window)
        errors.append(block_errors(sr, lr, scale))
        if len(bands) > 1:
            angles.append(spectral_angles(sr, lr, scale))
    figures: dict[str, float] = {}
    if (error := np.concatenate(errors)).size:
        figures["block_mean_error_mean"] = float(error.mean())
        figures["block_mean_error_p99"] = float(np.percentile(error, 99))
    if angles and (angle := np.concatenate(angles)).size:
        figures["sam_deg"] = float(angle.mean())
    return figures
