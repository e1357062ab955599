"""The reconstruction losses that teacher and student share (Eq. 20): L1, a perceptual term, and a discriminator's."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from rsup.models.losses.adversarial import discriminator_gan, frozen, generator_gan
from rsup.models.losses.perceptual import perceptual_term
from rsup.models.losses.terms import LossConfig, decibels, l1, spectrum
from rsup.models.networks.discriminators import DiscriminatorConfig, build_discriminator
from rsup.models.training.task import Update


class Reconstruction(nn.Module):
    """Images [n, band, h, w] in [-1, 1], their truth -> terms; `discriminator` is None where the GAN has no weight."""

    def __init__(self, losses: LossConfig, discriminator: DiscriminatorConfig, seed: int) -> None:
        """Raises ModelError where LPIPS's or the discriminator's backbone is not here."""
        super().__init__()
        self.losses = losses
        self.perceptual = perceptual_term(losses.perceptual)
        self.discriminator = build_discriminator(discriminator, seed) if losses.gan_weight else None

    def terms(self, image: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """`l1` and, where they have a weight, `perceptual`, `spectrum`, `decibels`: what validation can compare.

        Unweighted.
        """
        terms = {"l1": l1(image, truth)}
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(image, truth)
        if self.losses.spectrum_weight:
            terms["spectrum"] = spectrum(image, truth)
        if self.losses.decibels_weight:
            terms["decibels"] = decibels(image, truth)
        return terms

    def gan(self, image: Tensor) -> dict[str, Tensor]:
        """`gan`, unweighted, where there is a discriminator; its weights get no gradient."""
        if self.discriminator is None:
            return {}
        with frozen(self.discriminator):
            return {"gan": generator_gan(self.discriminator(image))}

    def weighted(self, terms: dict[str, Tensor]) -> Tensor:
        """The sum of `terms`, each by the weight that the recipe gives it."""
        losses = self.losses
        weights = {
            "l1": losses.l1,
            "perceptual": losses.perceptual_weight,
            "spectrum": losses.spectrum_weight,
            "decibels": losses.decibels_weight,
            "gan": losses.gan_weight,
        }
        return torch.stack([weights[name] * term for name, term in terms.items()]).sum()

    def discriminator_update(self, image: Tensor, truth: Tensor) -> Iterator[Update]:
        """The discriminator's own update, where there is one."""
        if self.discriminator is not None:
            real, fake = self.discriminator(truth), self.discriminator(image.detach())
            yield Update("discriminator", discriminator_gan(real, fake))
