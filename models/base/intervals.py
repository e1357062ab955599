"""What the uncertainty of a mosaic means: which share of its errors lies within how many times what it says.

Errors of super-resolved pixels have heavier tails than Gaussian ones, of which 95 % lie within 1.96 times the width
that holds 68.3 %: here it takes 2.5 times that width. One number a pixel cannot say both, unless this factor is said
with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDER = 2.5
"""How many times what it says holds 95 % of the errors: measured on held-out images and real scenes, x4 and x8."""

SHARES = {1.0: 0.683, WIDER: 0.95}
"""The share of errors within so many times what is said; the first is that of Gaussian errors and their deviation."""

MEANING = f"{SHARES[1.0]:.0%} of the errors lie within it, {SHARES[WIDER]:.0%} within {WIDER:g} times it."
"""What a mosaic's uncertainty says, to who reads it."""

DIGITS = 5
"""Binary digits of what is written: nobody knows the width of an error within 3 %, and packed it takes a third."""

PIECE = 1 << 16
"""Numbers that are rounded at once: what that takes stays in a core's own cache."""

ROUNDED = f"Rounded to {DIGITS} binary digits."
"""What readers of files are told beside its meaning."""


def round_off(numbers: NDArray[np.uint16]) -> None:
    """Round stored numbers, contiguous of any shape, to DIGITS binary digits, half up, in their place: within 1/32.

    What has no more digits stays, 0 for one. Numbers that would leave the range end at its end.
    """
    dropped = 24 - DIGITS  # of the digits of a float32
    assert numbers.flags.c_contiguous  # else what is rounded would be a copy
    flat = numbers.reshape(-1)
    for start in range(0, flat.size, PIECE):
        piece = flat[start : start + PIECE]
        bits = piece.astype(np.float32).view(np.int32)
        bits += 1 << (dropped - 1)
        bits &= -1 << dropped
        piece[:] = np.minimum(bits.view(np.float32), np.float32(np.iinfo(np.uint16).max))
