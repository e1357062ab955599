"""A mosaic in QGIS's own renderer: natural colours as it opens, without a setting."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from places import ROOT

from rsup.pipeline.jobs.upscale import upscale
from rsup.pipeline.jobs.upscale_plan import UpscaleRequest
from rsup.pipeline.mosaics.pictures import Stretch
from rsup.pipeline.scenes.scene import Scene

pytestmark = pytest.mark.slow
PYTHON = "/usr/bin/python3"
"""The distribution's, for which its package python3-qgis is."""


def test_qgis_draws_natural_colours_on_opening(make_scene: Callable[..., Scene], tmp_path: Path) -> None:
    bands = ("red", "green", "blue", "nir")  # QGIS 3.22 takes the first three, whatever colours they say they are
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environment |= {"QT_QPA_PLATFORM": "offscreen", "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    try:
        found = subprocess.run([PYTHON, "-c", "import qgis.core"], env=environment, capture_output=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("the distribution's Python is not installed")
    if found.returncode:
        pytest.skip("QGIS is not installed")
    y, x = np.mgrid[:96, :80]
    bright = {"red": 900, "green": 1400, "blue": 700, "nir": 3000}
    waves = {"red": np.sin(x / 9), "green": np.cos(y / 7), "blue": np.sin((x + y) / 11), "nir": np.cos(x / 5)}
    dn = np.stack([1500 + bright[band] * (1 + waves[band]) / 2 for band in bands]).astype(np.uint16)
    dn[:, :10, :10] = 0
    scene = make_scene(dn, bands=bands)
    upscale(UpscaleRequest(scene.path, 4, tmp_path / "m", "nearest", bands, device="cpu", consistency="mean"))
    script, cog, picture = ROOT / "tests/readers/qgis_render.py", tmp_path / "m" / "scene_x4.tif", tmp_path / "q.png"
    asked = [PYTHON, script, cog, picture]
    done = subprocess.run(asked, env=environment, check=True, capture_output=True, text=True, timeout=120)
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["valid"] and said["crs"] == "EPSG:32631" and said["renderer"] == "multibandcolor"
    assert [name.rpartition(" ")[2] for name in said["names"]] == list(bands)
    assert [bands[band - 1] for band in said["bands"]] == ["red", "green", "blue"]
    assert said["nodata"] == [0] * 4 and said["scale"] == [[1e-4, -0.1]] * 4
    assert all(0.04 < low < high < 0.3 for low, high in said["ranges"])  # of reflectance, not of stored numbers
    shown = np.asarray(Image.open(picture).convert("RGBA")).astype(float)
    natural = [bands.index(band) for band in ("red", "green", "blue")]
    fine = dn[natural].repeat(4, 1).repeat(4, 2)
    assert shown.shape[:2] == fine.shape[1:] and (shown[:39, :39, 3] == 0).all() and (shown[41:, 41:, 3] == 255).all()
    # The page's colours are the same but for its gamma: where they are brighter, QGIS's are.
    page = Stretch.of(fine)(fine).astype(float)
    for channel in range(3):
        ours, theirs = page[44:, 44:, channel].ravel(), shown[44:, 44:, channel].ravel()
        assert np.corrcoef(ours, theirs)[0, 1] > 0.97
        assert np.corrcoef(ours, shown[44:, 44:, (channel + 1) % 3].ravel())[0, 1] < 0.8
