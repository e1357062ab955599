"""RSD: a residual-shifting teacher distilled into one step, by what a second network learns from the student's results.

Latents come in and losses go out. The fake network learns to restore what the student makes; the student makes what the
fake network, so trained, restores as the teacher does. Unlike in variational score distillation, the student's gradient
also passes through z_t into both networks, whose weights stay frozen.
Source: "One-Step Residual Shifting Diffusion for Image Super-Resolution via Distillation" (2025).
"""

from __future__ import annotations

import copy
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from rsup.models.base.settings import Config
from rsup.models.networks.resshift.latents import Latents
from rsup.models.networks.resshift.network import ResShift, draw_noise, draw_steps

from .adversarial import discriminator_gan, frozen, generator_gan
from .perceptual import Term
from .terms import PerceptualKind, Weight

_Count = Annotated[int, Field(ge=1, le=1000)]


class RsdConfig(Config):
    """Distillation in one step; the defaults are the paper's but for the head, which it does not describe."""

    student_steps: _Count = 4
    """N: at how many steps the student learns; it is used at the last one alone."""
    fake_updates: _Count = 5
    """K: updates of the fake network and the head for each of the student."""
    distillation: Literal["rsd", "vsd"] = "rsd"
    """`vsd`: variational score distillation, the paper's baseline, whose gradient does not pass through z_t."""
    normalise: bool = True
    """Divide each image's distillation loss by the teacher's mean error on it."""
    perceptual: PerceptualKind = "lpips-vgg"
    perceptual_weight: Weight = 2.0
    gan_weight: Weight = 3e-3
    """0 trains without a head."""
    head_channels: Annotated[int, Field(ge=8, multiple_of=8)] = 128


def student_steps(count: int, steps: int) -> list[int]:
    """`count` evenly spaced steps that end at the last one, counted from 0: 3, 7, 11, 14 of 15."""
    return [-(-steps * k // count) - 1 for k in range(1, count + 1)]


def one_step_student(teacher: ResShift) -> ResShift:
    """A copy of the teacher with a noise input whose weights are 0: it returns what the teacher returns.

    The copy is trainable, the teacher stays as it is.
    """
    first: nn.Conv2d = teacher.denoiser.unet.conv_in
    student = ResShift(teacher.config, teacher.channels, noise_input=True)
    state = teacher.state_dict()
    blind = first.weight.new_zeros(first.weight.shape[0], 1, *first.weight.shape[2:])
    state["denoiser.unet.conv_in.weight"] = torch.cat([first.weight.detach(), blind], 1)
    student.load_state_dict(state)
    return student.to(first.weight.device, first.weight.dtype)


def fake_loss(fake: ResShift, z_hat: Tensor, z_y: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """Mean of |f_phi(z_t) - z_hat|^2 over elements, z_t drawn from the student's result z_hat [n, c, h, w] at t [n]."""
    z_hat = z_hat.detach()
    z_t = fake.schedule.shift(z_hat, z_y, t, noise)
    estimate: Tensor = fake(z_t, z_y, t)
    return (estimate - z_hat).square().mean()


def student_loss(
    teacher: ResShift,
    fake: ResShift,
    z_hat: Tensor,
    z_y: Tensor,
    t: Tensor,
    noise: Tensor,
    *,
    normalise: bool = True,
    through: bool = True,
) -> Tensor:
    """Mean of |f*(z_t)|^2 - |f_phi(z_t)|^2 + 2 <f_phi(z_t) - f*(z_t), z_hat> over elements, with w_t = 1.

    That is |f* - z_hat|^2 - |f_phi - z_hat|^2: how much better the fake network explains z_hat than the teacher does.
    Gradients reach z_hat directly and through z_t; neither network's weights get any. Without `through` they reach it
    directly alone, 2 (f_phi - f*), which is variational score distillation. `normalise` divides each image's value by
    its mean |f*(z_t) - z_hat|, held constant, so that steps of all noise levels weigh alike.
    """
    with frozen(teacher, fake), torch.set_grad_enabled(through and torch.is_grad_enabled()):
        z_t = teacher.schedule.shift(z_hat, z_y, t, noise)
        real, other = teacher(z_t, z_y, t), fake(z_t, z_y, t)
    # The difference of the two squares, factored: close squares would cancel to noise.
    value: Tensor = ((real - other) * (real + other - 2 * z_hat)).flatten(1).mean(1)
    if normalise:
        value = value / ((real - z_hat).detach().abs().flatten(1).mean(1) + 1e-8)
    return value.mean()


class Head(nn.Module):
    """Real or made, from the fake network's innermost features [n, c, h, w] -> logits [n, 1, h, w]."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, 1, 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.layers(features)
        return logits


class Rsd(nn.Module):
    """The four networks of the distillation, and one loss a term for each of the two alternating updates.

    `teacher` is held frozen and gets no gradient; `student` is to be trained with `student_terms`, `fake` and `head`
    with `fake_terms`. The terms are unweighted: `config` has the weights.
    """

    def __init__(self, teacher: ResShift, config: RsdConfig) -> None:
        super().__init__()
        self.config = config
        self.student = one_step_student(teacher)
        self.fake = copy.deepcopy(teacher).requires_grad_(True)
        self.head = Head(teacher.config.denoiser.channels[-1], config.head_channels)
        self.teacher = teacher.requires_grad_(False)

    def fake_terms(self, z_0: Tensor, z_y: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """`fake`, and with a GAN weight `discriminator`: losses of `fake` and `head`; latents [n, c, h, w].

        The discriminator's gradient reaches the fake network's encoder too, which is the head's body (as in DMD2).
        """
        with torch.no_grad():
            z_hat = self._restored(z_0, z_y, generator)
        terms = {"fake": fake_loss(self.fake, z_hat, z_y, *self._disturbance(z_hat, generator))}
        if self.config.gan_weight:
            terms["discriminator"] = discriminator_gan([self._logits(z_0, z_y)], [self._logits(z_hat, z_y)])
        return terms

    def student_terms(
        self,
        z_0: Tensor,
        z_y: Tensor,
        image: Tensor,
        latents: Latents,
        perceptual: Term | None,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """`distillation`, and where they have a weight `perceptual` and `gan`: losses of `student`.

        `image` [n, 3, h, w] is the truth z_0 encodes. The perceptual term sees what inference gives: one step from z_T,
        decoded by `latents`.
        """
        z_hat = self._restored(z_0, z_y, generator)
        t, noise = self._disturbance(z_hat, generator)
        how = {"normalise": self.config.normalise, "through": self.config.distillation == "rsd"}
        terms = {"distillation": student_loss(self.teacher, self.fake, z_hat, z_y, t, noise, **how)}
        if perceptual is not None and self.config.perceptual_weight:
            schedule = self.teacher.schedule
            start = schedule.start(z_y, draw_noise(z_y, generator))
            last = torch.full((len(z_y),), schedule.last, device=z_y.device)
            result = latents.decode(self.student(start, z_y, last, draw_noise(z_y[:, :1], generator)))
            terms["perceptual"] = perceptual(result, image)
        if self.config.gan_weight:
            with frozen(self.fake, self.head):
                terms["gan"] = generator_gan([self._logits(z_hat, z_y)])
        return terms

    def _restored(self, z_0: Tensor, z_y: Tensor, generator: torch.Generator) -> Tensor:
        """The student's results from the true pairs, disturbed as far as one of its steps."""
        schedule = self.teacher.schedule
        choices = torch.tensor(student_steps(self.config.student_steps, schedule.steps), device=z_0.device)
        t = choices[draw_steps(len(z_0), len(choices), generator).to(z_0.device)]
        z_t = schedule.shift(z_0, z_y, t, draw_noise(z_0, generator))
        z_hat: Tensor = self.student(z_t, z_y, t, draw_noise(z_0[:, :1], generator))
        return z_hat

    def _disturbance(self, z_hat: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A step [n], uniform over all of the teacher's, and the noise to get there."""
        t = draw_steps(len(z_hat), self.teacher.schedule.steps, generator).to(z_hat.device)
        return t, draw_noise(z_hat, generator)

    def _logits(self, z: Tensor, z_y: Tensor) -> Tensor:
        """Of clean latents, at the cleanest step, without noise."""
        first = torch.zeros(len(z), dtype=torch.long, device=z.device)
        logits: Tensor = self.head(self.fake.features(z, z_y, first))
        return logits
