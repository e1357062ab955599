"""The compact student: a low-resolution image in [-1, 1] to an image at output size, trained from scratch.

The published student's UNet and operators (FSC, DSC, QGAM) without an autoencoder: one convolution encodes the image at
its own size, pixel shuffling brings the result to output size, and bicubic interpolation is added. An untrained network
is bicubic interpolation. What the published student spends on an enlarged image and its encoder, 27 % of its time at
any scale, is not spent. Normalisations see one position at a time (slim_unet.PixelNorm).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rsup.models.base.settings import Config, first_problem

from .architectures import check_sides
from .doubt import Doubt
from .interpolation import interpolator
from .phases import balanced
from .precision import full_precision, unrounded
from .slimdiffsr.config import StudentConfig
from .slimdiffsr.operators import FixedGate, level_of
from .slimdiffsr.unet import SlimUNet

_Width = Annotated[int, Field(ge=8, le=1024)]
_Count = Annotated[int, Field(ge=1, le=64)]


class CompactConfig(Config):
    """Widths and depths; the defaults have 2.5 M parameters, and 19 GMAC for 512 x 512 pixels at x4."""

    repeats: ClassVar[int] = 1
    """Of the distance between tiles in output pixels, what it must be a multiple of."""
    architecture: Literal["compact-student"] = "compact-student"
    scale: Literal[4, 8]
    bands: Annotated[int, Field(ge=3, le=4)] = 3
    """Channels that come in and go out."""
    local: bool = False
    """Without queries, and with gates that are the same for every image: see StudentConfig."""
    channels: Annotated[tuple[_Width, ...], Field(min_length=1, max_length=4)] = (64, 128)
    """Width of each UNet level, finest first; the finest has the size of the low-resolution image."""
    deep_channels: _Width = 256
    """Width of the residual block between the way down and the way up."""
    blocks: _Count = 2
    """Residual blocks a level on the way down; one more on the way up."""
    queries: _Count = 32
    """Learned tokens of each QGAM."""
    squeeze: _Width = 32
    """Width inside QGAM's attentions."""
    shuffled: _Width = 16
    """Channels at output size."""
    balance: Annotated[float, Field(ge=0, le=1)] = 0.0
    """How much is taken away of what detail has of a lattice at the pitch of the scene's pixels (phases.py)."""
    uncertainty: bool = False
    """With a second head, which says how far the image may be off."""

    @model_validator(mode="after")
    def _widths_fit(self) -> CompactConfig:
        try:
            self.unet  # noqa: B018 - raises
        except ValidationError as error:
            raise ValueError(first_problem(error)) from None
        return self

    @property
    def unet(self) -> StudentConfig:
        """The same widths as settings of the UNet, which also says whether they fit each other."""
        shared = ("channels", "deep_channels", "blocks", "queries", "squeeze", "local")
        return StudentConfig(norm="pixel", groups=1, **{name: getattr(self, name) for name in shared})

    def grows_from(self, known: CompactConfig) -> bool:
        """Whether a student of these settings can start from one of `known`, which may have fewer bands and fewer
        channels at output size, queries where these have none, less balance, and no second head.
        """
        may_grow = ("bands", "shuffled", "local", "balance", "uncertainty")
        grows = all(getattr(known, name) <= getattr(self, name) for name in may_grow)
        return grows and known.model_copy(update={name: getattr(self, name) for name in may_grow}) == self

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of this many output pixels (8 by default at x4)."""
        return int(self.scale * 2 ** (len(self.channels) - 1))


class CompactStudent(nn.Module):
    """Images [n, bands, h, w] in [-1, 1] -> [n, bands, h * scale, w * scale], not clamped.

    h and w are multiples of `config.multiple / config.scale`. Autocast is respected but for the interpolation and the
    first and last convolutions.
    """

    def __init__(self, config: CompactConfig) -> None:
        super().__init__()
        self.config = config
        width = config.channels[0]
        self.encoder = nn.Conv2d(config.bands, width, 3, padding=1)
        self.unet = SlimUNet(config.unet)
        self.shuffle = nn.Sequential(
            nn.Conv2d(width, config.shuffled * config.scale**2, 3, padding=1), nn.PixelShuffle(config.scale), nn.SiLU()
        )
        self.last = nn.Conv2d(config.shuffled, config.bands, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.constant_(self.last.bias, 0)  # type: ignore[arg-type]
        self.doubt = Doubt(width, config.bands) if config.uncertainty else None
        self.enlarge = interpolator("bicubic", config.scale)

    def adopt(self, known: CompactStudent) -> None:
        """Start from what a student knows whose settings `grows_from` accepts.

        Bands that it lacks come in by kernels as strong as its own, which give way to them: what all bands show it sees
        as before (from weights of 0, near infrared had come to a tenth of red's after 2,000 steps). They go out as its
        first. Channels at output size that it lacks stay as they were drawn, and count with weight 0. Of what sees the
        whole image, a local student leaves the queries and keeps the gates as they are for an image of nothing. Its
        second head stays as it is where the other has none. Raises ValueError for other settings.
        """
        if not self.config.grows_from(known.config):
            raise ValueError("a student of other widths, or of more bands")
        theirs = known.state_dict()
        more = self.config.bands - known.config.bands
        own = theirs["encoder.weight"]
        mean = own.sum(1, keepdim=True) / self.config.bands
        theirs["encoder.weight"] = torch.cat([own * (known.config.bands / self.config.bands), *[mean] * more], 1)
        for name in ("last.weight", "last.bias"):
            theirs[name] = torch.cat([theirs[name], theirs[name][:1].expand(more, *theirs[name].shape[1:])])
        wider = self.config.shuffled - known.config.shuffled
        theirs["last.weight"] = F.pad(theirs["last.weight"], (0, 0, 0, 0, 0, wider))
        for name in ("shuffle.0.weight", "shuffle.0.bias"):
            theirs[name] = torch.cat([theirs[name], self.state_dict()[name][len(theirs[name]) :]])
        for name, gate in self.named_modules():
            if isinstance(gate, FixedGate) and not known.config.local:
                theirs[f"{name}.level"] = level_of(known.get_submodule(name))
        self.load_state_dict({name: theirs.get(name, own) for name, own in self.state_dict().items()})

    def forward(self, image: Tensor) -> Tensor:
        return self._image(image, self._features(image))

    def with_uncertainty(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """The image [n, bands, h * scale, w * scale], and how far it may be off once the sensor holds it to its scene:
        stored numbers [n, bands, h * DETAIL, w * DETAIL], each for a square of it. The settings must say `uncertainty`.
        """
        assert self.doubt is not None
        features = self._features(image)
        return self._image(image, features), self.doubt(features, image)

    def learn_doubt(self) -> None:
        """Leave nothing to learn but the second head."""
        assert self.doubt is not None
        self.requires_grad_(False)
        self.doubt.requires_grad_(True)

    def _features(self, image: Tensor) -> Tensor:
        """[n, channels, h, w]: what the UNet makes of an image."""
        check_sides(image, self.config.multiple // self.config.scale)
        features: Tensor = self.unet(unrounded(self.encoder, image))
        return features

    def _image(self, image: Tensor, features: Tensor) -> Tensor:
        x: Tensor = self.shuffle(features)
        with full_precision(image.device):
            detail: Tensor = self.last(x.to(image.dtype))
            if self.config.balance:
                detail = balanced(detail, self.config.scale, self.config.balance)
            out: Tensor = self.enlarge(image) + detail
        return out
