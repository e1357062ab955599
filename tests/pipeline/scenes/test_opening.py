"""What is opened as a scene: no pipe, and nothing whose numbers can be no reflectance."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from strangers import WINDOW, numbers, tiff

from rsup.models.base.errors import SceneError
from rsup.pipeline.scenes.opening import open_scene


@pytest.mark.timeout(20)
def test_a_pipe_and_a_device_are_no_scenes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tif")
    for path in (tmp_path / "pipe.tif", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(SceneError, match="is a pipe or a device"):
            open_scene(path)


def test_numbers_that_are_no_reflectance_are_doubted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)

    def filled(low: int, high: int, share: float = 1.0) -> Path:
        dn = numbers()
        part = dn[:, : round(share * WINDOW.height)]
        part[:] = rng.integers(low, high, part.shape)
        return tiff(tmp_path / "s.tif", dn)

    with pytest.raises(SceneError, match=r"below -0.01 nearly everywhere \(median -0.08"):
        open_scene(filled(1, 255))
    with pytest.raises(SceneError, match="below -0.01 nearly everywhere"):
        open_scene(filled(200, 800))  # dark reflectance * 10000, without the 1000
    assert capsys.readouterr().err == ""
    open_scene(filled(940, 990))  # water that was corrected too far
    assert "below 0 nearly everywhere" in capsys.readouterr().err
    for path in (filled(985, 1040), filled(1, 255, 0.8), filled(300, 900, 0.5)):  # water; a lake; shadow
        open_scene(path)
    assert capsys.readouterr().err == ""
    void = numbers()
    void[:, 1:] = 0
    open_scene(tiff(tmp_path / "s.tif", void))
