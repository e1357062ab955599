"""MSI's model: its modulation measured on waves, its noise on plain ground, its pixels on a ramp, its steps."""

import math

import pytest
import rasterio
import torch
from places import SHARED
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from rsup.models.base.errors import RecipeError
from rsup.models.degradation.sensor import RESPONSES, BandName, SensorDegradation, sigma_of
from rsup.models.networks.interpolation import interpolator

EXACT = SensorDegradation(mtf_spread=(0, 0), noise_level=(0, 0))
"""The published sharpness, no noise."""


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def wave(scale: int, period: float, axis: int, phase: float, amplitude: float = 0.2) -> Tensor:
    """[1, 3, 32 scale, 32 scale]: reflectance 0.3 with a cosine of `period` coarse pixels along an axis."""
    position = (torch.arange(32 * scale, dtype=torch.float64) + 0.5) / scale
    values = 0.3 + amplitude * torch.cos(2 * math.pi * position / period + phase)
    shape = (-1, 1) if axis == 0 else (1, -1)
    return values.reshape(shape).expand(32 * scale, 32 * scale).float().repeat(1, 3, 1, 1)


def modulation(response: SensorDegradation, scale: int, period: float, axis: int) -> Tensor:
    """Ratio of the imaged wave's amplitude to the ground's, by channel, from the middle of the image."""
    # At two samples a period a cosine that peaks in the pixels' centres shows its amplitude in full.
    phase = -2 * math.pi * 0.5 / period
    low = response(wave(scale, period, axis, phase), scale, seeded(0))[0, :, 8:24, 8:24] - 0.3
    position = torch.arange(8, 24).reshape((-1, 1) if axis == 0 else (1, -1)).expand(16, 16)
    reference = torch.cos(2 * math.pi * position / period)
    return (low * reference).sum((1, 2)) / reference.square().sum() / 0.2


@pytest.mark.parametrize("scale", [4, 5, 8])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_modulation_at_nyquist_is_the_published_one(scale: int, axis: int) -> None:
    expected = torch.tensor([0.24, 0.28, 0.26])  # red, green, blue
    torch.testing.assert_close(modulation(EXACT, scale, 2, axis), expected, atol=1e-3, rtol=0)
    # A Gaussian at half of that frequency: the fourth root.
    torch.testing.assert_close(modulation(EXACT, scale, 4, axis), expected**0.25, atol=1e-3, rtol=0)


def test_the_width_in_closed_form() -> None:
    for mtf in (0.1, 0.26, 0.9):
        assert abs(math.exp(-2 * math.pi**2 * sigma_of(mtf) ** 2 * 0.25) - mtf) < 1e-12


def test_sharpness_is_drawn_per_image_and_axis_within_its_spread() -> None:
    response = SensorDegradation(noise_level=(0, 0))
    high = wave(4, 2, 1, -math.pi / 2).expand(64, -1, -1, -1)
    low = response(high, 4, seeded(1))[:, :, 16, 8:24] - 0.3
    red = low[:, 0].abs().mean(1) / 0.2
    assert 0.199 < red.min() < 0.21 and 0.27 < red.max() < 0.281
    assert abs(red.mean() - 0.24) < 0.01
    # All bands of an image share the draw.
    green = low[:, 1].abs().mean(1) / 0.2
    torch.testing.assert_close(green - red, torch.full((64,), 0.04), atol=2e-3, rtol=0)
    across = response(wave(4, 2, 0, -math.pi / 2).expand(64, -1, -1, -1), 4, seeded(1))[:, 0, 8:24, 16] - 0.3
    assert (across.abs().mean(1) / 0.2 - red).abs().max() > 0.01


@pytest.mark.parametrize("scale", [4, 8])
def test_pixels_lie_on_their_blocks(scale: int) -> None:
    y, x = torch.meshgrid(torch.arange(160.0), torch.arange(240.0), indexing="ij")
    ramp = (0.05 + 0.002 * torch.stack([x, y, (x + y) / 2]))[None]
    low = EXACT(ramp, scale, seeded(0))
    inside = (..., slice(4, -4), slice(4, -4))
    torch.testing.assert_close(low[inside], F.avg_pool2d(ramp, scale)[inside], atol=6e-5, rtol=0)


@pytest.mark.parametrize("band", list(RESPONSES))
def test_the_noise_at_the_reference_is_the_required_one(band: BandName) -> None:
    response, reference = SensorDegradation(bands=(band,), noise_level=(1, 1)), RESPONSES[band].reference
    plain = torch.full((2, 1, 1024, 1024), reference)
    noise = response(plain, 4, seeded(0)) - reference
    assert abs(noise.mean().item()) < 3e-5
    assert abs(reference / noise.std().item() / RESPONSES[band].snr - 1) < 0.02
    # Four fifths of the variance come from the signal; the dark keeps the rest.
    dark = response(torch.zeros_like(plain), 4, seeded(0))
    bright = response(plain * 3, 4, seeded(0)) - 3 * reference
    variance = (reference / RESPONSES[band].snr) ** 2
    assert abs(dark.square().mean().item() / variance - 0.2) < 0.01
    assert abs(bright.square().mean().item() / variance - (0.2 + 0.8 * 3)) < 0.06


def test_the_reference_radiances_are_of_plausible_land() -> None:
    assert all(0.2 < response.reference < 0.32 for response in RESPONSES.values())


def test_noise_levels_are_drawn_per_image() -> None:
    low = SensorDegradation()(torch.full((64, 3, 256, 256), 0.2), 4, seeded(0))
    level = low[:, 0].flatten(1).std(1) / (RESPONSES["red"].reference / 142 * (0.2 + 0.8 * 0.2 / 0.2244) ** 0.5)
    assert 0.55 < level.min() < 0.75 and 1.85 < level.max() < 2.1


def test_values_are_those_a_product_can_store() -> None:
    ground = torch.tensor([-0.2, 0.0, 0.1234567, 1.5, 9.0])[:, None, None, None].expand(5, 3, 32, 32)
    low = EXACT(ground, 4, seeded(0))
    dn = (low.double() + 0.1) * 1e4
    torch.testing.assert_close(dn, dn.round(), atol=5e-3, rtol=0)
    assert dn.round()[:, 0, 0, 0].tolist() == [1, 1000, 2235, 16000, 65535]


def test_one_seed_gives_one_image_and_every_image_draws_its_own() -> None:
    high = wave(4, 5, 0, 0).expand(3, -1, -1, -1)
    low = SensorDegradation()(high, 4, seeded(3))
    assert torch.equal(low, SensorDegradation()(high, 4, seeded(3)))
    assert not torch.equal(low, SensorDegradation()(high, 4, seeded(4)))
    assert not torch.equal(low[0], low[1])


def test_channels_and_edges_must_fit() -> None:
    with pytest.raises(RecipeError, match="red, green, blue"):
        EXACT(torch.zeros(1, 4, 32, 32), 4, seeded(0))
    with pytest.raises(RecipeError, match="choose a crop"):
        EXACT(torch.zeros(1, 3, 30, 32), 4, seeded(0))
    assert SensorDegradation(bands=("nir", "red", "green"))(torch.zeros(1, 3, 32, 32), 4, seeded(0)).shape[1] == 3


@pytest.mark.parametrize("scale", [4, 8])
def test_real_imagery_is_a_little_softer_than_by_averaging(scale: int) -> None:
    """MSI passes 0.26 at Nyquist, the mean over a pixel 0.64."""
    files = sorted((SHARED / "data/hr/naip_ca_0.6m").glob("*.tif"))[::40][:12]
    if not files:
        pytest.skip("no imagery beside the checkout")
    planes = []
    for file in files:
        with rasterio.open(file) as source:
            planes.append(torch.from_numpy(source.read((1, 2, 3))).float() / 255 * 0.4)
    high = torch.stack(planes)

    def psnr(low: Tensor) -> float:
        back = interpolator("bicubic", scale)(low) / 0.4
        return float((-10 * (back - high / 0.4).square().mean((1, 2, 3)).log10()).mean())

    averaged, imaged = psnr(F.avg_pool2d(high, scale)), psnr(SensorDegradation()(high, scale, seeded(0)))
    assert averaged - 2 < imaged < averaged - 0.3
