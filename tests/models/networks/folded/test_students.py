"""Folded students against the plain modules: float32 within 1e-4, bfloat16 no further from it than theirs."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from rsup.models.base.radiometry import from_network, to_network
from rsup.models.consistency import hold
from rsup.models.degradation.sensor import SensorDegradation
from rsup.models.networks.compact import CompactConfig, CompactStudent
from rsup.models.networks.folded.kernels import Linear, folds
from rsup.models.networks.folded.strips import Strips
from rsup.models.networks.folded.students import fold
from rsup.models.networks.interpolation import interpolator
from rsup.models.networks.slimdiffsr.config import StudentConfig
from rsup.models.networks.slimdiffsr.student import Student
from rsup.models.published import published_layout, published_name
from rsup.models.upscaler import load

VARIANTS = [{}, {"fused": False}, {"sap": False}, {"fsc": False, "dsc": False}, {"qgam": False}, {"norm": "pixel"}]


def images(n: int, bands: int, height: int, width: int, seed: int = 5) -> torch.Tensor:
    """Smooth ones with some noise, in [-1, 1], as upscaling makes them."""
    rough = torch.rand(n, bands, height // 8 + 2, width // 8 + 2, generator=torch.manual_seed(seed)) * 2 - 1
    smooth = F.interpolate(rough, size=(height, width), mode="bilinear")
    return smooth.contiguous(memory_format=torch.channels_last)


def published(config, draw, salt="rsup-parity-a/"):
    """A student whose weights are drawn by their published names."""
    state = draw(published_layout(config), salt)
    with torch.device("meta"):
        student = Student(config)
    student.load_state_dict({name: state[published_name(name)] for name in student.state_dict()}, assign=True)
    return student.eval().to(memory_format=torch.channels_last)


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.inference_mode():
        yield


def compare(whole, image):
    """In float32 within 1e-4, in bfloat16 as near to that as the module itself."""
    exact = whole(image)
    torch.testing.assert_close(fold(whole, torch.float32)(image), exact, rtol=0, atol=1e-4)
    folded = fold(whole, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        reduced, ours = whole(image), folded(image)
    assert ours.dtype == torch.float32
    assert 0 < (ours - exact).std() < 1.3 * (reduced - exact).std()


def one_order(whole, height, width):
    """Whether this CPU sums the products of PyTorch's linear maps and of oneDNN's alike, for such images."""
    if not folds(torch.bfloat16):
        return True  # the network comes back as it is
    layers = [layer for layer in whole.modules() if isinstance(layer, nn.Linear)]
    inputs = [torch.randn(1, height * width, layer.in_features).bfloat16() for layer in layers]
    with torch.autocast("cpu", torch.bfloat16):
        pairs = zip(layers, inputs, strict=True)
        return all(torch.equal(layer(x), Linear.of(layer, torch.bfloat16)(x)) for layer, x in pairs)


def same(ours, plain, exact, *, alike):
    """To the last bit where linear maps are `alike`, elsewhere off by a quarter of bfloat16's own error at most."""
    assert 0 < (plain - exact).std()
    if alike:
        assert torch.equal(ours, plain)
    assert (ours - plain).std() <= (plain - exact).std() / 4


@pytest.mark.parametrize("switches", VARIANTS, ids=str)
@pytest.mark.parametrize("size", [(32, 48), (160, 32)], ids=["one strip", "three strips"])
def test_a_student_of_every_kind(tiny, draw, switches, size):
    config = StudentConfig.model_validate(tiny.model_dump() | switches)
    if switches.keys() & {"fused", "sap", "fsc", "dsc", "qgam"}:
        torch.manual_seed(2)
        whole = Student(config).eval().to(memory_format=torch.channels_last)
    else:
        whole = published(config, draw)
    height, width = (side * config.multiple // 16 for side in size)
    assert any(isinstance(module, Strips) for module in fold(whole, torch.float32).modules())
    compare(whole, images(6, 3, height, width))  # of one or two, either may be the luckier by a third


@pytest.mark.parametrize("salt", ["rsup-parity-a/", "rsup-parity-b/"])
def test_the_published_widths(draw, salt):
    whole = published(StudentConfig(), draw, salt)
    compare(whole, images(1, 3, 144, 64))


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("scale", [4, 8])
def test_a_compact_student(scale, local):
    torch.manual_seed(scale)
    options = {"local": local, "balance": 0.7 * local, "uncertainty": True}
    config = CompactConfig(scale=scale, bands=4, channels=(16, 32), deep_channels=32, **options)
    whole = CompactStudent(config).eval().to(memory_format=torch.channels_last)
    torch.nn.init.normal_(whole.last.weight, std=0.05)
    assert whole.doubt is not None
    torch.nn.init.normal_(whole.doubt.last.weight, std=0.3)
    image = images(2, 4, 84, 24)
    folded, exact = fold(whole, torch.float32), whole.with_uncertainty(image)
    torch.testing.assert_close(folded(image), exact[0], rtol=0, atol=1e-4)
    for ours, plain in zip(folded.with_uncertainty(image), exact, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-4)
    folded = fold(whole, torch.bfloat16)
    alike = one_order(whole, 2 * 84, 24) and one_order(whole, 2 * 42, 12)
    with torch.autocast("cpu", torch.bfloat16):
        same(folded(image), whole(image), exact[0], alike=alike)
        for each in zip(folded.with_uncertainty(image), whole.with_uncertainty(image), exact, strict=True):
            same(*each, alike=alike)


@pytest.mark.parametrize("scale", [4, 8])
def test_products_of_shipped_students_are_the_same_numbers(scale):
    """Behind the operator, in stored numbers: bfloat16's as `same` says, float32's but for last digits."""
    upscaler = load("default", scale, arithmetic="float32")
    dn = 1000 + 4000 * (images(1, 4, 48, 48, seed=scale) + 1) / 2
    low, responses = to_network(dn), SensorDegradation(bands=upscaler.descriptor.bands).responses
    made = []
    for precision in (torch.float32, torch.bfloat16):
        networks = upscaler.network, fold(upscaler.network, precision)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            made += [hold(from_network(network(low)), dn, scale, responses) for network in networks]
    exact, folded, plain, ours = made
    assert exact.std() > 100
    torch.testing.assert_close(folded, exact, rtol=0, atol=0.05)
    same(ours, plain, exact, alike=all(one_order(upscaler.network, side, side) for side in (48, 24)))


def test_others_come_back_as_they_are(tiny):
    bicubic, kl = interpolator("bicubic", 4), Student(tiny.model_copy(update={"autoencoder": "kl"}))
    assert fold(bicubic, torch.float32) is bicubic and fold(kl, torch.float32) is kl
    student = Student(tiny)
    assert fold(student, torch.float16) is student
