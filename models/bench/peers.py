"""The peers' sizes: their networks from public libraries, with the settings that they are published with.

Weights are random: they change no time. What takes many steps is timed step by step, and its steps are counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO

import torch
from torch import Tensor

from .contender import SIDE, Contender, Pass, Row, Where, pass_of

_LOW = 3, SIDE // 4, SIDE // 4

_TEXT = 77, 1024
"""Tokens of a prompt and their width, for Stable Diffusion 2.1."""


def _esrgan(where: Where) -> Mapping[str, Pass]:
    """23 residual-in-residual dense blocks of width 64, as ESRGAN, Real-ESRGAN and satlas have them."""
    from spandrel.architectures.ESRGAN import ESRGAN

    with torch.device("meta"):
        network = ESRGAN()
    return {"tile": pass_of(network, where, _LOW)}


def _swinir(where: Where) -> Mapping[str, Pass]:
    """The medium network for real images."""
    from spandrel.architectures.SwinIR import SwinIR

    six = [6] * 6
    network = SwinIR(
        img_size=64,
        window_size=8,
        embed_dim=180,
        depths=six,
        num_heads=six,
        mlp_ratio=2.0,
        upscale=4,
        upsampler="nearest+conv",
    )
    return {"tile": pass_of(network, where, _LOW)}


def _diffusion(where: Where) -> Mapping[str, Pass]:
    """Stable Diffusion 2.1: its UNet, its autoencoder's halves, and a ControlNet for it."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.controlnets.controlnet import ControlNetModel
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.utils.logging import set_verbosity_error

    set_verbosity_error()  # it says of each cast how weights of its hub are to be loaded
    settings = {"attention_head_dim": (5, 10, 20, 20), "cross_attention_dim": 1024, "use_linear_projection": True}
    with torch.device("meta"):
        unet, control = UNet2DConditionModel(**settings), ControlNetModel(**settings)
        autoencoder = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
        )
    image, latent = (3, SIDE, SIDE), (4, SIDE // 8, SIDE // 8)
    return {
        "encode": pass_of(autoencoder.encoder, where, image),
        "unet": pass_of(unet, where, latent, _TEXT, call=lambda unet, x, text: unet(x, _step(x), text)),
        "control": pass_of(
            control, where, latent, _TEXT, image, call=lambda control, x, text, image: control(x, _step(x), text, image)
        ),
        "decode": pass_of(autoencoder.decoder, where, latent),
    }


def _opensr(where: Where) -> Mapping[str, Pass]:
    """LDSR-S2's autoencoder and UNet, with the settings of its published configuration (config_10m.yaml)."""
    with redirect_stdout(StringIO()), torch.device("meta"):  # it tells how it is built
        from opensr_model.autoencoder.autoencoder import AutoencoderKL
        from opensr_model.denoiser.unet import UNetModel

        widths = {"ch": 128, "ch_mult": [1, 2, 4], "num_res_blocks": 2, "attn_resolutions": []}
        image = {"in_channels": 4, "out_ch": 4, "resolution": SIDE}
        autoencoder = AutoencoderKL({**widths, **image, "z_channels": 4, "double_z": True, "dropout": 0.0}, 4)
        unet = UNetModel(
            in_channels=8,
            model_channels=160,
            out_channels=4,
            num_res_blocks=2,
            attention_resolutions=[16, 8],
            channel_mult=[1, 2, 2, 4],
            num_head_channels=32,
        )
    latent = SIDE // 4, SIDE // 4
    norms = (torch.nn.GroupNorm,)  # it casts to float32 in front of them
    return {
        "encode": pass_of(autoencoder.encoder, where, (4, SIDE, SIDE), float32=norms),
        "unet": pass_of(unet, where, (8, *latent), call=lambda unet, x: unet(x, _step(x)), float32=norms),
        "decode": pass_of(autoencoder.decoder, where, (4, *latent), float32=norms),
    }


def _step(x: Tensor) -> Tensor:
    """A time for each image."""
    return x.new_full((len(x),), 500, dtype=torch.long)


_WITHOUT_TEXT = "without the text encoder, whose result is kept"

PEERS = {
    "esrgan": Contender(_esrgan, (Row("ESRGAN (RRDB)", 4, {"tile": 1}),), "spandrel"),
    "swinir": Contender(_swinir, (Row("SwinIR", 4, {"tile": 1}),), "spandrel"),
    "diffusion": Contender(
        _diffusion,
        (
            Row(
                "SD 2.1 in one step (S3Diff)", 4, {"encode": 1, "unet": 2, "decode": 1}, f"two prompts; {_WITHOUT_TEXT}"
            ),
            Row(
                "SD 2.1 in 50 steps (DiffBIR)",
                4,
                {"encode": 1, "control": 50, "unet": 50, "decode": 1},
                f"one step of UNet and ControlNet timed, times 50; {_WITHOUT_TEXT}",
            ),
        ),
        "diffusers",
    ),
    "opensr": Contender(
        _opensr,
        (Row("LDSR-S2 in 100 steps", 4, {"encode": 1, "unet": 100, "decode": 1}, "one step timed, times 100"),),
        "opensr_model",
    ),
}
"""Contenders by their names."""
