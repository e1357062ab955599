"""Models as the pipeline sees them: names, files, devices, and tiles that do not depend on their neighbours."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from rsup.models import arithmetic as arithmetics
from rsup.models import registry
from rsup.models import upscaler as upscalers
from rsup.models.base.errors import ModelError
from rsup.models.networks.folded.students import fold
from rsup.models.networks.interpolation import interpolator
from rsup.models.networks.slimdiffsr.config import StudentConfig
from rsup.models.networks.slimdiffsr.student import Student
from rsup.models.published import published_layout, published_name
from rsup.models.show import show_model
from rsup.models.upscaler import arithmetic_on, core_seconds, descriptor_of, list_models, load, reduced_precision
from rsup.models.weights_file import save_weights, student_header


def tiles(n, side, seed=0):
    return torch.rand(n, 3, side, side, generator=torch.manual_seed(seed)) * 2 - 1


def equal(left, right):
    """To the last bit."""
    torch.testing.assert_close(left, right, rtol=0, atol=0)


def test_importing_does_not_import_torch():
    script = (
        "import sys, json, rsup.models.upscaler as u\n"
        "d = u.descriptor_of('bicubic', 8)\n"
        "u.list_models()\n"
        "print(json.dumps([d.name, 'torch' in sys.modules, 'diffusers' in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["bicubic", False, False]


@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize("name", ["nearest", "bicubic", "lanczos"])
def test_interpolators_as_models(name, scale):
    upscaler = load(name, scale)
    low = tiles(3, 12)
    out = upscaler(low)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, interpolator(name, scale)(low), rtol=0, atol=2e-6)
    assert upscaler.descriptor == descriptor_of(name, scale)
    assert upscaler.descriptor.tile == 128


def test_nearest_is_repetition():
    low = tiles(2, 5)
    np.testing.assert_array_equal(load("nearest", 8)(low).numpy(), low.numpy().repeat(8, 2).repeat(8, 3))


@pytest.mark.parametrize("side", [10, 16])
def test_a_student_upsamples_pads_and_crops(save_student, side):
    """10 px at x4 are 40, no multiple of 16: padded to 48 by repeating the edge, and cut back."""
    upscaler = load(str(save_student(4)), 4)
    low = tiles(1, side)
    image = interpolator("bicubic", 4)(low)
    room = -4 * side % 16
    precision = upscaler.precision
    network = fold(upscaler.network, precision or torch.float32)
    with torch.inference_mode(), torch.autocast("cpu", precision, enabled=precision is not None):
        image = F.pad(image, (0, room, 0, room), mode="replicate").contiguous(memory_format=torch.channels_last)
        expected = network(image)[..., : 4 * side, : 4 * side]
    equal(upscaler(low), expected)


def test_16_bits_stay_near_float32(save_student):
    upscaler = load(str(save_student(8)), 8)
    low = tiles(1, 8)
    with torch.inference_mode():
        plain = upscaler.network(interpolator("bicubic", 8)(low))
    out = upscaler(low)
    assert (out - plain).std() < 0.5 * plain.std()
    # Rounding to 8 bits shows; another order of float32 sums does not.
    assert ((out - plain).abs().max() > 1e-4) == (upscaler.precision is not None)


def test_whole_tiles_go_to_networks_that_see_all_of_them_and_to_engines(save_student):
    assert not load("faithful", 4).whole and not load("sharp", 8).whole
    for model in (str(save_student(4)), "bicubic"):
        assert load(model, 4).whole
    assert load("faithful", 4, "onnx").whole


def check_neighbours(upscaler, side):
    low = tiles(9, side)
    together = upscaler(low)
    for i in (0, 4, 8):
        equal(upscaler(low[i : i + 1])[0], together[i])
    equal(upscaler(low.flip(0)), together.flip(0))


def test_a_tile_does_not_depend_on_its_neighbours(save_student):
    check_neighbours(load(str(save_student(4)), 4), 16)


@pytest.fixture(scope="module")
def published_student(tmp_path_factory, draw):
    """A weights file of the published widths, drawn at random: 58 M."""
    config = StudentConfig()
    with torch.device("meta"):
        names = Student(config).state_dict()
    state = draw(published_layout(config))
    path = tmp_path_factory.mktemp("published") / "published.safetensors"
    header = student_header(config, 4, licence="Apache-2.0", source="random numbers")
    save_weights(path, {name: state[published_name(name)] for name in names}, header)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", [None, "float32"])
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", ["compact-x4", "compact-x8", "published"])
def test_no_network_that_ships_or_was_published_mixes_tiles(published_student, name, device, arithmetic):
    """To the last bit, wherever in a batch a tile stands, whatever stands beside it, and how many tiles there are.

    A card adds up in another order in another shape: the published student alone is not itself among four. Hence one
    shape a pass, which this holds the upscaler to.
    """
    path, scale = (published_student, 4) if name == "published" else (name, 8 if name.endswith("x8") else 4)
    upscaler = load(str(path), scale, device, arithmetic=arithmetic)

    def run(tiles):
        made = upscaler.outputs(tiles, uncertainty=upscaler.descriptor.uncertainty)
        return torch.cat([each.flatten(1) for each in made], 1)

    count = 2 * upscaler.batch + 1
    low = torch.rand(count, len(upscaler.descriptor.bands), 32, 32, generator=torch.manual_seed(1)) * 2 - 1
    together = run(low)
    assert torch.isfinite(together).all() and together[0].std() > 0.01
    equal(run(low.flip(0)), together.flip(0))
    for i in (0, count // 2, count - 1):
        equal(run(low[i : i + 1])[0], together[i])
    # Neighbours that could hardly be more different.
    others = torch.full_like(low, -1)
    others[1] = low[1]
    equal(run(others)[1], together[1])


@pytest.mark.parametrize(
    ("features", "precision"),
    [
        ((), None),
        (("avx512_bf16",), torch.bfloat16),  # Zen 4
        (("avx512_bf16", "avx512_fp16", "amx_bf16"), torch.bfloat16),
        (("avx512_bf16", "avx512_fp16"), None),  # the same with its AMX hidden
    ],
)
def test_a_cpu_gets_the_precision_it_is_faster_in(monkeypatch, features, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(features, True))
    assert reduced_precision(torch.device("cpu")) == precision


@pytest.mark.parametrize("own", [None, torch.bfloat16])
def test_a_run_keeps_the_arithmetic_it_was_begun_in(save_student, monkeypatch, own):
    """Whatever this machine would choose for itself; an interpolator is float32 everywhere."""
    monkeypatch.setattr(arithmetics, "reduced_precision", lambda device: own)
    path, low = str(save_student(4)), tiles(1, 16)
    assert arithmetic_on("cpu") == ("float32" if own is None else "bfloat16 on cpu")
    plain, reduced = (load(path, 4, arithmetic=each)(low) for each in ("float32", "bfloat16 on cpu"))
    equal(load(path, 4)(low), plain if own is None else reduced)
    network = load(path, 4).network
    image = interpolator("bicubic", 4)(low).contiguous(memory_format=torch.channels_last)
    for type_, out in ((torch.float32, plain), (torch.bfloat16, reduced)):
        folded = fold(network, type_)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=type_ != torch.float32):
            equal(out, folded(image))
    assert (plain - reduced).abs().max() > 0
    assert load("bicubic", 4, arithmetic="bfloat16 on cpu").precision is None


@pytest.mark.parametrize("arithmetic", ["bfloat16 on cuda", "float16 on cuda", "float64", "int8 on cpu", ""])
def test_an_arithmetic_that_is_not_to_be_had_is_a_sentence(save_student, arithmetic):
    with pytest.raises(ModelError, match="which cpu here cannot do: go on where it was begun"):
        load(str(save_student(4)), 4, arithmetic=arithmetic)


def test_what_is_loaded_is_what_was_planned(save_student, monkeypatch):
    path = save_student(4)
    planned = descriptor_of(str(path), 4)
    assert load(str(path), 4, planned=planned).descriptor == planned
    with pytest.raises(ModelError, match="not the model this run was planned with"):
        load("bicubic", 4, planned=planned)
    with pytest.raises(ModelError, match="not the model this run was planned with"):
        load(str(path), 4, planned=dataclasses.replace(planned, halo=planned.halo + 1))
    other = bytearray(path.read_bytes())
    other[-1] ^= 1
    path.write_bytes(other)
    with pytest.raises(ModelError, match=f"SHA-256 .* not {planned.sha256[:12]}"):
        load(str(path), 4, planned=planned)
    # And where it is replaced after its digest was taken.
    monkeypatch.setattr(upscalers, "descriptor_of", lambda *_: planned)
    with pytest.raises(ModelError, match="is being replaced"):
        load(str(path), 4, planned=planned)


@pytest.mark.gpu
def test_gpu_agrees_with_the_cpu_and_batches_do_not_matter(save_student):
    path = str(save_student(4))
    upscaler = load(path, 4, "cuda")
    check_neighbours(upscaler, 16)
    low = tiles(5, 16)
    with torch.inference_mode():
        plain = load(path, 4).network(interpolator("bicubic", 4)(low))
    assert (upscaler(low).cpu() - plain).std() < 0.5 * plain.std()
    on_gpu = load("lanczos", 4, "cuda")(low).cpu()
    torch.testing.assert_close(on_gpu, load("lanczos", 4)(low), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("tile", "total", "expected"),
    [(1 << 20, 1 << 34, 64), (1 << 28, 1 << 34, 16), (3 << 27, 1 << 34, 8), (1 << 33, 1 << 34, 1), (0, 1 << 34, 64)],
)
def test_batches_take_a_quarter_of_a_card_and_are_powers_of_two(tile: int, total: int, expected: int):
    assert upscalers.batch_of(tile, total) == expected


def test_flags_of_cudnn_are_as_before(save_student):
    def flags():
        c = torch.backends.cudnn
        return c.enabled, c.benchmark, c.deterministic, c.allow_tf32

    before = flags()
    load(str(save_student(4)), 4)(tiles(1, 8))
    assert flags() == before


def test_descriptor_of_a_file(save_student):
    descriptor = descriptor_of(str(save_student(8)), 8)
    assert (descriptor.name, descriptor.tile, descriptor.halo, descriptor.overlap) == ("tiny-x8", 64, 2, 6)
    assert (descriptor.multiple, descriptor.bands) == (16, ("red", "green", "blue"))
    assert descriptor.kind == "student"


@pytest.fixture
def shipped(tmp_path, monkeypatch, save_student) -> Path:
    """A folder in the place of the shipped students': tiny ones, with their digests by sha256sum."""
    folder = tmp_path / "shipped"
    folder.mkdir()
    names = [save_student(scale, folder).name for scale in (4, 8)]
    sums = subprocess.run(["sha256sum", *names], cwd=folder, capture_output=True, text=True, check=True)
    (folder / "SHA256SUMS").write_text(sums.stdout)
    lines = (
        f'{{name = "tiny-x{scale}", scale = {scale}, family = "faithful", seconds = 0.{scale}}}' for scale in (4, 8)
    )
    families = "[family]\nfaithful.use = 'to measure on'\nsharp.use = 'to look at'\n"
    (folder / "index.toml").write_text(f"student = [{', '.join(lines)}]\n{families}")
    monkeypatch.setattr(registry, "SHIPPED", folder)
    return folder


def test_default_is_the_shipped_student_of_the_scale(shipped):
    assert [descriptor_of("default", scale).name for scale in (4, 8)] == ["tiny-x4", "tiny-x8"]
    assert descriptor_of("tiny-x8", 8) == descriptor_of(str(shipped / "tiny-x8.safetensors"), 8)
    rows = {row["name"]: row for row in list_models()}
    assert list(rows) == ["nearest", "bicubic", "lanczos", "tiny-x4", "tiny-x8"]
    assert [rows[name]["default_for"] for name in ("bicubic", "tiny-x4", "tiny-x8")] == [[], [4], [8]]
    assert [rows[name].get("use") for name in ("nearest", "tiny-x4")] == [None, "to measure on"]
    assert descriptor_of("faithful", 8) == descriptor_of("default", 8)
    with pytest.raises(ModelError, match="has no sharp student for x8"):
        load("sharp", 8)
    assert [core_seconds(descriptor_of(name, 8)) for name in ("tiny-x8", "bicubic")] == [0.8, 0]
    shown = show_model("tiny-x8")
    assert shown["parameters"] == rows["tiny-x8"]["parameters"]
    assert shown["sha256"] == rows["tiny-x8"]["sha256"]
    assert json.loads(json.dumps(shown))["header"]["scale"] == 8


def test_a_shipped_student_that_changed_is_not_loaded(shipped, save_student):
    path = shipped / "tiny-x4.safetensors"
    assert load("default", 4).descriptor.name == "tiny-x4"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    for name in ("default", "tiny-x4", str(path)):
        with pytest.raises(ModelError, match="not the file that comes with rsup: install rsup again"):
            load(name, 4)
    assert load("default", 8).descriptor.name == "tiny-x8"
    (shipped / "SHA256SUMS").unlink()
    with pytest.raises(ModelError, match="not the file that comes with rsup: install rsup again"):
        load("default", 8)
    path.unlink()
    with pytest.raises(ModelError, match="has no faithful student for x4"):
        load("default", 4)
    (shipped / "index.toml").unlink()
    with pytest.raises(ModelError, match=r"index.toml cannot be read \(No such file.*install rsup again"):
        load("default", 8)


def test_digests_tell_models_apart(save_student):
    names = ["nearest", "bicubic", "lanczos", str(save_student(4))]
    assert len({descriptor_of(name, 4).sha256 for name in names}) == 4


@pytest.mark.parametrize(
    ("model", "scale", "device", "says"),
    [
        ("bicubic", 3, "cpu", "scale must be 4 or 8"),
        ("esrgan", 4, "cpu", "no model or file named esrgan: give one of default, faithful, sharp"),
        ("bicubic", 4, "tpu9", "device must be cpu, cuda, cuda:N, onnx or openvino, not tpu9"),
        ("bicubic", 4, "meta", "device must be cpu, cuda, cuda:N, onnx or openvino, not meta"),
        ("bicubic", 4, "cuda:99", "cuda:99"),
    ],
)
def test_requests_that_cannot_be_met(model, scale, device, says):
    with pytest.raises(ModelError, match=says):
        load(model, scale, device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a CUDA device")
def test_no_gpu_is_a_sentence():
    with pytest.raises(ModelError, match="no CUDA device here; run with --device cpu"):
        load("bicubic", 4, "cuda")


def test_weights_of_another_scale_and_pickles_are_refused(save_student):
    path = save_student(4)
    with pytest.raises(ModelError, match="trained for scale 4, not 8"):
        load(str(path), 8)
    with pytest.raises(ModelError, match="rsup models import"):
        load(str(path.with_name("net_params_4x.pkl")), 4)
