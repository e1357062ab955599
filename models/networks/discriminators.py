"""Discriminators: images in [-1, 1] in, logits of being real out, one tensor a head.

Either heads on a frozen DINO vision transformer, as the paper's teacher uses, or a small convolutional network trained
from scratch. Both see images through the same differentiable augmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils.parametrizations import spectral_norm

from rsup.models.base.errors import ModelError
from rsup.models.base.settings import Config

if TYPE_CHECKING:
    from transformers import ViTModel

PATCH = "patch"
"""The backbone that is no DINO: convolutions from scratch."""

Augmentation = Literal["color", "translation", "cutout"]


class DiscriminatorConfig(Config):
    """Which network judges, and what it is shown."""

    backbone: str = "facebook/dino-vitb16"
    """A DINO (hub id, folder or `tiny-random`), or `patch`: a convolutional network from scratch, no download; or
    `efficientnet-lite0`: heads on its maps (projected.py), shown the scene too, and with a hinge for its loss."""
    width: Annotated[int, Field(ge=8, le=1024)] = 128
    """Width of the heads; of the second convolution of `patch`."""
    augmentation: tuple[Augmentation, ...] = ("color", "translation", "cutout")
    """Random changes before each judgement, in this order; none where empty. `efficientnet-lite0` has shifts alone."""


def build_discriminator(config: DiscriminatorConfig, seed: int = 0) -> DinoDiscriminator | PatchDiscriminator:
    """The discriminator that the settings name; `seed` shapes a `tiny-random` backbone alone.

    Raises ModelError where the backbone is neither at hand nor to be downloaded.
    """
    if config.backbone == PATCH:
        return PatchDiscriminator(config)
    # transformers is slow to import, and neither settings nor `patch` need it.
    from .pretrained import load_dino

    return DinoDiscriminator(load_dino(config.backbone, seed), config)


class DinoDiscriminator(nn.Module):
    """Images [n, 3, h, w] -> three lists of logits: two [n, 1, p, p], a position a patch, and [n, 1], the whole view.

    The heads read the patches after a third and two thirds of the transformer's depth, and the class token at its end.
    The backbone is frozen: gradients pass through it to the image, none reach its weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: ViTModel, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone.train(False).requires_grad_(False)
        depth, width = int(backbone.config.num_hidden_layers), int(backbone.config.hidden_size)
        self.side = int(backbone.embeddings.patch_embeddings.image_size[0])
        """Pixels a side of the view that the transformer was trained on: 224."""
        self.layers = (depth // 3, 2 * depth // 3)
        self.patch_heads = nn.ModuleList(_head(width, config.width) for _ in self.layers)
        self.class_head = _head(width, config.width)
        # What DINO's training images were normalised by, for values in [0, 1].
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> list[Tensor]:
        view = (augment(self._view(image), self.config.augmentation) + 1) / 2
        states = self.backbone((view - self.mean) / self.std, output_hidden_states=True)
        logits = []
        for head, layer in zip(self.patch_heads, self.layers, strict=True):
            patches = _normalised(states.hidden_states[layer][:, 1:])
            side = self.side // int(self.backbone.config.patch_size)
            logits.append(head(patches.transpose(1, 2).unflatten(2, (side, side))))
        token = _normalised(states.last_hidden_state[:, 0])
        return [*logits, self.class_head(token[:, :, None, None]).flatten(1)]

    def _view(self, image: Tensor) -> Tensor:
        """A random square of the image in its own pixels; an image smaller than that is enlarged first.

        Shrinking the image instead would throw away the very frequencies that super-resolution adds.
        """
        height, width = image.shape[-2:]
        if min(height, width) < self.side:
            factor = self.side / min(height, width)
            size = (max(self.side, round(height * factor)), max(self.side, round(width * factor)))
            image = F.interpolate(image, size, mode="bicubic", align_corners=False)
            height, width = size
        top = int(torch.randint(height - self.side + 1, ()))
        left = int(torch.randint(width - self.side + 1, ()))
        return image[:, :, top : top + self.side, left : left + self.side]

    def train(self, mode: bool = True) -> DinoDiscriminator:
        """The heads alone follow; the backbone stays as it was trained to be used."""
        super().train(mode)
        self.backbone.eval()
        return self

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The heads."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def state_to_save(self) -> dict[str, Tensor]:
        """Everything but the backbone."""
        return {name: tensor.detach() for name, tensor in self.state_dict().items() if not name.startswith("backbone.")}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take a `state_to_save` of the same settings; raises ModelError where it does not fit."""
        _load(self, self.state_to_save(), state)


class PatchDiscriminator(nn.Module):
    """Images [n, 3, h, w], sides of 32 or more -> one [n, 1, p, q] of logits, each judging 70 pixels a side."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        widths = (3, config.width // 2, config.width, 2 * config.width, 4 * config.width)
        strides = (2, 2, 2, 1)
        layers: list[nn.Module] = []
        for before, after, stride in zip(widths, widths[1:], strides, strict=False):
            layers += [spectral_norm(nn.Conv2d(before, after, 4, stride, padding=1)), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, spectral_norm(nn.Conv2d(widths[-1], 1, 4, padding=1)))

    def forward(self, image: Tensor) -> list[Tensor]:
        return [self.layers(augment(image, self.config.augmentation))]

    def trainable_parameters(self) -> list[nn.Parameter]:
        """All of it."""
        return list(self.parameters())

    def state_to_save(self) -> dict[str, Tensor]:
        """All of it, the power iteration's vectors included."""
        return {name: tensor.detach() for name, tensor in self.state_dict().items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take a `state_to_save` of the same settings; raises ModelError where it does not fit."""
        _load(self, self.state_to_save(), state)


def augment(image: Tensor, kinds: tuple[Augmentation, ...]) -> Tensor:
    """Random changes of images [n, c, h, w] in [-1, 1], differentiable, each image its own; drawn by torch's generator.

    A generator learns nothing from them, since real and made images get the same; a discriminator cannot learn few
    images by heart. Source: Zhao et al., Differentiable Augmentation for Data-Efficient GAN Training (2020).
    """
    for kind in kinds:
        image = _AUGMENTATIONS[kind](image)
    return image


def _uniform(image: Tensor, low: float, high: float) -> Tensor:
    """One number an image, [n, 1, 1, 1]."""
    return torch.empty(len(image), 1, 1, 1, device=image.device, dtype=image.dtype).uniform_(low, high)


def _color(image: Tensor) -> Tensor:
    image = image + _uniform(image, -0.5, 0.5)
    grey = image.mean(1, keepdim=True)
    image = grey + (image - grey) * _uniform(image, 0, 2)
    level = image.mean((1, 2, 3), keepdim=True)
    return level + (image - level) * _uniform(image, 0.5, 1.5)


def _translation(image: Tensor) -> Tensor:
    """By up to an eighth of each side, what enters being 0."""
    n, _, height, width = image.shape
    reach_y, reach_x = height // 8, width // 8
    padded = F.pad(image, (reach_x, reach_x, reach_y, reach_y))
    y = torch.randint(2 * reach_y + 1, (n,)).tolist()
    x = torch.randint(2 * reach_x + 1, (n,)).tolist()
    return torch.stack([padded[i, :, y[i] : y[i] + height, x[i] : x[i] + width] for i in range(n)])


def _cutout(image: Tensor) -> Tensor:
    """A rectangle of half of each side becomes 0; it may lie partly outside."""
    n, _, height, width = image.shape
    rows = torch.arange(height, device=image.device).view(1, 1, height, 1)
    columns = torch.arange(width, device=image.device).view(1, 1, 1, width)
    y, x = _uniform(image, 0, 1) * height, _uniform(image, 0, 1) * width
    hole = ((rows + 0.5 - y).abs() < height / 4) & ((columns + 0.5 - x).abs() < width / 4)
    return image.masked_fill(hole, 0)


_AUGMENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "color": _color,
    "translation": _translation,
    "cutout": _cutout,
}


def _normalised(tokens: Tensor) -> Tensor:
    """Each token with mean 0 and variance 1: heads of bounded slope need inputs of one size, whatever the layer."""
    return F.layer_norm(tokens, tokens.shape[-1:])


def _head(channels: int, width: int) -> nn.Sequential:
    """[n, channels, h, w] -> logits [n, 1, h, w]; spectral normalisation bounds how fast they can change."""
    return nn.Sequential(
        spectral_norm(nn.Conv2d(channels, width, 1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(width, width, 1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(width, 1, 1)),
    )


def _load(module: nn.Module, wanted: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    if odd := sorted(wanted.keys() ^ state.keys()):
        raise ModelError(
            f"the discriminator's checkpoint does not fit at {odd[0]}: use the settings it was trained with"
        )
    for name, tensor in wanted.items():
        if tensor.shape != state[name].shape:
            raise ModelError(f"the discriminator's checkpoint has another {name}: use the settings it was trained with")
    module.load_state_dict(dict(state), strict=False)
