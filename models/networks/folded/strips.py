"""A chain of layers run over an image in strips of rows: each strip's maps stay near the processor."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Strips(nn.Module):
    """`layers` over [n, c, h, w], some rows at a time: what they give for the whole, [n, out, h * up / down, w'].

    Each strip is given `halo` rows more on either side where there are any, and what comes of them is cut away: a row
    of the result sees no further than that. `rows` and `halo` are multiples of `down`. The maps of a whole 512 x 512
    image at full resolution are 32 MB each, which the system hands out afresh every time; looking for that memory and
    going through it takes longer than the convolutions themselves.
    """

    def __init__(self, layers: nn.Module, *, rows: int, halo: int, up: int = 1, down: int = 1) -> None:
        super().__init__()
        self.layers, self.rows, self.halo, self.up, self.down = layers, rows, halo, up, down

    def forward(self, x: Tensor) -> Tensor:
        height = x.shape[2]
        parts = []
        for top in range(0, height, self.rows):
            bottom = min(height, top + self.rows)
            first = max(0, top - self.halo)
            part = self.layers(x[:, :, first : bottom + self.halo])
            begin, end = ((row - first) * self.up // self.down for row in (top, bottom))
            parts.append(part[:, :, begin:end])
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)
