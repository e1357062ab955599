"""Stored numbers <-> reflectance <-> the network's range: one fixed, strictly monotone map for every scene.

Stored numbers are the scene store's uint16: raw DN of processing baseline >= 04.00, reflectance = DN * 1e-4 - 0.1,
0 = nodata. No statistic of a tile or scene enters, so the same ground maps to the same network input everywhere.

Reflectance up to the knee (0.3: vegetation, soil, water, most roofs) is linear; above it a logarithm keeps clouds, snow
and bright roofs distinct instead of clipping them. Value and slope are continuous at the knee. The slope at the far end
(DN 65535, reflectance 6.45) is still 2.8e-6 a DN, 45 float32 steps, so the round trip stays far below half a DN.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

SCALE_FACTOR = 1e-4
ADD_OFFSET = -0.1
NODATA = 0
DN_MIN, DN_MAX = 1, 65535
"""Range of valid stored numbers."""
DN_ZERO = 1000
"""The stored number of reflectance 0."""
LEAST = -0.5
"""Reflectance that corrections of the atmosphere never come down to: a number below it stands for nothing."""

KNEE = 0.3
"""Reflectance where the map leaves the straight line."""
KNEE_VALUE = 0.2
"""Network value at the knee: land takes the lower 60 % of [-1, 1], brightnesses above it the upper 40 %."""

LOWEST = DN_MIN * SCALE_FACTOR + ADD_OFFSET
"""The darkest reflectance that a scene holds."""
_HIGH = DN_MAX * SCALE_FACTOR + ADD_OFFSET
_SLOPE = (KNEE_VALUE + 1) / (KNEE - LOWEST)

WHITE = 0.425
"""Reflectance that pictures show as white: the middle of what training draws for that of a photograph."""

STEP = _SLOPE * SCALE_FACTOR
"""Between the network's values of neighbouring stored numbers, below the knee."""


def _shoulder() -> float:
    """Width b of the logarithm for which its slope at the knee equals the line's: _SLOPE b log1p(span / b) = 1 - v."""
    span, target = _HIGH - KNEE, (1 - KNEE_VALUE) / _SLOPE
    low, high = 1e-6, span
    for _ in range(100):  # bisection; the left side grows with b
        b = (low + high) / 2
        low, high = (b, high) if b * np.log1p(span / b) < target else (low, b)
    return b


_B = _shoulder()

MAP = {"knee": KNEE, "knee_value": KNEE_VALUE, "low": LOWEST, "slope": _SLOPE, "width": _B}
"""What else the map is made of, for who writes it down: reflectances, but for `knee_value` and its `slope`."""


@overload
def to_network(dn: NDArray[np.floating | np.unsignedinteger]) -> NDArray[np.float32]: ...
@overload
def to_network(dn: Tensor) -> Tensor: ...
def to_network(dn: NDArray[np.floating | np.unsignedinteger] | Tensor) -> NDArray[np.float32] | Tensor:
    """Stored numbers (1..65535, any shape) -> network values in [-1, 1], float32.

    An array or a tensor, which stays on its device; both ways agree to float32's rounding.
    """
    if isinstance(dn, np.ndarray):
        reflectance = dn.astype(np.float32) * np.float32(SCALE_FACTOR) + np.float32(ADD_OFFSET)
        above = np.maximum(reflectance - np.float32(KNEE), 0)
        line = (np.minimum(reflectance, np.float32(KNEE)) - np.float32(LOWEST)) * np.float32(_SLOPE) - 1
        return np.asarray(line + np.float32(_SLOPE * _B) * np.log1p(above / np.float32(_B)), np.float32)
    measured = dn.float() * SCALE_FACTOR + ADD_OFFSET
    linear = (measured.clamp(max=KNEE) - LOWEST) * _SLOPE - 1
    return linear + _SLOPE * _B * ((measured - KNEE).clamp(min=0) / _B).log1p()


def from_network(value: Tensor) -> Tensor:
    """Network values (any shape; beyond [-1, 1] is clipped) -> stored numbers 1..65535 as float32, not rounded.

    A tensor, not an array: this side of the network is `scale` squared times larger and stays on its device.
    """
    v = value.float().clamp(-1, 1)
    # The logarithm is most of the work; most tiles have nothing above the knee. To ask a GPU would be to wait for it,
    # and a graph that is written down is one for all tiles.
    from torch.compiler import is_exporting

    bright = v.is_cuda or is_exporting() or bool(v.detach().amax() > KNEE_VALUE)
    if not bright:
        return v.add_(1).mul_(1 / STEP).add_(DN_MIN)
    line = v.clamp(max=KNEE_VALUE).add_(1).mul_(1 / STEP).add_(DN_MIN)
    above = (v - KNEE_VALUE).clamp(min=0)
    return (line + _B / SCALE_FACTOR * (above / (_SLOPE * _B)).expm1()).clamp(DN_MIN, DN_MAX)


def brightness(value: Tensor) -> Tensor:
    """Network values (any shape) -> what a picture shows of them, float32: -1 for a reflectance of 0, 1 for WHITE and
    more, straight between.
    """
    reflectance = from_network(value) * SCALE_FACTOR + ADD_OFFSET
    return (reflectance * (2 / WHITE) - 1).clamp(-1, 1)
