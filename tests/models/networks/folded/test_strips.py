"""Layers by strips against the same layers over the whole, in float64."""

import pytest
import torch
from torch import nn

from rsup.models.networks.folded.strips import Strips


@pytest.mark.parametrize("height", [2, 8, 16, 20, 34])
def test_strips_are_the_whole(height):
    torch.manual_seed(1)
    down = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2, padding=1)).double()
    up = nn.Sequential(nn.Upsample(scale_factor=2), *(nn.Conv2d(3, 3, 3, padding=1) for _ in range(2))).double()
    image = torch.randn(2, 3, height, 6, dtype=torch.float64)
    with torch.inference_mode():
        for layers, strips in (
            (down, Strips(down, rows=8, halo=2, down=2)),
            (up, Strips(up, rows=8, halo=2, up=2)),
        ):
            torch.testing.assert_close(strips(image), layers(image), rtol=0, atol=1e-13)
    # A halo that is too small shows: the test above can fail.
    narrow = Strips(up, rows=8, halo=0, up=2)
    assert torch.allclose(narrow(image), up(image), rtol=0, atol=1e-13) == (height <= 8)
