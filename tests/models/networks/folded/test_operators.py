"""Folded operators against the plain ones: in float32 to roundings, in bfloat16 as near to float32 as those are."""

import pytest
import torch
from torch import nn

from rsup.models.networks.folded import operators
from rsup.models.networks.folded.kernels import folds
from rsup.models.networks.slimdiffsr.blocks import TinyBlock, Upsample
from rsup.models.networks.slimdiffsr.config import StudentConfig
from rsup.models.networks.slimdiffsr.operators import DSC, FSC, QGAM
from rsup.models.networks.slimdiffsr.unet import ResidualBlock, Transformer

WIDTHS = {"channels": (16, 32), "deep_channels": 64, "queries": 4, "squeeze": 8, "groups": 8}
CONFIGS = [
    StudentConfig.model_validate(WIDTHS | switches)
    for switches in (
        {},
        {"norm": "pixel"},
        {"norm": "pixel", "local": True},
        {"fsc": False},
        {"dsc": False},
        {"qgam": False},
    )
]


def drawn(module: nn.Module) -> nn.Module:
    """Weights that matter everywhere: biases and gates are not what they are at the start."""
    generator = torch.manual_seed(3)
    for parameter in module.parameters():
        fan = parameter[0].numel() if parameter.ndim > 1 else 4
        parameter.data = torch.randn(parameter.shape, generator=generator) * fan**-0.5
    return module.eval()


def map_of(n: int, channels: int, height: int = 24, width: int = 20) -> torch.Tensor:
    image = torch.randn(n, channels, height, width, generator=torch.manual_seed(n))
    return image.contiguous(memory_format=torch.channels_last)


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("local", [False, True])
def test_fsc(n, local):
    whole, x = drawn(FSC(16, 24, local=local)), map_of(n, 16)
    torch.testing.assert_close(operators.FoldedFSC(whole, torch.float32)(x), whole(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("size", [(24, 20), (1, 9), (9, 1), (2, 2)])
def test_dsc_at_every_border(n, local, size):
    whole, x, other = drawn(DSC(16, local=local)), map_of(n, 16, *size), map_of(n + 7, 16, *size)[:n]
    folded = operators.FoldedDSC(whole, torch.float32)
    torch.testing.assert_close(folded(x, other), whole(x) + other, rtol=0, atol=1e-5)


def test_qgam():
    whole, x, other = drawn(QGAM(16, 4, 8)), torch.randn(3, 50, 16), torch.randn(3, 50, 16)
    folded = operators.FoldedQGAM(whole, torch.float32)
    torch.testing.assert_close(folded(x, other), whole(x) + other, rtol=0, atol=1e-5)


def test_a_feed_forward_in_parts(monkeypatch):
    whole = drawn(operators.FeedForward(16))
    folded, x, other = operators.FoldedFeedForward(whole, torch.float32), torch.randn(2, 70, 16), torch.randn(2, 70, 16)
    torch.testing.assert_close(folded(x, other), whole(x) + other, rtol=0, atol=1e-5)
    monkeypatch.setattr(operators, "_NUMBERS", 32 * 64)  # 32 tokens at once, and 6 that are left
    torch.testing.assert_close(folded(x, other), whole(x) + other, rtol=0, atol=1e-5)


@pytest.mark.skipif(not folds(torch.bfloat16), reason="a CPU without AVX-512: nothing is folded into bfloat16 on it")
def test_a_feed_forward_in_parts_rounds_where_the_whole_does(monkeypatch):
    """Where another order of sums moves a number, it moves by one step of bfloat16, and few are moved."""
    monkeypatch.setattr(operators, "_NUMBERS", 32 * 128)  # 32 tokens at once, and 6 that are left
    whole, x = drawn(operators.FeedForward(16)), torch.randn(2, 70, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        plain, parts = whole(x), operators.FeedForwardInParts(whole, torch.bfloat16)(x)
    assert parts.dtype == plain.dtype == torch.bfloat16
    assert (parts != plain).float().mean() < 0.01
    torch.testing.assert_close(parts.float(), plain.float(), rtol=2**-6, atol=2**-6 * plain.float().abs().max().item())


def block_of(kind, config):
    """A block with numbers in it, a map for it, and what folds it."""
    plain, folded = {
        "narrowing": (ResidualBlock(32, 16, config), operators.FoldedResidualBlock),
        "residual": (ResidualBlock(16, 16, config), operators.FoldedResidualBlock),
        "transformer": (Transformer(16, config), operators.FoldedTransformer),
    }[kind]
    return drawn(plain), map_of(2, 32 if kind == "narrowing" else 16), folded


each_config = pytest.mark.parametrize(
    "config", CONFIGS, ids=lambda config: str(config.model_dump(exclude_defaults=True))[78:]
)
each_kind = pytest.mark.parametrize("kind", ["narrowing", "residual", "transformer"])


@each_config
@each_kind
def test_blocks(config, kind):
    whole, x, folded = block_of(kind, config)
    before = x.clone()
    exact = whole(x)
    torch.testing.assert_close(folded(whole, torch.float32)(x), exact, rtol=0, atol=5e-5)
    assert torch.equal(x, before)


@pytest.mark.skipif(not folds(torch.bfloat16), reason="a CPU without AVX-512: nothing is folded into bfloat16 on it")
@each_config
@each_kind
def test_blocks_in_bfloat16(config, kind):
    whole, x, folded = block_of(kind, config)
    exact = whole(x)
    with torch.autocast("cpu", torch.bfloat16):
        reduced = whole(x.bfloat16())
        ours = folded(whole, torch.bfloat16)(x.bfloat16())
    assert ours.dtype == torch.bfloat16 and ours.is_contiguous(memory_format=torch.channels_last)
    assert 0 < (ours - exact).std() < 1.3 * (reduced - exact).std()


def test_blocks_of_taesd():
    whole, x = drawn(TinyBlock(16)), map_of(2, 16)
    torch.testing.assert_close(operators.FoldedTinyBlock(whole, torch.float32)(x), whole(x), rtol=0, atol=1e-5)
    up = drawn(Upsample(16))
    torch.testing.assert_close(operators.FoldedUpsample(up, torch.float32)(x), up(x), rtol=0, atol=1e-5)
