"""The uncertainty estimator: the latent of a low-resolution image in, mean and log-variance of the true latent out.

Its loss (equation 5) lives with the other losses. It is trained first, alone, and frozen while the teacher is trained.
Source: SlimDiffSR, section 3.2.1.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rsup.models.base.settings import Config


class EstimatorConfig(Config):
    """Size of the estimator. The paper gives none; four blocks of 64 channels are what its authors used before."""

    channels: Annotated[int, Field(ge=1, le=1024)] = 64
    blocks: Annotated[int, Field(ge=1, le=64)] = 4
    """Residual blocks of two 3x3 convolutions."""
    lowest_log_variance: Annotated[float, Field(lt=0)] = -10.0
    """Smooth floor of s = ln z_var: equation 5 falls without end where an element is reproduced exactly."""


class Estimate(NamedTuple):
    """A Gaussian for each element of a latent, both [n, c, h, w]."""

    mean: Tensor
    log_variance: Tensor
    """s = ln z_var, natural logarithm."""


class LatentBlock(nn.Module):
    """Two 3x3 convolutions and a residual, without normalisation: [n, c, h, w] -> the same shape.

    Normalisation would divide away the very contrast from which difficulty is read.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(F.silu(self.conv1(x)))
        return out


class UncertaintyEstimator(nn.Module):
    """z_lr [n, c, h, w] -> an Estimate of z_gt, element by element (equation 1).

    A fresh estimator answers mean = z_lr and variance 1: the heads start at zero, the mean is learned as a correction.
    """

    def __init__(self, config: EstimatorConfig, latent_channels: int = 4) -> None:
        super().__init__()
        self.config = config
        self.body = nn.Sequential(
            nn.Conv2d(latent_channels, config.channels, 3, padding=1),
            *(LatentBlock(config.channels) for _ in range(config.blocks)),
        )
        self.mean_head = _zero(nn.Conv2d(config.channels, latent_channels, 3, padding=1))
        self.variance_head = _zero(nn.Conv2d(config.channels, latent_channels, 3, padding=1))

    def forward(self, latent: Tensor) -> Estimate:
        features = self.body(latent)
        floor = self.config.lowest_log_variance
        log_variance = floor + F.softplus(self.variance_head(features) - floor)
        return Estimate(latent + self.mean_head(features), log_variance)


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer, its weights and bias set to 0, so that what it is added to starts unchanged."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    return layer
