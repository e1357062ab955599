"""The authors' published checkpoints: a pickled state dict in, an rsup weights file out, exactly the same network.

A published file also holds tensors that no forward pass touches; they are counted in the paper's 58.05 M, checked here
for their shapes, and left behind. Source: the authors' inference code and the layout of its checkpoints.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .base.errors import ModelError
from .base.regular import check_file
from .networks.slimdiffsr.autoencoder import ENCODER_BLOCKS, kl_widths
from .networks.slimdiffsr.config import LATENT, StudentConfig
from .networks.slimdiffsr.student import Student
from .weights_file import Shapes, check_layout, check_scale, save_weights, sha256, student_header

PREFIXES = {
    "encoder.": "vae.encoder.layers.",
    "decoder.": "vae.decoder.layers.",
    "fuse_in.": "merge_conv1.",
    "fuse_out.": "merge_conv2.",
    "unet.mid_block.": "unet.mid_block.mid_block.",
}
"""Our prefix -> the published one; every other name is the same in both."""

LICENCE = (
    "Apache-2.0 (the SlimDiffSR repository); weights derived from Stable Diffusion 2.1 also carry the use restrictions "
    "of CreativeML OpenRAIL++-M, which pass on to every copy and derivative"
)


def published_name(name: str) -> str:
    """The published name of one of our tensors."""
    return _renamed(name, PREFIXES)


def dead_shapes(config: StudentConfig) -> Shapes:
    """Published tensors that do nothing at inference: time embedding, and what fusion bypasses around the latent.

    No checkpoint of a variant is published: what a variant would have is counted by the same rule, and for the KL
    autoencoder without fusion also what makes the log-variance.
    """
    width, taesd = config.levels[0], config.autoencoder_channels
    time = 4 * width
    weights: dict[str, tuple[int, ...]] = {
        "unet.time_embedding.linear_1": (time, width),
        "unet.time_embedding.linear_2": (time, time),
    }
    if config.fused:
        weights |= {"unet.conv_in": (width, LATENT, 3, 3), "unet.conv_out": (LATENT, width, 3, 3)}
        if config.autoencoder == "taesd":
            last = sum(ENCODER_BLOCKS) + len(ENCODER_BLOCKS)
            weights |= {
                f"vae.encoder.layers.{last}": (LATENT, taesd, 3, 3),
                "vae.decoder.layers.0": (taesd, LATENT, 3, 3),
            }
        else:
            deepest = kl_widths(config)[-1]
            weights |= {
                "vae.encoder.conv_out": (2 * LATENT, deepest, 3, 3),
                "vae.quant_conv": (2 * LATENT, 2 * LATENT, 1, 1),
                "vae.post_quant_conv": (LATENT, LATENT, 1, 1),
                "vae.decoder.conv_in": (deepest, LATENT, 3, 3),
            }
    elif config.autoencoder == "kl":
        weights["vae.quant_conv.log_variance"] = (LATENT, 2 * LATENT, 1, 1)
    biases = {f"{name}.bias": (shape[0],) for name, shape in weights.items()}
    return {f"{name}.weight": shape for name, shape in weights.items()} | biases


def published_layout(config: StudentConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a published checkpoint."""
    with torch.device("meta"):
        live = Student(config).state_dict()
    return {published_name(name): tuple(tensor.shape) for name, tensor in live.items()} | dict(dead_shapes(config))


def parameters_as_published(config: StudentConfig) -> int:
    """Parameters as the paper counts them, dead tensors included (58,053,402 for the published network).

    The deleted cross-attention is not counted. The paper's 81.11 M without QGAM are 81,117,658, which is self-attention
    beside cross-attention that nothing uses (14.965 M), in a network without the fused convolutions.
    """
    return sum(torch.Size(shape).numel() for shape in published_layout(config).values())


def import_published(src: Path, scale: int, out: Path, config: StudentConfig | None = None) -> dict[str, Any]:
    """Turn a published pickle into a weights file; a dict of what was written.

    The pickle's code is never run. Raises ModelError, and writes nothing, for a scale other than 4 or 8, an `out` that
    exists already, and a `src` that is missing, damaged, needs code to run, or is another network.
    """
    check_scale(scale)
    config = config or StudentConfig()
    if os.path.lexists(out):
        raise ModelError(f"{out} exists already: remove it or give another name with -o")
    found = _read_pickle(src)
    check_layout({name: tuple(tensor.shape) for name, tensor in found.items()}, published_layout(config), src)
    for name, tensor in found.items():
        if not bool(torch.isfinite(tensor).all()):
            raise ModelError(f"{src}: {name} holds numbers that are not finite: the file is damaged")

    ours = {theirs: mine for mine, theirs in PREFIXES.items()}
    dead = dead_shapes(config)
    state = {_renamed(name, ours): tensor.float() for name, tensor in found.items() if name not in dead}
    header = student_header(config, scale, licence=LICENCE, source=f"imported from {src.name}, sha256 {sha256(src)}")
    save_weights(out, state, header)
    return {
        "path": str(out),
        "sha256": sha256(out),
        "scale": scale,
        "parameters": sum(tensor.numel() for tensor in state.values()),
        "dropped": sorted(dead),
        "licence": LICENCE,
    }


def _renamed(name: str, prefixes: dict[str, str]) -> str:
    for before, after in prefixes.items():
        if name.startswith(before):
            return after + name.removeprefix(before)
    return name


def _read_pickle(src: Path) -> dict[str, Tensor]:
    """Tensors by published name, without the `module.` that data-parallel training puts before them."""
    try:
        check_file(src)
    except OSError as error:
        raise ModelError(
            f"{src} is not a file that can be read ({error.strerror}): give the pickle that the authors published"
        ) from error
    try:
        with warnings.catch_warnings():
            # Files of old PyTorch releases are read through classes that warn of their own retirement.
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(src, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle makes the reader fail in any way at all
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{src} is not a plain pickled state dict, or is damaged; code inside a pickle is never run ({reason})"
        ) from error
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) and _is_plain(tensor) for name, tensor in content.items()
    ):
        raise ModelError(f"{src} holds other things than named arrays of floats: give the published state dict itself")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _is_plain(tensor: Tensor) -> bool:
    """Whether it is an array of floats in memory: a pickle may also hold sparse, nested and absent ones."""
    return tensor.is_floating_point() and tensor.layout == torch.strided and tensor.device.type == "cpu"
