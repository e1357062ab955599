"""The forward process against its published numbers, and the way back against the closed form of its marginals."""

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from rsup.models.networks.resshift.denoiser import DenoiserConfig
from rsup.models.networks.resshift.network import ResShift, ResShiftConfig, Schedule, draw_noise, draw_steps

TINY = ResShiftConfig(denoiser=DenoiserConfig(channels=(8, 16), blocks=1, head_channels=8, groups=4))
PUBLISHED = (
    [0.02, 0.1172, 0.1763, 0.2336, 0.2916, 0.3510, 0.4124, 0.4759]
    + [0.5417, 0.6099, 0.6807, 0.7540, 0.8300, 0.9086, 0.99]
)  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair(n: int = 2, c: int = 3) -> tuple[Tensor, Tensor]:
    g = seeded()
    return torch.randn(n, c, 8, 8, generator=g).double(), torch.randn(n, c, 8, 8, generator=g).double()


class Known(nn.Module):
    """A denoiser that knows the answer: it gives z_0 - z_y, as the network is to learn."""

    def __init__(self, answer: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.answer(x)


def test_the_schedule_is_the_published_one() -> None:
    roots = Schedule().sqrt_eta(torch.arange(15))
    assert roots.tolist() == pytest.approx(PUBLISHED, abs=5e-5)
    assert Schedule().sqrt_eta(torch.tensor([-1])).item() == 0
    assert Schedule().last == 14
    with pytest.raises(ValidationError):
        Schedule(low=0.5, high=0.4)


@pytest.mark.parametrize("step", [0, 7, 14])
def test_shift_has_the_mean_and_the_spread_of_its_step(step: int) -> None:
    z_0, z_y = pair()
    t, schedule = torch.full((2,), step), Schedule()
    eta = PUBLISHED[step] ** 2
    mean = schedule.shift(z_0, z_y, t, torch.zeros_like(z_0))
    torch.testing.assert_close(mean, (1 - eta) * z_0 + eta * z_y, atol=1e-3, rtol=0)
    one = schedule.shift(z_0, z_y, t, torch.ones_like(z_0)) - mean
    torch.testing.assert_close(one, torch.full_like(one, 2 * PUBLISHED[step]), atol=2e-4, rtol=0)


def test_scaled_inputs_have_unit_variance_where_latents_have() -> None:
    schedule, n = Schedule(), 200_000
    g = seeded(1)
    z = torch.randn(1, 1, n, 1, generator=g)
    for step in (0, 7, 14):
        t = torch.tensor([step])
        # The residual is small against the latent; with none at all, the variance is 1 + kappa^2 eta.
        z_t = schedule.shift(z, z, t, torch.randn(z.shape, generator=g))
        assert schedule.scaled(z_t, t).var().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("step", range(15))
def test_a_step_back_keeps_the_marginals(step: int) -> None:
    """A Gaussian z_t of q(. | z_0, z_y), one step back given z_0, is the Gaussian of the step before."""
    z_0, z_y = pair()
    schedule, t, zero, one = (
        Schedule(),
        torch.full((2,), step),
        torch.zeros(2, 3, 8, 8).double(),
        torch.ones(2, 3, 8, 8),
    )
    mean_t = schedule.shift(z_0, z_y, t, zero)
    mean = schedule.back(mean_t, z_0, t, zero)
    torch.testing.assert_close(mean, schedule.shift(z_0, z_y, t - 1, zero))
    kept = schedule.back(mean_t + 1, z_0, t, zero) - mean
    spread = schedule.back(mean_t, z_0, t, one.double()) - mean
    variance_t = (2 * schedule.sqrt_eta(t)[:, None, None, None]).square()
    variance = kept.square() * variance_t + spread.square()
    expected = (2 * schedule.sqrt_eta(t - 1)[:, None, None, None]).square()
    torch.testing.assert_close(variance, expected.expand_as(variance))


def test_untrained_it_returns_the_enlarged_image() -> None:
    z_0, z_y = pair()
    model = ResShift(TINY, 3)
    t = torch.tensor([2, 9])
    assert torch.equal(model(z_0.float(), z_y.float(), t), z_y.float())


def test_inputs_are_the_scaled_latent_and_the_condition() -> None:
    z_0, z_y = pair()
    model, t, seen = ResShift(TINY, 3), torch.tensor([2, 9]), []
    model.denoiser = Known(lambda x: seen.append(x) or x[:, :3])  # type: ignore[assignment, func-returns-value]
    model(z_0, z_y, t)
    scale = torch.tensor([4 * PUBLISHED[i] ** 2 + 1 for i in (2, 9)]).double().sqrt()[:, None, None, None]
    torch.testing.assert_close(seen[0][:, :3], z_0 / scale, atol=1e-3, rtol=0)
    assert torch.equal(seen[0][:, 3:], z_y)


def test_with_the_true_answer_the_loss_is_zero_and_sampling_ends_at_the_truth() -> None:
    z_0, z_y = pair()
    model = ResShift(TINY, 3)
    model.denoiser = Known(lambda x: z_0 - z_y)  # type: ignore[assignment]
    assert model.training_loss(z_0, z_y, seeded()).item() == pytest.approx(0, abs=1e-20)
    torch.testing.assert_close(model.sample(z_y, seeded()), z_0)
    model.denoiser = Known(lambda x: z_0 - z_y + 0.1)  # type: ignore[assignment]
    assert model.training_loss(z_0, z_y, seeded()).item() == pytest.approx(0.01)


@pytest.mark.slow
def test_a_batch_is_learnt_by_heart() -> None:
    torch.manual_seed(0)
    model, g = ResShift(TINY, 3), seeded()
    z_0 = torch.randn(2, 3, 8, 8, generator=g)
    z_y = z_0 + 0.3 * torch.randn(2, 3, 8, 8, generator=g)
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(200):
        loss = model.training_loss(z_0, z_y, g)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(0.09, rel=0.25)
    assert sum(losses[-20:]) < 0.2 * sum(losses[:20])


def test_draws_follow_the_generator() -> None:
    like = torch.empty(50, 4, 8, 8)
    assert torch.equal(draw_noise(like, seeded(3)), draw_noise(like, seeded(3)))
    steps = draw_steps(3000, 15, seeded(3))
    assert sorted(set(steps.tolist())) == list(range(15))
    assert steps.bincount().float().std() < 30
