"""Students for inference on a CPU: a network and a type in, what gives the same images in less time out.

In float32 images are the same within 1e-4. In bfloat16 those of the compact student are rounded where the network
rounds: the same to the last bit with AVX-512. Those of the published student are rounded at other places, and no
further from float32 than the network's as it is written.
What a tile gives depends on nothing but the tile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy

import torch
from torch import Tensor, nn

from rsup.models.networks.architectures import check_sides
from rsup.models.networks.compact import CompactStudent
from rsup.models.networks.doubt import Doubt, contrast_of, widths_of
from rsup.models.networks.phases import balanced
from rsup.models.networks.slimdiffsr.blocks import Downsample, FeedForward, TinyBlock, Upsample
from rsup.models.networks.slimdiffsr.student import Student
from rsup.models.networks.slimdiffsr.unet import (
    DownLevel,
    MidBlock,
    ResidualBlock,
    SlimUNet,
    Transformer,
    TransformerBlock,
    UpLevel,
)

from .kernels import Conv, Doubled, First, Linear, folds
from .operators import FeedForwardInParts, FoldedResidualBlock, FoldedTinyBlock, FoldedTransformer, FoldedUpsample
from .strips import Strips

_Twins = dict[type[nn.Module], Callable[..., nn.Module]]
"""What takes a module's place; it is made from the module and a type."""

_FOLDED: _Twins = {
    nn.Conv2d: Conv,
    ResidualBlock: FoldedResidualBlock,
    Transformer: FoldedTransformer,
    Upsample: FoldedUpsample,
    TinyBlock: FoldedTinyBlock,
}

_SAME: _Twins = {nn.Linear: Linear.of, FeedForward: FeedForwardInParts}
"""Those that round what the modules round. PyTorch's own linear map writes the bias into all of its result first, and
then reads it: on large maps, in memory that the system has to find, that takes longer than the products."""

_ONLY_ORDER = (nn.ModuleList, SlimUNet, DownLevel, MidBlock, UpLevel, Downsample, Transformer, TransformerBlock)
"""Modules that say in which order others run."""

_ROWS = 64
"""Output rows of a strip of TAESD's ends, which see some rows more."""


def fold(network: nn.Module, precision: torch.dtype) -> nn.Module:
    """The network for inference on this CPU in float32, or in bfloat16 and under an autocast to it, as itself.

    The student with TAESD and the compact student are folded, and share some of their weights with `network`; other
    networks come back as they are, and so do all where oneDNN cannot compute in that type.
    """
    if folds(precision):
        if isinstance(network, Student) and network.config.autoencoder == "taesd":
            return FoldedStudent(network, precision)
        if isinstance(network, CompactStudent):
            return FoldedCompactStudent(network, precision)
    return network


class FoldedStudent(nn.Module):
    """`Student`: images [n, 3, h, w] in [-1, 1] at output size -> images of the same shape."""

    def __init__(self, whole: Student, precision: torch.dtype) -> None:
        super().__init__()
        self.config = whole.config
        # At full resolution: a convolution, a block of three, and one of stride 2.
        first, then = whole.encoder[1:3], whole.encoder[3:]
        beginning = nn.Sequential(First(_convolution(whole.encoder[0]), precision), _chain(first, precision))
        self.first = Strips(beginning, rows=_ROWS, halo=6, down=2)
        self.encoder = _chain([*then, whole.fuse_in], precision)
        self.unet = _twin(whole.unet, precision)
        *layers, last = [whole.fuse_out, *whole.decoder]
        doubles = max(i for i, layer in enumerate(layers) if isinstance(layer, nn.Upsample))
        self.decoder = _chain(layers[:doubles], precision)
        # At full resolution again: a convolution, a block, and the last one, whose rounding would show.
        ending = nn.Sequential(_chain(layers[doubles:], precision), Conv(_convolution(last), torch.float32))
        self.last = Strips(ending, rows=_ROWS // 2, halo=3, up=2)

    def forward(self, image: Tensor) -> Tensor:
        check_sides(image, self.config.multiple)
        out: Tensor = self.last(self.decoder(self.unet(self.encoder(self.first(image)))))
        return out


class FoldedCompactStudent(nn.Module):
    """`CompactStudent`: images [n, bands, h, w] in [-1, 1] -> [n, bands, h * scale, w * scale]."""

    def __init__(self, whole: CompactStudent, precision: torch.dtype) -> None:
        super().__init__()
        self.config, self.enlarge = whole.config, whole.enlarge
        self.doubt = None if whole.doubt is None else FoldedDoubt(whole.doubt, precision)
        self.encoder = First(whole.encoder, precision)
        # Other sums would be other roundings, which in bfloat16 move products by up to 20 stored numbers.
        self.unet = _twin(whole.unet, precision, _FOLDED if precision == torch.float32 else _SAME)
        convolution, shuffle, _ = whole.shuffle
        # SiLU before the shuffle, where nothing else needs the map, is SiLU after it.
        layers = (
            Conv(_convolution(convolution), precision),
            nn.SiLU(inplace=True),
            shuffle,
            Conv(whole.last, torch.float32),
        )
        scale = self.config.scale
        self.last = Strips(nn.Sequential(*layers), rows=4 * _ROWS // scale, halo=2, up=scale)

    def forward(self, image: Tensor) -> Tensor:
        return self._image(image, self._features(image))

    def with_uncertainty(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """As the network's."""
        assert self.doubt is not None
        features = self._features(image)
        return self._image(image, features), self.doubt(features, image)

    def _features(self, image: Tensor) -> Tensor:
        check_sides(image, self.config.multiple // self.config.scale)
        features: Tensor = self.unet(self.encoder(image))
        return features

    def _image(self, image: Tensor, features: Tensor) -> Tensor:
        out: Tensor = self.enlarge(image)  # plane by plane, which is how what follows goes through it
        detail: Tensor = self.last(features)
        if self.config.balance:
            detail = balanced(detail, self.config.scale, self.config.balance)
        return out.add_(detail)


class FoldedDoubt(nn.Module):
    """`Doubt`: features [n, channels, h, w] and image [n, bands, h, w] -> [n, bands, h * DETAIL, w * DETAIL]."""

    def __init__(self, whole: Doubt, precision: torch.dtype) -> None:
        super().__init__()
        convolutions = [Conv(layer, precision) for layer in whole.surroundings if isinstance(layer, nn.Conv2d)]
        self.surroundings = nn.Sequential(*(each for conv in convolutions for each in (conv, nn.SiLU(inplace=True))))
        self.last = Conv(whole.last, precision)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        contrast = contrast_of(image)
        known = contrast.log().to(features.dtype).contiguous(memory_format=torch.channels_last)
        return widths_of(self.last(self.surroundings(torch.cat([features, known], 1))), contrast)


def _convolution(layer: nn.Module) -> nn.Conv2d:
    assert isinstance(layer, nn.Conv2d)
    return layer


def _chain(layers: Iterable[nn.Module], precision: torch.dtype) -> nn.Sequential:
    """Layers of TAESD: a ReLU goes into the convolution before it, an enlargement into the one behind it."""
    made: list[nn.Module] = []
    waiting = list(layers)
    while waiting:
        layer = waiting.pop(0)
        if isinstance(layer, nn.Upsample):
            convolution = waiting.pop(0)
            assert isinstance(convolution, nn.Conv2d)
            made.append(Doubled(convolution, precision))
        elif isinstance(layer, nn.Conv2d) and waiting and isinstance(waiting[0], nn.ReLU):
            waiting.pop(0)
            made.append(Conv(layer, precision, "relu"))
        else:
            made.append(_twin(layer, precision))
    return nn.Sequential(*made)


def _twin(module: nn.Module, precision: torch.dtype, known: _Twins = _FOLDED) -> nn.Module:
    """A module that gives the same; one that is not known comes back as it is."""
    if (folded := known.get(type(module))) is not None:
        return folded(module, precision)
    if not isinstance(module, _ONLY_ORDER):
        return module
    twin = copy(module)
    twin._modules = {name: _twin(part, precision, known) for name, part in module.named_children()}
    return twin
