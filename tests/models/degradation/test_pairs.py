"""Pairs: their sizes, their range, their radiometry, and that a seed makes them."""

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from rsup.models.base.radiometry import from_network, to_network
from rsup.models.degradation.pairs import Degradation, RadiometryConfig, make_pair
from rsup.models.degradation.real_esrgan import PublishedDegradation
from rsup.models.degradation.sensor import RESPONSES, SensorDegradation

PHOTOGRAPH, REFLECTANCE = RadiometryConfig(), RadiometryConfig(kind="reflectance")
SHARP = SensorDegradation(mtf_spread=(0, 0), noise_level=(0, 0))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def smooth(n: int) -> Tensor:
    """[n, 3, 64, 96] in [0.1, 0.9]: so smooth that a small image is nearly the block means."""
    coarse = 0.1 + 0.8 * torch.rand((n, 3, 3, 4), generator=seeded(1))
    return F.interpolate(coarse, (64, 96), mode="bicubic", align_corners=False).clamp(0, 1)


@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize("degradation", [PublishedDegradation(), SensorDegradation()])
@pytest.mark.parametrize("radiometry", [PHOTOGRAPH, REFLECTANCE])
def test_pairs_keep_sizes_and_range_and_are_made_by_their_seed(
    scale: int, degradation: PublishedDegradation | SensorDegradation, radiometry: RadiometryConfig
) -> None:
    low, high = make_pair(smooth(4), scale, degradation, radiometry, seeded(0))
    assert low.shape == (4, 3, 64 // scale, 96 // scale) and high.shape == (4, 3, 64, 96)
    assert low.dtype == high.dtype == torch.float32
    assert min(low.min(), high.min()) >= -1 and max(low.max(), high.max()) <= 1
    # The small image shows the same scene at the same brightness.
    assert (low - F.avg_pool2d(high, scale)).abs().mean() < 0.2
    again = make_pair(smooth(4), scale, degradation, radiometry, seeded(0))
    assert torch.equal(low, again[0]) and torch.equal(high, again[1])
    assert not torch.equal(low, make_pair(smooth(4), scale, degradation, radiometry, seeded(1))[0])


def test_the_threads_do_not_show() -> None:
    before = torch.get_num_threads()
    pairs = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            pairs.append(make_pair(smooth(6).repeat(1, 1, 4, 4), 4, SensorDegradation(), REFLECTANCE, seeded(0)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(pairs[0][0], pairs[1][0]) and torch.equal(pairs[0][1], pairs[1][1])


def test_a_photograph_is_two_x_minus_one() -> None:
    image = smooth(2)
    _, high = make_pair(image, 4, PublishedDegradation(), PHOTOGRAPH, seeded(0))
    assert torch.equal(high, 2 * image - 1)


def test_reflectance_spans_its_range_anew_for_every_image() -> None:
    white = torch.ones((200, 3, 8, 8))
    low, high = make_pair(white, 4, SHARP, REFLECTANCE, seeded(0))
    span = (from_network(high)[:, 0, 0, 0].double() - 1000) / 1e4
    assert 0.25 <= span.min() < 0.26 and 0.59 < span.max() <= 0.6001
    assert abs(span.mean() - 0.425) < 0.03
    # Both sides of a pair have the same one, to the product's last digit.
    torch.testing.assert_close(from_network(low)[:, :, 0, 0], from_network(high)[:, :, 0, 0], atol=0.6, rtol=0)


def test_a_floor_lifts_the_image_and_leaves_its_contrast() -> None:
    image = smooth(200)
    settings = RadiometryConfig(kind="reflectance", span=(0.1, 0.1), floor=(0.2, 0.5))
    low, high = make_pair(image, 4, SHARP, settings, seeded(0))
    lifted = (from_network(high).double() - 1000) / 1e4 - 0.1 * image
    floor = lifted.mean((1, 2, 3))
    assert 0.2 <= floor.min() < 0.21 and 0.49 < floor.max() <= 0.5001
    torch.testing.assert_close(lifted, floor[:, None, None, None].expand_as(lifted), atol=1e-5, rtol=0)
    torch.testing.assert_close(F.avg_pool2d(from_network(high), 4), from_network(low), atol=20, rtol=0)


@pytest.mark.parametrize("added", ["glints", "clouds"])
def test_what_is_added_is_on_both_sides_of_its_share_of_pairs(added: str) -> None:
    image = smooth(200)
    clear = RadiometryConfig(kind="reflectance", span=(0.1, 0.1))
    _, without = make_pair(image, 4, SHARP, clear, seeded(0))
    low, high = make_pair(image, 4, SHARP, clear.model_copy(update={added: 0.25}), seeded(0))
    changed = (high - without).abs().amax((1, 2, 3)) > 0
    assert 35 < int(changed.sum()) < 65
    blurred = SHARP((from_network(high) - 1000) / 1e4, 4, seeded(0)) * 1e4 + 1000
    torch.testing.assert_close(from_network(low), blurred, atol=1, rtol=1e-4)


def test_the_network_sees_what_a_scene_of_that_reflectance_would_show() -> None:
    image = smooth(1)
    fixed = RadiometryConfig(kind="reflectance", span=(0.4, 0.4))
    _, high = make_pair(image, 4, SHARP, fixed, seeded(0))
    np.testing.assert_allclose(high.numpy(), to_network(image.numpy() * 4000 + 1000), atol=1e-6)


def test_a_sensor_degrades_reflectance_whatever_the_radiometry() -> None:
    """The noise of a given reflectance is that much of a photograph's range: the brighter white is, the less."""
    sensor = SensorDegradation(noise_level=(1, 1), shot_share=0)
    half = torch.full((1, 3, 1024, 1024), 0.5)
    stds = []
    for white in (0.25, 0.5):
        settings = RadiometryConfig(kind="photograph", span=(white, white))
        low, high = make_pair(half, 4, sensor, settings, seeded(0))
        assert torch.equal(high, torch.zeros_like(high))
        stds.append(low[:, 0].std().item() / 2 * white)
    expected = RESPONSES["red"].reference / RESPONSES["red"].snr
    assert all(abs(std / expected - 1) < 0.02 for std in stds)


def test_a_degradation_is_chosen_by_its_kind() -> None:
    class Settings(BaseModel):
        degradation: Degradation = PublishedDegradation()

    assert Settings.model_validate({"degradation": {"kind": "sentinel2"}}).degradation == SensorDegradation()
    bands = ["nir", "red", "green"]
    chosen = Settings.model_validate({"degradation": {"kind": "sentinel2", "bands": bands}}).degradation
    assert isinstance(chosen, SensorDegradation) and list(chosen.bands) == bands
    assert Settings.model_validate({"degradation": {"kind": "published"}}).degradation == PublishedDegradation()


def test_one_band_stands_in_for_all_or_the_first_for_the_last() -> None:
    """Noise and all, as where a scene has no other: of four bands, five ways."""
    high = torch.rand((60, 4, 16, 16), generator=seeded(2))
    sensor = SensorDegradation(bands=("red", "green", "blue", "nir"))
    whole = RadiometryConfig(kind="reflectance", span=(0.4, 0.4))
    alone = whole.model_copy(update={"alone": 1.0})
    low, truth = make_pair(high, 4, sensor, whole, seeded(0))
    made, wanted = make_pair(high, 4, sensor, alone, seeded(0))
    found = set()
    for before, sharp, image, target in zip(low, truth, made, wanted, strict=True):
        of = [next(k for k in range(4) if torch.equal(plane, before[k])) for plane in image]
        torch.testing.assert_close(target, sharp[of])
        found.add(tuple(of))
    assert found == {(0, 0, 0, 0), (1, 1, 1, 1), (2, 2, 2, 2), (3, 3, 3, 3), (0, 1, 2, 0)}


def test_bands_come_in_every_order_together_with_their_truth() -> None:
    high = torch.stack([torch.full((16, 16), level) for level in (0.2, 0.4, 0.6, 0.8)]).expand(60, -1, -1, -1)
    sensor = SensorDegradation(bands=("red", "green", "blue", "nir"), noise_level=(0, 0))
    settings = RadiometryConfig(kind="reflectance", span=(0.4, 0.4), permuted=1.0)
    low, truth = make_pair(high, 4, sensor, settings, seeded(0))
    levels = from_network(truth[..., 8, 8]).sub(1000).div(4000)
    torch.testing.assert_close(levels.sort(-1).values, torch.tensor([0.2, 0.4, 0.6, 0.8]).expand(60, 4))
    torch.testing.assert_close(low[..., 2, 2], truth[..., 8, 8], atol=1e-4, rtol=0)
    assert len({tuple(each) for each in levels.mul(5).round().int().tolist()}) > 15


def test_the_published_degradation_makes_a_fourth_band_of_the_first() -> None:
    high = torch.rand((2, 4, 32, 32), generator=seeded(2))
    low, truth = make_pair(high, 4, PublishedDegradation(), PHOTOGRAPH, seeded(0))
    assert low.shape == (2, 4, 8, 8) and torch.equal(low[:, 3], low[:, 0]) and torch.equal(truth[:, 3], truth[:, 0])
    torch.testing.assert_close(low[:, :3], make_pair(high[:, :3], 4, PublishedDegradation(), PHOTOGRAPH, seeded(0))[0])
