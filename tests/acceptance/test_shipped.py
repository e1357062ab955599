"""The students that come with rsup: their files, their cards, and that they are better than interpolation."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from places import RECIPES, SHARED
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter

from rsup.models.base.radiometry import from_network, to_network
from rsup.models.consistency import hold
from rsup.models.degradation.sensor import SensorDegradation
from rsup.models.evaluate import EvaluateRequest, evaluate
from rsup.models.networks.interpolation import interpolator
from rsup.models.registry import SHIPPED, descriptor_of
from rsup.models.show import show_model
from rsup.models.training.recipe import load_recipe
from rsup.models.upscaler import load
from rsup.models.weights_file import read_header

COMPACT_RECIPES = RECIPES / "compact"
CARD = ("Use", "Data", "Training", "Figures", "Known failures", "Licence")
"""Sections of a model card."""
LAST = {
    "compact-x4": "student-x4-uncertainty",
    "compact-x8": "student-x8-uncertainty",
    "sharp-x4": "student-x4-sharp-finish",
    "sharp-x8": "student-x8-sharp-finish",
}
"""The recipe of each file's last part."""
FAMILIES = pytest.mark.parametrize("family", ["faithful", "sharp"])


@FAMILIES
@pytest.mark.parametrize("scale", [4, 8])
def test_each_keeps_its_budget(family: str, scale: int) -> None:
    shown = show_model(descriptor_of(family, scale).name)
    path = Path(str(shown["path"]))
    assert shown["scales"] == [scale] and shown["licence"] == "Apache-2.0"
    assert shown["parameters"] <= 4e6 and shown["gmac_512"] <= 60 and path.stat().st_size <= 10e6
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.safetensors")), ids=lambda path: path.stem)
def test_card_and_recipe_belong_to_the_file(path: Path) -> None:
    header, _ = read_header(path)
    card = path.with_suffix(".md").read_text()
    assert re.findall(r"^## (.*)$", card, re.M) == list(CARD)
    assert descriptor_of(str(path), header.scale).sha256 in card
    last = LAST[path.stem]
    recipe = load_recipe(COMPACT_RECIPES / f"{last}.toml")
    # Read as a recipe: settings that are younger than the file had their defaults.
    theirs = type(recipe).model_validate({**(header.recipe or {}), "initialise": recipe.initialise})
    assert theirs == recipe.model_copy(update={"teacher": None})
    assert f"{recipe.steps:,} steps" in card and f"recipes/compact/{last}.toml" in card


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the imagery")
@pytest.mark.parametrize(("scale", "gain"), [(4, 1.5), (8, 0.8)])
def test_it_restores_what_the_sensor_lost(scale: int, gain: float) -> None:
    images = SHARED / "data/hr/naip_ca_0.6m"
    result = evaluate(EvaluateRequest("default", images, scale, "sentinel2", limit=2, device="cpu"))
    bicubic = result["bicubic"]
    assert result["psnr_y"] > bicubic["psnr_y"] + gain and result["ssim_y"] > bicubic["ssim_y"]
    assert result["spectrum_rmse"] < 0.5 * bicubic["spectrum_rmse"]


@pytest.mark.parametrize("scale", [4, 8])
def test_it_invents_nothing_on_flat_ground(scale: int) -> None:
    """Water, soil and cloud without structure stay so, within a third of the sensor's own noise (some 50 DN)."""
    model = load("faithful", scale)
    for reflectance in (0.02, 0.1, 0.35, 0.9):
        dn = torch.full((1, 4, 32, 32), reflectance * 1e4 + 1000)
        inside = from_network(model(to_network(dn)))[..., 4 * scale : -4 * scale, 4 * scale : -4 * scale]
        assert inside.std() < 16 and abs(float(inside.mean()) - dn[0, 0, 0, 0]) < 10, reflectance


@pytest.mark.parametrize("scale", [4, 8])
def test_the_product_of_a_sharp_one_invents_nothing_on_flat_ground(scale: int) -> None:
    """Within a third of the sensor's noise, once it is held to the scene."""
    model = load("sharp", scale)
    responses = SensorDegradation(bands=model.descriptor.bands).responses  # type: ignore[arg-type]
    for reflectance in (0.02, 0.1, 0.35, 0.9):
        dn = torch.full((1, 4, 32, 32), reflectance * 1e4 + 1000)
        made = hold(from_network(model(to_network(dn))), dn, scale, responses)
        inside = made[..., 4 * scale : -4 * scale, 4 * scale : -4 * scale]
        assert inside.std() < 16 and abs(float(inside.mean()) - dn[0, 0, 0, 0]) < 1, reflectance


@pytest.mark.parametrize("scale", [4, 8])
@pytest.mark.parametrize(("name", "more"), [("faithful", 1.2), ("sharp", 1.6)])
def test_bfloat16_makes_no_texture_of_its_own_steps(name: str, more: float, scale: int) -> None:
    """Of the sensor's noise on even ground about what float32 makes; rounded images would come in steps of 13 DN."""
    network = load(name, scale, arithmetic="float32").network
    responses = SensorDegradation(bands=descriptor_of(name, scale).bands).responses  # type: ignore[arg-type]
    noise = torch.randn(1, 4, 40, 40, generator=torch.manual_seed(0))
    for reflectance in (0.02, 0.2, 0.6, 0.9, 1.1):
        widths = [math.sqrt(dark + slope * reflectance) * 1e4 for dark, slope in (each.noise() for each in responses)]
        low = to_network(reflectance * 1e4 + 1000 + torch.tensor(widths)[:, None, None] * noise)
        with torch.inference_mode():
            exact = from_network(network(low))
            with torch.autocast("cpu", torch.bfloat16):
                rounded = from_network(network(low))
        ours, theirs = (made[..., 4 * scale : -4 * scale, 4 * scale : -4 * scale].std() for made in (rounded, exact))
        assert ours < more * theirs, reflectance


@FAMILIES
@pytest.mark.parametrize("scale", [4, 8])
def test_near_infrared_gets_detail_as_red_does(family: str, scale: int) -> None:
    """More than a quarter of it: a band without any is what terms against patterns are best served by."""
    network, enlarge = load(family, scale, arithmetic="float32").network, interpolator("bicubic", scale)
    rng = np.random.default_rng(0)
    fields = rng.uniform(1300, 3500, (4, 12, 20)).repeat(8, 1).repeat(8, 2)
    low = to_network(torch.from_numpy(gaussian_filter(fields, (0, 0.5, 0.5))[None]))
    with torch.inference_mode():
        red, _, _, nir = (network(low) - enlarge(low)).std((0, 2, 3))
    assert nir > red / 4


@pytest.mark.parametrize("scale", [4, 8])
def test_what_lies_beyond_a_tile_hardly_moves_it(scale: int) -> None:
    """Ground of fields, roads and noise, of which one tile sees all and another ends amid it: from its halo on they
    differ by less than a tenth of what they do where it ends.
    """
    model = load("default", scale)
    halo, responses = model.descriptor.halo, SensorDegradation(bands=model.descriptor.bands).responses  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    fields = rng.uniform(1300, 3500, (4, 12, 20)).repeat(8, 1).repeat(8, 2)
    fields[:, :, 30::40] = 4000
    whole = torch.from_numpy((gaussian_filter(fields, (0, 0.5, 0.5)) + rng.normal(0, 15, fields.shape)).round()).float()
    made = []
    for dn in (whole[None], whole[None, :, :, 60:]):  # it ends amid a field
        made.append(hold(from_network(model(to_network(dn))), dn, scale, responses)[0])
    off = (made[0][..., 60 * scale :] - made[1]).square().mean((0, 1)).unflatten(0, (-1, scale)).mean(1).sqrt()
    assert off[halo:].square().mean().sqrt() < off[0] / 10
