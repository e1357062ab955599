"""Weights files: what is written is read back; every kind of damage is one sentence, and harms nothing."""

import json
import math
import os
import resource
import stat
import struct
import sys
from contextlib import contextmanager

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from rsup.models.base.errors import ModelError
from rsup.models.networks.slimdiffsr.config import StudentConfig
from rsup.models.networks.slimdiffsr.student import Student
from rsup.models.show import show_model
from rsup.models.weights_file import (
    KEY,
    LARGEST_TILE,
    WeightsHeader,
    load_student,
    read_header,
    save_weights,
    settings_of,
    student_header,
)


@pytest.fixture(scope="module")
def state(tiny):
    return Student(tiny).state_dict()


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


def test_equal_weights_are_equal_bytes(tmp_path, state, header):
    for name in ("a", "b", "c", "d", "e", "f"):
        save_weights(tmp_path / name, state, header)
    assert len({(tmp_path / name).read_bytes() for name in "abcdef"}) == 1


@pytest.mark.parametrize("keep", [0, 7, 100, 3000, -1])
def test_a_file_cut_short_is_refused(tmp_path, save_student, keep):
    path = save_student(4)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="not a whole safetensors file.*copy it again"):
        load_student(path)


def test_files_that_are_something_else(tmp_path, state, header):
    path = tmp_path / "w.safetensors"
    with pytest.raises(ModelError, match="does not exist"):
        read_header(path)
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        read_header(tmp_path)
    path.write_bytes(bytes(range(256)) * 40)
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        read_header(path)
    save_file(state, path)
    with pytest.raises(ModelError, match="no rsup header"):
        read_header(path)


@contextmanager
def whole_numbers_of_any_length():
    """For writing what somebody else's program may write."""
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(before)


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
        ({"halo": 24}, "too small for halo 24"),  # tiles that advance by less than a quarter
        ({"tile": 10**9}, "tile"),
        ({"tile": LARGEST_TILE // 8 + 1}, "a tile of 2056 output pixels is beyond the 2048 that fit"),
        ({"tile": 1, "halo": 0, "overlap": 0}, "tile"),
        ({"tile": 10**5000}, "header is not understood"),
        ({"multiple": 10**9}, "multiple"),
        ({"value_range": [0, 1]}, r"runs networks in \[-1, 1\], not in \[0, 1\]"),
        ({"value_range": [1, -1]}, r"not in \[1, -1\]"),
        ({"value_range": [math.nan, 1]}, "value_range"),
        ({"bands": ["red", "green", "\u202eblue"]}, "bands"),
        ({"bands": ["red", "green", "blue", "nir"]}, "4 bands are named, and its network takes another number"),
        ({"bands": ["red", "green"]}, "bands"),
        ({"recipe": {"steps": math.nan}}, "not JSON compliant"),
        ({"recipe": {"steps": [10**5000]}}, "header is not understood"),
        ({"metrics": {"psnr_y": math.inf}}, "metrics.psnr_y"),
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
        (rsd(8, {"latents": vq(layers_per_block=10**9)}), "layers_per_block is beyond the 16"),
        (rsd(8, {"latents": vq(block_out_channels=[32] * 1000)}), "block_out_channels has 1000 entries"),
        (rsd(8, {"latents": vq(latent_channels=10**9)}), "latent_channels is beyond the 65536"),
        (rsd(8, {"latents": vq(norm_num_groups={"a": 1})}), "norm_num_groups is neither"),
        (rsd(8, {"latents": vq(out_channels=5)}), "build no VQModel"),
        (rsd(32, {"period": 107}), "its tiles start 432 output pixels apart and its noise repeats after 428"),
    ],
)
def test_headers_that_make_no_sense(tmp_path, state, header, change, says):
    path = tmp_path / "w.safetensors"
    with whole_numbers_of_any_length():
        text = json.dumps(header.model_dump() | change)
    save_file(state, path, metadata={KEY: text})
    for look in (load_student, lambda path: show_model(str(path))):
        with pytest.raises(ModelError, match=says):
            look(path)


def test_tensors_that_do_not_fit_are_named(tmp_path, state, header):
    path = tmp_path / "w.safetensors"

    def check(changed, says):
        save_weights(path, changed, header)
        with pytest.raises(ModelError, match=says):
            load_student(path)

    check({k: v for k, v in state.items() if k != "fuse_in.bias"}, "lacks fuse_in.bias")
    check(state | {"extra.weight": torch.zeros(3)}, "holds extra.weight")
    check(state | {"fuse_in.bias": torch.zeros(3)}, r"fuse_in.bias has the shape \(3,\), not \(16,\)")


def test_half_precision_files_load_as_float32(tmp_path, state, header):
    path = tmp_path / "w.safetensors"
    save_weights(path, {name: t.half() for name, t in state.items()}, header)
    assert {p.dtype for p in load_student(path).parameters()} == {torch.float32}


def test_numbers_that_are_no_weights_are_refused(tmp_path, state, header):
    path = tmp_path / "w.safetensors"
    for kind in (torch.int64, torch.complex64, torch.float8_e4m3fn):
        save_file(state | {"fuse_in.bias": torch.zeros(16).to(kind)}, path, metadata={KEY: header.model_dump_json()})
        with pytest.raises(ModelError, match="fuse_in.bias holds .* floats of 16 to 64 bits"):
            load_student(path)


def test_a_header_of_megabytes_is_refused(tmp_path, header):
    path = tmp_path / "w.safetensors"
    save_file({}, path, metadata={KEY: json.dumps(header.model_dump() | {"recipe": {"a": [0] * 600_000}})})
    with pytest.raises(ModelError, match="a header of 1,80.,... characters"):
        read_header(path)


def test_figures_that_are_not_finite_stay_out(tmp_path, tiny):
    path = tmp_path / "w.safetensors"
    metrics = {"psnr_y": math.inf, "ssim_y": 0.5, "loss": math.nan}
    save_weights(path, {}, student_header(tiny, 4, licence="CC-BY-4.0", source="a test", metrics=metrics))
    assert read_header(path)[0].metrics == {"ssim_y": 0.5}


def test_names_are_on_the_disk_when_a_file_counts_as_written(tmp_path, header, monkeypatch):
    """The folder is synced last, when the file has its name: a power cut must not take a file that a run relies on."""
    synced = []

    def watch(descriptor, sync=os.fsync):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        synced.append(("folder" if is_folder else "file", sorted(os.listdir(tmp_path))))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    save_weights(tmp_path / "w.safetensors", {"x": torch.zeros(3)}, header)
    assert synced == [("file", [".w.safetensors.new"]), ("folder", ["w.safetensors"])]


def test_a_write_that_fails_keeps_what_was_there(tmp_path, save_student):
    """The disk is full after 20 kB, as a limit on file sizes has it."""
    path = save_student(4)
    before, there = path.read_bytes(), set(tmp_path.iterdir())
    student, header = load_student(path), read_header(path)[0]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(ModelError, match="cannot be written"):
            save_weights(path, student.state_dict(), header)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert set(tmp_path.iterdir()) == there
    with pytest.raises(ModelError, match="cannot be written"):
        save_weights(tmp_path / "nowhere" / "w.safetensors", load_file(path), read_header(path)[0])


def raw(length, header, body):
    """A safetensors file by its layout: eight bytes of length, JSON, numbers."""
    return struct.pack("<Q", length) + header + body


def rsup_or_refused(path):
    """Whatever `path` holds, a header with settings that fit it, or one sentence."""
    try:
        header, _ = read_header(path)
        settings_of(path, header)
    except ModelError as error:
        assert "\n" not in str(error) and len(str(error)) < 2000


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()))
EXTREMES = st.sampled_from([10**9, 2**62, 10**400, -(10**9), 1e308, -1e308, math.nan, "\ud800", "../x", [], {}, [[]]])
JSON = st.recursive(
    SCALARS | EXTREMES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
)
ANY = settings(
    deadline=None, max_examples=50, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def places(tree, path=()):
    """Of every value in nested dicts and lists, the keys that lead to it."""
    yield path
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in inner:
        yield from places(value, (*path, key))


def changed(tree, path, value):
    """A copy of the tree with another value in one place."""
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = changed(copy[path[0]], path[1:], value)
    return copy


@ANY
@given(length=st.integers(0, 2**64 - 1) | st.integers(0, 400), header=st.binary() | JSON, body=st.binary())
def test_any_bytes_are_weights_or_one_sentence(tmp_path, length, header, body):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = tmp_path / "w.safetensors"
    for size in (length, len(text)):
        path.write_bytes(raw(size, text, body))
        rsup_or_refused(path)


@ANY
@given(data=st.data())
def test_any_change_of_a_file_leaves_weights_or_one_sentence(tmp_path, tiny, data):
    """Anything in any place of the JSON of safetensors and of the header in it, and text that was cut."""
    config = data.draw(
        st.sampled_from(
            [
                tiny.model_dump(mode="json"),
                {"scale": 4, "channels": [8, 16]},
                {"latents": vq(layers_per_block=1), "period": 54},
            ]
        )
    )
    kind = {"scale": "compact-student", "latents": "rsd-student"}.get(next(iter(config)), "slimdiffsr-student")
    header = student_header(StudentConfig(), 4, licence="CC-BY-4.0", source="a test", metrics={"psnr_y": 30.0})
    inner = header.model_dump(mode="json") | {"architecture": kind, "config": config, "recipe": {"a": [{"b": 1}]}}
    outer = {"x": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]}}
    if data.draw(st.booleans()):
        inner = changed(inner, data.draw(st.sampled_from(list(places(inner)))), data.draw(JSON))
    elif data.draw(st.booleans()):
        outer = changed(outer, data.draw(st.sampled_from(list(places(outer)))), data.draw(JSON))
    text = json.dumps(inner)
    if data.draw(st.booleans()):
        text = text[: data.draw(st.integers(0, len(text)))]
    if isinstance(outer, dict):
        outer = {"__metadata__": data.draw(st.just({KEY: text}) | JSON), **outer}
    content = json.dumps(outer).encode()
    path = tmp_path / "w.safetensors"
    path.write_bytes(raw(len(content), content, bytes(8)))
    rsup_or_refused(path)


@pytest.mark.parametrize("deep", ["[", '{"a":'])
def test_nesting_without_end_is_refused(tmp_path, header, deep):
    path = tmp_path / "w.safetensors"
    for text in (deep * 100_000, header.model_dump_json()[:-1] + ',"recipe":' + deep * 100_000):
        save_file({}, path, metadata={KEY: text})
        with pytest.raises(ModelError, match="header is not understood"):
            read_header(path)


def test_every_header_that_is_understood_can_be_written_again(header):
    """To the same header, whatever is in the fields that take anything."""
    deep = {"a": [None, True, 1, 2**53, 0.1, "\u202e", {"b": [[]]}]}
    full = header.model_copy(update={"recipe": deep})
    assert WeightsHeader.model_validate_json(full.model_dump_json()) == full
