"""Where autocast must not round: a device in, a context out in which numbers keep the precision they have."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Autocast switched off on `device`; nothing on devices without it, such as `meta`, on which costs are counted."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()
