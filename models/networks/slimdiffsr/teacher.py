"""The teacher: a Stable Diffusion that restores an image in one step, with as much noise assumed as each place needs.

An enlarged low-resolution image comes in, a restored one goes out. The base is frozen; low-rank adapters in the UNet
and the decoder and the noise-level predictor are trained (stage 1), the uncertainty estimator before them (stage 0).
Source: SlimDiffSR, sections 3.2 and 3.5.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from rsup.models.base.errors import ModelError
from rsup.models.base.settings import Config
from rsup.models.networks.precision import full_precision

from .noise_level import NoiseLevelPredictor, NoiseTable, PredictorConfig
from .spatial_unet import SpatialUNet, sharing_copy
from .uncertainty import Estimate, EstimatorConfig, UncertaintyEstimator

if TYPE_CHECKING:
    from rsup.models.networks.pretrained import StableDiffusion

_CONVOLUTIONS = ("conv", "conv1", "conv2", "conv_shortcut", "conv_out")
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
UNET_TARGETS = (*_ATTENTION, *_CONVOLUTIONS, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
DECODER_TARGETS = (*_ATTENTION, *_CONVOLUTIONS)
"""Layers that get adapters: all linear layers and convolutions but the first one and the time projections."""

_Rank = Annotated[int, Field(ge=1, le=1024)]


class TeacherConfig(Config):
    """Ranks of the adapters, and how the timestep is found."""

    unet_rank: _Rank = 32
    decoder_rank: _Rank = 16
    fixed_timestep: Annotated[int, Field(ge=1, le=1000)] | None = None
    """One timestep (steps of noise, 1..1000) for all images and places: the paper's ablation, which needs neither
    estimator nor predictor."""
    estimator: EstimatorConfig = EstimatorConfig()
    predictor: PredictorConfig = PredictorConfig()


class TeacherOutput(NamedTuple):
    """One step of restoration; a latent has one position for each 8 x 8 pixels."""

    image: Tensor
    """[n, 3, h, w], about [-1, 1], not clamped."""
    latent: Tensor
    """[n, 4, h/8, w/8], scaled as the UNet sees it."""
    alpha_bar: Tensor
    """[n, 1, h/8, w/8] in (0, 1): the predicted noise level, which equation 21 smooths."""
    timestep: Tensor
    """[n, 1, h/8, w/8]: steps of noise, 1..1000, fractional."""


class Teacher(nn.Module):
    """Images [n, 3, h, w] in [-1, 1], already at output size -> TeacherOutput.

    h and w are multiples of `multiple`. The base's parameters are those of `base`, shared and frozen: `base` can serve
    to initialise a student afterwards, and stays bit-identical. A fresh teacher is the base itself: the adapters start
    at zero (their other half Gaussian).
    """

    table: NoiseTable
    prompt: Tensor

    def __init__(self, base: StableDiffusion, config: TeacherConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TeacherConfig()
        self.prediction_type = base.prediction_type
        self.unet = SpatialUNet(base.unet)
        self.vae = sharing_copy(base.vae)
        self.requires_grad_(False)
        _adapt(self.unet, config.unet_rank, UNET_TARGETS)
        _adapt(self.vae.decoder, config.decoder_rank, DECODER_TARGETS)
        self.table = NoiseTable(base.alphas_cumprod)
        # Not saved: it is the base's.
        self.register_buffer("prompt", base.prompt.clone(), persistent=False)
        channels = int(base.vae.config["latent_channels"])
        adaptive = config.fixed_timestep is None
        self.estimator = UncertaintyEstimator(config.estimator, channels).requires_grad_(False) if adaptive else None
        self.predictor = NoiseLevelPredictor(config.predictor, self.table, channels) if adaptive else None

    @property
    def reduction(self) -> int:
        """Pixels a side of one latent position: 8."""
        return int(2 ** (len(self.vae.config["block_out_channels"]) - 1))

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of this many pixels (64 for Stable Diffusion)."""
        return self.reduction * self.unet.multiple

    def encode(self, image: Tensor) -> Tensor:
        """[n, 3, h, w] in [-1, 1] -> latent [n, 4, h/8, w/8]: the mean, scaled, without gradients.

        Raises ValueError for sides that are no multiple of `multiple`. Stage 0 trains `estimator` on the latents of
        both images of a pair.
        """
        height, width = image.shape[-2:]
        if height % self.multiple or width % self.multiple:
            raise ValueError(f"a {width} x {height} image: both sides must be multiples of {self.multiple} pixels")
        with torch.no_grad():
            latent: Tensor = self.vae.encode(image).latent_dist.mode() * self.vae.config["scaling_factor"]
        return latent.float()

    def decode(self, latent: Tensor) -> Tensor:
        """A scaled latent -> image [n, 3, h, w]."""
        image: Tensor = self.vae.decode(latent / self.vae.config["scaling_factor"], return_dict=False)[0]
        return image.float()

    def forward(self, image: Tensor, truth: Tensor | None = None) -> TeacherOutput:
        """What `restore` finds, decoded."""
        latent, alpha_bar, timestep = self.restore(image, truth)
        return TeacherOutput(self.decode(latent), latent, alpha_bar, timestep)

    def restore(self, image: Tensor, truth: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Latent, alpha-bar and timestep of a TeacherOutput: all that distillation needs, at about half the cost.

        `truth`, the image wanted, of the shape of `image`, informs the noise level while training. Without it
        (inference) the predictor sees the estimator's mean instead, the best guess of z_gt there is.
        The UNet is given the latent of the image itself, no noise added: the paper assigns a timestep to what the
        image has lost, and one-step restorers before it do the same.
        """
        latent = self.encode(image)
        alpha_bar = self._noise_level(latent, truth)
        timestep = self.table(alpha_bar)
        # diffusers counts the first noisy level as 0.
        prediction = self.unet(latent, timestep - 1, self.prompt.expand(len(latent), -1, -1)).float()
        return self.one_step(latent, prediction, alpha_bar), alpha_bar, timestep

    def one_step(self, latent: Tensor, prediction: Tensor, alpha_bar: Tensor) -> Tensor:
        """The clean latent (equation 6 solved for z_0) from the UNet's prediction of the noise, or of the velocity."""
        signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
        if self.prediction_type == "v_prediction":
            return signal * latent - noise * prediction
        return (latent - noise * prediction) / signal

    def _noise_level(self, latent: Tensor, truth: Tensor | None) -> Tensor:
        n, _, height, width = latent.shape
        if self.config.fixed_timestep is not None:
            return self.table.alpha_bar(self.config.fixed_timestep).expand(n, 1, height, width)
        assert self.estimator is not None and self.predictor is not None
        reference = None if truth is None else self.encode(truth)
        # Small networks whose answers are divided by and looked up: half precision would cost whole timesteps.
        with full_precision(latent.device):
            with torch.no_grad():
                estimate: Estimate = self.estimator(latent)
            if reference is None:
                reference = estimate.mean
            alpha_bar: Tensor = self.predictor(reference, estimate.log_variance)
        return alpha_bar

    def trainable_parameters(self) -> list[nn.Parameter]:
        """What stage 1 trains: the adapters and the predictor. The estimator is frozen; stage 0 unfreezes it itself."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def state_to_save(self) -> dict[str, Tensor]:
        """Adapters, estimator and predictor by name: what makes a teacher of the base, a few hundredths of its size."""
        return {name: tensor.detach() for name, tensor in self.state_dict().items() if _is_own(name)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take a `state_to_save` of a teacher with the same settings; raises ModelError where it does not fit."""
        wanted = self.state_to_save()
        if odd := sorted(wanted.keys() ^ state.keys()):
            side = "lacks" if odd[0] in wanted else "has"
            raise ModelError(f"the teacher's checkpoint {side} {odd[0]}: use the settings it was trained with")
        for name, tensor in wanted.items():
            if tensor.shape != state[name].shape:
                raise ModelError(f"the teacher's checkpoint has another {name}: use the settings it was trained with")
        self.load_state_dict(dict(state), strict=False)


def _is_own(name: str) -> bool:
    return ".lora_" in name or name.startswith(("estimator.", "predictor."))


def _adapt(network: nn.Module, rank: int, targets: tuple[str, ...]) -> None:
    """Insert adapters; with alpha = rank their product is added unscaled, whatever the rank."""
    # Slow to import, and a recipe's settings are read without it.
    from peft import LoraConfig, inject_adapter_in_model

    adapter = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=list(targets))
    inject_adapter_in_model(adapter, network)
