"""fetch -> upscale as a user runs them, against a real STAC API and a real HTTP server."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from rsup.pipeline.demo.archive import Archive
from rsup.pipeline.scenes.opening import open_scene

Run = Callable[..., "object"]
BANDS = ("red", "green", "blue")


def run_json(rsup: Run, *arguments: object) -> dict[str, object]:
    result = rsup(*arguments, "--json")
    assert result.returncode == 0, result.stderr  # type: ignore[attr-defined]
    return json.loads(result.stdout)  # type: ignore[attr-defined, no-any-return]


@pytest.mark.slow
def test_overlapping_boxes_give_the_same_pixels(
    archive: Archive, stac_server: str, rsup: Run, tiny_student: Callable[[int], Path], tmp_path: Path
) -> None:
    west, south, east, north = archive.bbox
    width, height = east - west, north - south
    boxes = {
        "one": (west, south, west + 0.7 * width, south + 0.8 * height),
        "other": (west + 0.25 * width, south + 0.2 * height, east, north),
    }
    mosaics = {}
    for name, box in boxes.items():
        scene = tmp_path / f"{name}.zarr"
        run_json(
            rsup, "fetch", "--bbox", ",".join(map(str, box)), "--date", "2024-06", "--catalog", stac_server, "-o", scene
        )
        run_json(
            rsup,
            "upscale",
            scene,
            "--scale",
            4,
            "--model",
            tiny_student(4),
            "-o",
            tmp_path,
            "--workers",
            len(mosaics) + 1,
        )
        with xr.open_dataset(tmp_path / f"{name}_x4.zarr", engine="zarr", mask_and_scale=False) as mosaic:
            mosaics[name] = mosaic.load()
        aoi = open_scene(scene).aoi
        assert mosaics[name].sizes == {"y": aoi.height * 4, "x": aoi.width * 4}
    one, other = xr.align(mosaics["one"], mosaics["other"], join="inner")
    assert min(one.sizes.values()) > 80, "the boxes overlap by tens of scene pixels"
    for band in BANDS:
        a, b = one[band].values.astype(int), other[band].values.astype(int)
        assert (a > 0).mean() > 0.5
        assert np.abs(a - b).max() <= 1
