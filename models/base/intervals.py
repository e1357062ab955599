"""What the uncertainty of a mosaic means: which share of its errors lies within how many times it, and how fine it is.

Errors of super-resolved pixels have heavier tails than Gaussian ones, of which 95 % lie within 1.96 times the width
that holds 68.3 %: here it takes 2.5 times that width. One number a pixel cannot say both, unless this factor is said
with it.
"""

from __future__ import annotations

WIDER = 2.5
"""How many times what it says holds 95 % of the errors: measured on held-out images and real scenes, x4 and x8."""

SHARES = {1.0: 0.683, WIDER: 0.95}
"""The share of errors within so many times what is said; the first is that of Gaussian errors and their deviation."""

MEANING = f"{SHARES[1.0]:.0%} of the errors lie within it, {SHARES[WIDER]:.0%} within {WIDER:g} times it."
"""What a mosaic's uncertainty says, to who reads it."""

DETAIL = 2
"""Numbers along a side of a scene's pixel, each of which counts for a square of the mosaic's. One for each of those
says no more (the loss of held-out errors falls by 2 in 1,000 at x4, by less at x8), and takes longer to pack than an
image."""
