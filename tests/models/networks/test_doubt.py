"""The second head: what it says untrained, and how far it sees."""

import torch

from rsup.models.base.radiometry import to_network
from rsup.models.networks.doubt import FLAT, Doubt


def test_untrained_it_says_the_contrast_of_the_surroundings() -> None:
    """A checkerboard of +-100 stored numbers: a window of 5 x 5 has 13 of one kind and 12 of the other."""
    rows, cols = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    sign = ((rows + cols) % 2 * 2 - 1).float()
    image = to_network(2000 + 100 * sign)[None, None].expand(1, 4, 16, 16)
    said = Doubt(8, 4)(torch.zeros(1, 8, 16, 16), image)
    assert said.shape == (1, 4, 32, 32)
    inner = said[..., 8:-8, 8:-8]
    # The mean of a window is +-100 / 25 and has the sign of its middle, so every pixel is 96 away from it.
    torch.testing.assert_close(inner, torch.full_like(inner, 96 + FLAT), rtol=1e-3, atol=0)


def test_it_sees_fifteen_pixels_of_features_across() -> None:
    head = Doubt(8, 4)
    torch.nn.init.normal_(head.last.weight, std=0.1)
    features = torch.zeros(1, 8, 32, 32, requires_grad=True)
    said = head(features, torch.zeros(1, 4, 32, 32))
    said[..., 32:34, 32:34].sum().backward()
    assert features.grad is not None
    seen = features.grad[0].abs().sum(0).nonzero()
    assert seen.min(0).values.tolist() == [9, 9] and seen.max(0).values.tolist() == [23, 23]
