"""What is left of RSD for use: image in [-1, 1], already at output size, to image, in one step with its own noise."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from rsup.models.base.errors import ModelError
from rsup.models.base.settings import Config
from rsup.models.networks.architectures import STRIDE, check_sides

from .latents import Latents, LatentsConfig
from .network import ResShift, ResShiftConfig


class RsdStudentConfig(Config):
    """Everything the module is built from: no hub, no folder."""

    architecture: Literal["rsd-student"] = "rsd-student"

    resshift: ResShiftConfig = ResShiftConfig()
    latents: LatentsConfig = LatentsConfig()
    period: Annotated[int, Field(ge=1, le=4096)] = 108
    """The noise repeats after this many latent positions."""

    @property
    def repeats(self) -> int:
        """Of the distance between tiles in output pixels, what it must be a multiple of: they then see one noise."""
        return self.latents.factor * self.period

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of this many output pixels (32 by default)."""
        return self.latents.factor * self.resshift.denoiser.multiple


class RsdStudent(nn.Module):
    """Images [n, 3, h, w] in [-1, 1] at output size -> images of the same shape, not clamped.

    The step draws on noise that is part of the weights and repeats every `config.period` latent positions, counted from
    the image's corner. Tiles that start a multiple of the period apart therefore see the same noise on the ground they
    share, the same tile always gives the same pixels, and the images of a batch do not depend on each other.
    """

    noise: Tensor

    def __init__(self, config: RsdStudentConfig) -> None:
        super().__init__()
        self.config = config
        self.latents = Latents(config.latents)
        channels = config.latents.channels
        self.network = ResShift(config.resshift, channels, noise_input=True)
        self.register_buffer("noise", torch.zeros(channels + 1, config.period, config.period))

    def forward(self, image: Tensor) -> Tensor:
        check_sides(image, self.config.multiple)
        z_y = self.latents.encode(image)
        rows, cols = (torch.arange(size, device=image.device) % self.config.period for size in z_y.shape[-2:])
        noise = self.noise[:, rows[:, None], cols].to(z_y.dtype).expand(len(z_y), -1, -1, -1)
        schedule = self.network.schedule
        start = schedule.start(z_y, noise[:, :-1])
        last = torch.full((len(z_y),), schedule.last, device=image.device)
        out: Tensor = self.latents.decode(self.network(start, z_y, last, noise[:, -1:]))
        return out


def assemble(network: ResShift, latents: Latents, *, stride: int = STRIDE, seed: int = 0) -> RsdStudent:
    """A trained one-step network with the autoencoder it was trained over and noise of its own, drawn from `seed`.

    `stride`: output pixels between tile starts. Raises ModelError where it is no multiple of the latents' factor.
    """
    factor = latents.config.factor
    if stride % factor:
        raise ModelError(f"tiles {stride} pixels apart do not start on latents of {factor} pixels: choose another tile")
    config = RsdStudentConfig(resshift=network.config, latents=latents.config, period=stride // factor)
    student = RsdStudent(config)
    student.network.load_state_dict(network.state_dict())
    student.latents.load_state_dict(latents.state_dict())
    student.noise.copy_(torch.randn(student.noise.shape, generator=torch.Generator().manual_seed(seed)))
    return student.eval()
