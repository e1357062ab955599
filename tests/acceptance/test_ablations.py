"""The student's switches: the paper's counts, and variants that run, learn, and are saved and loaded."""

import json

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file

from rsup.models.base.errors import ModelError
from rsup.models.networks.architectures import parameters
from rsup.models.networks.slimdiffsr.config import StudentConfig
from rsup.models.networks.slimdiffsr.student import Student
from rsup.models.published import parameters_as_published
from rsup.models.show import show_model, student_counts
from rsup.models.weights_file import KEY, load_student, read_header, save_weights, student_header

VARIANTS = [
    {"fused": False},
    {"autoencoder": "kl", "fused": False},
    {"autoencoder": "kl"},
    {"dsc": False},
    {"fsc": False},
    {"qgam": False},
    {"sap": False},
    {"sap": False, "fused": False, "dsc": False, "fsc": False, "qgam": False},
]


def variant(tiny, switches):
    torch.manual_seed(3)
    return Student(StudentConfig(**tiny.model_dump() | switches))


@pytest.fixture(scope="module")
def sd21() -> UNet2DConditionModel:
    """Stable Diffusion 2.1's UNet, without its numbers."""
    with torch.device("meta"):
        return UNet2DConditionModel(
            attention_head_dim=(5, 10, 20, 20), cross_attention_dim=1024, use_linear_projection=True
        )


@pytest.mark.parametrize(
    ("switches", "millions", "live"),
    [
        ({}, 58.053, 55.975),
        ({"fused": False}, 57.684, 55.634),
        ({"autoencoder": "kl", "fused": False}, 138.893, 136.843),
        ({"dsc": False}, 93.182, 91.104),
        ({"fsc": False}, 99.460, 97.382),
        ({"qgam": False}, 66.522, 64.443),
        ({"sap": False}, 168.331, 167.155),
    ],
)
def test_counts_of_the_tables(switches, millions, live):
    """Tables 5 and 6; of 168.3 M the paper prints no more digits."""
    config = StudentConfig(**switches)
    with torch.device("meta"):
        student = Student(config)
    assert round(parameters_as_published(config) / 1e6, 3) == millions
    assert round(parameters(student) / 1e6, 3) == live


def test_the_paper_counts_cross_attention_without_qgam(sd21):
    """Its 81.11 M: what it deletes elsewhere, in a network whose convolutions are not fused."""
    kept = (*sd21.down_blocks[:2], *sd21.up_blocks[2:])
    unused = sum(
        p.numel()
        for block in kept
        for name, p in block.named_parameters()
        if ".attn2." in name or ".norm2." in name
        if "attentions" in name
    )
    assert parameters_as_published(StudentConfig(qgam=False, fused=False)) + unused == 81_117_658


def test_thinned_levels_are_those_of_a_narrower_sd21():
    """Everything but the new operators, against diffusers' UNet of three quarters of the channels."""
    config = StudentConfig(sap=False)
    with torch.device("meta"):
        ours = Student(config).unet.state_dict()
        theirs = UNet2DConditionModel(
            block_out_channels=(240, 480, 960, 960),
            attention_head_dim=(5, 10, 20, 20),
            cross_attention_dim=1024,
            norm_num_groups=24,
            use_linear_projection=True,
        ).state_dict()
    gone = ("time_emb", "attn1.", "attn2.", "norm2.", "conv_in.", "conv_out.", "conv1.", "conv2.", "time_embedding.")
    kept = {name: t.shape for name, t in theirs.items() if "resnets" in name and "norm2" in name}
    kept |= {name: t.shape for name, t in theirs.items() if not any(part in name for part in gone)}
    assert {
        name: t.shape for name, t in ours.items() if not any(p in name for p in ("conv1.", "conv2.", "attn1."))
    } == kept
    assert (config.unet_groups, config.head_channels, config.multiple) == (24, 48, 64)


@pytest.mark.parametrize("switches", VARIANTS, ids=str)
def test_variants_learn_and_are_written(tmp_path, tiny, switches):
    student = variant(tiny, switches)
    multiple = 64 if "sap" in switches else 16
    assert student.config.multiple == multiple
    image = torch.rand(1, 3, 64, 64, generator=torch.manual_seed(4)) * 2 - 1
    out = student(image)
    assert out.shape == image.shape
    out.square().mean().backward()
    # A ReLU of TAESD or of a gate may sleep in this draw; whole modules may not.
    still = {name.rpartition(".")[0] for name, p in student.named_parameters() if p.grad is None}
    assert not still
    moved = {name for name, p in student.named_parameters() if p.grad.any()}
    for new in ("conv1", "conv2", "attn1", "fuse_in" if student.config.fused else "unet.conv_in"):
        assert any(new in name for name in moved)

    path = tmp_path / "student.safetensors"
    header = student_header(student.config, 4, licence="CC-BY-4.0", source="a test")
    save_weights(path, student.state_dict(), header)
    again = load_student(path)
    assert again.config == student.config
    assert read_header(path)[0].multiple == multiple
    loaded = again.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in student.state_dict().items())
    # Not to the bit: where a tensor lies in memory, and whether gradients are kept, may choose a library's kernel.
    with torch.no_grad():
        torch.testing.assert_close(again(image), student(image), rtol=0, atol=1e-4)
    assert out.std() > 0.01
    # Float32, a header, and nothing besides.
    assert path.stat().st_size < 4 * parameters(student) + 200 * len(student.state_dict()) + 2000
    with pytest.raises(ValueError, match=f"multiples of {multiple}"):
        student(image[..., : multiple - 8])


@pytest.mark.parametrize("switches", VARIANTS, ids=str)
def test_variants_in_16_bits_end_in_float32(tiny, switches):
    student = variant(tiny, switches)
    seen = []
    student.decoder[-1].register_forward_hook(lambda module, args, out: seen.append((args[0].dtype, out.dtype)))
    image = torch.rand(1, 3, 64, 64, generator=torch.manual_seed(5)) * 2 - 1
    with torch.inference_mode():
        plain = student(image)
        with torch.autocast("cpu", torch.bfloat16):
            out = student(image)
    assert seen == [(torch.float32, torch.float32)] * 2
    assert 0 < (out - plain).std() < 0.5 * plain.std()


def test_channels_last_changes_nothing_but_rounding(tiny):
    student = variant(tiny, {"autoencoder": "kl", "fused": False, "qgam": False})
    image = torch.rand(2, 3, 64, 64, generator=torch.manual_seed(6)) * 2 - 1
    with torch.inference_mode():
        plain = student(image)
        student = student.to(memory_format=torch.channels_last)
        turned = student(image.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(turned, plain, rtol=0, atol=2e-4)
    assert plain.std() > 0.05


def test_weights_of_before_the_switches_load(tmp_path, tiny):
    student, path = variant(tiny, {}), tmp_path / "old.safetensors"
    header = student_header(tiny, 4, licence="CC-BY-4.0", source="a test").model_dump()
    for switch in ("autoencoder", "fused", "sap", "dsc", "fsc", "qgam"):
        del header["config"][switch]
    save_file(student.state_dict(), path, metadata={KEY: json.dumps(header)})
    assert load_student(path).config == tiny


@pytest.mark.parametrize(
    ("switches", "says"),
    [
        ({"sap": False, "groups": 2, "channels": (16, 32)}, "three quarters of 2 groups"),
        ({"sap": False, "groups": 8, "channels": (24, 48)}, "24 is no multiple of 16"),
        ({"autoencoder": "kl", "groups": 32, "autoencoder_channels": 8}, "16 channels of the KL autoencoder"),
        ({"autoencoder": "vq"}, "autoencoder"),
        ({"qgam": "maybe"}, "qgam"),
    ],
)
def test_switches_that_no_network_has(switches, says):
    with pytest.raises(ValueError, match=says):
        StudentConfig.model_validate(switches)


@pytest.mark.parametrize(
    ("switches", "gmac"),
    # Of the first the encoder has 558 and the decoder 1257, as everywhere in the literature.
    [({"autoencoder": "kl", "fused": False}, 1909.0), ({"qgam": False}, 301.1)],
)
def test_costs(switches, gmac):
    assert student_counts(StudentConfig(**switches))["gmac_512"] == pytest.approx(gmac, abs=0.05)


def test_settings_are_changed_in_recipes_only(tmp_path):
    with pytest.raises(ModelError, match=r"bicubic is none: give a \.toml file"):
        show_model("bicubic", ["student.qgam=false"])
    with pytest.raises(ModelError, match="no model or file named absent.toml"):
        show_model("absent.toml", ["student.qgam=false"])


@pytest.mark.slow
def test_a_recipe_shows_the_student_that_it_would_train(tmp_path, tiny):
    path = tmp_path / "no-pruning.toml"
    small = "channels = [16, 32]\ndeep_channels = 64\ngroups = 8\nqueries = 4\nsqueeze = 8\nautoencoder_channels = 8"
    path.write_text(f'method = "slimdiffsr-student"\nscale = 8\n[student]\nsap = false\n{small}\n')
    shown = show_model(str(path))
    config = StudentConfig(**tiny.model_dump() | {"sap": False})
    assert shown == student_counts(config) | {
        "name": "no-pruning",
        "sha256": None,
        "kind": "recipe",
        "scales": [8],
        "licence": None,
        "path": str(path),
        "header": None,
    }
    changed = show_model(str(path), ["student.sap=true", "student.fsc=false"])
    wanted = StudentConfig(**tiny.model_dump() | {"fsc": False})
    assert changed["parameters_as_published"] == parameters_as_published(wanted) != shown["parameters_as_published"]
    path.write_text('method = "slimdiffsr-teacher"\n')
    with pytest.raises(ModelError, match="a recipe for slimdiffsr-teacher: give one for slimdiffsr-student"):
        show_model(str(path))
