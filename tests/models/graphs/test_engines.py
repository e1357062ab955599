"""ONNX Runtime and OpenVINO in PyTorch's place: the same numbers within a rounding, whatever runs beside a tile."""

import pytest
import torch

from rsup.models.base.errors import ModelError
from rsup.models.base.radiometry import from_network
from rsup.models.graphs import checked, engines
from rsup.models.upscaler import ENGINES, FLOAT32, arithmetic_on, load

for package in ("onnxscript", "onnxruntime", "openvino"):
    pytest.importorskip(package)


def tiles(model, count):
    draw = torch.Generator().manual_seed(5)
    return torch.rand(count, len(model.bands), model.tile, model.tile, generator=draw) * 1.4 - 1


@pytest.mark.slow
@pytest.mark.parametrize("device", ENGINES)
def test_a_tile_is_pytorch_s_within_a_rounding_and_does_not_know_its_neighbours(sure_student, device):
    plain = load(str(sure_student), 4, arithmetic=FLOAT32)
    low = tiles(plain.descriptor, 5)
    alone, beside = (load(str(sure_student), 4, device, cores=cores) for cores in (1, 3))
    assert (alone.precision, alone.device.type, beside.batch) == (None, "cpu", 3)
    for uncertainty in (False, True):
        expected = plain.outputs(low, uncertainty=uncertainty)
        found = alone.outputs(low, uncertainty=uncertainty)
        assert [(each.shape, each.dtype) for each in found] == [(each.shape, torch.float32) for each in expected]
        assert len(found) == 1 + uncertainty
        assert (from_network(found[0]) - from_network(expected[0])).abs().max() < 0.2
        torch.testing.assert_close(found[1:], expected[1:], rtol=1e-3, atol=0)
        one_by_one = [alone.outputs(tile, uncertainty=uncertainty) for tile in low.split(1)]
        other_neighbours = beside.outputs(low.flip(0), uncertainty=uncertainty)
        torch.testing.assert_close(tuple(map(torch.cat, zip(*one_by_one, strict=True))), found, rtol=0, atol=0)
        torch.testing.assert_close(tuple(each.flip(0) for each in other_neighbours), found, rtol=0, atol=0)


def test_a_run_keeps_to_the_program_it_was_begun_in(quick_student):
    """Both ways: what PyTorch began no engine goes on with, nor PyTorch with what an engine began."""
    assert [arithmetic_on(device) for device in ENGINES] == ["float32 on onnx", "float32 on openvino"]
    path = str(quick_student)
    for device, begun in (
        ("onnx", "float32"),
        ("onnx", "bfloat16 on cpu"),
        ("openvino", "float32 on onnx"),
        ("cpu", "float32 on onnx"),
    ):
        with pytest.raises(ModelError, match=f"computed in {begun}, which {device} here cannot do"):
            load(path, 4, device, arithmetic=begun)
    assert load(path, 4, "onnx", arithmetic="float32 on onnx").precision is None


def test_interpolators_stay_in_pytorch():
    low = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(load("bicubic", 4, "onnx", arithmetic=FLOAT32)(low), load("bicubic", 4)(low))


@pytest.mark.slow
def test_an_engine_that_computes_something_else_is_refused(quick_student, monkeypatch):
    monkeypatch.setattr(checked, "LIMIT", 0.0)
    model = load(str(quick_student), 4, "openvino")
    with pytest.raises(ModelError, match=r"quick in openvino is up to .* away from PyTorch"):
        model(tiles(model.descriptor, 1))


def test_an_absent_package_is_a_sentence(monkeypatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "openvino" else name)
    with pytest.raises(ModelError, match=r'^--device openvino needs openvino: pip install "rsup\[openvino\]"$'):
        arithmetic_on("openvino")
    assert arithmetic_on("onnx")
