"""RSD's two losses against numpy and finite differences, and what each of the two updates leaves untouched."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rsup.models.losses.adversarial import frozen
from rsup.models.losses.rsd import Head, Rsd, RsdConfig, fake_loss, one_step_student, student_loss, student_steps
from rsup.models.losses.terms import frequency
from rsup.models.networks.resshift.denoiser import DenoiserConfig
from rsup.models.networks.resshift.latents import load_latents
from rsup.models.networks.resshift.network import ResShift, ResShiftConfig

TINY = ResShiftConfig(denoiser=DenoiserConfig(channels=(8, 16), blocks=1, head_channels=8, groups=4))
ROOTS = [0.02 * 49.5 ** ((t / 14) ** 0.3) for t in range(15)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(seed: int, channels: int = 3, dtype: torch.dtype = torch.float64) -> ResShift:
    """A network whose last convolution is not zero, so that it says something."""
    torch.manual_seed(seed)
    network = ResShift(TINY, channels)
    nn.init.normal_(network.denoiser.unet.conv_out.weight, std=0.2)
    return network.to(dtype)


def latent(seed: int, channels: int = 3, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(2, channels, 8, 8, generator=seeded(seed), dtype=torch.float64).to(dtype)


T = torch.tensor([3, 11])


def estimates(network: ResShift, z_hat: Tensor, z_y: Tensor, noise: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """z_t by the published formula, and what the network says of it."""
    eta = np.array([ROOTS[t] for t in T.tolist()])[:, None, None, None]
    z_t = z_hat.numpy() + eta**2 * (z_y - z_hat).numpy() + 2 * eta * noise.numpy()
    with torch.no_grad():
        return z_t, network(torch.from_numpy(z_t), z_y, T).numpy()


def test_student_steps_are_even_and_end_at_the_last() -> None:
    assert student_steps(4, 15) == [3, 7, 11, 14]
    assert student_steps(1, 15) == [14]
    assert student_steps(15, 15) == list(range(15))


def test_fake_loss_is_a_mean_square_that_trains_the_fake_alone() -> None:
    fake, z_hat, z_y, noise = model(1), latent(1).requires_grad_(), latent(2), latent(3)
    loss = fake_loss(fake, z_hat, z_y, T, noise)
    _, estimate = estimates(fake, z_hat.detach(), z_y, noise)
    assert loss.item() == pytest.approx(np.mean((estimate - z_hat.detach().numpy()) ** 2), rel=1e-9)
    loss.backward()
    assert z_hat.grad is None
    assert all(tensor.grad is not None for tensor in fake.parameters())


@pytest.mark.parametrize("normalise", [False, True])
def test_student_loss_is_the_papers_expression(normalise: bool) -> None:
    teacher, fake, z_hat, z_y, noise = model(1), model(2), latent(1), latent(2), latent(3)
    loss = student_loss(teacher, fake, z_hat, z_y, T, noise, normalise=normalise)
    _, f_star = estimates(teacher, z_hat, z_y, noise)
    _, f_phi = estimates(fake, z_hat, z_y, noise)
    z = z_hat.numpy()
    values = []
    for i in range(2):
        inner = np.sum(f_star[i] ** 2) - np.sum(f_phi[i] ** 2) + 2 * np.sum((f_phi[i] - f_star[i]) * z[i])
        weight = 1 / (np.mean(np.abs(f_star[i] - z[i])) + 1e-8) if normalise else 1
        values.append(weight * inner / z[i].size)
    assert loss.item() == pytest.approx(np.mean(values), rel=1e-9)


def generator_gradient(loss: Callable[[Tensor], Tensor], student: ResShift) -> tuple[Tensor, Callable[[float], float]]:
    """The gradient at the student's first convolution, and the loss with that moved along a fixed direction."""
    z_t, z_y, t, noise = latent(5), latent(2), torch.tensor([14, 7]), latent(6)[:, :1]
    weight = student.denoiser.unet.conv_in.weight

    def value() -> Tensor:
        return loss(student(z_t, z_y, t, noise))

    (gradient,) = torch.autograd.grad(value(), weight)
    direction = torch.randn(weight.shape, generator=seeded(9), dtype=weight.dtype)

    def moved(step: float) -> float:
        with torch.no_grad():
            weight.add_(step * direction)
            result = value().item()
            weight.sub_(step * direction)
        return result

    return (gradient * direction).sum(), moved


def test_students_gradient_is_a_finite_difference_of_the_objective() -> None:
    teacher, fake, z_y, noise = model(1), model(2), latent(2), latent(3)
    student = one_step_student(model(4))

    def loss(z_hat: Tensor) -> Tensor:
        return student_loss(teacher, fake, z_hat, z_y, T, noise, normalise=False)

    slope, moved = generator_gradient(loss, student)
    step = 1e-5
    assert slope.item() == pytest.approx((moved(step) - moved(-step)) / (2 * step), rel=1e-6)


def test_students_gradient_is_not_that_of_variational_score_distillation() -> None:
    """That stops at z_t: 2 <f_phi - f*, z_hat> with both estimates held constant. Asked for, it is."""
    teacher, fake, z_y, noise = model(1), model(2), latent(2), latent(3)
    student = one_step_student(model(4))

    def baseline(z_hat: Tensor) -> Tensor:
        with torch.no_grad():
            z_t = teacher.schedule.shift(z_hat, z_y, T, noise)
            difference = fake(z_t, z_y, T) - teacher(z_t, z_y, T)
        return 2 * (difference * z_hat).mean()

    def ours(z_hat: Tensor, through: bool = True) -> Tensor:
        return student_loss(teacher, fake, z_hat, z_y, T, noise, normalise=False, through=through)

    vsd, _ = generator_gradient(baseline, student)
    held, _ = generator_gradient(lambda z_hat: ours(z_hat, through=False), student)
    assert held.item() == pytest.approx(vsd.item(), rel=1e-9)
    rsd, moved = generator_gradient(ours, student)
    true = (moved(1e-5) - moved(-1e-5)) / 2e-5
    assert abs(rsd - true) < 1e-6 * abs(true) < 0.05 * abs(true) < abs(vsd - true)


def test_a_fake_that_is_the_teacher_teaches_nothing() -> None:
    teacher = model(1)
    z_hat = latent(1).requires_grad_()
    loss = student_loss(teacher, copy.deepcopy(teacher), z_hat, latent(2), T, latent(3))
    loss.backward()
    assert loss.item() == 0 and z_hat.grad is not None and not z_hat.grad.any()


def test_the_student_starts_as_the_teacher_whatever_its_noise() -> None:
    teacher = model(1, dtype=torch.float32)
    student = one_step_student(teacher)
    z_y, noise = latent(2, dtype=torch.float32), latent(3, dtype=torch.float32)
    start, t = teacher.schedule.start(z_y, noise), torch.full((2,), 14)
    with torch.no_grad():
        expected = teacher(start, z_y, t)
        for scale in (0.0, 5.0):
            torch.testing.assert_close(student(start, z_y, t, scale * noise[:, :1]), expected, rtol=0, atol=1e-4)
    student(start, z_y, t, noise[:, :1]).square().sum().backward()
    first = student.denoiser.unet.conv_in.weight
    # The channel is silent, not dead.
    assert first.grad is not None and first.grad[:, -1].abs().sum() > 0
    assert teacher.denoiser.unet.conv_in.weight.grad is None


def test_frozen_passes_gradients_to_inputs_and_none_to_weights() -> None:
    network, x = nn.Linear(3, 1), torch.ones(1, 3, requires_grad=True)
    network.bias.requires_grad_(False)
    with pytest.raises(ZeroDivisionError), frozen(network):
        network(x).sum().backward()
        raise ZeroDivisionError
    assert x.grad is not None and network.weight.grad is None
    assert network.weight.requires_grad and not network.bias.requires_grad


def bits(network: nn.Module) -> list[bytes]:
    return [tensor.detach().numpy().tobytes() for tensor in network.state_dict().values()]


@pytest.fixture
def rsd() -> Rsd:
    """Over pixel-unshuffle: 48 channels."""
    config = RsdConfig(perceptual="frequency", gan_weight=1.0, head_channels=8)
    made = Rsd(model(1, 48, torch.float32), config)
    # A fake network that has learnt something already; at the start it agrees with the teacher.
    nn.init.normal_(made.fake.denoiser.unet.conv_out.bias, std=0.1)
    return made


def image(seed: int = 0) -> Tensor:
    return 2 * torch.rand(2, 3, 32, 32, generator=seeded(seed)) - 1


def student_total(rsd: Rsd, seed: int = 0) -> Tensor:
    latents = load_latents("unshuffle")
    z_0, z_y = latents.encode(image()), latents.encode(image(1))
    terms = rsd.student_terms(z_0, z_y, image(), latents, frequency, seeded(seed))
    assert set(terms) == {"distillation", "perceptual", "gan"}
    return sum(terms.values(), torch.zeros(()))


def test_a_recipe_may_ask_for_the_baseline(rsd: Rsd) -> None:
    latents = load_latents("unshuffle")
    z_0, z_y = latents.encode(image()), latents.encode(image(1))

    def gradient(kind: str) -> Tensor:
        rsd.config = RsdConfig(distillation=kind, perceptual_weight=0, gan_weight=0)
        loss = rsd.student_terms(z_0, z_y, image(), latents, None, seeded())["distillation"]
        values.append(loss.item())
        return torch.autograd.grad(loss, rsd.student.denoiser.unet.conv_in.weight)[0]

    values: list[float] = []
    assert not torch.allclose(gradient("rsd"), gradient("vsd"), rtol=0.01)
    assert values[1] == pytest.approx(values[0], rel=1e-5)  # the same number; what differs is where its gradient goes


def test_a_student_step_moves_the_student_alone(rsd: Rsd) -> None:
    before = {name: bits(network) for name, network in rsd.named_children()}
    assert set(before) == {"student", "fake", "head", "teacher"}
    # An optimiser that would move anything that has a gradient.
    optimiser = torch.optim.AdamW([tensor for tensor in rsd.parameters() if tensor.requires_grad], 1e-2, weight_decay=0)
    student_total(rsd).backward()
    assert all(tensor.grad is None for part in (rsd.fake, rsd.head, rsd.teacher) for tensor in part.parameters())
    optimiser.step()
    assert {name for name, network in rsd.named_children() if bits(network) != before[name]} == {"student"}
    assert all(tensor.requires_grad for part in (rsd.fake, rsd.head) for tensor in part.parameters())


def test_a_fake_step_moves_the_fake_and_the_head_alone(rsd: Rsd) -> None:
    before = {name: bits(network) for name, network in rsd.named_children()}
    optimiser = torch.optim.AdamW([tensor for tensor in rsd.parameters() if tensor.requires_grad], 1e-2, weight_decay=0)
    latents = load_latents("unshuffle")
    terms = rsd.fake_terms(latents.encode(image()), latents.encode(image(1)), seeded())
    assert set(terms) == {"fake", "discriminator"}
    sum(terms.values(), torch.zeros(())).backward()
    assert all(tensor.grad is None for part in (rsd.student, rsd.teacher) for tensor in part.parameters())
    optimiser.step()
    assert {name for name, network in rsd.named_children() if bits(network) != before[name]} == {"fake", "head"}


def test_terms_without_a_weight_are_left_out_and_draws_follow_the_generator(rsd: Rsd) -> None:
    plain = Rsd(model(1, 48, torch.float32), RsdConfig(perceptual_weight=0, gan_weight=0, head_channels=8))
    latents = load_latents("unshuffle")
    z_0, z_y = latents.encode(image()), latents.encode(image(1))
    assert set(plain.fake_terms(z_0, z_y, seeded())) == {"fake"}
    assert set(plain.student_terms(z_0, z_y, image(), latents, frequency, seeded())) == {"distillation"}
    with torch.no_grad():
        values = [student_total(rsd, seed).item() for seed in (4, 4, 5)]
    assert values[0] == values[1] != values[2]


def test_the_head_gives_a_logit_a_place() -> None:
    assert Head(16, 8)(torch.zeros(2, 16, 4, 6)).shape == (2, 1, 4, 6)


@pytest.mark.slow
def test_distillation_brings_the_student_to_what_the_teacher_expects() -> None:
    """A teacher that knows one true image: alternating updates lead a student there that starts elsewhere."""
    torch.manual_seed(0)
    truth, z_y = torch.full((4, 3, 8, 8), 0.5), torch.zeros(4, 3, 8, 8)
    teacher = ResShift(TINY, 3)
    nn.init.constant_(teacher.denoiser.unet.conv_out.bias, 0.5)
    made = Rsd(teacher, RsdConfig(student_steps=1, perceptual_weight=0, gan_weight=0, head_channels=8))
    for network in (made.student, made.fake):
        nn.init.zeros_(network.denoiser.unet.conv_out.bias)
    latents, g = load_latents("unshuffle"), seeded()
    fast = torch.optim.Adam(made.fake.parameters(), 1e-2)
    slow = torch.optim.Adam(made.student.parameters(), 1e-2)

    def error() -> float:
        with torch.no_grad():
            t = torch.full((4,), 14)
            noise = torch.randn(4, 4, 8, 8, generator=seeded(1))
            start = teacher.schedule.start(z_y, noise[:, :3])
            return float((made.student(start, z_y, t, noise[:, 3:]) - truth).abs().mean())

    first = error()
    # With two updates of the fake network for each of the student's, the student circles around its goal instead.
    for _ in range(20):
        for _ in range(made.config.fake_updates):
            fast.zero_grad()
            made.fake_terms(truth, z_y, g)["fake"].backward()
            fast.step()
        slow.zero_grad()
        made.student_terms(truth, z_y, truth, latents, None, g)["distillation"].backward()
        slow.step()
    assert first == pytest.approx(0.5, abs=0.05)
    assert error() < 0.2 * first
