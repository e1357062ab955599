"""A mosaic with its scene, made once: what the view's tests look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scenes import write_scene

from rsup.pipeline.jobs.upscale import upscale
from rsup.pipeline.jobs.upscale_plan import UpscaleRequest
from rsup.pipeline.lattice import Window

BANDS = ("red", "green", "blue", "nir")
WINDOW = Window(-568_628, 65_536, 330, 290)


def numbers() -> NDArray[np.uint16]:
    """Stored numbers [band, y, x] that differ everywhere; a corner is nodata."""
    y, x = np.mgrid[: WINDOW.height, : WINDOW.width]
    dn = np.stack([2500 + 300 * k + 900 * np.sin(x / (5 + k)) * np.cos(y / 7) for k in range(4)]).astype(np.uint16)
    dn[:, :10, :10] = 0
    return dn


@pytest.fixture(scope="session")
def viewed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `field.zarr`, the scene, and `mosaic/`, upscale's outputs of it by nearest neighbour, x4."""
    folder = tmp_path_factory.mktemp("viewed")
    scene = write_scene(folder / "field.zarr", numbers(), BANDS, WINDOW, "EPSG:32631", None)
    upscale(UpscaleRequest(scene.path, 4, folder / "mosaic", "nearest", device="cpu", chunk=128, consistency="mean"))
    return folder
