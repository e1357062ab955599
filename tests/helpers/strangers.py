"""Scenes as strangers write them: a few numbers, as a GeoTIFF or a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from rsup.pipeline.lattice import Window, chunks
from rsup.pipeline.scenes.writer import SceneWriter, create_scene

CRS, BANDS = "EPSG:32633", ("red", "green", "blue")


WINDOW = Window(-580_000, 38_000, 40, 52)


def numbers(window: Window = WINDOW) -> NDArray[np.uint16]:
    return np.random.default_rng(2).integers(1100, 5000, (3, window.height, window.width)).astype(np.uint16)


def tiff(path: Path, dn: NDArray[np.uint16], names: tuple[str, ...] = BANDS, **profile: Any) -> Path:
    window = Window(WINDOW.row, WINDOW.col, *dn.shape[1:])
    place = {"crs": CRS, "transform": window.transform(), "nodata": 0} | profile
    count, height, width = dn.shape
    with rasterio.open(path, "w", "GTiff", width, height, count, dtype="uint16", **place) as file:
        file.write(dn)
        file.descriptions, file.scales, file.offsets = names, [1e-4] * count, [-0.1] * count
    return path


def store(
    path: Path, dn: NDArray[np.uint16], classes: int | NDArray[Any] = 4, source: int = 1, chunk: int = 16
) -> SceneWriter:
    window = Window(WINDOW.row, WINDOW.col, *dn.shape[1:])
    writer = create_scene(path, window, CRS, BANDS, chunk, attributes={"items": [{"id": "a"}]})
    scl = np.broadcast_to(np.asarray(classes, np.uint8), dn.shape[1:])
    for index, part in chunks(window, chunk):
        cut = part.within(window)
        writer.write(index, dn[:, *cut], scl[cut], np.full(scl[cut].shape, source, np.uint16))
    return writer


def speckled() -> tuple[NDArray[np.uint16], NDArray[np.uint16]]:
    """Numbers with a dark 0 in one band here and there and holes in all, and what they mean."""
    dn = numbers()
    dn[0, 5:9, 7] = 0
    dn[:2, 20, 30] = 0
    dn[2, 33, 3:50] = 0
    dn[:, 12:15, 40:45] = 0
    meant = np.where((dn == 0) & (dn > 0).any(axis=0), 1, dn).astype(np.uint16)
    return dn, meant
