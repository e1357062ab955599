"""Where autocast must not round: what comes in as an image and what goes out as one."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Autocast switched off on `device`; nothing on devices without it, such as `meta`, on which costs are counted."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def unrounded(first: nn.Module, image: Tensor) -> Tensor:
    """What the first layer makes of an image, in the type that autocast computes in; the image itself is not rounded.

    bfloat16 has eight binary digits: dark ground would come in steps of 13 stored numbers, bright ground in larger
    ones, more than the sensor's noise, and of steps a network makes texture (a sharp one fifteen times the noise).
    """
    kind = image.device.type
    with full_precision(image.device):
        made: Tensor = first(image)
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return made.to(torch.get_autocast_dtype(kind))
    return made
