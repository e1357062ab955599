"""Which levels are compared, what the taps keep, and the losses against numpy."""

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from rsup.models.base.errors import ModelError
from rsup.models.losses.distillation import Distillation, DistillationConfig, FeatureTaps, corresponding_levels
from rsup.models.losses.terms import mmd2
from rsup.models.networks.slimdiffsr.config import StudentConfig
from rsup.models.networks.slimdiffsr.student import Student

CONFIG = StudentConfig(channels=(16, 32), deep_channels=64, queries=4, squeeze=8, groups=8, autoencoder_channels=8)


@pytest.fixture(scope="module")
def teacher() -> UNet2DConditionModel:
    """Stable Diffusion's UNet at a twentieth of its width."""
    torch.manual_seed(1)
    return UNet2DConditionModel(
        block_out_channels=(16, 32, 64, 64), cross_attention_dim=16, attention_head_dim=2, norm_num_groups=8
    )


def seen(teacher: UNet2DConditionModel, names: tuple[str, ...], size: int = 16) -> list[Tensor]:
    latent = torch.randn(2, 4, size, size, generator=torch.Generator().manual_seed(0))
    with FeatureTaps(teacher, names) as taps, torch.no_grad():
        teacher(latent, 200, torch.zeros(2, 7, 16))
    return taps.features


def made(config: StudentConfig = CONFIG) -> Student:
    torch.manual_seed(2)
    return Student(config)


def image(size: int = 128) -> Tensor:
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(3))


def test_kept_levels_face_their_own_and_the_middle_what_comes_up_to_it(teacher: UNet2DConditionModel) -> None:
    student = made()
    assert corresponding_levels(student.unet, teacher) == [
        ("down_blocks.0", "down_blocks.0"),
        ("down_blocks.1", "down_blocks.1"),
        ("mid_block", "up_blocks.1"),
        ("up_blocks.0", "up_blocks.2"),
        ("up_blocks.1", "up_blocks.3"),
    ]
    distillation = Distillation(student.unet, teacher, DistillationConfig())
    with FeatureTaps(student.unet, distillation.student_levels) as taps, torch.no_grad():
        student(image())
    theirs = seen(teacher, distillation.teacher_levels)
    # Latents of 128 pixels are 16 wide; the second level and the middle work at half of that.
    assert [f.shape[-1] for f in taps.features] == [16, 8, 8, 16, 16]
    assert [f.shape[2:] for f in theirs] == [f.shape[2:] for f in taps.features]
    assert [f.shape[1] for f in taps.features] == [16, 32, 64, 32, 16]
    assert [f.shape[1] for f in theirs] == [16, 32, 64, 32, 16]


def test_a_student_with_all_levels_is_compared_middle_with_middle(teacher: UNet2DConditionModel) -> None:
    student = made(CONFIG.model_copy(update={"sap": False, "channels": (32, 32), "groups": 8}))
    pairs = corresponding_levels(student.unet, teacher)
    assert pairs[4] == ("mid_block", "mid_block")
    assert all(ours == theirs for ours, theirs in pairs) and len(pairs) == 9
    distillation = Distillation(student.unet, teacher, DistillationConfig(samples=4))
    with FeatureTaps(student.unet, distillation.student_levels) as taps:
        student(image())
    terms = distillation(taps.features, seen(teacher, distillation.teacher_levels))
    assert all(term.isfinite() for term in terms.values())


def test_a_student_may_teach_a_smaller_one() -> None:
    big, small = made(), made(CONFIG.model_copy(update={"channels": (16,), "deep_channels": 16}))
    distillation = Distillation(small.unet, big.unet, DistillationConfig())
    assert distillation.teacher_levels == ("down_blocks.0", "up_blocks.0", "up_blocks.1")
    with (
        FeatureTaps(small.unet, distillation.student_levels) as ours,
        FeatureTaps(big.unet, distillation.teacher_levels) as theirs,
    ):
        small(image(64)), big(image(64))
    sum(distillation(ours.features, theirs.features).values(), torch.zeros(())).backward()
    assert all(tensor.grad is None for tensor in big.parameters())
    # What lies behind the last level taken is trained by other losses; all before it has a gradient.
    reached = {name for name, tensor in small.named_parameters() if tensor.grad is not None and tensor.grad.any()}
    missed = {name.split(".")[0] for name, _ in small.named_parameters()} - {name.split(".")[0] for name in reached}
    assert missed == {"fuse_out", "decoder"}
    assert all(tensor.grad is not None for tensor in distillation.parameters())
    with pytest.raises(ModelError, match="2 levels cannot learn from a teacher of 1"):
        Distillation(big.unet, small.unet, DistillationConfig())


def test_taps_hold_only_inside_their_block_and_nest() -> None:
    student = made()
    names = ("down_blocks.0", "mid_block")

    def hooks() -> int:
        return sum(len(module._forward_hooks) for module in student.modules())

    with torch.no_grad(), FeatureTaps(student.unet, names) as outer:
        student(image(32))
        with FeatureTaps(student.unet, names) as inner:
            student(image(64))
        assert inner.features[0].shape[-1] == 8
        assert torch.equal(inner.features[1], outer.features[1])
        student(image(32))
    assert outer.features[0].shape[-1] == 4 and inner.features[0].shape[-1] == 8
    assert hooks() == 0
    with pytest.raises(KeyError), FeatureTaps(student.unet, names):
        raise KeyError
    assert hooks() == 0
    with FeatureTaps(student.unet, names) as silent:
        pass
    with pytest.raises(RuntimeError, match="down_blocks.0 has not been called"):
        silent.features  # noqa: B018 - the property raises


def test_taps_keep_what_the_next_level_is_given_before_it_shrinks() -> None:
    """The first level's map is the input of its downsampler, whose own output is left out."""
    student, given = made(), []
    sampler = student.unet.down_blocks[0].downsamplers[0]
    handle = sampler.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0]))
    with torch.no_grad(), FeatureTaps(student.unet, ("down_blocks.0",)) as taps:
        student(image(32))
    handle.remove()
    assert torch.equal(taps.features[0], given[0])


@pytest.mark.parametrize("kernel", [1, 3])
def test_the_losses_are_means_over_levels_of_adapted_maps(teacher: UNet2DConditionModel, kernel: int) -> None:
    student = made()
    config = DistillationConfig.model_validate({"adapter_kernel": kernel, "samples": 4096})
    distillation = Distillation(student.unet, teacher, config)
    assert distillation.adapters[0].kernel_size == (kernel, kernel)
    with FeatureTaps(student.unet, distillation.student_levels) as taps, torch.no_grad():
        student(image())
    ours, theirs = taps.features, seen(teacher, distillation.teacher_levels)
    with torch.no_grad():
        terms = distillation(ours, theirs)
        adapted = [adapter(f).double() for adapter, f in zip(distillation.adapters, ours, strict=True)]
    squares = [np.mean((a.numpy() - b.double().numpy()) ** 2) for a, b in zip(adapted, theirs, strict=True)]
    assert terms["mse"].item() == pytest.approx(np.mean(squares), rel=1e-4)
    # With all positions chosen their order does not matter.
    by_image = [
        mmd2(a[i].flatten(1).T, b[i].double().flatten(1).T)
        for a, b in zip(adapted, theirs, strict=True)
        for i in range(2)
    ]
    assert terms["mmd"].item() == pytest.approx(torch.stack(by_image).mean().item(), rel=1e-4)


def test_equal_maps_cost_nothing_and_positions_are_sampled(teacher: UNet2DConditionModel) -> None:
    student = made()
    distillation = Distillation(student.unet, teacher, DistillationConfig(samples=16))
    for adapter in distillation.adapters:
        nn.init.dirac_(adapter.weight)
        nn.init.zeros_(adapter.bias)
    theirs = seen(teacher, distillation.teacher_levels)
    terms = distillation(theirs, theirs)
    assert terms["mse"].item() == 0 and terms["mmd"].item() == 0
    other = [f.flip(-1) for f in theirs]
    assert distillation(other, theirs)["mmd"].item() != distillation(other, theirs)["mmd"].item()
    torch.manual_seed(7)
    first = distillation(other, theirs)["mmd"].item()
    torch.manual_seed(7)
    assert distillation(other, theirs)["mmd"].item() == first


def test_without_a_weight_there_is_no_discrepancy(teacher: UNet2DConditionModel) -> None:
    student = made()
    distillation = Distillation(student.unet, teacher, DistillationConfig(mmd=0))
    theirs = seen(teacher, distillation.teacher_levels)
    assert set(distillation(theirs, theirs)) == {"mse"}


def test_other_resolutions_are_refused(teacher: UNet2DConditionModel) -> None:
    student = made()
    distillation = Distillation(student.unet, teacher, DistillationConfig())
    with pytest.raises(ModelError, match="16 x 16 positions where the teacher has 8 x 8"):
        distillation(seen(teacher, distillation.teacher_levels), seen(teacher, distillation.teacher_levels, 8))
