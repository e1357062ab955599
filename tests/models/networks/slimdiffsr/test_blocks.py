"""Each part that a student keeps, against diffusers' own: tensor names, what a seed draws, and the result."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from diffusers.models.attention import FeedForward as TheirFeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.vae import DecoderTiny, EncoderTiny
from diffusers.models.downsampling import Downsample2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

from rsup.models.networks.slimdiffsr.blocks import (
    Downsample,
    FeedForward,
    SelfAttention,
    Upsample,
    tiny_decoder,
    tiny_encoder,
)

DOWN, UP = (1, 3, 3, 3), (3, 3, 3, 1)
MAP, TOKENS = (2, 16, 8, 12), (2, 40, 16)


def their_encoder() -> nn.Module:
    return EncoderTiny(3, 4, DOWN, (16,) * 4, act_fn="relu").layers


def their_decoder() -> nn.Module:
    return DecoderTiny(4, 3, UP, (16,) * 4, 2, act_fn="relu", upsample_fn="nearest").layers


@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        (lambda: tiny_encoder(16, 4, DOWN), their_encoder, (2, 3, 32, 48)),
        (lambda: tiny_decoder(16, 4, UP), their_decoder, (2, 4, 4, 6)),
        (lambda: Downsample(16), lambda: Downsample2D(16, use_conv=True, padding=1, name="op"), MAP),
        (lambda: Upsample(16), lambda: Upsample2D(16, use_conv=True), MAP),
        (lambda: Upsample(16), lambda: Upsample2D(16, use_conv=True), (64, 16, 2, 2)),
        (lambda: SelfAttention(16, 4), lambda: Attention(16, heads=4, dim_head=4), TOKENS),
        (lambda: FeedForward(16), lambda: TheirFeedForward(16, activation_fn="geglu"), TOKENS),
    ],
    ids=["encoder", "decoder", "down", "up", "up of many", "attention", "feed-forward"],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_blocks_are_diffusers_own(
    ours: Callable[[], nn.Module],
    theirs: Callable[[], nn.Module],
    shape: tuple[int, ...],
    layout: torch.memory_format,
) -> None:
    torch.manual_seed(0)
    own = ours()
    torch.manual_seed(0)
    reference = theirs()
    state, expected = own.state_dict(), reference.state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[name], expected[name]) for name in state)

    x = torch.randn(shape)
    if x.ndim == 4:
        x = x.contiguous(memory_format=layout)
    x.requires_grad_()
    result, wanted = own(x), reference(x)
    torch.testing.assert_close(result, wanted, rtol=1e-6, atol=1e-6)
    weight = torch.randn_like(result)
    gradient, wanted_gradient = (torch.autograd.grad((y * weight).sum(), x)[0] for y in (result, wanted))
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-5, atol=1e-5)


def test_a_student_needs_none_of_diffusers() -> None:
    code = (
        "import sys; from rsup.models.networks import compact; from rsup.models.networks.slimdiffsr import student; "
        "compact.CompactStudent(compact.CompactConfig(scale=4)); "
        "student.Student(student.StudentConfig(channels=(32,), deep_channels=32)); "
        "print({'diffusers', 'transformers', 'peft', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
