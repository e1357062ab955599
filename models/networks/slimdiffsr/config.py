"""Widths, depths and switches of the SlimDiffSR student, and the facts of Stable Diffusion that they rest on."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from rsup.models.base.settings import Config

_Width = Annotated[int, Field(ge=8, le=4096)]
_Count = Annotated[int, Field(ge=1, le=64)]

LEVELS = 4
"""Resolutions of Stable Diffusion's UNet."""

LATENT = 4
"""Channels of Stable Diffusion's latent."""

DOWNSAMPLINGS = 3
"""Both autoencoders halve an image three times."""


class StudentConfig(Config):
    """Widths, depths and switches; the defaults are the published network (55.975 M live parameters)."""

    repeats: ClassVar[int] = 1
    """Of the distance between tiles in output pixels, what it must be a multiple of."""
    architecture: Literal["slimdiffsr-student"] = "slimdiffsr-student"

    channels: Annotated[tuple[_Width, ...], Field(min_length=1, max_length=LEVELS)] = (320, 640)
    """Width of each kept UNet level, finest first."""
    deep_channels: _Width = 1280
    """Width of the one residual block that stands for the removed levels; of those levels where they stay."""
    blocks: _Count = 2
    """Residual blocks a level on the way down; one more on the way up."""
    queries: _Count = 32
    """Learned tokens of each QGAM."""
    squeeze: _Width = 64
    """Width inside QGAM's attentions."""
    groups: _Count = 32
    """Groups of each group normalisation, at the full width of the UNet."""
    norm: Literal["group", "pixel"] = "group"
    """Of the UNet: over groups of channels and the whole image, as published, or over the channels of each position."""
    autoencoder_channels: _Width = 64
    """Width of TAESD; half the width of the KL autoencoder's finest level."""
    autoencoder: Literal["taesd", "kl"] = "taesd"
    """The enhanced lightweight autoencoder, or Stable Diffusion's own."""
    fused: bool = True
    """One convolution instead of two between autoencoder and UNet, past the 4-channel latent (equation 12)."""
    sap: bool = True
    """Semantic-aware pruning. Without it all of Stable Diffusion's levels stay, with three quarters of the channels."""
    dsc: bool = True
    """Direction-separable second convolution of each residual block, instead of 3x3."""
    fsc: bool = True
    """Frequency-separable first convolution of each residual block, instead of 3x3."""
    qgam: bool = True
    """Query-driven global aggregation, instead of self-attention."""
    local: bool = False
    """No attention of either kind, and gates that are the same for every image: what a network makes of a place depends
    on its surroundings alone, not on what else lies in the tile or on how large it is."""

    @model_validator(mode="after")
    def _widths_divide(self) -> StudentConfig:
        # Operators squeeze to an eighth at the least; three quarters of 16 is the first width where that leaves one.
        step = 8 if self.sap else 16
        if not self.sap and self.groups % 4:
            raise ValueError(f"three quarters of {self.groups} groups are not whole: without sap, give a multiple of 4")
        for width in (*self.channels, self.deep_channels):
            if width % self.groups or width % step:
                raise ValueError(f"a width of {width} is no multiple of {step} and of {self.groups} groups")
        finest = 2 * self.autoencoder_channels
        if self.autoencoder == "kl" and finest % self.groups:
            raise ValueError(f"{finest} channels of the KL autoencoder are no multiple of {self.groups} groups")
        return self

    @property
    def levels(self) -> tuple[int, ...]:
        """Width of each level the UNet has, finest first; (240, 480, 960, 960) without semantic-aware pruning."""
        if self.sap:
            return self.channels
        full = self.channels + (self.deep_channels,) * (LEVELS - len(self.channels))
        return tuple(_thinned(width) for width in full)

    @property
    def unet_groups(self) -> int:
        """Groups of the UNet's normalisations: thinning takes whole groups away, and leaves their size."""
        return self.groups if self.sap else _thinned(self.groups)

    @property
    def head_channels(self) -> int:
        """Width of a head of self-attention (64 in Stable Diffusion 2.1); thinning keeps their number."""
        return 64 if self.sap else _thinned(64)

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of this many output pixels (16 as published)."""
        return int(2 ** (DOWNSAMPLINGS + len(self.levels) - 1))


def _thinned(channels: int) -> int:
    """Three quarters: the uniform channel pruning that the paper compares with."""
    return channels * 3 // 4
