"""Students from a base: kept tensors are the base's, new operators are not touched, and nothing fits by accident."""

from types import SimpleNamespace

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from rsup.models.base.errors import ModelError
from rsup.models.networks.slimdiffsr.config import StudentConfig
from rsup.models.networks.slimdiffsr.initialise import initialise
from rsup.models.networks.slimdiffsr.student import Student

NEW = {
    "fsc": ("low_branch", "high_branch", "bottleneck"),
    "dsc": ("h_conv", "v_conv", "conv_reduce", "conv_expand"),
    "qgam": ("query", "q_proj", "k_proj", "v_proj", "q_proj_c", "k_proj_c", "v_proj_c", "out_proj"),
}
"""Parts of tensor names that only the new operators have; `mlp` is FSC's and DSC's."""


def unet(channels=(16, 32, 64, 64), groups=8, heads=2, context=24):
    return UNet2DConditionModel(
        block_out_channels=channels,
        attention_head_dim=heads,
        cross_attention_dim=context,
        norm_num_groups=groups,
        use_linear_projection=True,
    )


def taesd(width=8):
    return AutoencoderTiny(encoder_block_out_channels=(width,) * 4, decoder_block_out_channels=(width,) * 4)


def kl(widths=(16, 32, 64, 64), groups=8, **more):
    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    return AutoencoderKL(
        block_out_channels=widths,
        down_block_types=down,
        up_block_types=up,
        layers_per_block=2,
        norm_num_groups=groups,
        **more,
    )


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(1)
    return SimpleNamespace(unet=unet(), taesd=taesd(), kl=kl())


def tiny_student(**switches):
    torch.manual_seed(2)
    sizes = {"channels": (16, 32), "deep_channels": 64, "groups": 8, "autoencoder_channels": 8}
    return Student(StudentConfig(**sizes, queries=4, squeeze=8, **switches))


def started(base, **switches):
    """A student and what `initialise` says of it; every fresh tensor is as it was."""
    student = tiny_student(**switches)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    autoencoder = switches.get("autoencoder", "taesd")
    done = initialise(student, base.unet, **{autoencoder: getattr(base, autoencoder)})
    state = student.state_dict()
    assert sorted(done.copied + done.fresh) == sorted(state)
    assert all(torch.equal(state[name], before[name]) for name in done.fresh)
    return state, done


def new_names(state, *operators):
    """By the letter of their names alone."""
    parts = {part for operator in operators for part in NEW[operator]}
    if {"fsc", "dsc"} & set(operators):
        parts.add("mlp")
    return {name for name in state if parts & set(name.split("."))}


def test_the_published_layout_starts_from_sd_and_taesd(base):
    state, done = started(base)
    fused = {f"fuse_{end}.{kind}" for end in ("in", "out") for kind in ("weight", "bias")}
    assert set(done.fresh) == new_names(state, "fsc", "dsc", "qgam") | fused
    theirs = {f"unet.{name}": tensor for name, tensor in base.unet.state_dict().items()}
    for name in done.copied:
        # Where each comes from, said once more: kept levels are the finest two, the deep block is the third's first.
        source = name.replace("up_blocks.1", "up_blocks.3").replace("up_blocks.0", "up_blocks.2")
        source = source.replace("unet.mid_block.", "unet.down_blocks.2.resnets.0.")
        if name.startswith("unet."):
            expected = theirs[source]
        else:
            half, rest = name.split(".", 1)
            expected = getattr(base.taesd, half).layers.state_dict()[rest]
        assert torch.equal(state[name], expected), name
    assert {"unet.mid_block.conv_shortcut.weight", "unet.conv_norm_out.bias"} <= set(done.copied)


@pytest.mark.parametrize("switch", ["fsc", "dsc", "qgam"])
def test_operators_that_stay_start_from_the_base(base, switch):
    state, done = started(base, **{switch: False})
    others = {"fsc", "dsc", "qgam"} - {switch}
    assert {name for name in done.fresh if not name.startswith("fuse_")} == new_names(state, *others)
    kept = {"fsc": "resnets.0.conv1.weight", "dsc": "resnets.2.conv2.bias"}
    one = kept.get(switch, "attentions.1.transformer_blocks.0.attn1.to_k.weight")
    assert torch.equal(state[f"unet.up_blocks.0.{one}"], base.unet.up_blocks[2].state_dict()[one])


def test_self_attention_computes_what_the_base_computes(base):
    """Same heads, same scale: the whole kept transformer block, its cross-attention left out."""
    student = tiny_student(qgam=False)
    one_head = unet(heads=1)
    initialise(student, one_head)
    ours = student.unet.down_blocks[1].attentions[0].transformer_blocks[0]
    theirs = one_head.down_blocks[1].attentions[0].transformer_blocks[0]
    tokens = torch.randn(2, 12, 32, generator=torch.manual_seed(3))
    with torch.inference_mode():
        expected = tokens + theirs.attn1(theirs.norm1(tokens))
        expected = expected + theirs.ff(theirs.norm3(expected))
        torch.testing.assert_close(ours(tokens), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["taesd", "kl"])
def test_without_fusion_the_autoencoder_is_the_base_s(base, kind):
    """The student's halves, alone, are the base's encoder and decoder (TAESD's without its range and clamp)."""
    student = tiny_student(autoencoder=kind, fused=False)
    done = initialise(student, base.unet, **{kind: getattr(base, kind)})
    assert {name for name in done.fresh if not name.startswith("unet.")} == set()
    assert {"unet.conv_in.weight", "unet.conv_out.bias"} <= set(done.copied)
    image = torch.rand(1, 3, 32, 48, generator=torch.manual_seed(4)) * 2 - 1
    with torch.inference_mode():
        latent = student.encoder(image)
        if kind == "kl":
            expected = base.kl.encode(image).latent_dist.mode() * 0.18215
            decoded = base.kl.decode(latent / 0.18215).sample
        else:
            # The base's encoder takes [-1, 1] to [0, 1] first, and its decoder clamps the latent.
            expected = base.taesd.encoder(image * 2 - 1)
            decoded = base.taesd.decoder.layers(latent)
        torch.testing.assert_close(latent, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(student.decoder(latent), decoded, rtol=1e-5, atol=1e-5)


def test_fused_kl_leaves_out_the_ends_at_the_latent(base):
    state, done = started(base, autoencoder="kl")
    assert state["fuse_in.weight"].shape == (16, 64, 3, 3)
    assert set(done.fresh) == new_names(state, "fsc", "dsc", "qgam") | {n for n in state if n.startswith("fuse_")}
    for name in ("encoder.mid_block.attentions.0.to_q.weight", "decoder.up_blocks.3.resnets.2.norm1.bias"):
        assert torch.equal(state[name], base.kl.state_dict()[name])
    assert not {name for name in state if "quant_conv" in name}


def test_uniform_pruning_keeps_leading_channels_of_each_part(base):
    state, done = started(base, sap=False, fsc=False, dsc=False, qgam=False)
    assert set(done.fresh) == {f"fuse_{end}.{kind}" for end in ("in", "out") for kind in ("weight", "bias")}
    theirs = base.unet.state_dict()
    ours = {name.removeprefix("unet."): tensor for name, tensor in state.items() if name.startswith("unet.")}

    name = "down_blocks.1.resnets.1.conv2.weight"
    assert torch.equal(ours[name], theirs[name][:24, :24])
    # From below 64, skipped 32: 48 and 24 of them.
    name = "up_blocks.1.resnets.2.conv1.weight"
    rows = torch.cat([torch.arange(48), 64 + torch.arange(24)])
    assert torch.equal(ours[name], theirs[name][:48, rows])
    assert torch.equal(ours["up_blocks.1.resnets.2.norm1.bias"], theirs["up_blocks.1.resnets.2.norm1.bias"][rows])
    # Values and gates of the feed-forward: 128 of each, 96 kept.
    name = "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj.weight"
    rows = torch.cat([torch.arange(192), 256 + torch.arange(192)])
    assert torch.equal(ours[name], theirs[name][rows, :48])
    # Two heads of 8 channels: 6 of each.
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_v.weight"
    rows = torch.cat([torch.arange(6), 8 + torch.arange(6)])
    assert torch.equal(ours[name], theirs[name][rows, :12])
    assert torch.equal(ours["conv_norm_out.weight"], theirs["conv_norm_out.weight"][:12])


@pytest.mark.parametrize(
    "switches",
    [
        {},
        {"fused": False},
        {"autoencoder": "kl"},
        {"autoencoder": "kl", "fused": False},
        {"sap": False},
        {"fsc": False, "dsc": False, "qgam": False},
        {"sap": False, "fused": False, "fsc": False, "dsc": False, "qgam": False},
    ],
)
def test_full_size_fits_sd21(switches):
    """Names and shapes alone, without numbers."""
    with torch.device("meta"):
        student = Student(StudentConfig(**switches))
        sd = unet((320, 640, 1280, 1280), 32, (5, 10, 20, 20), 1024)
        parts = {"kl": kl((128, 256, 512, 512), 32)} if "autoencoder" in switches else {"taesd": taesd(64)}
        done = initialise(student, sd, **parts)
    tensors = student.state_dict()
    if not switches:
        blocks = [(320, 320), (320, 320), (320, 640), (640, 640), (640, 1280)]
        blocks += [(1920, 640), (1280, 640), (960, 640), (960, 320), (640, 320), (640, 320)]
        fsc = sum(26 * c + 18 + c * (c + out) // 4 for c, out in blocks)
        dsc = sum(6 * c + c * (c + 3) // 8 + 3 + c * c // 2 for _, c in blocks)
        qgam = 5 * sum(353 * c + 2 * 64 * 64 for c in (320, 640))
        fused = 2 * 9 * 64 * 320 + 64 + 320
        assert sum(tensors[name].numel() for name in done.fresh) == fsc + dsc + qgam + fused
    if switches.get("qgam", True) is False and "sap" not in switches:
        ours = student.unet.up_blocks[0].attentions[0].transformer_blocks[0].attn1
        theirs = sd.up_blocks[2].attentions[0].transformer_blocks[0].attn1
        assert ours.heads == theirs.heads == 10


def test_a_source_that_is_not_given_leaves_its_part(base):
    student = tiny_student()
    assert initialise(student).copied == []
    done = initialise(student, taesd=base.taesd)
    assert {name.split(".")[0] for name in done.copied} == {"encoder", "decoder"}


@pytest.mark.parametrize(
    ("switches", "parts", "says"),
    [
        ({}, lambda: {"unet": unet((24, 32, 64, 64))}, r"down_blocks.0.*is \(16,.*the base's \(24,.*base's widths"),
        ({}, lambda: {"unet": unet(groups=4)}, "normalises in 4 groups"),
        ({}, lambda: {"taesd": taesd(16)}, r"encoder.0.weight is \(8, 3, 3, 3\), the base's \(16,"),
        ({}, lambda: {"kl": kl()}, "of the kind taesd"),
        ({"autoencoder": "kl"}, lambda: {"taesd": taesd()}, "of the kind kl"),
        ({"autoencoder": "kl", "fused": False}, lambda: {"kl": kl(scaling_factor=0.13)}, "latent by 0.13"),
        ({"autoencoder": "kl"}, lambda: {"kl": kl((16, 32, 64, 64), 4)}, "autoencoder normalises in 4 groups"),
        ({"blocks": 3}, lambda: {"unet": unet()}, "the base has no unet.down_blocks.0.resnets.2.norm1.weight"),
    ],
)
def test_a_base_that_does_not_fit_changes_nothing(switches, parts, says):
    student = tiny_student(**switches)
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    with pytest.raises(ModelError, match=says) as error:
        initialise(student, **parts())
    assert "\n" not in str(error.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
