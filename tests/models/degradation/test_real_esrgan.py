"""The published degradation: its ranges, its noise, where its pixels lie, and what it does to real imagery."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from places import SHARED
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from rsup.models.base.errors import RecipeError
from rsup.models.degradation import real_esrgan as module
from rsup.models.degradation.draws import Draws
from rsup.models.degradation.real_esrgan import FirstStage, PublishedDegradation, SecondStage
from rsup.models.networks.interpolation import interpolator

QUIET: dict[str, Any] = {"gaussian_sigma": (0, 0), "poisson_scale": (0, 0), "jpeg_quality": (100, 100)}
"""A stage's settings without noise and with the least compression there is."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, height: int = 96, width: int = 128) -> Tensor:
    """Smooth shades and blocks, different for every image and channel, [n, 3, h, w] in [0, 1]."""
    coarse = torch.rand((n, 3, 6, 8), generator=seeded(7))
    fine = torch.rand((n, 3, height // 4, width // 4), generator=seeded(8))
    smooth = F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
    return 0.7 * smooth + 0.3 * F.interpolate(fine, (height, width), mode="nearest")


def quiet(**first: object) -> PublishedDegradation:
    return PublishedDegradation(first=FirstStage(**QUIET | first), second=SecondStage(**QUIET))


@pytest.mark.parametrize("scale", [4, 8])
def test_sizes_range_and_levels(scale: int) -> None:
    low = PublishedDegradation()(images(5), scale, seeded(0))
    assert low.shape == (5, 3, 96 // scale, 128 // scale) and low.dtype == torch.float32
    assert low.min() >= 0 and low.max() <= 1
    torch.testing.assert_close(low * 255, (low * 255).round(), atol=1e-4, rtol=0)
    assert not low.isnan().any()


def test_images_smaller_than_the_kernels_are_degraded_too() -> None:
    assert PublishedDegradation()(images(8, 32, 32), 8, seeded(0)).shape == (8, 3, 4, 4)


def test_edges_that_the_scale_does_not_divide_are_refused() -> None:
    with pytest.raises(RecipeError, match="choose a crop"):
        PublishedDegradation()(images(1, 96, 100), 8, seeded(0))


def test_one_seed_gives_one_result_whatever_the_threads() -> None:
    high, degradation = images(6, 256, 256), PublishedDegradation()
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(degradation(high, 4, seeded(3)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)
    assert not torch.equal(results[0], degradation(high, 4, seeded(4)))


def test_every_image_of_a_batch_draws_its_own() -> None:
    low = PublishedDegradation()(images(1).expand(6, -1, -1, -1), 4, seeded(0))
    spread = (low[:, None] - low[None]).abs().mean((2, 3, 4))
    assert spread[~torch.eye(6, dtype=torch.bool)].min() > 0.003


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch, name: str) -> Iterator[list[tuple[Any, ...]]]:
    """The arguments of every call of one of the module's steps."""
    calls: list[tuple[Any, ...]] = []
    step = getattr(module, name)

    def spy(*arguments: Any) -> Any:
        calls.append(arguments)
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module, name, spy)
        yield calls


def test_draws_keep_to_the_published_table(monkeypatch: pytest.MonkeyPatch) -> None:
    high = images(1, 64, 64).expand(400, -1, -1, -1)
    with (
        recorded(monkeypatch, "jpeg") as compressed,
        recorded(monkeypatch, "draw_bell") as bells,
        recorded(monkeypatch, "draw_sinc") as sincs,
        recorded(monkeypatch, "_interpolated") as resized,
        recorded(monkeypatch, "_poisson") as poisson,
    ):
        PublishedDegradation()(high, 4, seeded(11))
    first, second = ([quality for _, quality in compressed][k::2] for k in (0, 1))
    assert (min(first), max(first)) == (60, 95) and (min(second), max(second)) == (60, 100)
    # One blur in the first stage, half a one in the second, nine of ten of them bells; then the final ringing.
    final = [call for call in sincs if len(call) == 3]
    assert abs(len(bells) / 400 - 1.35) < 0.08 and abs((len(sincs) - len(final)) / 400 - 0.15) < 0.06
    assert abs(len(final) / 400 - 0.8) < 0.07
    assert {sigma for _, sigma, _ in bells} == {(0.2, 1.5), (0.2, 1.0)}
    # Three resizes an image: around its own size, around the small one, to the small one.
    edges = np.array([size for _, size, _ in resized]).reshape(400, 3, 2)
    assert (edges[..., 0] == edges[..., 1]).all() and (edges[:, 2] == 16).all()
    factors = edges[:, :2, 0] / [64, 16]
    assert 0.29 < factors[:, 0].min() < 0.32 and 1.45 < factors[:, 0].max() <= 1.5
    assert 0.56 <= factors[:, 1].min() < 0.64 and 1.1 < factors[:, 1].max() <= 1.2
    assert abs((factors[:, 0] > 1).mean() - 0.2) < 0.06 and abs((factors[:, 0] == 1).mean() - 0.1) < 0.06
    assert abs(len(poisson) / 800 - 0.5) < 0.06
    assert abs(np.mean([image.shape[0] == 1 for image, _ in poisson]) - 0.4) < 0.08


def test_noise_is_as_strong_as_set() -> None:
    gray = torch.full((3, 256, 256), 0.5)
    stage = FirstStage(gaussian_probability=1, gaussian_sigma=(10, 10), gray_probability=0)
    draws = Draws(seeded(0))
    noise = module._noisy(gray, stage, draws, seeded(1)) - gray
    assert abs(noise.std().item() * 255 - 10) < 0.1
    correlation = torch.corrcoef(noise.flatten(1)).fill_diagonal_(0)
    assert correlation.abs().max() < 0.02
    shared = module._noisy(gray, FirstStage(gaussian_probability=1, gray_probability=1), draws, seeded(1))
    assert torch.equal(shared[0], shared[1]) and torch.equal(shared[0], shared[2])


def test_poisson_noise_follows_the_square_root_of_the_signal() -> None:
    """A column has `photons` x value counts: variance value / photons. All 256 levels are there: 256 photons."""
    ramp = torch.arange(256).float().repeat(4000, 1)[None] / 255
    noise = module._poisson(ramp, seeded(0))[0]
    assert abs(noise.mean().item()) < 2e-4
    expected = (ramp[0, 0, 16:] / 256).sqrt()
    torch.testing.assert_close(noise.std(0)[16:], expected, atol=0, rtol=0.06)
    few = module._poisson(torch.full((1, 200, 200), 0.5), seeded(0))
    assert abs(few.std().item() - 0.5**0.5) < 0.02  # one level, one photon


@pytest.mark.parametrize("scale", [4, 8])
def test_nothing_is_shifted(scale: int) -> None:
    """Without noise a ramp's small image is, on average over all the draws, the ramp's block means."""
    y, x = torch.meshgrid(torch.arange(192.0), torch.arange(256.0), indexing="ij")
    ramp = (0.15 + 0.7 * torch.stack([x / 256, y / 192, (x + y) / 448]))[None]
    blocks = F.avg_pool2d(ramp, scale)
    low = quiet()(ramp.expand(48, -1, -1, -1), scale, seeded(2))
    edge = 32 // scale  # borders repeat, which bends the ramp there
    difference = (low - blocks)[:, :, edge:-edge, edge:-edge].mean((0, 2, 3))
    # In pixels of the sharp image: the first channel climbs along x only, the second along y only.
    shift = difference / torch.tensor([0.7 / 256, 0.7 / 192, 0.7 / 448])
    assert shift.abs().max() < 0.1


def test_the_second_stage_keeps_its_own_defaults_where_a_recipe_names_one() -> None:
    settings = PublishedDegradation.model_validate({"second": {"jpeg_quality": [80, 90]}})
    assert settings.second.jpeg_quality == (80, 90) and settings.second.sigma == (0.2, 1.0)
    assert settings.first == FirstStage()
    for wrong in ({"sharpen": True}, {"jpeg_quality": [0, 95]}, {"sigma": [0, 1]}, {"resize": [1.5, 0.3]}):
        with pytest.raises(ValidationError):
            PublishedDegradation.model_validate({"first": wrong})


@pytest.mark.parametrize("scale", [4, 8])
def test_real_imagery_loses_more_than_by_averaging_and_stays_recognisable(scale: int) -> None:
    files = sorted((SHARED / "data/hr/naip_ca_0.6m").glob("*.tif"))[::40][:12]
    if not files:
        pytest.skip("no imagery beside the checkout")
    planes = []
    for file in files:
        with rasterio.open(file) as source:
            planes.append(torch.from_numpy(source.read((1, 2, 3))).float() / 255)
    high = torch.stack(planes)

    def psnr(low: Tensor) -> float:
        back = interpolator("bicubic", scale)(low).clamp(0, 1)
        return float((-10 * (back - high).square().mean((1, 2, 3)).log10()).mean())

    averaged, degraded = psnr(F.avg_pool2d(high, scale)), psnr(PublishedDegradation()(high, scale, seeded(0)))
    assert averaged - 5 < degraded < averaged - 1


@pytest.mark.gpu
def test_a_gpu_makes_the_same_choices() -> None:
    high = images(4)
    on_cpu = quiet()(high, 4, seeded(5))
    on_gpu = quiet()(high.cuda(), 4, seeded(5))
    assert on_gpu.is_cuda
    assert (on_gpu.cpu() - on_cpu).abs().mean() < 0.5 / 255
