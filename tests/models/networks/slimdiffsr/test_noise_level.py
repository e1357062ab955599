"""Equations 7 to 11 against closed forms, numpy's interpolation and finite differences."""

import numpy as np
import pytest
import torch
from torch import Tensor

from rsup.models.base.errors import ModelError
from rsup.models.networks.slimdiffsr.noise_level import (
    NoiseLevelPredictor,
    NoiseTable,
    PredictorConfig,
    matching_alpha_bar,
)


def schedule() -> Tensor:
    """Stable Diffusion's alpha-bar in float64, by definition: sqrt(beta) is linear from .00085**.5 to .012**.5."""
    beta = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    return torch.from_numpy(np.cumprod(1 - beta))


def test_matching_alpha_bar_has_the_signal_to_noise_ratio_of_the_uncertainty() -> None:
    signal, variance = torch.rand(50, dtype=torch.float64) + 0.1, torch.rand(50, dtype=torch.float64) + 0.01
    alpha_bar = matching_alpha_bar(signal, variance)
    torch.testing.assert_close(alpha_bar / (1 - alpha_bar), signal / variance)  # equation 7 = equation 8


def test_the_table_has_1001_entries_and_a_clean_end() -> None:
    table = NoiseTable(schedule())
    assert table.levels.shape == table.timesteps.shape == (1001,)
    assert (table.levels.diff() > 0).all()
    assert table.alpha_bar(0) == 1 and table(torch.ones(())) == 0
    for step in (1, 2, 500, 1000):
        assert table.alpha_bar(step) == schedule()[step - 1]
        assert table(table.alpha_bar(step)) == step


def test_inversion_is_numpys_interpolation() -> None:
    table = NoiseTable(schedule().float())
    ascending = np.append(schedule().numpy()[::-1], 1.0)
    rng = np.random.default_rng(0)
    alpha_bar = np.concatenate([rng.random(2000), ascending[:-1] * 1.0001, [0.0, 1.0, ascending[0]]])
    expected = np.interp(alpha_bar, ascending, np.arange(1000, -1, -1.0))
    found = table(torch.from_numpy(alpha_bar).float().view(-1, 1, 1, 1)).flatten().numpy()
    # float32 holds alpha-bar to 6e-8, and the steepest segment is 1 step in 5.7e-5 of alpha-bar.
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-3)


def test_the_gradient_is_the_slope_of_the_segment() -> None:
    alphas = schedule()
    table = NoiseTable(alphas)
    middle = ((alphas[1:] + alphas[:-1]) / 2).requires_grad_()
    (gradient,) = torch.autograd.grad(table(middle).sum(), middle)
    torch.testing.assert_close(gradient, 1 / (alphas[1:] - alphas[:-1]))
    inside = (0.25 * alphas[1:] + 0.75 * alphas[:-1])[::100].clone().requires_grad_()
    assert torch.autograd.gradcheck(table, inside)


def test_a_schedule_that_does_not_fall_is_refused() -> None:
    for wrong in ([0.9, 0.9, 0.5], [0.5, 0.9], [0.9, 0.0], [1.0, 0.5]):
        with pytest.raises(ModelError, match="must fall strictly"):
            NoiseTable(torch.tensor(wrong))
    with pytest.raises(ModelError, match=r"choose one of 0\.\.1000"):
        NoiseTable(schedule()).alpha_bar(1001)


@pytest.mark.parametrize("step", [1, 200, 999, 1000])
def test_a_fresh_predictor_answers_its_first_timestep(step: int) -> None:
    table = NoiseTable(schedule().float())
    predictor = NoiseLevelPredictor(PredictorConfig(first_timestep=step), table)
    alpha_bar = predictor(torch.randn(2, 4, 6, 9), torch.randn(2, 4, 6, 9))
    assert alpha_bar.shape == (2, 1, 6, 9)
    # The ends of the sigmoid are approached to a thousandth of the range of alpha-bar: a step or two, 20 at t = 1000.
    torch.testing.assert_close(alpha_bar, table.alpha_bar(step).expand_as(alpha_bar), rtol=0, atol=1.1e-3)


def test_the_predicted_timestep_stays_on_the_schedule() -> None:
    table = NoiseTable(schedule().float())
    predictor = NoiseLevelPredictor(PredictorConfig(channels=8, blocks=1), table)
    torch.nn.init.normal_(predictor.head.weight, std=50)
    timestep = table(predictor(torch.randn(4, 4, 32, 32), torch.randn(4, 4, 32, 32)))
    assert timestep.min() >= 1 and timestep.max() <= 1000
    assert timestep.min() < 10 and timestep.max() > 990


def test_gradients_of_the_timestep_reach_every_weight_of_the_predictor() -> None:
    table = NoiseTable(schedule().float())
    predictor = NoiseLevelPredictor(PredictorConfig(channels=8), table)
    torch.nn.init.normal_(predictor.head.weight, std=0.1)
    table(predictor(torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8))).std().backward()
    for name, parameter in predictor.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_without_uncertainty_input_only_the_latent_matters() -> None:
    table = NoiseTable(schedule().float())
    latent, first, second = torch.randn(3, 1, 4, 8, 8)
    for seen in (True, False):
        predictor = NoiseLevelPredictor(PredictorConfig(uncertainty_input=seen), table)
        torch.nn.init.normal_(predictor.head.weight)
        assert torch.equal(predictor(latent, first), predictor(latent, second)) != seen


def test_the_predictor_learns_the_paper_s_guideline() -> None:
    """Equation 9 with a signal of unit variance is a function of the inputs, so the predictor can be taught it."""
    torch.manual_seed(1)
    table = NoiseTable(schedule().float())
    predictor = NoiseLevelPredictor(PredictorConfig(channels=16, blocks=1), table)
    optimizer = torch.optim.Adam(predictor.parameters(), lr=1e-2)
    for _ in range(150):
        s = torch.randn(8, 1, 8, 8).expand(8, 4, 8, 8)
        wanted = matching_alpha_bar(torch.ones(()), s[:, :1].exp())
        found = predictor(torch.randn(8, 4, 8, 8), s)
        loss = (found - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.sqrt() < 0.05 < wanted.std()
