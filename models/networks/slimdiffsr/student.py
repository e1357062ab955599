"""The SlimDiffSR student: image in [-1, 1], already at output size, to image, in one pass without noise, text or time.

A shallow Stable Diffusion UNet with light operators, between the halves of an autoencoder. `StudentConfig()` is the
published network, which x4 and x8 share; its switches take back one design decision each (the paper's tables 5 and 6).
Source: SlimDiffSR, section 3.3, and the authors' inference code.
"""

from __future__ import annotations

from torch import Tensor, nn

from rsup.models.networks.architectures import check_sides
from rsup.models.networks.precision import full_precision, unrounded

from .autoencoder import decoder, encoder, latent_width
from .config import StudentConfig
from .unet import SlimUNet


class Student(nn.Module):
    """Images [n, 3, h, w] in [-1, 1] at output size -> images of the same shape, not clamped.

    h and w are multiples of `config.multiple`. Autocast is respected but for the first and last convolutions:
    their rounding would cost whole digital numbers.
    """

    def __init__(self, config: StudentConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or StudentConfig()
        latent, width = latent_width(config), config.levels[0]
        self.encoder = encoder(config)
        self.fuse_in = nn.Conv2d(latent, width, 3, padding=1) if config.fused else nn.Identity()
        self.unet = SlimUNet(config)
        self.fuse_out = nn.Conv2d(width, latent, 3, padding=1) if config.fused else nn.Identity()
        self.decoder = decoder(config)

    def forward(self, image: Tensor) -> Tensor:
        check_sides(image, self.config.multiple)
        first, *layers = self.encoder
        x = unrounded(first, image)
        for layer in layers:
            x = layer(x)
        x = self.fuse_out(self.unet(self.fuse_in(x)))
        *layers, last = self.decoder
        for layer in layers:
            x = layer(x)
        with full_precision(image.device):
            out: Tensor = last(x.to(image.dtype))
        return out
