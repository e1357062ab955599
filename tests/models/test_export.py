"""Files that leave rsup: run by other programs they give what PyTorch gives, and appear whole or not at all."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from rsup.models import export
from rsup.models.base.errors import ModelError
from rsup.models.base.radiometry import from_network
from rsup.models.export import export_model
from rsup.models.graphs import checked, engines
from rsup.models.upscaler import FLOAT32, load

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def students(tiny_student, sure_student, tmp_path_factory):
    """Both kinds: one that is given the bicubic enlargement, and a compact one with a second head; each as ONNX."""
    folder = tmp_path_factory.mktemp("exported")
    found = {}
    for name, path in (("enlarged", tiny_student(8)), ("sure", sure_student)):
        found[name] = path, folder / f"{name}.onnx", export_model(str(path), "onnx", folder / f"{name}.onnx")
    return found


def tiles(model, count):
    """Ground with clouds, in the network's range; other numbers than those that the export is checked on."""
    draw = torch.Generator().manual_seed(9)
    return torch.rand(count, len(model.bands), model.tile, model.tile, generator=draw) * 1.4 - 1


@pytest.mark.parametrize("name", ["enlarged", "sure"])
def test_onnx_runtime_gives_what_pytorch_gives(students, name):
    path, file, made = students[name]
    model = load(str(path), 8 if name == "enlarged" else 4, arithmetic=FLOAT32)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    low = tiles(model.descriptor, 1)
    outputs = session.run(None, {"tile": low.numpy()})
    expected = model.outputs(low, uncertainty=name == "sure")
    assert len(outputs) == len(expected)
    assert [each.name for each in session.get_outputs()] == ["image", "uncertainty"][: len(outputs)]
    np.testing.assert_allclose(from_network(torch.from_numpy(outputs[0])), from_network(expected[0]), rtol=0, atol=0.2)
    if name == "sure":
        assert expected[1].std() > 1
        np.testing.assert_allclose(outputs[1], expected[1], rtol=1e-3)
    assert made["deviation"] < 0.2 and made["bytes"] == file.stat().st_size


def test_the_file_says_what_it_is_and_nothing_of_this_machine(students, tmp_path):
    path, file, made = students["sure"]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["rsup"])
    assert about["licence"] == made["licence"] == "Apache-2.0"
    assert about["sha256"] == made["sha256"] == load(str(path), 4).descriptor.sha256
    assert {"radiometry", "consistency", "tiles", "bands", "scale"} <= about.keys()
    export_model(str(path), "onnx", tmp_path / "again.onnx")
    data = (tmp_path / "again.onnx").read_bytes()
    assert data == file.read_bytes()
    assert str(path.parent).encode() not in data and b"site-packages" not in data and b".py" not in data


def test_torch_reads_its_archive_without_rsup(sure_student, tmp_path):
    export_model(str(sure_student), "torch-export", tmp_path / "sure.pt2")
    model = load(str(sure_student), 4, arithmetic=FLOAT32)
    low = tiles(model.descriptor, 1)
    torch.save(low, tmp_path / "tile.pt")
    script = (
        "import sys, torch\n"
        "files = {'rsup.json': ''}\n"
        "program = torch.export.load('sure.pt2', extra_files=files)\n"
        "torch.save(program.module()(torch.load('tile.pt')), 'outputs.pt')\n"
        "print(files['rsup.json'])\n"
        "assert not any(name.startswith('rsup') for name in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["licence"] == "Apache-2.0"
    found, expected = torch.load(tmp_path / "outputs.pt"), model.outputs(low, uncertainty=True)
    torch.testing.assert_close(tuple(found), expected, rtol=1e-5, atol=1e-5)
    export_model(str(sure_student), "torch-export", tmp_path / "again.pt2")
    data = (tmp_path / "again.pt2").read_bytes()
    assert data == (tmp_path / "sure.pt2").read_bytes() and b"site-packages" not in data


def test_a_graph_that_is_off_does_not_appear(quick_student, tmp_path, monkeypatch):
    """A runtime that adds 1e-3 to what it was to give, three stored numbers."""

    def start(graph, callers):
        run = engines.ENGINES["onnx"].start(graph, callers)
        return lambda tile: [output + np.float32(1e-3) for output in run(tile)]

    broken = {"onnx": engines.Engine(engines.ENGINES["onnx"].packages, start)}
    monkeypatch.setattr(export, "ENGINES", broken)
    with pytest.raises(ModelError, match="away from PyTorch"):
        export_model(str(quick_student), "onnx", tmp_path / "quick.onnx")
    assert [path.name for path in tmp_path.iterdir()] == [quick_student.name]


def test_what_cannot_be_exported_is_said(sure_student, tmp_path, monkeypatch):
    for name in ("bicubic", "default"):
        with pytest.raises(ModelError, match=f"^{name} is"):
            export_model(name, "onnx", tmp_path / "out.onnx")
    taken = tmp_path / "taken"
    taken.write_text("somebody's")
    with pytest.raises(ModelError, match="exists already"):
        export_model(str(sure_student), "torch-export", taken)
    assert taken.read_text() == "somebody's"
    with pytest.raises(ModelError, match="cannot be written"):
        export_model(str(sure_student), "torch-export", tmp_path / "no/such/folder.pt2")
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(ModelError, match=r'--to onnx needs onnxscript: pip install "rsup\[onnx\]"'):
        export_model(str(sure_student), "onnx", tmp_path / "out.onnx")


def test_numbers_that_are_none_are_far_from_anything():
    """Clipping an image to its range would turn NaN into nothing, and infinity into white."""
    image = torch.zeros(1, 3, 4, 4)
    assert checked.deviation([image], [image]) == 0
    for wrong in (torch.nan, torch.inf):
        assert not checked.deviation([image + wrong], [image + wrong]) <= checked.LIMIT
