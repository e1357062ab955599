"""The compact student: a low-resolution image in [-1, 1] to an image at output size, trained from scratch.

The published student's UNet and operators (FSC, DSC, QGAM) without an autoencoder: one convolution encodes the image at
its own size, pixel shuffling brings the result to output size, and bicubic interpolation is added. An untrained network
is bicubic interpolation. What the published student spends on an enlarged image and its encoder, 27 % of its time at
any scale, is not spent. Normalisations see one position at a time (slim_unet.PixelNorm).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn

from rsup.models.base.settings import Config, first_problem

from .architectures import check_sides
from .interpolation import interpolator
from .precision import full_precision
from .slimdiffsr.config import StudentConfig
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

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of this many output pixels (8 by default at x4)."""
        return int(self.scale * 2 ** (len(self.channels) - 1))


class CompactStudent(nn.Module):
    """Images [n, bands, h, w] in [-1, 1] -> [n, bands, h * scale, w * scale], not clamped.

    h and w are multiples of `config.multiple / config.scale`. Autocast is respected but for the interpolation and the
    last convolution.
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
        self.enlarge = interpolator("bicubic", config.scale)

    def forward(self, image: Tensor) -> Tensor:
        check_sides(image, self.config.multiple // self.config.scale)
        x: Tensor = self.shuffle(self.unet(self.encoder(image)))
        with full_precision(image.device):
            out: Tensor = self.enlarge(image) + self.last(x.to(image.dtype))
        return out
