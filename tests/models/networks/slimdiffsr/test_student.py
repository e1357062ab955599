"""The student against a second implementation, written from the paper's formulas over the published tensor names."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from rsup.models.networks.architectures import parameters
from rsup.models.networks.slimdiffsr.config import StudentConfig
from rsup.models.networks.slimdiffsr.student import Student
from rsup.models.published import dead_shapes, parameters_as_published, published_layout, published_name
from rsup.models.show import gmac


class Reference:
    """The published forward pass in plain functions; `state` has the published names, in any precision."""

    def __init__(self, state: dict[str, Tensor], groups: int) -> None:
        self.state, self.groups = state, groups

    def conv(self, name: str, x: Tensor, stride: int = 1, depthwise: bool = False) -> Tensor:
        weight = self.state[f"{name}.weight"]
        padding = (weight.shape[2] // 2, weight.shape[3] // 2)
        groups = x.shape[1] if depthwise else 1
        return F.conv2d(x, weight, self.state.get(f"{name}.bias"), stride, padding, groups=groups)

    def linear(self, name: str, x: Tensor) -> Tensor:
        y = x @ self.state[f"{name}.weight"].T
        return y + self.state[f"{name}.bias"] if f"{name}.bias" in self.state else y

    def group_norm(self, name: str, x: Tensor, eps: float) -> Tensor:
        n, c, h, w = x.shape
        parts = x.reshape(n, self.groups, -1)
        parts = (parts - parts.mean(-1, keepdim=True)) / (parts.var(-1, correction=0, keepdim=True) + eps).sqrt()
        scale, shift = (self.state[f"{name}.{key}"].reshape(1, c, 1, 1) for key in ("weight", "bias"))
        return parts.reshape(n, c, h, w) * scale + shift

    def layer_norm(self, name: str, x: Tensor) -> Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return x * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def gate(self, name: str, x: Tensor) -> Tensor:
        pooled = x.mean((2, 3))
        logits = self.linear(f"{name}.mlp.2", self.linear(f"{name}.mlp.0", pooled).clamp(min=0))
        return (1 / (1 + (-logits).exp()))[:, :, None, None]

    def fsc(self, name: str, x: Tensor) -> Tensor:
        low = self.conv(f"{name}.low_branch.0", x, depthwise=True)
        high = self.conv(f"{name}.high_branch.0", x - low, depthwise=True)
        g = self.gate(name, x)
        fused = g[:, 0:1] * low + g[:, 1:2] * high
        return self.conv(f"{name}.bottleneck.2", self.conv(f"{name}.bottleneck.0", fused).clamp(min=0))

    def dsc(self, name: str, x: Tensor) -> Tensor:
        fh = self.conv(f"{name}.h_conv.0", x, depthwise=True)
        fhv = self.conv(f"{name}.v_conv.0", fh, depthwise=True)
        fv = self.conv(f"{name}.v_conv.0", x, depthwise=True)
        g = self.gate(name, x)
        fused = g[:, 0:1] * fh + g[:, 1:2] * fhv + g[:, 2:3] * fv
        return self.conv(f"{name}.conv_expand", self.conv(f"{name}.conv_reduce", fused))

    def resnet(self, name: str, x: Tensor) -> Tensor:
        y = self.group_norm(f"{name}.norm1", x, 1e-5)
        y = self.fsc(f"{name}.conv1", y * y.sigmoid())
        y = self.group_norm(f"{name}.norm2", y, 1e-5)
        y = self.dsc(f"{name}.conv2", y * y.sigmoid())
        has_shortcut = f"{name}.conv_shortcut.weight" in self.state
        return y + (self.conv(f"{name}.conv_shortcut", x) if has_shortcut else x)

    def qgam(self, name: str, x: Tensor) -> Tensor:
        scale = x.shape[-1] ** -0.5
        queries = self.linear(f"{name}.q_proj", self.state[f"{name}.query"])
        keys, values = self.linear(f"{name}.k_proj", x), self.linear(f"{name}.v_proj", x)
        gathered = (queries @ keys.transpose(1, 2) * scale).softmax(-1) @ values
        keys, values = self.linear(f"{name}.k_proj_c", gathered), self.linear(f"{name}.v_proj_c", gathered)
        spread = (self.linear(f"{name}.q_proj_c", x) @ keys.transpose(1, 2) * scale).softmax(-1) @ values
        return self.linear(f"{name}.out_proj", spread)

    def transformer(self, name: str, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = self.group_norm(f"{name}.norm", x, 1e-6).reshape(n, c, h * w).transpose(1, 2)
        y = self.linear(f"{name}.proj_in", y)
        block = f"{name}.transformer_blocks.0"
        y = y + self.qgam(f"{block}.attn1", self.layer_norm(f"{block}.norm1", y))
        value, gate = self.linear(f"{block}.ff.net.0.proj", self.layer_norm(f"{block}.norm3", y)).chunk(2, -1)
        gate = gate * (1 + torch.erf(gate / 2**0.5)) / 2
        y = y + self.linear(f"{block}.ff.net.2", value * gate)
        return x + self.linear(f"{name}.proj_out", y).transpose(1, 2).reshape(n, c, h, w)

    def level(self, name: str, index: int, x: Tensor) -> Tensor:
        return self.transformer(f"{name}.attentions.{index}", self.resnet(f"{name}.resnets.{index}", x))

    def taesd_block(self, name: str, x: Tensor) -> Tensor:
        y = self.conv(f"{name}.conv.0", x).clamp(min=0)
        y = self.conv(f"{name}.conv.2", y).clamp(min=0)
        return (self.conv(f"{name}.conv.4", y) + x).clamp(min=0)

    def double(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def __call__(self, image: Tensor) -> Tensor:
        x = image
        for i in range(14):
            name = f"vae.encoder.layers.{i}"
            plain = f"{name}.weight" in self.state
            x = self.conv(name, x, stride=2 if i in (2, 6, 10) else 1) if plain else self.taesd_block(name, x)
        fused = self.conv("merge_conv1", x)

        first = self.level("unet.down_blocks.0", 0, fused)
        second = self.level("unet.down_blocks.0", 1, first)
        down = self.conv("unet.down_blocks.0.downsamplers.0.conv", second, stride=2)
        third = self.level("unet.down_blocks.1", 0, down)
        fourth = self.level("unet.down_blocks.1", 1, third)
        x = self.resnet("unet.mid_block.mid_block", fourth)
        for i, skip in enumerate((fourth, third, down)):
            x = self.level("unet.up_blocks.0", i, torch.cat([x, skip], 1))
        x = self.conv("unet.up_blocks.0.upsamplers.0.conv", self.double(x))
        for i, skip in enumerate((second, first, fused)):
            x = self.level("unet.up_blocks.1", i, torch.cat([x, skip], 1))
        x = self.group_norm("unet.conv_norm_out", x, 1e-5)
        x = self.conv("merge_conv2", x * x.sigmoid())

        x = x.clamp(min=0)
        for i in range(2, 19):
            name = f"vae.decoder.layers.{i}"
            if i in (5, 10, 15):
                x = self.double(x)
            else:
                x = self.conv(name, x) if f"{name}.weight" in self.state else self.taesd_block(name, x)
        return x


def made(config: StudentConfig, published: dict[str, Tensor]) -> Student:
    with torch.device("meta"):
        student = Student(config)
    student.load_state_dict({name: published[published_name(name)] for name in student.state_dict()}, assign=True)
    return student.eval()


@pytest.mark.parametrize(("salt", "height", "width"), [("b/", 16, 16), ("c/", 48, 80), ("d/", 64, 32)])
def test_agrees_with_plain_formulas(tiny, draw, salt, height, width):
    published = {name: tensor.double() for name, tensor in draw(published_layout(tiny), salt).items()}
    image = torch.rand(2, 3, height, width, dtype=torch.float64, generator=torch.manual_seed(5)) * 2 - 1
    with torch.inference_mode():
        ours, theirs = made(tiny, published)(image), Reference(published, tiny.groups)(image)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


def test_full_width_agrees_with_plain_formulas(draw):
    """At the published widths, in float32, and by another draw than the published pass."""
    config = StudentConfig()
    published = draw(published_layout(config), "rsup-parity-b/")
    image = torch.rand(1, 3, 32, 48, generator=torch.manual_seed(6)) * 2 - 1
    with torch.inference_mode():
        ours = made(config, published)(image)
        theirs = Reference(published, config.groups)(image)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_counts_of_the_paper():
    with torch.device("meta"):
        student = Student()
        cost = gmac(student, torch.empty(1, 3, 512, 512))
    assert parameters(student) == 55_974_802
    assert parameters_as_published(StudentConfig()) == 58_053_402
    assert cost == pytest.approx(226.7, abs=0.05)


def test_no_dead_tensor_is_kept(tiny, draw):
    """Every parameter moves the output in some draw (a ReLU may sleep in one), and no published dead one is there."""
    still = {published_name(name) for name in Student(tiny).state_dict()}
    for salt in ("b/", "c/", "d/"):
        student = made(tiny, draw(published_layout(tiny), salt))
        student(torch.rand(1, 3, 32, 32, generator=torch.manual_seed(7)) * 2 - 1).square().mean().backward()
        still -= {published_name(name) for name, p in student.named_parameters() if p.grad is not None and p.grad.any()}
    assert not still
    assert not {published_name(name) for name in student.state_dict()} & dead_shapes(tiny).keys()


def test_last_convolution_runs_in_float32_under_autocast(tiny, draw):
    student = made(tiny, draw(published_layout(tiny)))
    seen = {}
    student.decoder[-1].register_forward_hook(lambda module, args, out: seen.update(x=args[0], out=out))
    image = torch.rand(1, 3, 48, 32, generator=torch.manual_seed(8)) * 2 - 1
    with torch.inference_mode():
        plain = student(image)
        with torch.autocast("cpu", torch.bfloat16):
            out = student(image)
        last = student.decoder[-1]
        torch.testing.assert_close(out, F.conv2d(seen["x"], last.weight, last.bias, padding=1), rtol=0, atol=1e-5)
    assert out.dtype == torch.float32
    # Were it rounded to bfloat16, casting there and back would change nothing.
    assert (out.bfloat16().float() != out).float().mean() > 0.9
    # What comes before is in bfloat16: near the float32 result, and not equal to it.
    assert 0 < (out - plain).std() < 0.5 * plain.std()


def test_sides_that_do_not_divide_are_refused(tiny):
    with pytest.raises(ValueError, match="multiples of 16"):
        Student(tiny)(torch.zeros(1, 3, 24, 32))


@pytest.mark.parametrize("channels", [(16,), (16, 24, 32)])
def test_other_depths_keep_the_image_size(channels):
    config = StudentConfig(channels=channels, deep_channels=32, queries=2, squeeze=8, groups=8, autoencoder_channels=8)
    side = 2 * config.multiple
    assert Student(config)(torch.zeros(1, 3, side, 2 * side)).shape == (1, 3, side, 2 * side)


def test_config_refuses_what_no_network_has():
    for wrong in ({"channels": (30, 60)}, {"channels": ()}, {"blocks": 0}, {"chanels": (320, 640)}):
        with pytest.raises(ValueError, match="StudentConfig"):
            StudentConfig.model_validate(wrong)
