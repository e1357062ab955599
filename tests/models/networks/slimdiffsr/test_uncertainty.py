"""The estimator: what it starts from, what bounds it, and that it learns a variance it can be told."""

import torch
from torch import nn

from rsup.models.networks.slimdiffsr.uncertainty import EstimatorConfig, UncertaintyEstimator


def test_layout_is_four_blocks_of_two_convolutions() -> None:
    estimator = UncertaintyEstimator(EstimatorConfig())
    convolutions = [layer for layer in estimator.modules() if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 1 + 4 * 2 + 2
    assert {layer.kernel_size for layer in convolutions} == {(3, 3)}
    weights = 4 * 64 * 9 + 8 * 64 * 64 * 9 + 2 * 64 * 4 * 9
    assert sum(tensor.numel() for tensor in estimator.parameters()) == weights + 9 * 64 + 2 * 4


def test_a_fresh_estimator_answers_its_input_and_variance_one() -> None:
    latent = torch.randn(2, 4, 5, 7)
    mean, log_variance = UncertaintyEstimator(EstimatorConfig())(latent)
    torch.testing.assert_close(mean, latent, rtol=0, atol=0)
    torch.testing.assert_close(log_variance, torch.zeros_like(latent), rtol=0, atol=1e-4)


def test_the_logarithm_of_the_variance_keeps_its_floor() -> None:
    estimator = UncertaintyEstimator(EstimatorConfig(channels=8, blocks=1, lowest_log_variance=-6))
    bias = estimator.variance_head.bias
    assert bias is not None
    for value in (-100.0, -6.0, 3.0):
        nn.init.constant_(bias, value)
        s = estimator(torch.zeros(1, 4, 2, 2)).log_variance
        assert (s >= -6).all()
        # ln(1 + e^x) in double precision.
        expected = -6 + torch.log1p(torch.tensor(value + 6, dtype=torch.float64).exp())
        torch.testing.assert_close(s.double(), expected.expand_as(s), rtol=0, atol=1e-5)


def test_it_finds_the_mean_and_variance_of_made_latents() -> None:
    """Truth = 0.5 z_lr + noise whose deviation is 0.1 in two channels, 0.8 in the others; likelihood finds both."""
    torch.manual_seed(0)
    estimator = UncertaintyEstimator(EstimatorConfig(channels=16, blocks=1))
    deviation = torch.tensor([0.1, 0.1, 0.8, 0.8]).view(1, 4, 1, 1)
    optimizer = torch.optim.Adam(estimator.parameters(), lr=5e-3)
    for _ in range(300):
        latent = torch.randn(8, 4, 8, 8)
        truth = 0.5 * latent + deviation * torch.randn(8, 4, 8, 8)
        mean, s = estimator(latent)
        loss = ((truth - mean).square() * (-s).exp() + s).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    mean, s = estimator(latent)
    assert (mean - 0.5 * latent).square().mean().sqrt() < 0.1
    found = (s / 2).exp().mean((0, 2, 3))
    torch.testing.assert_close(found, deviation.flatten(), rtol=0.25, atol=0)
