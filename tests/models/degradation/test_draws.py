"""Choices: within their ranges, as often as weighed, the same for the same seed."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from rsup.models.base.errors import RecipeError
from rsup.models.degradation.draws import Draws, Range


def draws(seed: int) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


def test_choices_follow_their_weights_and_ranges() -> None:
    d = draws(0)
    indices = [d.index((0.2, 0.7, 0.0, 0.1)) for _ in range(4000)]
    shares = [indices.count(k) / 4000 for k in range(4)]
    assert shares[2] == 0
    assert all(abs(a - b) < 0.03 for a, b in zip(shares, (0.2, 0.7, 0, 0.1), strict=True))
    values = torch.tensor([d.uniform(3, 5) for _ in range(4000)])
    assert 3 <= values.min() < 3.01 and 4.99 < values.max() < 5
    assert abs(values.mean() - 4) < 0.03 and abs(values.std() - 2 / 12**0.5) < 0.02
    assert {d.integer(60, 63) for _ in range(200)} == {60, 61, 62, 63}
    assert abs(sum(d.chance(0.3) for _ in range(4000)) / 4000 - 0.3) < 0.03
    assert not any(d.chance(0) for _ in range(100)) and all(d.chance(1) for _ in range(100))


def test_one_seed_gives_one_sequence_and_one_noise() -> None:
    first, again, other = draws(5), draws(5), draws(6)
    assert [first.uniform(0, 1) for _ in range(5)] == [again.uniform(0, 1) for _ in range(5)]
    cpu = torch.device("cpu")
    noise = [torch.randn(100, generator=d.fields(cpu)) for d in (first, again, other, first)]
    assert torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[0], noise[2]) and not torch.equal(noise[0], noise[3])


def test_a_range_upside_down_is_refused() -> None:
    with pytest.raises(ValidationError, match="lower end"):
        TypeAdapter(Range).validate_python((2, 1))


def test_shares_that_choose_nothing_are_refused() -> None:
    for weights in ((0.0, 0.0), (-1.0, 2.0)):
        with pytest.raises(RecipeError, match="at least one above 0"):
            draws(0).index(weights)
