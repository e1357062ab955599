"""How well a finished mosaic keeps the radiometry of its scene, and what of the scene was no plain number.

In: a scene and the mosaic made of it. Out: the figures of the page: of radiometry over up to 8 chunks of the mosaic
spread evenly over it, so that neither time nor memory grows with it; counts over the whole scene, part by part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from rsup.pipeline.lattice import chunks
from rsup.pipeline.scenes.scene import Scene

from .quality import block_errors, spectral_angles

CHUNKS = 8
"""Most chunks that are read."""
PART = 1024
"""Side of what is counted at once, in pixels."""


def consistency(scene: Scene, store: Path, bands: Sequence[str], scale: int) -> dict[str, float]:
    """Block means of the mosaic against the scene's pixels, and the angle between their spectra.

    Keys: `block_mean_error_mean` and `block_mean_error_p99` in DN, `sam_deg` in degrees. A figure that has no
    valid pixel is left out, and so is the angle of a single band, which is 0 by definition.
    """
    root = zarr.open_group(store, mode="r")
    arrays: list[Any] = [root[band] for band in bands]
    height, width = (length // scale for length in arrays[0].chunks)
    down, along = arrays[0].cdata_shape
    picks = np.unique(np.linspace(0, down * along - 1, min(down * along, CHUNKS)).round().astype(int))
    errors, angles = [], []
    for row, col in (divmod(int(pick), along) for pick in picks):
        top, left = scene.aoi.row + row * height, scene.aoi.col + col * width
        window = replace(scene.aoi, row=top, col=left, height=height, width=width).intersect(scene.aoi)
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


def count_pixels(scene: Scene, bands: Sequence[str]) -> dict[str, int]:
    """Pixels of the area asked for that are more than a number, over all of it.

    `dark_pixels`: 0 in one of `bands`, though the scene has the pixel, and taken for the darkest value there is.
    `lost_pixels`: from an item, by the scene's `source`, and without a number in any band of the scene.
    """
    dark = lost = 0
    for _, window in chunks(scene.aoi, PART):
        pixels = scene.examine(bands, window)
        dark += int(pixels.dark.any(axis=0).sum())
        if not pixels.there.all() and (sources := scene.sources(window)) is not None:
            lost += int(((sources > 0) & ~pixels.there).sum())
    return {"dark_pixels": dark, "lost_pixels": lost}
