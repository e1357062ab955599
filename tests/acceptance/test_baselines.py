"""The benchmark's networks of others: rebuilt from their papers, they have to do what they were trained for."""

import importlib

import pytest
import torch
from places import ROOT
from torch.nn import functional as F  # noqa: N812

from rsup.models.base.radiometry import to_network
from rsup.models.data.images import DataConfig, Images
from rsup.models.metrics.image import eight_bits, psnr_y
from rsup.models.metrics.judge import WHITE
from rsup.models.networks.interpolation import interpolator

SHARED = ROOT.parent / "shared"
WEIGHTS, NAIP = SHARED / "data/weights", SHARED / "data/hr/naip_ca_0.6m"
BANDS = ("red", "green", "blue", "nir")

needs_shared = pytest.mark.skipif(not (WEIGHTS.exists() and NAIP.exists()), reason="weights and images are not here")


@pytest.fixture
def module(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tests/benchmarks")
    return importlib.import_module("baselines")


@pytest.fixture(scope="module")
def sharp():
    images = Images(NAIP, "validation", DataConfig(bands=BANDS), 256)
    return [torch.from_numpy(images.image(k))[None] for k in (0, 10, 20)]


def gains(enlarge, sharp, factor):
    """PSNR-Y above bicubic's, of images shrunk by a bicubic filter and nothing else."""
    for high in sharp:
        low = F.interpolate(high, scale_factor=1 / factor, mode="bicubic", antialias=True).clamp(0, 1)
        plain, made = interpolator("bicubic", factor)(low), enlarge(low)
        assert made.shape == high.shape and made.dtype == torch.float32
        assert abs(float((made - low.repeat_interleave(factor, 2).repeat_interleave(factor, 3)).mean())) < 0.004
        ours, theirs = (psnr_y(eight_bits(each[0, :3]), eight_bits(high[0, :3]), factor) for each in (made, plain))
        yield ours - theirs


@needs_shared
@pytest.mark.parametrize(("name", "published"), [("RLFN", 543_740), ("CARN-M", 414_811)])
def test_networks_for_photographs_beat_bicubic(module, sharp, name, published):
    found, _ = module.baselines(WEIGHTS, 4)
    baseline = next(each for each in found if each.name == name)
    assert baseline.parameters == published
    with torch.inference_mode():
        assert min(gains(baseline.enlarge, sharp, 4)) > 1.5


@needs_shared
def test_the_network_for_sentinel2_beats_bicubic(module, sharp):
    light = module.CarnLight(WEIGHTS / "carn_light.onnx")
    assert min(gains(lambda image: light(image, 1), sharp, 2)) > 0.5
    assert light(torch.rand(1, 4, 8, 8), 2).shape == (1, 4, 32, 32)


def test_near_infrared_takes_the_place_of_red(module):
    """A network that knows colours by their place gives the fourth band what it gives the first."""
    image = torch.rand(1, 4, 2, 2)
    made = module._in_colour(lambda low: low * torch.tensor([2, 3, 4])[:, None, None])(image)
    torch.testing.assert_close(made, image * torch.tensor([2, 3, 4, 2])[:, None, None])


def test_radiometry_goes_there_and_back(module):
    """A network that repeats pixels returns them, but for what is brighter than white."""
    baseline = module.Baseline("nearest", 0, interpolator("nearest", 4))
    low = torch.linspace(0, 1.2, 64).reshape(1, 4, 4, 4)
    wanted = interpolator("nearest", 4)(low)
    torch.testing.assert_close(baseline.seen("photograph")(2 * low - 1), 2 * wanted - 1)
    for_network = to_network((low * WHITE + 0.1) / 1e-4)
    cut = to_network((wanted.clamp(0, 1) * WHITE + 0.1) / 1e-4)
    torch.testing.assert_close(baseline.seen("reflectance")(for_network), cut, rtol=0, atol=1e-4)


def test_what_is_not_there_is_left_out_with_a_line(module, tmp_path):
    found, lacking = module.baselines(tmp_path, 4)
    assert found == [] and len(lacking) == 3
    for name, line in zip(("RLFN", "CARN-M", "CARN-light"), lacking, strict=True):
        assert line.startswith(f"{name} is left out") and "\n" not in line
    assert module.baselines(tmp_path, 8)[1] == lacking[2:]
