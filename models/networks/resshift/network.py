"""Residual shifting: a diffusion from an image to its degraded version, and the network that goes back.

Latents come in and go out: z_0 of the true image, z_y of the low-resolution image enlarged bicubically to output size.
The paper gives the network the low-resolution image as it is, which ties it to x4 over an autoencoder of factor 4; z_y,
which it has anyway, says the same for every scale. Steps count from 0 (the cleanest) to T - 1.
Source: ResShift (Yue et al. 2023) and the summary of it in RSD (2025); equations are named, not numbered.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from rsup.models.base.settings import Config

from .denoiser import Denoiser, DenoiserConfig
from .latents import UNSHUFFLE


class Schedule(Config):
    """How far the residual is shifted at each step: sqrt(eta) grows exponentially, fast first, from `low` to `high`."""

    steps: Annotated[int, Field(ge=2, le=1000)] = 15
    kappa: Annotated[float, Field(gt=0)] = 2.0
    """Noise strength: step t carries noise of standard deviation kappa sqrt(eta_t)."""
    power: Annotated[float, Field(gt=0)] = 0.3
    low: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """sqrt(eta) of the first step."""
    high: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """sqrt(eta) of the last step."""

    @model_validator(mode="after")
    def _grows(self) -> Schedule:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        return self

    @property
    def last(self) -> int:
        """The step restoration starts from."""
        return self.steps - 1

    def sqrt_eta(self, t: Tensor) -> Tensor:
        """Steps of any shape -> float64 of that shape; the step before the first has 0."""
        # Read off a formula, not a table: no buffer has to travel with the networks that use it.
        place = t.double().clamp(min=0) / self.last
        value = self.low * (self.high / self.low) ** (place**self.power)
        return value.where(t >= 0, torch.zeros_like(value))

    def shift(self, z_0: Tensor, z_y: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """A draw of q(z_t | z_0, z_y) = N(z_0 + eta_t (z_y - z_0), kappa^2 eta_t): [n, c, h, w], t [n] -> z_t."""
        root = _each(self.sqrt_eta(t), z_0)
        return z_0 + root.square() * (z_y - z_0) + self.kappa * root * noise

    def start(self, z_y: Tensor, noise: Tensor) -> Tensor:
        """z_T, where restoration starts: z_y with noise of kappa sqrt(eta_T), whatever the truth."""
        return z_y + self.kappa * self.high * noise

    def scaled(self, z_t: Tensor, t: Tensor) -> Tensor:
        """z_t divided by sqrt(eta_t kappa^2 + 1), about its standard deviation: what a network is given."""
        return z_t / _each((self.sqrt_eta(t) * self.kappa).square().add(1).sqrt(), z_t)

    def back(self, z_t: Tensor, z_0: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """A draw of q(z_(t-1) | z_t, z_0, z_y), which z_y leaves untouched given z_t: [n, c, h, w], t [n].

        Mean (eta_(t-1) z_t + alpha_t z_0) / eta_t and variance kappa^2 eta_(t-1) alpha_t / eta_t, with
        alpha_t = eta_t - eta_(t-1). Before the first step eta is 0, so the last draw is z_0 itself.
        """
        eta, before = self.sqrt_eta(t).square(), self.sqrt_eta(t - 1).square()
        kept, spread = before / eta, self.kappa * (before * (eta - before) / eta).sqrt()
        return _each(kept, z_t) * z_t + _each(1 - kept, z_t) * z_0 + _each(spread, z_t) * noise


class ResShiftConfig(Config):
    """The residual-shifting teacher."""

    schedule: Schedule = Schedule()
    denoiser: DenoiserConfig = DenoiserConfig()
    autoencoder: str = UNSHUFFLE
    """`unshuffle`, or a hub id or folder of a diffusers autoencoder; the paper's is in
    `CompVis/ldm-super-resolution-4x-openimages`."""


class ResShift(nn.Module):
    """The clean latent as (z_t, z_y, t) show it: [n, c, h, w], [n, c, h, w], [n] -> [n, c, h, w].

    The network gives z_0 - z_y, and starts from zero: untrained, it returns the enlarged image. (The paper's gives z_0
    itself. Both are predictions of z_0, and all that is said of them holds for both.) `noise_input` adds one input
    channel, by which a one-step network draws: `noise` [n, 1, h, w].
    """

    def __init__(self, config: ResShiftConfig, channels: int, *, noise_input: bool = False) -> None:
        super().__init__()
        self.config, self.channels, self.noise_input = config, channels, noise_input
        self.denoiser = Denoiser(config.denoiser, 2 * channels + int(noise_input), channels)

    @property
    def schedule(self) -> Schedule:
        """The forward process that it was made for."""
        return self.config.schedule

    def forward(self, z_t: Tensor, z_y: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        out: Tensor = z_y + self.denoiser(self._inputs(z_t, z_y, t, noise), t)
        return out

    def features(self, z_t: Tensor, z_y: Tensor, t: Tensor) -> Tensor:
        """The innermost feature map of the same inputs, [n, denoiser.channels[-1], h / multiple, w / multiple]."""
        return self.denoiser.features(self._inputs(z_t, z_y, t, None), t)

    def training_loss(self, z_0: Tensor, z_y: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared error of the estimate at a random step of each image: two [n, c, h, w] -> scalar."""
        t = draw_steps(len(z_0), self.schedule.steps, generator).to(z_0.device)
        z_t = self.schedule.shift(z_0, z_y, t, draw_noise(z_0, generator))
        estimate: Tensor = self(z_t, z_y, t)
        return (estimate - z_0).square().mean()

    def sample(self, z_y: Tensor, generator: torch.Generator) -> Tensor:
        """Restoration in all T steps: z_y -> z_0."""
        z_t = self.schedule.start(z_y, draw_noise(z_y, generator))
        for step in reversed(range(self.schedule.steps)):
            t = torch.full((len(z_y),), step, device=z_y.device)
            z_t = self.schedule.back(z_t, self(z_t, z_y, t), t, draw_noise(z_y, generator))
        return z_t

    def _inputs(self, z_t: Tensor, z_y: Tensor, t: Tensor, noise: Tensor | None) -> Tensor:
        parts = [self.schedule.scaled(z_t, t), z_y]
        return torch.cat(parts if noise is None else [*parts, noise], 1)


def draw_noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers of that shape, type and device, drawn on the generator's device."""
    return torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)


def draw_steps(count: int, steps: int, generator: torch.Generator) -> Tensor:
    """`count` steps, each uniform over 0 .. steps - 1, on the generator's device."""
    return torch.randint(steps, (count,), generator=generator, device=generator.device)


def _each(value: Tensor, like: Tensor) -> Tensor:
    """One number an image, [n], to multiply [n, c, h, w] by."""
    return value.to(like.dtype)[:, None, None, None]
