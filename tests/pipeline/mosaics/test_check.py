"""What is measured of a finished mosaic: stores and scenes whose errors are known."""

from __future__ import annotations

import tracemalloc
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rsup.models.sensors.sentinel2 import SENTINEL2
from rsup.pipeline.lattice import Window, chunks
from rsup.pipeline.mosaics.check import PART, count_pixels, measure
from rsup.pipeline.mosaics.planes import write_chunk
from rsup.pipeline.mosaics.store import create_mosaic
from rsup.pipeline.scenes.opening import open_scene
from rsup.pipeline.scenes.writer import create_scene

WINDOW = Window(-600_000, 50_000, 300, 420)
RESPONSES = {band: SENTINEL2.response(band) for band in ("red", "green", "blue")}


def write_scene(path: Path, outer: Window, area: Window, lr: NDArray[np.uint16], bands: tuple[str, ...]) -> None:
    writer = create_scene(path, outer, "EPSG:32631", bands, 256, aoi=area)
    for index, part in chunks(outer, 256):
        plane = np.zeros((part.height, part.width), np.uint8)
        writer.write(index, lr[:, *part.within(outer)], plane, plane.astype(np.uint16))


def known_stores(folder: Path, window: Window, scale: int = 4) -> None:
    """A scene with a margin, a mosaic of its inner window, even planes: +2 DN in green, nodata in a corner of both."""
    outer = window.grow(16)
    lr = np.broadcast_to(np.array([1500, 2000, 2500], np.uint16)[:, None, None], (3, outer.height, outer.width)).copy()
    lr[:, :60, :60] = 0
    write_scene(folder / "s.zarr", outer, window, lr, tuple(RESPONSES))
    create_mosaic(folder / "m.zarr", window, "EPSG:32631", scale, tuple(RESPONSES), 64, {})
    for index, part in chunks(window, 64):
        sr = lr[:, *part.within(outer)].repeat(scale, 1).repeat(scale, 2)
        sr[1] += np.uint16(2) * (sr[1] > 0)
        write_chunk(folder / "m.zarr", tuple(RESPONSES), index, sr)


def test_the_error_that_was_put_in_is_found(tmp_path: Path) -> None:
    known_stores(tmp_path, WINDOW)
    scene = open_scene(tmp_path / "s.zarr")
    assert scene.aoi == WINDOW
    figures = measure(scene, tmp_path / "m.zarr", RESPONSES, 4)
    dark, slope = RESPONSES["green"].noise()
    assert figures["sensor_rms"] == pytest.approx(2 / (1e4 * sqrt(dark + slope * 0.1)) / sqrt(3), rel=1e-4)
    assert figures["sensor_bias_p99"] == pytest.approx(2.0, abs=1e-3)
    assert figures["block_mean_error_mean"] == pytest.approx(2 / 3)
    assert figures["block_mean_error_p99"] == pytest.approx(2.0)
    ours, theirs = (np.array([0.05, green, 0.15]) for green in (0.1002, 0.1))
    angle = np.degrees(np.arccos(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)))
    assert figures["sam_deg"] == pytest.approx(angle, rel=1e-3)
    assert "sam_deg" not in measure(scene, tmp_path / "m.zarr", {"green": RESPONSES["green"]}, 4)


@pytest.mark.parametrize(("band", "ratio"), [("red", 1), ("swir16", 2)])
def test_a_mosaic_that_the_sensor_sees_as_the_scene_has_no_error(tmp_path: Path, band: str, ratio: int) -> None:
    """Wherever the area begins: pixels of 20 m begin at even numbers of the lattice."""
    scale, response = 4, SENTINEL2.response(band)
    fine = torch.rand(1, 1, 166, 198, generator=torch.Generator().manual_seed(0)) * 1000 + 1500
    fine = torch.nn.functional.interpolate(fine, (4 * 160, 4 * 192), mode="bicubic")[0, 0].round().clamp(1, 65535)
    seen = response.matrix(160, scale) @ fine.double().numpy() @ response.matrix(192, scale).T
    if ratio == 2:
        own = torch.from_numpy(seen)[None, None]
        seen = torch.nn.functional.interpolate(own, scale_factor=2, mode="bilinear")[0, 0].numpy()
    outer = Window(-600, 800, 160, 192)
    area = Window(-595, 803, 140, 170)
    lr = np.rint(seen).astype(np.uint16)[None]
    write_scene(tmp_path / "s.zarr", outer, area, lr, (band,))
    create_mosaic(tmp_path / "m.zarr", area, "EPSG:32631", scale, (band,), 128, {})
    made = fine.numpy().astype(np.uint16)[None]
    for index, part in chunks(area, 128):
        rows, cols = (slice(s.start * scale, s.stop * scale) for s in part.within(outer))
        write_chunk(tmp_path / "m.zarr", (band,), index, made[:, rows, cols])
    figures = measure(open_scene(tmp_path / "s.zarr"), tmp_path / "m.zarr", {band: response}, scale)
    assert figures["sensor_rms"] < 0.1  # the scene's numbers are whole
    assert figures["sensor_bias_p99"] < 0.1


def test_nothing_but_nodata_has_no_figures(tmp_path: Path) -> None:
    bands = {band: SENTINEL2.response(band) for band in ("red", "nir")}
    writer = create_scene(tmp_path / "s.zarr", Window(0, 0, 8, 8), "EPSG:32631", tuple(bands), 8)
    assert writer.window.width == 8
    create_mosaic(tmp_path / "m.zarr", Window(0, 0, 8, 8), "EPSG:32631", 4, tuple(bands), 8, {})
    assert measure(open_scene(tmp_path / "s.zarr"), tmp_path / "m.zarr", bands, 4) == {}


def test_dark_and_lost_pixels_are_counted_over_the_area_asked_for(tmp_path: Path) -> None:
    window = Window(0, 0, 300, PART + 200)
    area = Window(10, 10, 250, PART + 100)
    dn = np.random.default_rng(1).integers(1100, 4000, (3, window.height, window.width), dtype=np.uint16)
    source = np.ones((window.height, window.width), np.uint16)
    dn[0, 20:30, 20:25] = 0  # dark in one band: 50 pixels
    dn[1, 25:40, 20] = 0  # 15, of which 5 are dark in the other band too
    dn[2, 100:110, PART:] = 0  # 10 rows of 110 columns within the area, in a band that nobody asks for
    dn[:, 200:210, 300:310] = 0  # 100 that came from an item
    source[205:210, 300:310] = 0  # 50 of which did not
    dn[:, 5, 5] = dn[0, 6, 6] = 0  # outside of the area
    writer = create_scene(tmp_path / "s.zarr", window, "EPSG:32631", ("red", "green", "blue"), 512, aoi=area)
    for index, part in chunks(window, 512):
        cut = part.within(window)
        writer.write(index, dn[:, *cut], np.full(source[cut].shape, 4, np.uint8), source[cut])
    scene = open_scene(tmp_path / "s.zarr")
    assert count_pixels(scene, ("red", "green")) == {"dark_pixels": 60, "lost_pixels": 50}
    assert count_pixels(scene, ("blue",)) == {"dark_pixels": 1100, "lost_pixels": 50}


def test_the_measure_of_a_large_mosaic_needs_no_more_memory(tmp_path: Path) -> None:
    def peak(side: int) -> int:
        (folder := tmp_path / str(side)).mkdir()
        known_stores(folder, Window(0, 0, side, side))
        scene = open_scene(folder / "s.zarr")
        measure(scene, folder / "m.zarr", RESPONSES, 4)  # libraries that it imports are not what it needs
        tracemalloc.start()
        measure(scene, folder / "m.zarr", RESPONSES, 4)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(640) < 1.3 * peak(256) + 2**20
