"""Loading: what the hub's checkpoints hold, folders as users have them, and the sentence where there is nothing."""

import json
import time
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from huggingface_hub import constants
from places import SHARED
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from rsup.models.base.errors import ModelError
from rsup.models.networks.pretrained import StableDiffusion, TinyConfig, load_dino, load_stable_diffusion, load_taesd
from rsup.models.networks.slimdiffsr.spatial_unet import SpatialUNet

KEYS = SHARED / "parity/official_state_dict_keys.json"
"""The published student's tensors, where they are at hand."""

SD21_UNET = {
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
    "sample_size": 64,
}
SD21_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 768,
}
"""The architecture part of the hub's two config.json; what is not named has diffusers' default."""


class Layout(dict[str, tuple[int, ...]]):
    """Name and shape of every tensor of a checkpoint, written down layer by layer from the published architecture."""

    def layer(self, name: str, *shape: int, bias: bool = True) -> None:
        self[f"{name}.weight"] = shape
        if bias:
            self[f"{name}.bias"] = shape[:1]

    def resnet(self, name: str, before: int, after: int, time: int | None) -> None:
        self.layer(f"{name}.norm1", before)
        self.layer(f"{name}.conv1", after, before, 3, 3)
        if time:
            self.layer(f"{name}.time_emb_proj", after, time)
        self.layer(f"{name}.norm2", after)
        self.layer(f"{name}.conv2", after, after, 3, 3)
        if before != after:
            self.layer(f"{name}.conv_shortcut", after, before, 1, 1)

    def transformer(self, name: str, width: int, text: int) -> None:
        self.layer(f"{name}.norm", width)
        self.layer(f"{name}.proj_in", width, width)
        self.layer(f"{name}.proj_out", width, width)
        block = f"{name}.transformer_blocks.0"
        for attention, context in (("attn1", width), ("attn2", text)):
            self.layer(f"{block}.{attention}.to_q", width, width, bias=False)
            self.layer(f"{block}.{attention}.to_k", width, context, bias=False)
            self.layer(f"{block}.{attention}.to_v", width, context, bias=False)
            self.layer(f"{block}.{attention}.to_out.0", width, width)
        for norm in ("norm1", "norm2", "norm3"):
            self.layer(f"{block}.{norm}", width)
        self.layer(f"{block}.ff.net.0.proj", 8 * width, width)
        self.layer(f"{block}.ff.net.2", width, 4 * width)

    def middle(self, name: str) -> None:
        """The KL autoencoder's, at 512 channels, its attention under the names of the hub's old checkpoints."""
        self.resnet(f"{name}.resnets.0", 512, 512, None)
        self.resnet(f"{name}.resnets.1", 512, 512, None)
        self.layer(f"{name}.attentions.0.group_norm", 512)
        for projection in ("query", "key", "value", "proj_attn"):
            self.layer(f"{name}.attentions.0.{projection}", 512, 512)


def unet_layout() -> Layout:
    layout = Layout()
    layout.layer("conv_in", 320, 4, 3, 3)
    layout.layer("time_embedding.linear_1", 1280, 320)
    layout.layer("time_embedding.linear_2", 1280, 1280)
    resnets = {
        "down_blocks.0": ((320, 320), (320, 320)),
        "down_blocks.1": ((320, 640), (640, 640)),
        "down_blocks.2": ((640, 1280), (1280, 1280)),
        "down_blocks.3": ((1280, 1280), (1280, 1280)),
        "mid_block": ((1280, 1280), (1280, 1280)),
        "up_blocks.0": ((2560, 1280), (2560, 1280), (2560, 1280)),
        "up_blocks.1": ((2560, 1280), (2560, 1280), (1920, 1280)),
        "up_blocks.2": ((1920, 640), (1280, 640), (960, 640)),
        "up_blocks.3": ((960, 320), (640, 320), (640, 320)),
    }
    for block, widths in resnets.items():
        for i, (before, after) in enumerate(widths):
            layout.resnet(f"{block}.resnets.{i}", before, after, 1280)
        attentions = {"down_blocks.3": 0, "up_blocks.0": 0, "mid_block": 1}.get(block, len(widths))
        for i in range(attentions):
            layout.transformer(f"{block}.attentions.{i}", widths[0][1], 1024)
    for i, width in enumerate((320, 640, 1280)):
        layout.layer(f"down_blocks.{i}.downsamplers.0.conv", width, width, 3, 3)
    for i, width in enumerate((1280, 1280, 640)):
        layout.layer(f"up_blocks.{i}.upsamplers.0.conv", width, width, 3, 3)
    layout.layer("conv_norm_out", 320)
    layout.layer("conv_out", 4, 320, 3, 3)
    return layout


def vae_layout() -> Layout:
    layout = Layout()
    layout.layer("encoder.conv_in", 128, 3, 3, 3)
    layout.layer("decoder.conv_in", 512, 4, 3, 3)
    down, up = (128, 128, 256, 512, 512), (512, 512, 512, 256, 128)
    for i in range(4):
        for j in range(2):
            layout.resnet(f"encoder.down_blocks.{i}.resnets.{j}", down[i + (j > 0)], down[i + 1], None)
        for j in range(3):
            layout.resnet(f"decoder.up_blocks.{i}.resnets.{j}", up[i + (j > 0)], up[i + 1], None)
        if i < 3:
            layout.layer(f"encoder.down_blocks.{i}.downsamplers.0.conv", down[i + 1], down[i + 1], 3, 3)
            layout.layer(f"decoder.up_blocks.{i}.upsamplers.0.conv", up[i + 1], up[i + 1], 3, 3)
    for part, width, out in (("encoder", 512, 8), ("decoder", 128, 3)):
        layout.middle(f"{part}.mid_block")
        layout.layer(f"{part}.conv_norm_out", width)
        layout.layer(f"{part}.conv_out", out, width, 3, 3)
    layout.layer("quant_conv", 8, 8, 1, 1)
    layout.layer("post_quant_conv", 4, 4, 1, 1)
    return layout


def numbers(layout: dict[str, tuple[int, ...]]) -> int:
    return sum(torch.Size(shape).numel() for shape in layout.values())


def new_name(name: str) -> str:
    """Today's name of a tensor of an old autoencoder."""
    for old, new in {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}.items():
        name = name.replace(f"attentions.0.{old}.", f"attentions.0.{new}.")
    return name


def old_name(name: str) -> str:
    for old, new in {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}.items():
        name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
    return name


def test_every_tensor_of_sd21_has_its_place() -> None:
    wanted = unet_layout()
    assert (len(wanted), numbers(wanted)) == (686, 865_910_724)  # what the hub's file holds
    with torch.device("meta"):
        unet = UNet2DConditionModel(**SD21_UNET)
        # The spatial UNet has the stock one's names, so the checkpoint's as well.
        for network in (unet, SpatialUNet(unet)):
            assert {name: tuple(t.shape) for name, t in network.state_dict().items()} == wanted


def test_every_tensor_of_sd21s_autoencoder_has_its_place() -> None:
    wanted = vae_layout()
    assert (len(wanted), numbers(wanted)) == (248, 83_653_863)
    with torch.device("meta"):
        vae = AutoencoderKL(**SD21_VAE)
    found = {name: tuple(tensor.shape) for name, tensor in vae.state_dict().items()}
    assert found == {new_name(name): shape for name, shape in wanted.items()}


@pytest.mark.skipif(not KEYS.exists(), reason="needs the published student's list of tensors")
def test_the_published_student_kept_tensors_of_this_unet() -> None:
    ours = unet_layout()
    published = {
        name.removeprefix("unet."): tuple(shape)
        for name, shape in json.loads(KEYS.read_text()).items()
        if name.startswith("unet.")
    }
    # Its up levels were renumbered when the deep half went; the mid block stands for the third level's first resnet.
    moves = {
        "up_blocks.0.": "up_blocks.2.",
        "up_blocks.1.": "up_blocks.3.",
        "mid_block.mid_block.": "down_blocks.2.resnets.0.",
    }
    replaced = (".conv1.", ".conv2.", ".attn1.")
    kept = {name: shape for name, shape in published.items() if not any(part in name for part in replaced)}
    assert len(kept) > 200
    for name, shape in kept.items():
        for theirs, base in moves.items():
            if name.startswith(theirs):
                name = base + name.removeprefix(theirs)
                break
        assert ours[name] == shape, name


def test_tiny_parts_are_seeded_and_leave_the_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, again, other = (load_stable_diffusion("tiny-random", seed=seed) for seed in (1, 1, 2))
    taesd = load_taesd("tiny-random")
    dino = load_dino("tiny-random")
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    for part in ("unet", "vae"):
        one, two, three = (getattr(parts, part).state_dict() for parts in (first, again, other))
        assert all(torch.equal(one[name], two[name]) for name in one)
        assert not all(torch.equal(one[name], three[name]) for name in one)
    assert torch.equal(first.prompt, again.prompt) and first.prompt.shape == (1, 77, 16)
    assert taesd.config["encoder_block_out_channels"] == (8, 8, 8, 8)
    assert dino.config.hidden_size == 32


def test_tiny_widths_follow_the_settings() -> None:
    base = load_stable_diffusion("tiny-random", tiny=TinyConfig(channels=(8, 8, 16, 16), autoencoder_channels=16))
    assert base.unet.conv_in.weight.shape == (8, 4, 3, 3)
    assert base.vae.encoder.conv_in.weight.shape == (32, 3, 3, 3)
    assert base.vae.config["latent_channels"] == 4


def save_folder(parts: StableDiffusion, folder: Path) -> CLIPTextModel:
    """A folder as the hub has it: five parts, the autoencoder's attention under its old names."""
    torch.manual_seed(0)
    parts.unet.save_pretrained(folder / "unet")
    parts.vae.save_pretrained(folder / "vae")
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    state = {old_name(name): tensor for name, tensor in load_file(file).items()}
    assert sum("query" in name for name in state) == 4
    save_file(state, file, {"format": "pt"})
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=6, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            bos_token_id=1, eos_token_id=2,
        )
    )  # fmt: skip
    text.save_pretrained(folder / "text_encoder")
    tokens = folder / "tokenizer"
    tokens.mkdir()
    vocabulary = ["!", "<|startoftext|>", "<|endoftext|>", "a</w>", "b</w>", "a"]
    (tokens / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    (tokens / "merges.txt").write_text("#version: 0.2\n")
    (tokens / "tokenizer_config.json").write_text(json.dumps({"pad_token": "!", "model_max_length": 77}))
    # What Stable Diffusion 2.1-base comes with; its schedule is the training schedule all the same.
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    PNDMScheduler(**schedule, skip_prk_steps=True, set_alpha_to_one=False).save_pretrained(folder / "scheduler")
    return text.eval()


def test_a_folder_gives_what_was_saved(tmp_path: Path) -> None:
    made = load_stable_diffusion("tiny-random", seed=9)
    text = save_folder(made, tmp_path)
    loaded = load_stable_diffusion(str(tmp_path), prompt="a b")
    for part in ("unet", "vae"):
        before, after = getattr(made, part).state_dict(), getattr(loaded, part).state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before), part
    torch.testing.assert_close(loaded.alphas_cumprod, made.alphas_cumprod)
    assert loaded.prediction_type == "epsilon"
    ids = torch.tensor([[1, 3, 4, 2] + [0] * 73])
    with torch.no_grad():
        torch.testing.assert_close(loaded.prompt, text(ids)[0])
    empty = load_stable_diffusion(str(tmp_path)).prompt
    assert empty.shape == (1, 77, 16) and not torch.equal(empty, loaded.prompt)


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    save_folder(load_stable_diffusion("tiny-random"), tmp_path)
    file = tmp_path / "unet/diffusion_pytorch_model.safetensors"
    state = load_file(file)
    weight = state.pop("up_blocks.3.resnets.2.conv2.weight")
    save_file(state, file, {"format": "pt"})
    with pytest.raises(ModelError, match=r"up_blocks\.3\.resnets\.2\.conv2\.weight"):
        load_stable_diffusion(str(tmp_path))
    save_file(state | {"up_blocks.3.resnets.2.conv2.weight": weight[:8].clone()}, file, {"format": "pt"})
    with pytest.raises(ModelError, match="download it again"):
        load_stable_diffusion(str(tmp_path))
    file.write_bytes(b"not a tensor")
    with pytest.raises(ModelError, match="unet cannot be read"):
        load_stable_diffusion(str(tmp_path))
    file.unlink()
    with pytest.raises(ModelError, match=r"lacks unet/diffusion_pytorch_model\.safetensors"):
        load_stable_diffusion(str(tmp_path))


def test_dino_comes_from_safetensors_or_a_pickle(tmp_path: Path) -> None:
    dino = load_dino("tiny-random", seed=4)
    dino.save_pretrained(tmp_path)
    safe = load_dino(str(tmp_path))
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    pickled = load_dino(str(tmp_path))
    first, second = safe.state_dict(), pickled.state_dict()
    for name, tensor in dino.state_dict().items():
        assert torch.equal(first[name], tensor) and torch.equal(second[name], tensor)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="lacks model.safetensors"):
        load_dino(str(tmp_path))


def test_taesd_comes_from_a_folder(tmp_path: Path) -> None:
    made = load_taesd("tiny-random", seed=2)
    made.save_pretrained(tmp_path)
    loaded = load_taesd(str(tmp_path)).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in made.state_dict().items())


def test_offline_the_download_is_named_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    started = time.monotonic()
    for load in (load_stable_diffusion, load_taesd, load_dino):
        with pytest.raises(ModelError, match="hf download someone/something --local-dir FOLDER") as caught:
            load("someone/something")
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)
    assert time.monotonic() - started < 5


def test_the_hub_cache_is_used_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    cached = tmp_path / "models--someone--taesd"
    load_taesd("tiny-random", seed=6).save_pretrained(cached / "snapshots/0123")
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text("0123")
    assert torch.equal(
        load_taesd("someone/taesd").encoder.layers[0].weight, load_taesd("tiny-random", seed=6).encoder.layers[0].weight
    )
    (cached / "snapshots/0123/config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json in it|hf download someone/taesd"):
        load_taesd("someone/taesd")


def test_a_source_that_is_neither_folder_nor_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no hub id such as madebyollin/taesd"):
        load_taesd(str(tmp_path / "absent/folder"))
