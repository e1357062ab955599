"""Latents against numpy's reshaping and against diffusers' own autoencoders, with random numbers in made folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.autoencoders.vq_model import VQModel
from torch import Tensor

from rsup.models.base.errors import ModelError
from rsup.models.networks.resshift.latents import Latents, LatentsConfig, load_latents


def image(size: int = 32) -> Tensor:
    return 2 * torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) - 1


def made(kind: str) -> Any:
    torch.manual_seed(3)
    levels = {"block_out_channels": (8, 8, 16), "norm_num_groups": 4}
    down, up = ("DownEncoderBlock2D",) * 3, ("UpDecoderBlock2D",) * 3
    if kind == "VQModel":
        return VQModel(down_block_types=down, up_block_types=up, num_vq_embeddings=32, **levels)
    if kind == "AutoencoderKL":
        return AutoencoderKL(down_block_types=down, up_block_types=up, latent_channels=4, **levels)
    return AutoencoderTiny(encoder_block_out_channels=(8,) * 4, decoder_block_out_channels=(8,) * 4)


def test_unshuffle_moves_pixels_and_loses_none() -> None:
    latents, x = load_latents("unshuffle"), image()
    z = latents.encode(x)
    n, c, h, w = x.shape
    cells = x.numpy().reshape(n, c, h // 4, 4, w // 4, 4)
    assert np.array_equal(z.numpy(), cells.transpose(0, 1, 3, 5, 2, 4).reshape(n, c * 16, h // 4, w // 4))
    assert torch.equal(latents.decode(z), x)
    assert (latents.config.channels, latents.config.factor) == (48, 4)
    assert not list(latents.parameters())


@pytest.mark.parametrize(("kind", "place"), [("VQModel", "vqvae"), ("AutoencoderKL", "vae"), ("AutoencoderTiny", "")])
@pytest.mark.parametrize("safe", [True, False])
def test_an_autoencoder_is_what_diffusers_has(kind: str, place: str, safe: bool, tmp_path: Path) -> None:
    network, x = made(kind), image()
    network.save_pretrained(tmp_path / place, safe_serialization=safe)
    latents = load_latents(str(tmp_path))
    with torch.no_grad():
        encoded = network.encode(x)
        if kind == "AutoencoderKL":
            expected = encoded.latent_dist.mean * network.config.scaling_factor
            decoded = network.decode(expected / network.config.scaling_factor).sample
        else:
            expected = encoded.latents
            decoded = network.decode(expected).sample
        z = latents.encode(x)
        torch.testing.assert_close(z, expected)
        torch.testing.assert_close(latents.decode(z), decoded)
    assert z.shape[1] == latents.config.channels
    assert x.shape[-1] // z.shape[-1] == latents.config.factor


@pytest.mark.parametrize("kind", ["VQModel", "AutoencoderKL", "AutoencoderTiny"])
def test_an_autoencoder_is_built_again_from_its_settings(kind: str, tmp_path: Path) -> None:
    made(kind).save_pretrained(tmp_path)
    first = load_latents(str(tmp_path))
    again = Latents(LatentsConfig.model_validate_json(first.config.model_dump_json()))
    again.load_state_dict(first.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(again.encode(image()), first.encode(image()))
    assert not any(tensor.requires_grad for tensor in again.parameters())


def test_a_codebook_lets_gradients_past_and_autocast_does_not_round(tmp_path: Path) -> None:
    made("VQModel").save_pretrained(tmp_path)
    latents, x = load_latents(str(tmp_path)), image().requires_grad_()
    exact = latents.decode(latents.encode(x))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(latents.decode(latents.encode(x)), exact)
    exact.square().sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_what_is_no_autoencoder_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="lacks vqvae/config.json"):
        load_latents(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    with pytest.raises(ModelError, match="holds no VQModel.*autoencoder = .unshuffle."):
        load_latents(str(tmp_path))
    network = made("VQModel")
    network.save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"half a download")
    with pytest.raises(ModelError, match="download it again"):
        load_latents(str(tmp_path))
    with pytest.raises(ValueError, match="latent_channels"):
        LatentsConfig(kind="VQModel")
    settings = {"latent_channels": 3, "block_out_channels": [8], "no_such_setting": 1}
    with pytest.raises(ModelError, match="no_such_setting"):
        Latents(LatentsConfig(kind="VQModel", settings=settings))
