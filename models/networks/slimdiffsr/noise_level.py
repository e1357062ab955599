"""Where on the diffusion's noise schedule a latent belongs: uncertainty in, a map of alpha-bar and of timesteps out.

Throughout rsup a timestep t counts steps of noise, as the paper's table of 1,001 entries does: t = 0 is a clean latent
(alpha-bar 1), t = i has alpha-bar `alphas_cumprod[i - 1]`. A diffusers UNet numbers the same step t - 1.
Source: SlimDiffSR, section 3.2.2.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from rsup.models.base.errors import ModelError
from rsup.models.base.settings import Config

from .uncertainty import LatentBlock


class PredictorConfig(Config):
    """Size and inputs of the noise-level predictor. The paper gives no size; it is kept small beside the UNet."""

    channels: Annotated[int, Field(ge=1, le=1024)] = 64
    blocks: Annotated[int, Field(ge=1, le=64)] = 2
    """Residual blocks of two 3x3 convolutions."""
    uncertainty_input: bool = True
    """Whether the predictor sees z_var; off is the paper's ablation, which reads the timestep from the latent alone."""
    first_timestep: Annotated[int, Field(ge=1, le=1000)] = 200
    """What a fresh predictor answers everywhere. The low-resolution latent is close to the truth, as a diffusion's
    latent is after few steps, and the factor 1/sqrt(alpha-bar) of the one-step estimate is still near 1 there."""


def matching_alpha_bar(signal_variance: Tensor, variance: Tensor) -> Tensor:
    """alpha-bar at which a diffused latent has the signal-to-noise ratio of the uncertainty (equation 9).

    The paper's guideline and not what is trained: the variance of the true signal is unknown at inference.
    """
    return signal_variance / (signal_variance + variance)


class NoiseTable(nn.Module):
    """The noise schedule as a table from alpha-bar to timestep, differentiable in alpha-bar (equation 11).

    `alphas_cumprod` [steps] as diffusers' schedulers have it, strictly falling, between 0 and 1, both excluded; raises
    ModelError otherwise. The clean end, alpha-bar 1 at t = 0, is added: 1,001 entries for 1,000 steps.
    """

    levels: Tensor
    """alpha-bar, ascending [steps + 1]; the last is 1."""
    timesteps: Tensor
    """The timestep of each level, [steps + 1], from `steps` down to 0."""

    def __init__(self, alphas_cumprod: Tensor) -> None:
        super().__init__()
        levels = torch.cat([alphas_cumprod.flip(0), alphas_cumprod.new_ones(1)])
        if not (levels[0] > 0 and bool((levels.diff() > 0).all())):
            raise ModelError("the scheduler's alphas_cumprod must fall strictly from 1 to 0: use Stable Diffusion's")
        # Not saved: the schedule belongs to the base model.
        self.register_buffer("levels", levels, persistent=False)
        timesteps = torch.arange(len(levels) - 1, -1, -1, dtype=levels.dtype, device=levels.device)
        self.register_buffer("timesteps", timesteps, persistent=False)

    def alpha_bar(self, timestep: int) -> Tensor:
        """alpha-bar after `timestep` steps of noise, a scalar tensor; raises ModelError beyond the schedule."""
        if not 0 <= timestep < len(self.levels):
            raise ModelError(f"timestep {timestep} is not on the schedule: choose one of 0..{len(self.levels) - 1}")
        return self.levels[-1 - timestep]

    def forward(self, alpha_bar: Tensor) -> Tensor:
        """alpha-bar of any shape -> timesteps of that shape, fractional; its gradient is the slope of the segment.

        Linear between the two entries around each value. What lies below the noisiest entry is taken as that entry.
        """
        alpha_bar = alpha_bar.clamp(self.levels[0], self.levels[-1])
        right = torch.searchsorted(self.levels, alpha_bar.detach().contiguous()).clamp_(1, len(self.levels) - 1)
        low, high = self.levels[right - 1], self.levels[right]
        start, end = self.timesteps[right - 1], self.timesteps[right]
        return start + (alpha_bar - low) / (high - low) * (end - start)


class NoiseLevelPredictor(nn.Module):
    """Pred(z_gt, z_var): both [n, c, h, w] -> alpha-bar [n, 1, h, w] (equation 10).

    One value a position: the total variation of equation 21 and the paper's maps of timesteps (figure 15) need a map.
    A sigmoid spans the table from t = steps to t = 1, the range that the base model was trained on.
    The variance enters as its logarithm, whose spread is that of the latent.
    """

    lowest: Tensor
    highest: Tensor

    def __init__(self, config: PredictorConfig, table: NoiseTable, latent_channels: int = 4) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("lowest", table.levels[0].clone(), persistent=False)
        self.register_buffer("highest", table.alpha_bar(1).clone(), persistent=False)
        inputs = latent_channels * (2 if config.uncertainty_input else 1)
        self.body = nn.Sequential(
            nn.Conv2d(inputs, config.channels, 3, padding=1),
            *(LatentBlock(config.channels) for _ in range(config.blocks)),
            nn.SiLU(),
        )
        head = nn.Conv2d(config.channels, 1, 3, padding=1)
        share = (table.alpha_bar(config.first_timestep) - self.lowest) / (self.highest - self.lowest)
        nn.init.zeros_(head.weight)
        # The eps keeps the ends of the schedule, where a sigmoid has no gradient, out of reach at the start.
        nn.init.constant_(head.bias, float(torch.logit(share, eps=1e-3)))  # type: ignore[arg-type]
        self.head = head

    def forward(self, latent: Tensor, log_variance: Tensor) -> Tensor:
        """`latent`: z_gt; `log_variance`: s = ln z_var, ignored without `uncertainty_input`."""
        inputs = torch.cat([latent, log_variance], 1) if self.config.uncertainty_input else latent
        share: Tensor = torch.sigmoid(self.head(self.body(inputs)))
        return self.lowest + (self.highest - self.lowest) * share
