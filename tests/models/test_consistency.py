"""What holds a mosaic to its scene, against dense algebra in float64, closed forms, and block means in plain torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rsup.models.consistency import MeanConsistency, SensorConsistency, hold, noise_ratio
from rsup.models.sensors.response import Response
from rsup.models.sensors.sentinel2 import SENTINEL2

RED, NIR, SWIR = (SENTINEL2.band(name).response for name in ("red", "nir", "swir16"))
assert RED is not None and NIR is not None and SWIR is not None


def drawn(*shape: int, seed: int = 0) -> Tensor:
    """Numbers from 1500 to 2500."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 1000 + 1500


def seen(response: Response, sr: Tensor, scale: int) -> Tensor:
    """`sr` [h * scale, w * scale] in the band's own pixels, float64."""
    rows, cols = (torch.from_numpy(response.matrix(side // scale, scale)) for side in sr.shape)
    return rows @ sr.double() @ cols.T


@pytest.mark.parametrize("scale", [4, 8])
def test_the_correction_is_the_dense_solution(scale: int) -> None:
    """x + A^T G (y - A x) with A of all pixels at once, and G by the eigenvectors of A A^T."""
    h, w = 6, 8
    sr, lr = drawn(h * scale, w * scale), drawn(h, w, seed=1)
    dense = np.kron(RED.matrix(h, scale), RED.matrix(w, scale))
    values, vectors = np.linalg.eigh(dense @ dense.T)
    share = values * scale**2
    left = vectors.T @ (lr.double().numpy().ravel() - dense @ sr.double().numpy().ravel())
    dark, slope = RED.noise()
    limit = (dark + slope * (float(lr.mean()) * 1e-4 - 0.1)) * 1e8
    power = torch.from_numpy(left**2).reshape(1, 1, h, w)
    ratio = float(noise_ratio(power, torch.from_numpy(share).reshape(1, h, w), torch.full((1, 1), limit)))
    gain = scale**2 / (share + ratio * np.maximum(1 - share, 0))
    wanted = sr.double().numpy().ravel() + dense.T @ vectors @ (gain * left)
    held = hold(sr[None, None], lr[None, None], scale, [RED])[0, 0]
    np.testing.assert_allclose(held.numpy().ravel(), wanted, atol=0.05)


@pytest.mark.parametrize(("s", "d"), [(0.0, 4.0), (3.0, 50.0), (20.0, 20.0), (5.0, 2.0)])
def test_noise_is_told_from_error(s: float, d: float) -> None:
    """Powers drawn by the model that they are read with."""
    rng = np.random.default_rng(0)
    shares = np.linspace(0.06, 1, 96)
    share = torch.from_numpy(np.outer(shares, shares))
    power = torch.from_numpy(rng.exponential(size=(4, 2, 96, 96))) * (d * share + s)
    ratio = noise_ratio(power, share.expand(2, 96, 96), torch.full((4, 2), torch.inf))
    torch.testing.assert_close(ratio, torch.full_like(ratio, s / d).clamp(1e-3, 10), rtol=0.2, atol=2e-3)
    limited = noise_ratio(power, share.expand(2, 96, 96), torch.full((4, 2), s / 2))
    assert (limited <= ratio + 1e-12).all()


def test_equal_powers_of_all_scales_give_equal_ratios() -> None:
    """Stored numbers or reflectance: the ratio has no unit."""
    share = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
    power = drawn(1, 1, 16, 16)
    one, other = (noise_ratio(power * unit, share, torch.full((1, 1), 1700 * unit)) for unit in (1.0, 1e-8))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=0)


@pytest.mark.parametrize("response", [RED, SWIR], ids=["10 m", "20 m"])
def test_a_scene_without_noise_is_met_and_its_mean_always(response: Response) -> None:
    """The truth is seen without noise; what the network says is the truth, blurred and a little too dark."""
    scale, pixels = 4, 32
    truth = functional.avg_pool2d(drawn(1, 1, 134, 134), 7, 1)[0, 0]
    lr = seen(response, truth, scale).float()[None, None]
    if response.ratio == 2:
        lr = functional.interpolate(lr, scale_factor=2, mode="bilinear")
    sr = functional.avg_pool2d(functional.pad(truth[None, None], (4,) * 4, mode="replicate"), 9, 1) - 20
    held = hold(sr, lr, scale, [response])[0, 0]
    before, after = (seen(response, image, scale) - seen(response, truth, scale) for image in (sr[0, 0], held))
    assert after.square().mean().sqrt() < 0.05 * before.square().mean().sqrt()
    assert abs(float(after.mean())) < 0.1
    assert held.shape == (pixels * scale, pixels * scale)


def test_what_is_noise_alone_is_not_put_back() -> None:
    """The network is right, the scene noisy as the sensor is required to be at most: nothing but means may follow."""
    truth = torch.full((1, 1, 128, 128), 2000.0)
    dark, slope = RED.noise()
    deviation = 1e4 * (dark + slope * 0.1) ** 0.5
    lr = 2000 + deviation * torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    held = hold(truth, lr, 4, [RED])
    assert (held - truth).std() < 0.25 * deviation
    torch.testing.assert_close(held.mean(), lr.mean(), atol=0.02, rtol=0)


def test_what_stands_in_for_nodata_is_not_taken_for_ground() -> None:
    """Three quarters of the tile are filled with what is nearest, as at a scene's corner; the rest is noise alone."""
    truth = torch.full((1, 1, 256, 256), 2000.0)
    dark, slope = RED.noise()
    deviation = 1e4 * (dark + slope * 0.1) ** 0.5
    valid = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    valid[..., :32, :32] = True
    noise = deviation * torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    lr = functional.pad(2000 + noise, (0, 32, 0, 32), mode="replicate")
    held = hold(truth, lr, 4, [RED], valid)
    told, untold = ((each - truth)[..., :112, :112].std() for each in (held, hold(truth, lr, 4, [RED])))
    assert told < 0.25 * deviation < untold
    torch.testing.assert_close(hold(truth, lr, 4, [RED], torch.ones_like(valid)), hold(truth, lr, 4, [RED]))
    own = valid.clone()
    own[..., 0, 0] = False
    swir = hold(truth, lr, 4, [SWIR], own)
    assert torch.isfinite(swir).all()


def test_a_tile_without_error_or_without_any_valid_pixel_stays_a_number() -> None:
    even = torch.full((1, 2, 64, 64), 2000.0)
    lr = even[..., ::4, ::4].contiguous()
    for valid in (None, torch.zeros_like(lr, dtype=torch.bool)):
        torch.testing.assert_close(hold(even, lr, 4, [RED, NIR], valid), even, atol=0.01, rtol=0)


def test_bands_of_two_grids_are_held_each_to_its_own() -> None:
    responses = [RED, SWIR, NIR]
    sr, lr = drawn(2, 3, 64, 64), drawn(2, 3, 16, 16, seed=1)
    together = hold(sr, lr, 4, responses)
    for band, response in enumerate(responses):
        alone = hold(sr[:, band : band + 1], lr[:, band : band + 1], 4, [response])
        torch.testing.assert_close(together[:, band : band + 1], alone, atol=0.01, rtol=0)


def test_gradients_pass_and_a_constant_has_none() -> None:
    """What the scene decides is not the network's to learn: adding a constant to its image changes nothing."""
    sr = drawn(1, 1, 64, 64).requires_grad_()
    weights = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    (hold(sr, drawn(1, 1, 16, 16, seed=1), 4, [RED]) * weights).sum().backward()
    assert sr.grad is not None and sr.grad.abs().max() > 0.1
    assert abs(float(sr.grad.sum())) < 1e-2 * float(sr.grad.abs().sum())


def test_an_image_is_held_as_if_it_were_alone() -> None:
    sr, lr = drawn(3, 2, 64, 64), drawn(3, 2, 16, 16, seed=1)
    together = hold(sr, lr, 4, [RED, NIR])
    torch.testing.assert_close(together[1:2], hold(sr[1:2], lr[1:2], 4, [RED, NIR]), atol=0.01, rtol=0)


def test_the_range_is_kept_without_moving_a_mean() -> None:
    sensor = SensorConsistency({"red": RED})
    inside = drawn(1, 16, 16)
    assert sensor.chunk(inside, inside[:, ::4, ::4], 4) is inside
    sr = torch.tensor([[-50.0, 100.0, 65000.0, 66000.0], [0.0, 420.0, 65000.0, 65000.0]])[None]
    out = sensor.chunk(sr, torch.zeros(1, 1, 2), 2)
    assert out.min() >= 1 - 1e-3 and out.max() <= 65535 + 1e-2
    torch.testing.assert_close(functional.avg_pool2d(out, 2), functional.avg_pool2d(sr, 2), atol=0.01, rtol=0)


def test_block_means_are_met_smoothly_and_a_picture_that_has_them_stays() -> None:
    means, bands = MeanConsistency(), ("red", "green", "blue")
    sr, lr = drawn(3, 64, 64), drawn(3, 16, 16, seed=1)
    out = means.tiles(sr[None], lr[None], 4, bands, None)[0]
    torch.testing.assert_close(functional.avg_pool2d(out, 4), lr, atol=0.01, rtol=0)
    torch.testing.assert_close(means.tiles(out[None], lr[None], 4, bands, None)[0], out, atol=0.02, rtol=0)


def test_block_means_stay_where_clipping_would_move_them() -> None:
    sr = torch.tensor([[-500.0, 100.0, 60000.0, 70000.0], [0.0, 420.0, 65000.0, 65000.0]])[None]
    lr = torch.tensor([[5.0, 65000.0]])[None]
    out = MeanConsistency().chunk(sr, lr, 2)
    torch.testing.assert_close(functional.avg_pool2d(out, 2), lr, atol=0.01, rtol=0)
    assert out.min() >= 1 - 1e-3 and out.max() <= 65535 + 1e-2
    inside = torch.tensor([[900.0, 1100.0], [1000.0, 1000.0]])[None]
    torch.testing.assert_close(MeanConsistency().chunk(inside, torch.tensor([[[1200.0]]]), 2), inside + 200)
