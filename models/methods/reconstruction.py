"""The losses that teacher and student share (Eq. 20): L1, a perceptual term, and a discriminator's."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from rsup.models.losses.adversarial import (
    discriminator_gan,
    discriminator_hinge,
    frozen,
    generator_gan,
    generator_hinge,
)
from rsup.models.losses.features import FeatureDistance
from rsup.models.losses.lattice import SQUARE, lattice
from rsup.models.losses.perceptual import perceptual_term
from rsup.models.losses.terms import LossConfig, decibels, l1, spectrum
from rsup.models.networks.discriminators import DiscriminatorConfig, build_discriminator
from rsup.models.networks.projected import BACKBONE, ProjectedDiscriminator
from rsup.models.networks.sight import Sight
from rsup.models.training.task import Update


def least_crop(losses: LossConfig, scale: int) -> int:
    """Pixels a side that the terms need."""
    return SQUARE * scale if losses.lattice_weight else 1


class Reconstruction(nn.Module):
    """Images [n, band, h, w] in [-1, 1], their truth -> terms; `discriminator` is None where the GAN has no weight."""

    def __init__(self, losses: LossConfig, discriminator: DiscriminatorConfig, scale: int, seed: int) -> None:
        """Raises ModelError where the backbone of the perceptual term or of the discriminator is not here."""
        super().__init__()
        self.losses, self.scale = losses, scale
        self.perceptual = perceptual_term(losses.perceptual)
        self.discriminator: nn.Module | None = None
        if losses.gan_weight and discriminator.backbone == BACKBONE:
            # What both look at is looked at once.
            sight = self.perceptual.sight if isinstance(self.perceptual, FeatureDistance) else Sight("lite0")
            self.discriminator = ProjectedDiscriminator(discriminator.width, sight)
        elif losses.gan_weight:
            self.discriminator = build_discriminator(discriminator, seed)

    def fidelity(self, image: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """`l1` and, where they have a weight, `spectrum` and `decibels`: how near the numbers are. Unweighted."""
        terms = {"l1": l1(image, truth)}
        if self.losses.spectrum_weight:
            terms["spectrum"] = spectrum(image, truth)
        if self.losses.decibels_weight:
            terms["decibels"] = decibels(image, truth)
        return terms

    def appearance(self, image: Tensor, truth: Tensor) -> dict[str, Tensor]:
        """Where they have a weight, `perceptual` and `lattice`: what people see of an image, given as it is shown to
        them. Unweighted.
        """
        terms = {}
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(image, truth)
        if self.losses.lattice_weight:
            terms["lattice"] = lattice(image, self.scale)
        return terms

    def gan(self, image: Tensor, scene: Tensor) -> dict[str, Tensor]:
        """`gan`, unweighted, where there is a discriminator; its weights get no gradient. `scene`: enlarged. All images
        as they are shown.
        """
        if self.discriminator is None:
            return {}
        with frozen(self.discriminator):
            if isinstance(self.discriminator, ProjectedDiscriminator):
                return {"gan": generator_hinge(self.discriminator(image, self.discriminator.known(scene)))}
            return {"gan": generator_gan(self.discriminator(image))}

    def weighted(self, terms: dict[str, Tensor]) -> Tensor:
        """The sum of `terms`, each by the weight that the recipe gives it."""
        losses = self.losses
        weights = {
            "l1": losses.l1,
            "perceptual": losses.perceptual_weight,
            "spectrum": losses.spectrum_weight,
            "decibels": losses.decibels_weight,
            "lattice": losses.lattice_weight,
            "gan": losses.gan_weight,
        }
        return torch.stack([weights[name] * term for name, term in terms.items()]).sum()

    def discriminator_update(self, image: Tensor, truth: Tensor, scene: Tensor) -> Iterator[Update]:
        """The discriminator's own update, where there is one."""
        judge = self.discriminator
        if isinstance(judge, ProjectedDiscriminator):
            known = judge.known(scene)
            yield Update("discriminator", discriminator_hinge(judge(truth, known), judge(image.detach(), known)))
        elif judge is not None:
            yield Update("discriminator", discriminator_gan(judge(truth), judge(image.detach())))
