"""One chunk, with networks whose answer is known: nearest, biased by tile, seeing its whole tile."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import strangers
import torch
from measures import seam_ratio
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, correlate1d
from torch import Tensor

from rsup.models.base.errors import ModelError
from rsup.models.base.intervals import DETAIL
from rsup.models.base.radiometry import to_network
from rsup.models.consistency import Consistency, MeanConsistency, SensorConsistency
from rsup.models.sensors.sentinel2 import SENTINEL2
from rsup.models.upscaler import ModelDescriptor, Upscaler, load
from rsup.pipeline.lattice import Window, chunks
from rsup.pipeline.mosaics.chunk import upscale_chunk
from rsup.pipeline.mosaics.passes import Pass, passes, tiling_of
from rsup.pipeline.mosaics.tiles import Tiles, fill_nodata
from rsup.pipeline.scenes.opening import open_scene

RGB = ("red", "green", "blue")
MEANS = MeanConsistency()
SENSOR = SensorConsistency({band: SENTINEL2.response(band) for band in (*RGB, "nir")})


@dataclass
class FakeUpscaler:
    """A network given as a function of the upsampled tiles; what `upscale_chunk` needs of an Upscaler."""

    descriptor: ModelDescriptor
    network: Callable[[Tensor], Tensor]
    batch: int = 5
    device: torch.device = torch.device("cpu")
    whole: bool = True

    def outputs(self, tiles: Tensor, *, uncertainty: bool) -> tuple[Tensor, ...]:
        assert not uncertainty
        scale = self.descriptor.scale
        return (self.network(tiles.repeat_interleave(scale, 2).repeat_interleave(scale, 3)),)


def fake(
    network: Callable[[Tensor], Tensor], scale: int = 4, tile: int = 32, halo: int = 2, overlap: int = 6
) -> FakeUpscaler:
    descriptor = ModelDescriptor(
        name="fake", scale=scale, bands=RGB, tile=tile, halo=halo, overlap=overlap,
        multiple=1, sha256="0" * 64, kind="student", licence="none",
    )  # fmt: skip
    return FakeUpscaler(descriptor, network)


def sees_the_whole_tile(x: Tensor) -> Tensor:
    """Depends on every pixel of the tile, like global attention."""
    mean = x.mean((2, 3), keepdim=True)
    return (x + 0.05 * torch.sin(9 * mean + 5 * x.roll(3, 2)) * mean).clamp(-1, 1)


class Raster:
    """A scene in memory: stored numbers [band, y, x] over a window, 0 beyond it."""

    def __init__(self, window: Window, bands: Sequence[str], data: NDArray[np.uint16]) -> None:
        self.window, self.bands, self.data = window, tuple(bands), data

    def read(self, bands: Sequence[str], window: Window) -> NDArray[np.uint16]:
        out = np.zeros((len(bands), window.height, window.width), np.uint16)
        common = window.intersect(self.window)
        if common:
            rows, cols = common.within(self.window)
            out[(slice(None), *common.within(window))] = [self.data[self.bands.index(b), rows, cols] for b in bands]
        return out

    def cut(self, window: Window) -> "Raster":
        return Raster(window, self.bands, self.read(self.bands, window))


def landscape(height: int, width: int, bands: Sequence[str] = RGB, holes: bool = True) -> Raster:
    """Hills and sharp fields at an odd place of the lattice; nodata along a swath edge and in spots."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:height, :width]
    data = []
    for index in range(len(bands)):
        hills = 2500 + 900 * np.sin(x / 17 + index) * np.cos(y / 23) + 1500 * ((x // 19 + y // 31) % 2)
        data.append(hills + rng.normal(0, 60, hills.shape))
    dn = np.clip(np.rint(data), 1, 65535).astype(np.uint16)
    if holes:
        dn[:, y + 2 * x < height // 2] = 0
        dn[:, 40:44, 50:57] = 0
        dn[0, 60:62, 20:22] = 0  # one band only
        dn[:, 50, 30], dn[:, 51, 31] = 1, 65535
    return Raster(Window(-517, 1003, height, width), bands, dn)


def mosaic(
    raster: Raster,
    model: FakeUpscaler | Upscaler,
    chunk: int,
    bands: Sequence[str] = RGB,
    window: Window | None = None,
    consistency: Consistency = MEANS,
    limit: int = 0,
    uncertainty: bool = False,
) -> NDArray[np.uint16]:
    """The bands and, with `uncertainty`, how far they may be off, each number for its square of pixels."""
    window, scale = window or raster.window, model.descriptor.scale
    planes = len(bands) * (1 + uncertainty)
    out = np.zeros((planes, window.height * scale, window.width * scale), np.uint16)
    with Tiles(model, consistency, limit) as tiles:  # type: ignore[arg-type]
        for _, part in chunks(window, chunk):
            rows, cols = (slice(s.start * scale, s.stop * scale) for s in part.within(window))
            made = upscale_chunk(raster.read, raster.bands, part, bands, tiles, uncertainty=uncertainty, mosaic=window)
            for k, each in enumerate(made):
                side = (scale // DETAIL) ** k
                out[k * len(bands) : (k + 1) * len(bands), rows, cols] = each.repeat(side, 1).repeat(side, 2)
    return out


@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize("chunk", [128, 50, 33])
def test_nearest_through_chunks_and_tiles_is_nearest_of_the_whole(scale: int, chunk: int) -> None:
    raster = landscape(110, 128)
    out = mosaic(raster, fake(lambda x: x, scale), chunk)
    np.testing.assert_array_equal(out, raster.data.repeat(scale, 1).repeat(scale, 2))


@pytest.mark.parametrize("consistency", [SENSOR, MEANS])
def test_chunk_size_does_not_matter_for_a_network_that_sees_its_whole_tile(consistency: Consistency) -> None:
    raster = landscape(150, 130)
    whole = mosaic(raster, fake(sees_the_whole_tile), 512, consistency=consistency).astype(int)
    assert len(np.unique(whole[0] - raster.data[0].repeat(4, 0).repeat(4, 1).astype(int))) > 50, "the fake did nothing"
    for chunk in (32, 61, 100):
        parts = mosaic(raster, fake(sees_the_whole_tile), chunk, consistency=consistency)
        assert np.abs(parts - whole).max() <= 1


def test_a_cache_spares_the_network_and_changes_nothing() -> None:
    raster = landscape(150, 130)
    ran: list[int] = []

    def counted(x: Tensor) -> Tensor:
        ran.append(len(x))
        return sees_the_whole_tile(x)

    model = fake(counted)
    tiling = tiling_of(model.descriptor)
    whole = len({tile for _, part in chunks(raster.window, 40) for tile in tiling.tiles(part)})
    alone = mosaic(raster, fake(sees_the_whole_tile), 40, consistency=SENSOR)
    for limit in (1 << 30, 0):
        ran.clear()
        out = mosaic(raster, model, 40, consistency=SENSOR, limit=limit)
        np.testing.assert_array_equal(out, alone)
        # Tiles without a valid pixel are not run at all, hence "<=".
        assert sum(ran) <= whole if limit else sum(ran) > 1.3 * whole


@pytest.mark.parametrize("chunk", [40, 512])
def test_no_tile_is_kept_that_no_other_chunk_needs(chunk: int) -> None:
    raster, model = landscape(150, 130), fake(sees_the_whole_tile)
    parts = [part for _, part in chunks(raster.window, chunk)]
    with Tiles(model, SENSOR, 1 << 30) as tiles:  # type: ignore[arg-type]
        for part in parts:
            upscale_chunk(raster.read, raster.bands, part, RGB, tiles, mosaic=raster.window)
        kept = {tile for _, tile in tiles._cache}
    needed = [set(tiling_of(model.descriptor).tiles(part)) for part in parts]
    assert kept <= {tile for tile in set().union(*needed) if sum(tile in each for each in needed) > 1}
    assert bool(kept) == (len(parts) > 1)


def test_two_scenes_agree_on_ground_whose_tiles_both_have() -> None:
    big = landscape(200, 200)
    model = fake(sees_the_whole_tile)
    ground = Window(big.window.row + 60, big.window.col + 70, 50, 40)
    margin = model.descriptor.tile
    small = big.cut(ground.grow(margin))
    assert small.window.intersect(big.window) == small.window
    one, other = (mosaic(raster, model, 64, window=ground).astype(int) for raster in (big, small))
    assert np.abs(one - other).max() <= 1
    bare = mosaic(big.cut(ground), model, 64).astype(int)
    assert np.abs(one - bare).max() > 1, "without the margin they differ: the margin is what this test is about"


@pytest.mark.parametrize("network", [lambda x: x, sees_the_whole_tile])
def test_block_means_are_the_scene_where_means_hold(network: Callable[[Tensor], Tensor]) -> None:
    raster = landscape(96, 96)
    out = mosaic(raster, fake(network, 8), 48).astype(np.float64)
    means = out.reshape(3, 96, 8, 96, 8).mean((2, 4))
    valid = raster.data > 0
    error = np.abs(means - raster.data)[valid]
    assert error.mean() <= 1 and np.percentile(error, 99) <= 2
    nodata = (~valid).repeat(8, 1).repeat(8, 2)
    assert (out[nodata] == 0).all() and (out[~nodata] >= 1).all()


@pytest.mark.parametrize("network", [lambda x: x, sees_the_whole_tile])
@pytest.mark.parametrize("scale", [4, 8])
def test_seen_by_the_sensor_the_mosaic_is_the_scene(network: Callable[[Tensor], Tensor], scale: int) -> None:
    """Away from nodata, in the units of the noise; the blur is scipy's."""
    raster = landscape(96, 120)
    raster.data[:, 50:52, 30:32] = 2500  # no spikes, whose surroundings would leave the range of numbers
    out = mosaic(raster, fake(network, scale), 48, consistency=SENSOR).astype(np.float64)
    whole = binary_erosion((raster.data > 0).all(0), np.ones((7, 7)))
    assert whole.sum() > 4000
    for band, made, scene in zip(RGB, out, raster.data, strict=True):
        response = SENSOR.responses[band]
        # An even number of taps: their middle is where four pixels meet, the centre of one of the scene.
        places = np.arange(-4 * scale, 4 * scale) + 0.5
        taps = np.exp(-0.5 * (places / (scale * response.sigma)) ** 2)
        blurred = made
        for axis in (0, 1):
            blurred = correlate1d(blurred, taps / taps.sum(), axis, mode="nearest")
        middle = blurred[scale // 2 :: scale, scale // 2 :: scale]
        left = (scene - middle)[whole]
        dark, slope = response.noise()
        noise = np.sqrt(dark + slope * np.maximum(scene[whole] * 1e-4 - 0.1, 0)) * 1e4
        assert np.sqrt(((left / noise) ** 2).mean()) <= 1
        assert abs(left.mean()) < 0.5
    nodata = (raster.data == 0).repeat(scale, 1).repeat(scale, 2)
    assert (out[nodata] == 0).all() and (out[~nodata] >= 1).all()


@pytest.mark.slow
def test_a_bias_of_each_tile_leaves_no_seam() -> None:
    raster = landscape(400, 400, holes=False)
    raster.data //= 2  # with the bias still below the knee: above it the map would change contrast as well
    scale = 4

    def smooth(x: Tensor) -> Tensor:
        return torch.nn.functional.interpolate(x[:, :, ::scale, ::scale], scale_factor=scale, mode="bilinear")

    def biased(x: Tensor) -> Tensor:
        return smooth(x) + 0.15 + 0.15 * torch.sin(1e4 * x.mean((1, 2, 3), keepdim=True))

    model = fake(biased)
    tiling = tiling_of(model.descriptor)
    # Where a ramp starts or ends is where a tile's border could show.
    borders = sorted(
        {
            (tile.row - raster.window.row + at) * scale
            for tile in tiling.tiles(raster.window)
            for at in (tiling.halo, tiling.halo + tiling.overlap)
        }
    )
    for held in (MEANS, SENSOR):
        one, other = (mosaic(raster, m, 128, consistency=held)[0].astype(np.float64) for m in (model, fake(smooth)))
        assert abs(seam_ratio(one, borders, borders) / seam_ratio(other, borders, borders) - 1) <= 0.02
    flats = torch.linspace(-0.6, -0.5, 50).view(50, 1, 1, 1).expand(50, 3, 8, 8)
    bias = (biased(flats) - smooth(flats)).mean((1, 2, 3)) * 3333
    assert bias.std() > 300, "the network alone is hundreds of DN apart from tile to tile"


def test_a_network_that_gives_nan_is_an_error_and_no_picture() -> None:
    raster = landscape(64, 64)
    with pytest.raises(ModelError, match="NaN"):
        mosaic(raster, fake(lambda x: torch.where(x > 0, torch.nan, x)), 64)


def test_no_valid_pixel_needs_no_network() -> None:
    raster = Raster(Window(0, 0, 40, 40), RGB, np.zeros((3, 40, 40), np.uint16))

    def never(x: Tensor) -> Tensor:
        raise AssertionError("the network was run")

    assert (mosaic(raster, fake(never), 20) == 0).all()


def test_one_pixel_is_a_scene() -> None:
    raster = Raster(Window(7, 9, 1, 1), RGB, np.full((3, 1, 1), 1234, np.uint16))
    np.testing.assert_array_equal(mosaic(raster, fake(lambda x: x), 512), 1234)


def test_other_bands_go_through_a_false_colour_triple_under_the_same_consistency() -> None:
    bands = (*RGB, "nir")
    raster = landscape(80, 70, bands)
    seen: list[Tensor] = []

    def spy(x: Tensor) -> Tensor:
        seen.append(x[:, :, ::4, ::4])
        return sees_the_whole_tile(x)

    out = mosaic(raster, fake(spy), 80, ("nir", "red")).astype(np.float64)
    for index, band in enumerate(("nir", "red")):
        lr = raster.data[bands.index(band)]
        error = np.abs(out[index].reshape(80, 4, 70, 4).mean((1, 3)) - lr)[lr > 0]
        assert error.mean() <= 1 and np.percentile(error, 99) <= 2
    tile = tiling_of(fake(spy).descriptor).tiles(raster.window)[5]
    triple = to_network(torch.from_numpy(fill_nodata(raster.read(("nir", "red", "green"), tile))))
    assert (torch.cat(seen) - triple).abs().amax((1, 2, 3)).min() == 0


@pytest.mark.parametrize(
    ("bands", "available", "expected"),
    [
        (RGB, RGB, [Pass(RGB, ((0, "red"), (1, "green"), (2, "blue")))]),
        (("blue", "red"), RGB, [Pass(RGB, ((0, "red"), (2, "blue")))]),
        (("nir",), (*RGB, "nir"), [Pass(("nir", "red", "green"), ((0, "nir"),))]),
        (
            ("red", "nir"),
            ("red", "nir"),
            [Pass(("red", "red", "red"), ((0, "red"),)), Pass(("nir", "red", "nir"), ((0, "nir"),))],
        ),
        (
            ("red", "swir16"),
            (*RGB, "swir16"),
            [Pass(RGB, ((0, "red"),)), Pass(("swir16", "red", "green"), ((0, "swir16"),))],
        ),
    ],
)
def test_which_bands_go_through_the_network_together(
    bands: tuple[str, ...], available: tuple[str, ...], expected: list[Pass]
) -> None:
    assert passes(bands, available, RGB) == expected


@pytest.mark.parametrize(
    ("bands", "available", "expected"),
    [
        ((*RGB, "nir"), (*RGB, "nir"), [Pass((*RGB, "nir"), tuple(enumerate((*RGB, "nir"))))]),
        (("nir",), (*RGB, "nir"), [Pass((*RGB, "nir"), ((3, "nir"),))]),
        (RGB, RGB, [Pass((*RGB, "red"), ((0, "red"), (1, "green"), (2, "blue")))]),
        (
            ("red", "swir16"),
            (*RGB, "swir16"),
            [Pass((*RGB, "red"), ((0, "red"),)), Pass(("swir16",) * 4, ((0, "swir16"),))],
        ),
        (("red",), ("red", "nir"), [Pass(("red",) * 4, ((0, "red"),))]),
    ],
)
def test_a_network_of_four_bands_is_given_what_it_has_learned_to_be_without(
    bands: tuple[str, ...], available: tuple[str, ...], expected: list[Pass]
) -> None:
    assert passes(bands, available, (*RGB, "nir")) == expected


def test_dark_pixels_are_there_in_the_mosaic(tmp_path: Path) -> None:
    dn, meant = strangers.speckled()
    scene = open_scene(strangers.tiff(tmp_path / "s.tif", dn))
    with Tiles(load("nearest", 4), MEANS) as tiles:
        (sr,) = upscale_chunk(scene.read, scene.bands, strangers.WINDOW, ("red", "blue"), tiles)
    np.testing.assert_array_equal(sr, meant[[0, 2]].repeat(4, 1).repeat(4, 2))


FOUR = (*RGB, "nir")


def blended_deviations(raster: Raster, model: Upscaler) -> NDArray[np.float64]:
    """What the model says of each tile [band, y, x], averaged in float64 by the depth of each number in its ramps."""
    tiling = tiling_of(model.descriptor)
    across = np.arange(tiling.size * DETAIL) + 0.5
    depth = np.minimum(across, tiling.size * DETAIL - across) - tiling.halo * DETAIL
    ramp = np.clip(depth / (tiling.overlap * DETAIL), 0, 1)
    whole = raster.window.grow(tiling.size)
    total = np.zeros((len(FOUR), whole.height * DETAIL, whole.width * DETAIL))
    weight = np.zeros(total.shape[1:])
    for tile in tiling.tiles(raster.window):
        if (numbers := raster.read(FOUR, tile)).any():
            low = torch.from_numpy(to_network(fill_nodata(numbers)))[None]
            said = model.outputs(low, uncertainty=True)[1][0]
            rows, cols = (slice(s.start * DETAIL, s.stop * DETAIL) for s in tile.within(whole))
            total[:, rows, cols] += np.outer(ramp, ramp) * said.double().numpy()
            weight[rows, cols] += np.outer(ramp, ramp)
    rows, cols = (slice(s.start * DETAIL, s.stop * DETAIL) for s in raster.window.within(whole))
    blended = total[:, rows, cols] / np.maximum(weight[rows, cols], 1e-9)
    side = model.descriptor.scale // DETAIL
    return np.asarray(blended.repeat(side, 1).repeat(side, 2))


def test_the_uncertainty_is_what_the_model_says_of_each_tile_blended(sure_student: Path) -> None:
    raster, model = landscape(70, 64, FOUR), load(str(sure_student), 4)
    valid = (raster.data > 0).repeat(4, 1).repeat(4, 2)
    expected = np.where(valid, blended_deviations(raster, model).clip(1, 65535), 0)
    plain = mosaic(raster, model, 512, FOUR, consistency=SENSOR)
    whole = mosaic(raster, model, 512, FOUR, consistency=SENSOR, uncertainty=True)
    np.testing.assert_array_equal(whole[:4], plain)
    # Rounded to whole numbers, after sums in float32.
    assert (np.abs(whole[4:] - expected) <= 0.501 + expected / 1e5).all()
    assert abs(whole[4:][valid].mean() / expected[valid].mean() - 1) < 0.002, "halves are rounded either way"
    np.testing.assert_array_equal(whole[4:] > 0, valid)
    assert all(plane[plane > 0].std() > 5 for plane in whole[4:]), "a map that is the same everywhere tells nothing"

    parts = mosaic(raster, model, 27, FOUR, consistency=SENSOR, uncertainty=True, limit=1 << 30)
    np.testing.assert_array_equal(parts, whole)
    some = mosaic(raster, model, 512, ("nir", "green"), consistency=SENSOR, uncertainty=True)
    np.testing.assert_array_equal(some, whole[[3, 1, 7, 5]])
    inner = Window(raster.window.row + 24, raster.window.col + 24, 30, 20)
    window = mosaic(raster, model, 512, FOUR, inner, SENSOR, uncertainty=True)
    np.testing.assert_array_equal(window, whole[:, 96:216, 96:176])


@pytest.mark.parametrize(("deviation", "limit"), [(1e-4, 1), (1e6, 65535)])
def test_an_uncertainty_stays_in_the_range_of_numbers(deviation: float, limit: int) -> None:
    """Where the pixel is valid it is neither 0, which is nodata, nor more than can be stored."""

    @dataclass
    class Doubtful(FakeUpscaler):
        def outputs(self, tiles: Tensor, *, uncertainty: bool) -> tuple[Tensor, ...]:
            (image,) = super().outputs(tiles, uncertainty=False)
            return (image, torch.full_like(image, deviation)[..., ::2, ::2]) if uncertainty else (image,)

    raster = landscape(60, 70)
    model = Doubtful(fake(lambda x: x).descriptor, lambda x: x)
    out = mosaic(raster, model, 64, consistency=SENSOR, uncertainty=True)
    np.testing.assert_array_equal(out[3:], limit * (raster.data > 0).repeat(4, 1).repeat(4, 2))
