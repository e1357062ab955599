"""What a request to upscale comes to: which bands, by whatever name, and in which colours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numcodecs.blosc import MAX_BUFFERSIZE
from strangers import BANDS, WINDOW, numbers, tiff

from rsup.models.base.errors import ArgumentError
from rsup.models.consistency import MeanConsistency
from rsup.models.upscaler import load
from rsup.models.weights_file import SCALES
from rsup.pipeline.jobs.upscale_plan import LARGEST_CHUNK, UpscalePlan, UpscaleRequest
from rsup.pipeline.mosaics.chunk import upscale_chunk
from rsup.pipeline.mosaics.tiles import Tiles
from rsup.pipeline.scenes.scene import Scene

Student = Callable[[int], Path]


def test_without_a_choice_it_is_every_band_seen_at_10_m_natural_colours_first(
    make_scene: Callable[..., Scene],
) -> None:
    def plan(*bands: str) -> UpscalePlan:
        scene = make_scene(np.full((len(bands), 64, 64), 2000, np.uint16), "-".join(bands), bands)
        return UpscalePlan.make(UpscaleRequest(scene.path, 4, model="nearest", device="cpu"))

    assert plan("nir", "swir16", "blue", "red", "green").request.bands == ("red", "green", "blue", "nir")
    assert plan("B08", "B04").request.bands == ("red", "nir")
    with pytest.raises(ArgumentError, match="no band that its sensor sees at 10 m: name some of swir16, swir22 with"):
        plan("swir16", "swir22")


def test_esa_s_names_and_common_ones_give_one_mosaic(tmp_path: Path, tiny_student: Student) -> None:
    """Not each band in the three channels of a network that was made for red, green and blue."""
    dn, names = numbers(), ("B04", "B03", "B02")
    common, other = (tiff(tmp_path / f"{k}.tif", dn, called) for k, called in enumerate((BANDS, names)))
    model = load(str(tiny_student(4)), 4)
    mosaics = []
    for path, asked in ((common, BANDS), (other, BANDS), (other, names), (common, names)):
        plan = UpscalePlan.make(UpscaleRequest(path, 4, tmp_path, str(tiny_student(4)), asked, device="cpu"))
        assert plan.request.bands == BANDS and plan.false_colour == []
        with Tiles(model, MeanConsistency()) as tiles:
            mosaics += upscale_chunk(plan.scene.read, plan.scene.bands, WINDOW, plan.request.bands, tiles)
    for mosaic in mosaics[1:]:
        np.testing.assert_array_equal(mosaic, mosaics[0])


def test_a_band_beside_the_network_s_is_said_to_go_in_false_colour(tmp_path: Path, tiny_student: Student) -> None:
    path = tiff(tmp_path / "s.tif", numbers(), ("red", "green", "B8"))
    asked = {"scene": path, "scale": 4, "output": tmp_path, "bands": ("red", "B08"), "device": "cpu"}
    plan = UpscalePlan.make(UpscaleRequest(model=str(tiny_student(4)), **asked))
    assert plan.false_colour == ["red", "nir"] and plan.summary()["false_colour"] == ["red", "nir"]
    assert UpscalePlan.make(UpscaleRequest(model="bicubic", **asked)).false_colour == []


def test_a_band_that_no_array_of_a_mosaic_can_be_called_is_refused(tmp_path: Path) -> None:
    path = tiff(tmp_path / "s.tif", numbers(), ("../red", "x", "2"))
    for name in ("../red", "x", "2"):
        with pytest.raises(ArgumentError, match="no array of a mosaic can be called that"):
            UpscalePlan.make(UpscaleRequest(path, 4, tmp_path, "nearest", (name,), device="cpu"))


def test_uncertainty_is_told_only_of_what_a_network_has_learned_it_for(
    tmp_path: Path, sure_student: Path, tiny_student: Student, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiff(tmp_path / "s.tif", numbers(), ("red", "nir", "swir16"))
    asked = UpscaleRequest(path, 4, tmp_path, str(sure_student), ("red", "nir"), device="cpu", uncertainty=True)
    for change, words in (
        ({"model": "bicubic"}, "bicubic does not say how far it may be off; "),
        ({"model": str(tiny_student(4))}, "tiny-x4 does not say how far it may be off"),
        ({"consistency": "mean"}, "--consistency mean: --uncertainty is that of mosaics held by the sensor's response"),
        (
            {"bands": ("red", "B11")},
            "sure knows how far it may be off in red, green, blue, nir; leave swir16 out of --bands",
        ),
    ):
        with pytest.raises(ArgumentError, match=words):
            UpscalePlan.make(replace(asked, **change))
        UpscalePlan.make(replace(asked, **change, uncertainty=False))
    monkeypatch.setattr("rsup.models.registry._of_family", lambda family, scale: sure_student)
    with pytest.raises(ArgumentError, match="bicubic does not say how far it may be off; leave out --model"):
        UpscalePlan.make(replace(asked, model="bicubic"))


def test_uncertainty_is_a_run_of_its_own_with_twice_the_pixels(tmp_path: Path, sure_student: Path) -> None:
    path = tiff(tmp_path / "s.tif", numbers(), ("red", "nir", "swir16"))
    asked = UpscaleRequest(path, 4, tmp_path, str(sure_student), ("red", "nir"), device="cpu")
    without, sure = (UpscalePlan.make(replace(asked, uncertainty=wanted)) for wanted in (False, True))
    assert "uncertainty" not in without.fingerprint(), "runs that were begun without it go on"
    assert sure.fingerprint() == without.fingerprint() | {"uncertainty": True}
    assert sure.summary()["bytes"] == 2 * without.summary()["bytes"]
    pixels = without.summary()["bytes"] // (2 * 2)
    assert 2 * without.task_bytes() > sure.task_bytes() >= without.task_bytes() + 2 * pixels * (4 + 2)
    names = [Path(name).name for name in sure.summary()["outputs"]]
    assert names == ["s_x4.html", "s_x4_model.json", "s_x4.json", "s_x4.tif", "s_x4_uncertainty.tif", "s_x4.zarr"]
    assert (without.planes, sure.planes) == (2, 4)


def test_the_largest_chunk_is_one_that_is_packed_at_once() -> None:
    of_a_band = (LARGEST_CHUNK * max(SCALES)) ** 2 * 2
    assert of_a_band <= MAX_BUFFERSIZE < of_a_band * 1.05
