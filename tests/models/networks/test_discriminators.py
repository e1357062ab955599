"""Discriminators: what they are shown, what a step changes, and that they learn to tell apart."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchvision.transforms.functional import normalize
from transformers import ViTConfig, ViTModel

from rsup.models.base.errors import ModelError
from rsup.models.networks.discriminators import (
    DinoDiscriminator,
    DiscriminatorConfig,
    PatchDiscriminator,
    augment,
    build_discriminator,
)

BACKBONES = ("tiny-random", "patch")


def discriminator(backbone: str, **settings: object) -> DinoDiscriminator | PatchDiscriminator:
    torch.manual_seed(0)
    return build_discriminator(DiscriminatorConfig.model_validate({"backbone": backbone, "width": 16} | settings))


def standard(tokens: Tensor) -> Tensor:
    return (tokens - tokens.mean(-1, keepdim=True)) / (tokens.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()


def images(n: int, height: int, width: int) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_logits_have_a_position_a_patch_and_one_a_view() -> None:
    for size in ((32, 32), (57, 40), (20, 64)):  # as large as the transformer's view, larger, smaller
        shapes = [tuple(logits.shape) for logits in discriminator("tiny-random")(images(2, *size))]
        assert shapes == [(2, 1, 4, 4), (2, 1, 4, 4), (2, 1)]
    (logits,) = discriminator("patch")(images(2, 64, 32))
    assert logits.shape == (2, 1, 6, 2)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_step_changes_what_is_trained_and_the_backbone_not_by_a_bit(backbone: str) -> None:
    judge = discriminator(backbone).train()
    before = {name: tensor.clone() for name, tensor in judge.state_dict().items()}
    optimizer = torch.optim.AdamW(judge.trainable_parameters(), lr=1e-2, weight_decay=0.1)
    sum(F.binary_cross_entropy_with_logits(x, torch.ones_like(x)) for x in judge(images(2, 48, 48))).backward()  # type: ignore[union-attr]
    optimizer.step()
    unchanged = {name for name, tensor in judge.named_parameters() if torch.equal(tensor, before[name])}
    assert unchanged == {name for name, _ in judge.named_parameters() if name.startswith("backbone.")}
    assert (backbone == "patch") != bool(unchanged)
    assert not any(module.training for name, module in judge.named_modules() if name.startswith("backbone"))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradients_flow_to_the_image(backbone: str) -> None:
    judge = discriminator(backbone)
    image = images(2, 32, 32).requires_grad_()
    for logits in judge(image):
        (gradient,) = torch.autograd.grad(logits.sum(), image, retain_graph=True)
        assert gradient.isfinite().all()
        # A rectangle is cut out and a margin pushed out; every image keeps a part that is judged.
        assert (gradient != 0).float().mean((1, 2, 3)).min() > 0.3


@pytest.mark.parametrize("backbone", BACKBONES)
def test_it_learns_to_tell_reddish_images_from_bluish_ones(backbone: str) -> None:
    """In spite of the augmentation; easy, because a transformer with random weights sees little."""
    judge = discriminator(backbone)
    optimizer = torch.optim.Adam(judge.trainable_parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        first = torch.rand(8, 3, 32, 32) + torch.tensor([0.0, -0.5, -1.0]).view(1, 3, 1, 1)
        real, fake = (
            torch.cat([x.flatten(1) for x in judge(first)], 1),
            torch.cat([x.flatten(1) for x in judge(first.flip(1))], 1),
        )
        loss = F.softplus(-real).mean() + F.softplus(fake).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.7 * 2 * np.log(2)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_its_own_tensors_are_saved_and_loaded(backbone: str) -> None:
    judge = discriminator(backbone, augmentation=()).train()
    judge(images(2, 32, 32))  # moves the power iteration on, which a resumed run must find where it was
    state = {name: tensor.clone() for name, tensor in judge.state_to_save().items()}
    assert not any(name.startswith("backbone") for name in state)
    other = discriminator(backbone, augmentation=())
    nn.init.zeros_(other.trainable_parameters()[0])
    other.load(state)
    for mine, theirs in zip(other.train()(images(2, 32, 32)), judge(images(2, 32, 32)), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(ModelError, match="use the settings it was trained with"):
        discriminator(backbone, width=32).load(state)
    state.popitem()
    with pytest.raises(ModelError, match="does not fit at"):
        other.load(state)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_convolutions_converge_to_spectral_norm_one(backbone: str) -> None:
    judge = discriminator(backbone).train()
    for _ in range(30):
        judge(images(1, 32, 32))
    for name, module in judge.eval().named_modules():
        if isinstance(module, nn.Conv2d) and not name.startswith("backbone"):
            largest = np.linalg.svd(module.weight.detach().numpy().reshape(len(module.weight), -1), compute_uv=False)[0]
            assert abs(largest - 1) < 0.05, name


def test_dino_sees_what_it_was_trained_on_and_its_layers_are_read() -> None:
    judge = discriminator("tiny-random", augmentation=())
    assert isinstance(judge, DinoDiscriminator)
    seen: list[Tensor] = []
    judge.backbone.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    read: list[Tensor] = []
    for head in (*judge.patch_heads, judge.class_head):
        head.register_forward_pre_hook(lambda _, arguments: read.append(arguments[0]))
    image = images(2, 32, 32)
    judge(image)
    expected = normalize((image + 1) / 2, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(seen[0], expected)
    # Layer by layer: of three the first two are read, and the class token after the last and its norm.
    state = judge.backbone.embeddings(expected)
    for i, layer in enumerate(judge.backbone.layers):
        state = layer(state)
        if i < 2:
            torch.testing.assert_close(read[i].flatten(2).transpose(1, 2), standard(state[:, 1:]))
    torch.testing.assert_close(read[2].flatten(1), standard(judge.backbone.layernorm(state)[:, 0]))


def test_dino_at_full_size() -> None:
    with torch.device("meta"):
        judge = DinoDiscriminator(ViTModel(ViTConfig(), add_pooling_layer=False), DiscriminatorConfig())
        assert (judge.side, judge.layers) == (224, (4, 8))
    assert [tuple(x.shape) for x in judge(torch.empty(2, 3, 512, 512, device="meta"))] == [
        (2, 1, 14, 14),
        (2, 1, 14, 14),
        (2, 1),
    ]
    head = 768 * 128 + 128 + 128 * 128 + 128 + 128 + 1
    assert sum(tensor.numel() for tensor in judge.trainable_parameters()) == 3 * head


def test_a_large_image_is_judged_in_its_own_pixels() -> None:
    judge = discriminator("tiny-random", augmentation=())
    seen: list[Tensor] = []
    judge.backbone.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))  # type: ignore[union-attr]
    # A pixel's value is its place, so the view says where it was taken.
    image = torch.arange(80 * 100, dtype=torch.float32).view(1, 1, 80, 100).expand(1, 3, 80, 100) / 4000 - 1
    corners = set()
    for _ in range(5):
        judge(image)
        red = (seen.pop()[0, 0].double() * 0.229 + 0.485) * 8000
        places = red.round().long()
        torch.testing.assert_close(red, places.double(), rtol=0, atol=0.01)
        top, left = divmod(int(places[0, 0]), 100)
        rows, columns = torch.arange(top, top + 32), torch.arange(left, left + 32)
        assert torch.equal(places, rows[:, None] * 100 + columns)
        corners.add((top, left))
    assert len(corners) > 1


def test_augmentation_is_drawn_from_torchs_generator() -> None:
    image = images(4, 16, 24)
    kinds = DiscriminatorConfig().augmentation
    torch.manual_seed(3)
    first = augment(image, kinds)
    torch.manual_seed(3)
    assert torch.equal(augment(image, kinds), first)
    assert not torch.equal(augment(image, kinds), first)
    assert augment(image, ()) is image


def test_translation_moves_by_up_to_an_eighth() -> None:
    image = images(64, 16, 24).double() + 2  # never 0
    moved = augment(image, ("translation",))
    shifts = set()
    for before, after in zip(image.numpy(), moved.numpy(), strict=True):
        padded = np.zeros((3, 16 + 4, 24 + 6))
        padded[:, 2:18, 3:27] = before
        found = [(y, x) for y in range(5) for x in range(7) if np.array_equal(padded[:, y : y + 16, x : x + 24], after)]
        assert len(found) == 1
        shifts.add(found[0])
    assert {y for y, _ in shifts} == set(range(5)) and {x for _, x in shifts} == set(range(7))


def test_cutout_removes_one_rectangle_of_half_the_sides() -> None:
    cut = augment(torch.ones(200, 3, 16, 24), ("cutout",))
    for picture in cut:
        assert torch.equal(picture[0], picture[2]) and set(picture.unique().tolist()) <= {0.0, 1.0}
        rows, columns = (picture[0] == 0).any(1), (picture[0] == 0).any(0)
        assert 4 <= rows.sum() <= 8 and 6 <= columns.sum() <= 12
        assert torch.equal(picture[0] == 0, rows[:, None] & columns)
    assert (cut == 0).float().mean() < 0.25


def test_color_is_an_affine_change_of_each_image() -> None:
    """Brightness moves the mean by up to .5; saturation and contrast stretch around grey and around the mean."""
    image = images(300, 8, 8).double()
    changed = augment(image, ("color",))
    shift = changed.mean((1, 2, 3)) - image.mean((1, 2, 3))
    assert shift.abs().max() < 0.5 and shift.min() < -0.4 and shift.max() > 0.4

    def split(x: Tensor) -> tuple[Tensor, Tensor]:
        grey = x.mean(1, keepdim=True)
        return (x - grey).flatten(1), (grey - grey.mean((2, 3), keepdim=True)).flatten(1)

    (color, light), (new_color, new_light) = split(image), split(changed)
    contrast = (new_light * light).sum(1) / (light * light).sum(1)
    torch.testing.assert_close(new_light, contrast[:, None] * light)
    assert contrast.min() > 0.5 and contrast.max() < 1.5
    saturation = (new_color * color).sum(1) / (color * color).sum(1)
    torch.testing.assert_close(new_color, saturation[:, None] * color)
    assert (saturation / contrast).min() >= 0 and (saturation / contrast).max() <= 2


def test_augmentation_is_differentiable() -> None:
    image = images(2, 8, 8).double().requires_grad_()

    def changed(x: Tensor) -> Tensor:
        torch.manual_seed(2)
        return augment(x, ("color", "translation", "cutout"))

    assert torch.autograd.gradcheck(changed, image)
