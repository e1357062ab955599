"""Learning against a discriminator: its logits in, a scalar out; and networks that are held frozen meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from .terms import at_least_float32

REAL_TARGET = 0.8
"""The probability a discriminator is asked to give real images: one-sided smoothing keeps its gradient alive."""


def generator_gan(logits: Sequence[Tensor]) -> Tensor:
    """What a generator pays for being told from real (Eq. 20, third term): logits of any shapes -> scalar.

    The target is what the discriminator is asked to give real images, not 1: more real than real earns nothing.
    """
    return _cross_entropy(logits, REAL_TARGET)


def discriminator_gan(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """What a discriminator pays: binary cross-entropy with the targets 0.8 (real) and 0 (fake) -> scalar.

    `fake` must come from detached images: what reaches the discriminator must not train the generator.
    """
    return _cross_entropy(real, REAL_TARGET) + _cross_entropy(fake, 0.0)


def generator_hinge(logits: Sequence[Tensor]) -> Tensor:
    """What a generator pays a discriminator that learns by `discriminator_hinge`: minus its mean logit -> scalar."""
    return -torch.stack([at_least_float32(part).mean() for part in logits]).mean()


def discriminator_hinge(real: Sequence[Tensor], fake: Sequence[Tensor]) -> Tensor:
    """Mean of max(0, 1 - real) + max(0, 1 + fake) (Lim and Ye 2017): what is told with certainty teaches nothing more.

    `fake` must come from detached images, as for `discriminator_gan`.
    """
    terms = [F.relu(1 - at_least_float32(part)).mean() for part in real]
    terms += [F.relu(1 + at_least_float32(part)).mean() for part in fake]
    return torch.stack(terms).sum() / len(real)


def _cross_entropy(logits: Sequence[Tensor], target: float) -> Tensor:
    """Mean over the list, so that the weight does not depend on how many heads a discriminator has."""
    parts = [at_least_float32(part) for part in logits]
    terms = [F.binary_cross_entropy_with_logits(part, torch.full_like(part, target)) for part in parts]
    return torch.stack(terms).mean()


@contextmanager
def frozen(*networks: nn.Module) -> Iterator[None]:
    """What is computed inside passes gradients through the networks to their inputs, and none to their weights."""
    learning = [tensor for network in networks for tensor in network.parameters() if tensor.requires_grad]
    for tensor in learning:
        tensor.requires_grad_(False)
    try:
        yield
    finally:
        for tensor in learning:
            tensor.requires_grad_(True)
