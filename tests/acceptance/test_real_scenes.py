"""The benchmark on real scenes: its figures against closed forms, and what it assumes of files against the files."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import pytest
import rasterio
import torch
from places import SHARED
from torch import Tensor

from rsup.models.upscaler import ModelDescriptor, load

SENTINEL2 = SHARED / "data/sentinel2"
RGB = ("red", "green", "blue")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """The script as a module."""
    return importlib.import_module("real_scenes")


@dataclass
class FakeUpscaler:
    """A network given as a function of repeated pixels."""

    network: Callable[[Tensor], Tensor]
    descriptor: ModelDescriptor = ModelDescriptor(
        name="fake", scale=4, bands=RGB, tile=32, halo=2, overlap=6,
        multiple=1, sha256="0" * 64, kind="student", licence="none",
    )  # fmt: skip
    batch: int = 1
    device: torch.device = torch.device("cpu")
    whole: bool = True

    def outputs(self, tiles: Tensor, *, uncertainty: bool) -> tuple[Tensor, ...]:
        assert not uncertainty
        return (self.network(tiles.repeat_interleave(4, 2).repeat_interleave(4, 3)),)


def fields(bands: int = 3, side: int = 96) -> np.ndarray:
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:side, :side]
    planes = [2000 + 400 * ((x // 13 + y // 9 + k) % 2) + rng.normal(0, 40, x.shape) for k in range(bands)]
    return np.rint(planes).astype(np.uint16)


def test_coarse_pixels_of_missing_ones_are_missing_and_their_surroundings_not_judged(benchmark: ModuleType) -> None:
    dn = np.full((3, 96, 96), 3210, np.uint16)
    dn[1, 41, 50] = 0
    low, judged = benchmark.coarser(dn, RGB, 4, (0.0, 0.0))
    assert set(np.unique(low)) == {0, 3210} and (low == 0).sum() == 3 and not low[:, 10, 12].any()
    expected = np.zeros((24, 24), bool)
    expected[2:-2, 2:-2] = True
    expected[8:13, 10:15] = False
    np.testing.assert_array_equal(judged, expected.repeat(4, 0).repeat(4, 1))


def test_bicubic_gains_nothing_over_itself_whatever_is_missing(benchmark: ModuleType) -> None:
    from sentinel2_scenes import Scene, Source  # type: ignore[import-not-found]

    dn = fields(4)
    dn[:, :20, :30] = 0
    bicubic = load("bicubic", 4)
    lake = np.full(dn.shape[1:], 6)  # water in the scene classification
    found, textures = benchmark.restored(Scene(Source("made", ()), dn, lake), bicubic, bicubic, (0.6, 2.0))
    assert found["network"] == 0 and found["product over classical"] == 0
    assert found["product"] == found["classical"] and found["nir, product"] == found["nir, classical"]
    assert 20 < found["bicubic"] < 60 and 0 < found["NDVI, product"] < 0.2
    assert textures["water, product"] == 1 and textures["water, truth"] > 1
    assert {name for name, of in textures.items() if of is None} == {
        f"{surface}, {way}" for surface in ("cloud", "snow") for way in ("product", "truth")
    }


def test_psnr_is_that_of_a_known_error(benchmark: ModuleType) -> None:
    truth = fields()
    judged = np.zeros(truth.shape[1:], bool)
    judged[10:20] = True
    wrong = truth.astype(np.float64) + np.where(judged, 100, 9999)
    assert benchmark.decibels(wrong, truth, [0, 2], judged) == pytest.approx(40)


@pytest.mark.parametrize(("height", "least", "most"), [(0.0, 0.99, 1.01), (0.05, 1.05, 9.0)])
def test_a_step_on_the_border_of_every_tile_is_a_seam(
    benchmark: ModuleType, height: float, least: float, most: float
) -> None:
    def bordered(x: Tensor) -> Tensor:
        out = x.clone()
        # Where the ramp on the left ends; up and down by the same, so that block means keep it.
        out[..., 31] -= height
        out[..., 30] += height
        out[..., 32] += height
        out[..., 33] -= height
        return out

    low = fields()
    model = FakeUpscaler(bordered)
    made = benchmark.product(low, RGB, model, 0)
    assert least <= benchmark.seams(made, low, RGB, model) <= most


def test_texture_is_the_variance_on_the_surface(benchmark: ModuleType) -> None:
    image = np.full((2, 64, 64), 1000, np.uint16)
    image[:, ::2] += 6  # 3 DN up and down
    image[:, :, 40:] = np.random.default_rng(0).integers(1, 9999, (2, 64, 24))
    surface = np.zeros((16, 16), bool)
    surface[:, :11] = True  # the window that begins on it and ends beyond does not count
    assert benchmark.texture(image, surface, 4) == pytest.approx(9)
    assert benchmark.texture(image, None, 4) is None


def test_what_misses_the_figure_wanted_bears_a_star(benchmark: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"scene": "a", "product": 0.4, "seam": 1.03, "water, ratio": 1.4, "snow, ratio": None}]
    benchmark.show("T", rows, below={"product": 0.5}, above=1.5, around=0.02)
    assert capsys.readouterr().out.splitlines()[-1] == "| a | 0.40* | 1.030* | 1.40 |  |"


@pytest.mark.skipif(not SENTINEL2.exists(), reason="no real imagery beside the checkout")
def test_offsets_are_those_that_the_files_show(benchmark: ModuleType) -> None:
    """By physics: the air lets no light through to the cirrus band and does little to short waves of infrared."""
    known = {source.name: source for source in benchmark.sources(SENTINEL2)}
    assert len(known) == 28
    for place in ("38D", "433D", "609U"):
        swir = []
        for level, bands in (("L1C", [12, 13]), ("L2A", [11, 12])):
            source = known[f"{place} {level}"]
            with rasterio.open(SENTINEL2 / source.files[0]) as raster:
                swir.append(np.median(raster.read(bands), (1, 2)) + source.add - 1000)
                if level == "L1C":
                    assert 0 < np.median(raster.read(11)) + source.add - 1000 < 150
        first, second = np.array(swir)
        assert np.abs(second - first).mean() < np.abs(np.abs(second - first) - 1000).mean() / 2
    for source in known.values():
        scene = benchmark.read_scene(SENTINEL2, source).cut(256)
        reflectance = (scene.dn[:, (scene.dn > 0).all(0)].astype(float) - 1000) / 1e4
        assert reflectance.min() > -0.02 and 0.01 < np.median(reflectance) < 0.9
