"""Tiles through the network: what fills the holes in them, and what is kept of them."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from rsup.models.arithmetic import FLOAT32
from rsup.models.consistency import SensorConsistency
from rsup.models.sensors.sentinel2 import SENTINEL2
from rsup.models.upscaler import Upscaler, load
from rsup.pipeline.lattice import Window
from rsup.pipeline.mosaics.passes import Pass
from rsup.pipeline.mosaics.tiles import AROUND, STEP, Finished, TileCache, Tiles, fill_nodata, worth_seeing


def test_fill_takes_the_nearest_valid_pixel() -> None:
    rng = np.random.default_rng(1)
    dn = rng.integers(1, 9999, (2, 12, 15)).astype(np.uint16)
    dn[rng.random(dn.shape) < 0.6] = 0
    filled = fill_nodata(dn)
    for band, out in zip(dn, filled, strict=True):
        points = np.argwhere(band)
        for (row, col), value in np.ndenumerate(band):
            distance = ((points - (row, col)) ** 2).sum(1)
            nearest = points[distance == distance.min()]
            assert out[row, col] in {value} if value else {band[tuple(p)] for p in nearest}
    dn[1] = 0
    np.testing.assert_array_equal(fill_nodata(dn)[1], fill_nodata(dn)[0])


def test_the_cache_holds_as_many_bytes_as_it_may_and_drops_what_was_not_asked_for() -> None:
    cache = TileCache(3 * 16)

    def finished(*shape: int) -> Finished:
        return Finished(torch.zeros(*shape), torch.tensor(True))

    for key in "abc":
        cache[key] = finished(4)
    assert cache.get("a") is not None
    cache["d"] = finished(4)
    assert set(cache) == {"a", "c", "d"}
    cache["e"] = finished(2, 4)
    assert set(cache) == {"d", "e"}


def test_what_is_worth_seeing_is_the_ground_and_what_lies_around_it_within_the_tile() -> None:
    rng = np.random.default_rng(2)
    for _ in range(200):
        valid = np.zeros((2, 160, 128), bool)
        points = rng.integers(0, (2, 160, 128), (rng.integers(1, 4), 3))
        valid[tuple(points.T)] = True
        for part, there, side in zip(worth_seeing(valid), points.T[1:], (160, 128), strict=True):
            least, most = there.min() - AROUND, there.max() + 1 + AROUND
            assert max(least, 0) - STEP < part.start <= max(least, 0) and part.start % STEP == 0
            assert min(most, side) <= part.stop < min(most, side) + STEP and part.stop % STEP == 0
            assert part.stop <= side
    assert worth_seeing(np.ones((1, 150, 150), bool)) == (slice(0, 150), slice(0, 150))


@pytest.mark.parametrize("scale", [4, 8])
def test_a_local_network_is_given_less_of_a_tile_of_which_the_scene_has_little_and_makes_the_same(
    scale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32: in bfloat16 another shape is rounded another way."""
    model = load("faithful", scale, "cpu", arithmetic=FLOAT32)
    bands = model.descriptor.bands
    sensor = SensorConsistency({band: SENTINEL2.response(band) for band in bands})
    step = Pass(bands, tuple(enumerate(bands)), uncertainty=True)
    y, x = np.mgrid[:160, :160]
    hills = 2500 + 900 * np.sin(x / 17) * np.cos(y / 3) + 1500 * ((x // 7 + y // 9) % 2)
    numbers = (hills + np.random.default_rng(3).normal(0, 60, (4, 160, 160))).astype(np.uint16)
    numbers[:, 40:] = numbers[..., :100] = 0
    seen: list[tuple[int, ...]] = []
    outputs = Upscaler.outputs

    def watched(upscaler: Upscaler, tiles: Tensor, *, uncertainty: bool) -> tuple[Tensor, ...]:
        seen.append(tuple(tiles.shape[-2:]))
        return outputs(upscaler, tiles, uncertainty=uncertainty)

    monkeypatch.setattr(Upscaler, "outputs", watched)

    def finished() -> list[NDArray[np.float32]]:
        with Tiles(model, sensor) as tiles:
            parts = tiles.ask(step, Window(0, 0, 160, 160), numbers, keep=False).result().parts
        halo = model.descriptor.halo
        fines = [part.shape[-1] // (160 - 2 * halo) for part in parts]
        return [
            part[:, : (40 - halo) * fine, (100 - halo) * fine :].numpy()
            for part, fine in zip(parts, fines, strict=True)
        ]

    of_part = finished()
    model.whole = True
    of_all = finished()
    assert seen == [(56, 80), (160, 160)]
    for one, other in zip(of_part, of_all, strict=True):
        assert other.max() > 10 and np.abs(one - other).max() <= 1
