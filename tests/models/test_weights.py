"""Weights files: what is written is read back; every kind of damage is one sentence, and harms nothing."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from rsup.models.errors import ModelError
from rsup.models.registry import show_model
from rsup.models.student import Student
from rsup.models.weights import KEY, load_student, read_header, save_weights, student_header


@pytest.fixture
def header(tiny):
    return student_header(tiny, 8, licence="CC-BY-4.0", source="a test", metrics={"psnr_y": 31.5}, data="made")


def test_round_trip(tmp_path, tiny, header):
    torch.manual_seed(0)
    student, path = Student(tiny), tmp_path / "w.safetensors"
    save_weights(path, student.state_dict(), header)
    assert read_header(path)[0] == header
    assert (header.tile, header.halo, header.overlap, header.multiple) == (64, 2, 6, 16)
    state = load_student(path).state_dict()
    assert state.keys() == student.state_dict().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in student.state_dict().items())
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_equal_weights_are_equal_bytes(tmp_path, tiny, header):
    state = Student(tiny).state_dict()
    for name in ("a", "b", "c", "d", "e", "f"):
        save_weights(tmp_path / name, state, header)
    assert len({(tmp_path / name).read_bytes() for name in "abcdef"}) == 1


@pytest.mark.parametrize("keep", [0, 7, 100, 3000, -1])
def test_a_file_cut_short_is_refused(tmp_path, save_student, keep):
    path = save_student(4)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="not a whole safetensors file.*copy it again"):
        load_student(path)


def test_files_that_are_something_else(tmp_path, tiny, header):
    path = tmp_path / "w.safetensors"
    with pytest.raises(ModelError, match="does not exist"):
        read_header(path)
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        read_header(tmp_path)
    path.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        read_header(path)
    state = Student(tiny).state_dict()
    save_file(state, path)
    with pytest.raises(ModelError, match="no rsup header"):
        read_header(path)


def rsd(multiple, config):
    """A header's fields for a one-step residual shifter."""
    return {"architecture": "rsd-student", "multiple": multiple, "config": config}


def vq(**settings):
    return {"kind": "VQModel", "settings": {"latent_channels": 3, "block_out_channels": [32]} | settings}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architecture": "gan"}, "architecture"),
        ({"scale": 3}, "scale"),
        ({"colour": "red"}, "colour"),
        ({"halo": 30}, "too small for halo 30"),
        ({"multiple": 8}, "multiples of 8, its network needs 16"),
        ({"config": {"channels": [30]}}, "describes no student"),
        ({"config": {"qgam": "maybe"}}, r"describes no student \(qgam"),
        ({"config": {"attention": True}}, r"describes no student \(attention"),
        (rsd(8, {"period": 0}), r"describes no student \(period"),
        (rsd(8, {"latents": {"kind": "unheard"}}), r"describes no student \(latents.kind"),
        (rsd(8, {"latents": vq(block_out_channels=5)}), "whole numbers"),
        (rsd(8, {"latents": vq(latent_channels="four")}), "whole numbers"),
        (rsd(8, {"latents": vq(vq_embed_dim=-3)}), "whole numbers"),
        (rsd(8, {"latents": vq(layers_per_block="many")}), "build no VQModel"),
        (rsd(8, {"latents": vq(num_vq_embeddings=-1)}), "build no VQModel"),
    ],
)
def test_headers_that_make_no_sense(tmp_path, tiny, header, change, says):
    path = tmp_path / "w.safetensors"
    text = json.dumps(header.model_dump() | change)
    save_file(Student(tiny).state_dict(), path, metadata={KEY: text})
    for look in (load_student, lambda path: show_model(str(path))):
        with pytest.raises(ModelError, match=says):
            look(path)


def test_tensors_that_do_not_fit_are_named(tmp_path, tiny, header):
    path = tmp_path / "w.safetensors"
    state = Student(tiny).state_dict()

    def check(changed, says):
        save_weights(path, changed, header)
        with pytest.raises(ModelError, match=says):
            load_student(path)

    check({k: v for k, v in state.items() if k != "fuse_in.bias"}, "lacks fuse_in.bias")
    check(state | {"extra.weight": torch.zeros(3)}, "holds extra.weight")
    check(state | {"fuse_in.bias": torch.zeros(3)}, r"fuse_in.bias has the shape \(3,\), not \(16,\)")


def test_half_precision_files_load_as_float32(tmp_path, tiny, header):
    path = tmp_path / "w.safetensors"
    save_weights(path, {name: t.half() for name, t in Student(tiny).state_dict().items()}, header)
    assert {p.dtype for p in load_student(path).parameters()} == {torch.float32}


def test_a_write_that_fails_keeps_what_was_there(tmp_path, save_student):
    """The disk is full after 20 kB: a limit on file sizes, in a process of its own."""
    path = save_student(4)
    before, there = path.read_bytes(), set(tmp_path.iterdir())
    script = f"""
import resource
from pathlib import Path
from rsup.models.errors import ModelError
from rsup.models.registry import show_model
from rsup.models.weights import load_student, read_header, save_weights
path = Path({str(path)!r})
student, header = load_student(path), read_header(path)[0]
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    save_weights(path, student.state_dict(), header)
except ModelError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "cannot be written" in done.stdout
    assert path.read_bytes() == before
    assert set(tmp_path.iterdir()) == there
    with pytest.raises(ModelError, match="cannot be written"):
        save_weights(tmp_path / "nowhere" / "w.safetensors", load_file(path), read_header(path)[0])
