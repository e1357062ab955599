"""Images of a training step in, EfficientNet-Lite's maps of them out, each looked at once, however many terms ask."""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor, nn

from .efficientnet_lite import EfficientNetLite, Lite

REMEMBERED = 3
"""Images whose maps are kept: a step's result, its truth, and the scene."""


class Sight(nn.Module):
    """Images [n, 3 or more, h, w] in [-1, 1] -> EfficientNetLite's maps of their first three channels.

    The latest REMEMBERED images are remembered, by their memory: the same tensor is given the same maps, one detached
    from it the same without their gradient. Feature distance and projected discriminator would look at three images
    seven times a step otherwise. Raises ModelError as EfficientNetLite does.
    """

    def __init__(self, kind: Lite) -> None:
        super().__init__()
        self.network = EfficientNetLite(kind)
        self.widths = self.network.widths
        self._seen: deque[tuple[Tensor, int, list[Tensor]]] = deque(maxlen=REMEMBERED)

    def forward(self, image: Tensor) -> list[Tensor]:
        wanted = image.requires_grad and torch.is_grad_enabled()
        for known, version, maps in self._seen:
            same = known.is_set_to(image) and version == image._version
            if same and not wanted:
                return [each.detach() for each in maps]
            if same and maps[0].requires_grad and known is image:
                return maps
        fresh: list[Tensor] = self.network((image[:, :3] + 1) / 2)
        # With the image itself, so that its memory is not another's meanwhile.
        self._seen.append((image, image._version, fresh))
        return fresh
