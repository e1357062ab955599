"""A new student starts from Stable Diffusion: the base's UNet and an autoencoder in, its tensors in the student out.

Where the student kept a module it starts as the base's; the operators that are new (FSC, DSC, QGAM, the fused
convolutions) stay as they were drawn. Source: SlimDiffSR, section 3.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from rsup.models.base.errors import ModelError

from .autoencoder import KL_SCALING
from .config import LATENT, LEVELS, StudentConfig
from .operators import DSC, FSC, QGAM
from .student import Student

Axes = dict[int, tuple[int, ...]]
"""Of a tensor's axes that join several maps, the widths of those."""


@dataclass(frozen=True)
class Initialised:
    """What became of each of the student's tensors, by its name in the student."""

    copied: list[str]
    """The base's numbers; without semantic-aware pruning, those of the leading three quarters of its channels."""
    fresh: list[str]
    """As they were: in modules that are new, or whose source was not given."""


def initialise(
    student: Student,
    unet: UNet2DConditionModel | None = None,
    taesd: AutoencoderTiny | None = None,
    kl: AutoencoderKL | None = None,
) -> Initialised:
    """Copy the base's tensors into `student`, in place; a source that is None leaves its part as it is.

    The residual block that stands for the removed levels takes the place, and the normalisations and shortcut, of the
    first one below the kept levels. Without semantic-aware pruning each channel axis keeps its leading three quarters,
    each part of a concatenated axis for itself: the uniform pruning that the paper compares with, whose criterion is
    not given. Raises ModelError, before anything is copied, for an autoencoder of the kind that the student has not,
    for group sizes or a latent scale that are not the base's, and for a kept tensor that the base lacks or has in
    another shape.
    """
    config = student.config
    _check_kind(config, taesd, kl)
    base: dict[str, Tensor] = {}
    joined: dict[str, Axes] = {}
    if unet is not None:
        _check_groups("UNet", unet.config["norm_num_groups"], config.groups)
        base |= {f"unet.{name}": tensor for name, tensor in unet.state_dict().items()}
        joined = _joined_axes(unet)
    if taesd is not None:
        base |= {name.replace("coder.layers.", "coder."): tensor for name, tensor in taesd.state_dict().items()}
    if kl is not None:
        _check_groups("autoencoder", kl.config["norm_num_groups"], config.groups)
        base |= _kl_tensors(kl, config)

    autoencoder = taesd is not None or kl is not None
    given = {"unet": unet is not None, "encoder": autoencoder, "decoder": autoencoder}
    new = tuple(_new_modules(student))
    copied: dict[str, Tensor] = {}
    fresh = []
    for name, tensor in student.state_dict().items():
        if name.startswith(new) or not given[name.partition(".")[0]]:
            fresh.append(name)
            continue
        theirs = _base_name(name, config)
        if theirs not in base:
            raise ModelError(f"the base has no {theirs}, which the student's {name} starts from: give another base")
        thinned = name.startswith("unet.") and not config.sap
        copied[name] = _fitted(name, base[theirs], tensor.shape, joined.get(theirs, {}), thinned=thinned)
    with torch.no_grad():
        state = student.state_dict()
        for name, source in copied.items():
            state[name].copy_(source)
    return Initialised(list(copied), fresh)


def _check_kind(config: StudentConfig, taesd: AutoencoderTiny | None, kl: AutoencoderKL | None) -> None:
    if (taesd if config.autoencoder == "kl" else kl) is not None:
        raise ModelError(f"the student's autoencoder is of the kind {config.autoencoder}: give a base of that kind")
    if kl is not None and not config.fused and kl.config["scaling_factor"] != KL_SCALING:
        raise ModelError(f"the base scales its latent by {kl.config['scaling_factor']}, the student by {KL_SCALING}")


def _check_groups(part: str, theirs: int, ours: int) -> None:
    """Tensors do not show over how many channels a normalisation takes its mean."""
    if theirs != ours:
        raise ModelError(f"the base's {part} normalises in {theirs} groups: set the student's groups to it, not {ours}")


def _new_modules(student: Student) -> Iterator[str]:
    """Prefixes of the names of tensors that Stable Diffusion does not have."""
    for name, module in student.named_modules():
        if isinstance(module, (FSC, DSC, QGAM)):
            yield f"{name}."
    yield from ("fuse_in.", "fuse_out.")


def _base_name(name: str, config: StudentConfig) -> str:
    """Where in the base one of the student's tensors comes from."""
    if not config.sap:
        return name
    kept = len(config.channels)
    if name.startswith("unet.mid_block."):
        return name.replace("mid_block.", f"down_blocks.{kept}.resnets.0.", 1)
    if name.startswith("unet.up_blocks."):
        index, rest = name.removeprefix("unet.up_blocks.").split(".", 1)
        return f"unet.up_blocks.{int(index) + LEVELS - kept}.{rest}"
    return name


def _kl_tensors(kl: AutoencoderKL, config: StudentConfig) -> dict[str, Tensor]:
    """The KL autoencoder's tensors by the student's names, which put the quant convolutions inside the halves."""
    halves = {"quant_conv": "encoder.quant_conv", "post_quant_conv": "decoder.post_quant_conv"}
    tensors = {}
    for name, tensor in kl.state_dict().items():
        module, _, kind = name.rpartition(".")
        tensors[f"{halves.get(module, module)}.{kind}"] = tensor
    if not config.fused:
        for kind in ("weight", "bias"):
            # Mean first, log-variance second; the student has the mean only.
            tensors[f"encoder.quant_conv.{kind}"] = tensors[f"encoder.quant_conv.{kind}"][:LATENT]
    return tensors


def _joined_axes(unet: UNet2DConditionModel) -> dict[str, Axes]:
    """Axes that join maps: what comes from below and a skip, value and gate, or the heads of an attention."""
    joined: dict[str, Axes] = {}
    below = unet.mid_block.resnets[-1].out_channels
    up_blocks: Any = unet.up_blocks
    for i, up in enumerate(up_blocks):
        for j, resnet in enumerate(up.resnets):
            parts = (below, resnet.in_channels - below)
            below = resnet.out_channels
            name = f"unet.up_blocks.{i}.resnets.{j}"
            joined |= {f"{name}.norm1.{kind}": {0: parts} for kind in ("weight", "bias")}
            joined |= {f"{name}.{conv}.weight": {1: parts} for conv in ("conv1", "conv_shortcut")}
    for name, module in unet.named_modules():
        if name.endswith(".attn1"):
            heads = (module.inner_dim // module.heads,) * module.heads
            joined |= {f"unet.{name}.{key}.weight": {0: heads} for key in ("to_q", "to_k", "to_v")}
            joined[f"unet.{name}.to_out.0.weight"] = {1: heads}
        if name.endswith(".ff.net.0.proj"):
            half = module.out_features // 2
            joined |= {f"unet.{name}.{kind}": {0: (half, half)} for kind in ("weight", "bias")}
    return joined


def _fitted(name: str, source: Tensor, shape: torch.Size, joined: Axes, *, thinned: bool) -> Tensor:
    """`source` itself, or where `thinned` what is left of it; a ModelError where that has not the given shape."""
    if thinned and len(shape) == source.dim():
        for axis, (width, theirs) in enumerate(zip(shape, source.shape, strict=True)):
            if 4 * width == 3 * theirs:
                parts = source.split(joined.get(axis, (theirs,)), axis)
                source = torch.cat([part.narrow(axis, 0, part.shape[axis] * 3 // 4) for part in parts], axis)
    if source.shape != shape:
        raise ModelError(
            f"the student's {name} is {tuple(shape)}, the base's {tuple(source.shape)}: give the student the base's "
            "widths, or train it without a base"
        )
    return source
