"""Made glints: their size and brightness against what was drawn, and what they leave as it was."""

import pytest
import torch

from rsup.models.degradation import glints
from rsup.models.degradation.draws import Draws
from rsup.models.degradation.glints import glinting

GROUND = torch.full((3, 64, 96), 0.1)


def draws(seed: int) -> Draws:
    return Draws(torch.Generator().manual_seed(seed))


def test_glints_are_few_small_and_bright() -> None:
    brightest, shares = [], []
    for seed in range(100):
        image = glinting(GROUND, draws(seed))
        assert image.shape == GROUND.shape and image.dtype == GROUND.dtype
        assert image.min() >= 0.1 - 1e-6 and image.max() <= 3 * 1.15 + 1e-6
        brightest.append(float(image.max()))
        shares.append(float((image[0] > 0.11).float().mean()))
        # The rest of the ground is what it was.
        assert torch.equal(image[:, image[0] <= 0.1], GROUND[:, image[0] <= 0.1])
    assert max(brightest) > 2.5 and min(brightest) < 1
    assert 0.005 < sum(shares) / len(shares) < 0.08
    assert torch.equal(glinting(GROUND, draws(1)), glinting(GROUND, draws(1)))


def test_a_glint_has_the_area_of_its_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the place and the direction: pixels average, and what is thinner than one is fainter."""
    monkeypatch.setattr(glints, "COUNT", (1, 1))
    monkeypatch.setattr(glints, "TINT", 0.0)
    monkeypatch.setattr(glints, "BRIGHTNESS", (2.1, 2.1))
    for side in (0.25, 1.0, 3.0, 10.0):
        monkeypatch.setattr(glints, "SIDES", (side, side))
        areas = []
        for seed in range(60):
            cover = (glinting(GROUND, draws(seed)) - 0.1)[0] / 2
            edge = torch.cat([cover[0], cover[-1], cover[:, 0], cover[:, -1]])
            if not edge.any():
                areas.append(float(cover.sum()))
        assert len(areas) > 20
        assert abs(sum(areas) / len(areas) / side**2 - 1) < 0.05, (side, areas)
