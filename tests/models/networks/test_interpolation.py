"""Interpolators against Pillow, against polynomials they must reproduce, and against their declared reach."""

import numpy as np
import pytest
import torch
from PIL import Image

from rsup.models.networks.interpolation import interpolator
from rsup.models.registry import INTERPOLATORS

PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def by_pillow(name, image, scale):
    """Pillow on a float image whose edge pixels are repeated first: it shortens its kernels at the border instead."""
    margin = 6
    padded = np.pad(image, margin, mode="edge")
    size = (padded.shape[1] * scale, padded.shape[0] * scale)
    big = np.asarray(Image.fromarray(padded).resize(size, PILLOW[name]))
    return big[margin * scale : -margin * scale, margin * scale : -margin * scale]


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
@pytest.mark.parametrize("name", list(INTERPOLATORS))
def test_equals_pillow_to_the_border(name, scale):
    images = np.random.default_rng(1).uniform(-1, 1, (2, 3, 17, 23)).astype(np.float32)
    ours = interpolator(name, scale)(torch.from_numpy(images)).numpy()
    theirs = np.stack([[by_pillow(name, band, scale) for band in image] for image in images])
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("scale", [4, 8])
def test_bicubic_reproduces_parabolas_at_pixel_centres(scale):
    """Keys' kernel is exact for quadratics only with a = -1/2; a shifted grid would fail as well."""
    side = 16
    at = np.arange(side, dtype=np.float64)
    fine = (np.arange(side * scale) + 0.5) / scale - 0.5

    def surface(x, y):
        return 0.01 * x * x - 0.2 * y + 0.02 * x * y - 0.005 * y * y

    low = torch.from_numpy(surface(at[None], at[:, None]).astype(np.float32))[None, None]
    high = interpolator("bicubic", scale)(low)[0, 0].numpy()
    inner = slice(3 * scale, -3 * scale)
    np.testing.assert_allclose(high[inner, inner], surface(fine[None], fine[:, None])[inner, inner], atol=2e-6)


@pytest.mark.parametrize("name", list(INTERPOLATORS))
def test_constants_stay_constant(name):
    out = interpolator(name, 8)(torch.full((1, 3, 9, 9), 0.7))
    torch.testing.assert_close(out, torch.full((1, 3, 72, 72), 0.7), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", list(INTERPOLATORS))
def test_halo_is_the_reach_and_no_more(name):
    halo, scale, side = INTERPOLATORS[name], 4, 20
    network = interpolator(name, scale)
    base = torch.rand(1, 3, side, side, generator=torch.manual_seed(2))
    other = torch.rand(1, 3, side, side, generator=torch.manual_seed(3))
    other[..., halo : side - halo, halo : side - halo] = base[..., halo : side - halo, halo : side - halo]
    inner = slice(2 * halo * scale, (side - 2 * halo) * scale)
    changed = network(base) != network(other)
    assert not changed[..., inner, inner].any()
    if halo:
        wider = slice((2 * halo - 1) * scale, (side - 2 * halo + 1) * scale)
        assert changed[..., wider, wider].any()
