"""The compact student against bicubic interpolation, its budget, its file, and a teacher of its own kind."""

import math
from pathlib import Path

import pytest
import torch
from places import RECIPES
from safetensors.torch import load_file

from rsup.models.base.errors import RecipeError
from rsup.models.base.intervals import WIDER
from rsup.models.base.radiometry import from_network, to_network
from rsup.models.losses.distillation import Distillation, DistillationConfig, FeatureTaps
from rsup.models.methods.slimdiffsr_student import StudentTask
from rsup.models.networks.architectures import tiles_of
from rsup.models.networks.compact import CompactConfig, CompactStudent
from rsup.models.networks.interpolation import interpolator
from rsup.models.networks.phases import balanced
from rsup.models.networks.slimdiffsr.student import Student
from rsup.models.networks.slimdiffsr.unet import PixelNorm
from rsup.models.registry import descriptor_of
from rsup.models.show import show_model, student_counts
from rsup.models.training.recipe import StudentRecipe, load_recipe
from rsup.models.training.task import Pair
from rsup.models.upscaler import Upscaler, load
from rsup.models.weights_file import load_student, save_weights, student_header

RECIPE = RECIPES / "slimdiffsr/smoke-student.toml"


def tiny(scale: int, width: int = 16) -> CompactStudent:
    """A small one that does something: its last convolution is not zero."""
    torch.manual_seed(width)
    config = CompactConfig(
        scale=scale, channels=(width, 2 * width), deep_channels=4 * width, queries=4, squeeze=8, shuffled=8
    )
    network = CompactStudent(config).eval()
    torch.nn.init.normal_(network.last.weight, std=0.05)
    return network


@pytest.mark.parametrize("scale", [4, 8])
def test_untrained_it_is_bicubic_interpolation(scale: int) -> None:
    low = torch.rand(2, 3, 20, 12) * 2 - 1
    torch.testing.assert_close(CompactStudent(CompactConfig(scale=scale))(low), interpolator("bicubic", scale)(low))


@pytest.mark.parametrize("scale", [4, 8])
def test_the_default_keeps_its_budget(scale: int) -> None:
    counts = student_counts(CompactConfig(scale=scale))
    assert counts["parameters"] == counts["parameters_as_published"] < 4e6
    # A tenth of the published student's 226.7.
    assert counts["gmac_512"] < 22


def test_every_parameter_learns() -> None:
    network = tiny(4)
    network(torch.rand(1, 3, 16, 16)).square().mean().backward()
    silent = [name for name, parameter in network.named_parameters() if parameter.grad is None]
    assert not silent


def test_a_position_is_normalised_by_its_own_channels() -> None:
    norm = PixelNorm(6, 1e-5)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(2, 6, 5, 4, dtype=torch.float64)
    mean, variance = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
    expected = (x - mean) / (variance + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    torch.testing.assert_close(norm.double()(x), expected)
    kinds = [type(module) for name, module in tiny(4).named_modules() if "norm" in name.rpartition(".")[2]]
    assert PixelNorm in kinds and torch.nn.GroupNorm not in kinds


def test_sides_that_do_not_halve_are_refused() -> None:
    with pytest.raises(ValueError, match="5 x 4 image: both sides must be multiples of 2"):
        tiny(4)(torch.zeros(1, 3, 4, 5))


@pytest.mark.parametrize("scale", [4, 8])
def test_the_upscaler_gives_it_low_resolution_of_any_size(tmp_path: Path, scale: int) -> None:
    network, path = tiny(scale), tmp_path / "compact.safetensors"
    header = student_header(network.config, scale, licence="Apache-2.0", source="random numbers")
    save_weights(path, network.state_dict(), header)
    wanted = network.state_dict()
    for name, tensor in load_student(path).state_dict().items():
        assert torch.equal(tensor, wanted[name])
    if scale == 4:
        shown = show_model(str(path))
        assert shown["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    assert descriptor_of(str(path), scale).multiple == 2 * scale

    upscaler = load(str(path), scale)
    assert isinstance(upscaler, Upscaler)
    low = torch.rand(2, 3, 11, 14) * 2 - 1
    padded = torch.cat([low, low[..., -1:, :]], -2)
    with torch.no_grad():
        expected = network(padded)[..., : 11 * scale, :]
    torch.testing.assert_close(upscaler(low), expected, atol=0.02 if upscaler.precision else 1e-4, rtol=0)


def test_a_larger_one_teaches_it(tmp_path: Path) -> None:
    small, large = tiny(4), tiny(4, 32)
    distillation = Distillation(small.unet, large.unet, DistillationConfig())
    assert distillation.student_levels == distillation.teacher_levels
    low = torch.rand(1, 3, 16, 16)
    with FeatureTaps(small.unet, distillation.student_levels) as ours:
        small(low)
    with FeatureTaps(large.unet, distillation.teacher_levels) as theirs, torch.no_grad():
        large(low)
    terms = distillation(ours.features, theirs.features)
    assert set(terms) == {"mse", "mmd"} and all(term > 0 for term in terms.values())


COMPACT = [
    'student={architecture="compact-student", scale=4, channels=[16, 32], deep_channels=64}',
    "initialise=random",
]
NO_TEACHER = ["distillation.mse=0", "distillation.mmd=0"]


def test_a_recipe_names_its_architecture() -> None:
    recipe = load_recipe(RECIPE, [*COMPACT, *NO_TEACHER])
    assert isinstance(recipe, StudentRecipe) and recipe.student == CompactConfig(
        scale=4, channels=(16, 32), deep_channels=64
    )
    task = StudentTask(recipe)
    assert isinstance(task.student, CompactStudent) and task.licence == "Apache-2.0"
    assert not isinstance(task.student, Student)
    with pytest.raises(RecipeError, match="made for x4, the recipe for x8"):
        load_recipe(RECIPE, [*COMPACT, "scale=8"])
    with pytest.raises(RecipeError, match='set initialise = "random"'):
        load_recipe(RECIPE, COMPACT[:1])
    with pytest.raises(RecipeError, match=r"student\.compact-student\.fused"):
        load_recipe(RECIPE, [*COMPACT, "student.fused=true"])


def test_a_teacher_of_another_scale_cannot_be_learned_from(tmp_path: Path) -> None:
    teacher = tiny(8, 32)
    path = tmp_path / "teacher.safetensors"
    save_weights(path, teacher.state_dict(), student_header(teacher.config, 8, licence="CC-BY-4.0", source="made"))
    recipe = load_recipe(RECIPE, [*COMPACT, f"teacher={path}"])
    assert isinstance(recipe, StudentRecipe)
    with pytest.raises(RecipeError, match="was trained for x8, this recipe is for x4"):
        StudentTask(recipe)


def test_training_goes_on_from_a_weights_file_and_writes_half_precision(tmp_path: Path) -> None:
    path = tmp_path / "first.safetensors"
    config = CompactConfig(scale=4, channels=(16, 32), deep_channels=64)
    torch.manual_seed(3)
    first = CompactStudent(config)
    save_weights(path, first.state_dict(), student_header(config, 4, licence="CC-BY-4.0", source="random numbers"))

    going_on = [*COMPACT[:1], f"initialise={path}", *NO_TEACHER, "weights=float16"]
    task = StudentTask(load_student_recipe(going_on))
    assert task.licence == "CC-BY-4.0"
    wanted = first.state_dict()
    for name, tensor in task.student.state_dict().items():
        assert torch.equal(tensor, wanted[name])

    out = tmp_path / "half.safetensors"
    task.export(out, "images", {})
    assert out.stat().st_size < 0.6 * path.stat().st_size
    assert {tensor.dtype for tensor in load_file(out).values()} == {torch.float16}
    half = load_student(out)
    for name, tensor in half.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, wanted[name], atol=1e-4, rtol=1e-3)

    wider = 'student={architecture="compact-student", scale=4, channels=[24, 32], deep_channels=64}'
    with pytest.raises(RecipeError, match="cannot grow from: a student of other widths"):
        StudentTask(load_student_recipe([wider, *going_on[1:]]))
    eight = 'student={architecture="compact-student", scale=8, channels=[16, 32], deep_channels=64}'
    with pytest.raises(RecipeError, match="trained for x4, this recipe is for x8"):
        StudentTask(load_student_recipe([eight, "scale=8", *going_on[1:]]))


def load_student_recipe(overrides: list[str]) -> StudentRecipe:
    recipe = load_recipe(RECIPE, overrides)
    assert isinstance(recipe, StudentRecipe)
    return recipe


@pytest.mark.parametrize("local", [True, False])
def test_a_local_student_does_not_see_what_lies_far_away(local: bool) -> None:
    """Nor how large the tile is: its far corner is another, and then it is not there."""
    torch.manual_seed(0)
    settings = {"scale": 4, "bands": 4, "local": local, "channels": (16, 32), "deep_channels": 32, "blocks": 1}
    student = CompactStudent(CompactConfig.model_validate(settings)).eval()
    torch.nn.init.normal_(student.last.weight, std=0.1)
    image = torch.rand(1, 4, 96, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    other = image.clone()
    other[..., 72:, 72:] = 1
    with torch.no_grad():
        out, changed, smaller = (student(each)[..., :128, :128] for each in (image, other, image[..., :72, :72]))
    assert out.shape == (1, 4, 128, 128)
    same = [torch.allclose(out, each, rtol=0, atol=1e-5) for each in (changed, smaller)]
    assert same == [local, local]


def test_a_file_of_four_bands_is_counted_and_run(tmp_path: Path) -> None:
    config = CompactConfig(scale=4, bands=4, local=True, channels=(16, 32), deep_channels=32)
    bands = ("red", "green", "blue", "nir")
    path = tmp_path / "four.safetensors"
    student = CompactStudent(config)
    save_weights(path, student.state_dict(), student_header(config, 4, bands=bands, licence="x", source="y"))
    assert descriptor_of(str(path), 4).bands == bands
    assert show_model(str(path))["parameters"] == sum(each.numel() for each in student.parameters())
    tiles = torch.rand(2, 4, 24, 20) * 2 - 1
    torch.testing.assert_close(load(str(path), 4)(tiles), interpolator("bicubic", 4)(tiles))


def test_gates_of_a_local_student_are_trained() -> None:
    settings = {"scale": 4, "local": True, "channels": (16, 32), "deep_channels": 32}
    student = CompactStudent(CompactConfig.model_validate(settings))
    assert not [name for name, _ in student.named_modules() if name.endswith("attn1")]
    torch.nn.init.normal_(student.last.weight, std=0.1)
    student(torch.rand(1, 3, 16, 16)).square().mean().backward()
    levels = [each for name, each in student.named_parameters() if name.endswith(".level")]
    assert levels and all(each.grad is not None and each.grad.abs().sum() > 0 for each in levels)


def grown(config: CompactConfig, known: CompactStudent) -> CompactStudent:
    student = CompactStudent(config).eval()
    student.adopt(known)
    return student


def test_a_student_grows_a_band_and_a_second_head() -> None:
    """What it gave of three equal bands it gives of four; the fourth leaves as the first does."""
    torch.manual_seed(1)
    settings = CompactConfig(scale=4, local=True, channels=(16, 32), deep_channels=32)
    known = CompactStudent(settings).eval()
    torch.nn.init.normal_(known.last.weight, std=0.1)
    student = grown(settings.model_copy(update={"bands": 4, "uncertainty": True}), known)
    low = (torch.rand(1, 1, 16, 16) * 2 - 1).expand(-1, 4, -1, -1)
    with torch.no_grad():
        wanted, bicubic = known(low[:, :3]), interpolator("bicubic", 4)(low)
        (image, deviation), plain = student.with_uncertainty(low), student(low)
    torch.testing.assert_close(image[:, :3], wanted)
    torch.testing.assert_close((image - bicubic)[:, 3], (image - bicubic)[:, 0])
    assert torch.equal(image, plain)
    assert deviation.shape == (1, 4, 32, 32) and deviation.min() > 0


def test_channels_at_output_size_that_a_student_grows_change_nothing_and_learn() -> None:
    torch.manual_seed(1)
    known = tiny(4)
    torch.nn.init.normal_(known.last.weight, std=0.1)
    student = grown(known.config.model_copy(update={"shuffled": known.config.shuffled + 4}), known)
    low = torch.rand(1, 3, 16, 16) * 2 - 1
    torch.testing.assert_close(student(low), known(low))
    student(low).square().mean().backward()
    gradient = student.last.weight.grad
    assert gradient is not None and (gradient[:, -4:].abs().sum((0, 2, 3)) > 0).all()


def test_a_student_loses_its_queries() -> None:
    """All other weights stay, and its gates are fixed at what they give an image of nothing."""
    known = tiny(4)
    student = grown(known.config.model_copy(update={"local": True}), known)
    theirs = known.state_dict()
    for name, tensor in student.state_dict().items():
        if name.endswith("level"):
            gate = known.get_submodule(name.removesuffix(".level"))
            nothing = torch.zeros(1, gate[0].in_features, 1, 1)
            torch.testing.assert_close(tensor.sigmoid(), gate(nothing)[0].detach())
        else:
            assert torch.equal(tensor, theirs[name])


def test_a_student_is_balanced_from_then_on() -> None:
    torch.manual_seed(1)
    known = tiny(4)
    torch.nn.init.normal_(known.last.weight, std=0.1)
    student = grown(known.config.model_copy(update={"balance": 0.5}), known)
    low = torch.rand(1, 3, 16, 24) * 2 - 1
    enlarged = interpolator("bicubic", 4)(low)
    with torch.no_grad():
        torch.testing.assert_close(student(low), enlarged + balanced(known(low) - enlarged, 4, 0.5), rtol=0, atol=1e-5)
        assert (student(low) - known(low)).abs().max() > 1e-3


FEWER = {"channels": (24, 32)}, {"bands": 3}, {"local": False}, {"balance": 0.1}, {"uncertainty": False}


@pytest.mark.parametrize("other", FEWER)
def test_a_student_does_not_shrink(other: dict[str, object]) -> None:
    options = {"local": True, "balance": 0.5, "uncertainty": True}
    whole = CompactConfig.model_validate({"scale": 4, "bands": 4, "channels": (16, 32), "deep_channels": 32} | options)
    with pytest.raises(ValueError, match="a student of other widths, or of more bands"):
        grown(whole.model_copy(update=other), CompactStudent(whole))


def test_what_says_how_sure_it_is_runs_beside_the_image(tmp_path: Path) -> None:
    """Padded and cut as images are, and only where it is asked for."""
    config = CompactConfig(scale=4, bands=4, local=True, uncertainty=True, channels=(16, 32), deep_channels=32)
    student = CompactStudent(config).eval()
    assert student.doubt is not None
    torch.nn.init.normal_(student.doubt.last.weight, std=0.1)
    path = tmp_path / "sure.safetensors"
    bands = ("red", "green", "blue", "nir")
    save_weights(path, student.state_dict(), student_header(config, 4, bands=bands, licence="x", source="y"))
    assert descriptor_of(str(path), 4).uncertainty and not descriptor_of("bicubic", 4).uncertainty
    model, tiles = load(str(path), 4, arithmetic="float32"), torch.rand(2, 4, 21, 16) * 2 - 1
    image, width = model.outputs(tiles, uncertainty=True)
    assert torch.equal(image, model(tiles)) and image.shape == (2, 4, 84, 64) and width.shape == (2, 4, 42, 32)
    with torch.no_grad():  # 22 rows, for the network halves them
        wanted = student.with_uncertainty(torch.cat([tiles, tiles[..., -1:, :]], 2))[1]
    torch.testing.assert_close(width, wanted[..., :42, :])


@pytest.mark.slow
def test_the_second_head_learns_alone_how_large_errors_are() -> None:
    """Of a dark image whose errors lie within 5 stored numbers as often as a deviation's do, and a bright one's in 50.

    |error| = width * (share / 0.683) ** k has its quantiles at powers: with this k that of 0.95 lies at WIDER widths.
    """
    recipe = load_student_recipe([
        'student={architecture="compact-student", scale=4, bands=4, local=true, uncertainty=true, '
        "channels=[16, 32], deep_channels=32}",
        'data.bands=["red", "green", "blue", "nir"]',
        "initialise=random",
        "learns=uncertainty",
        "losses.gan_weight=0",
        *NO_TEACHER,
    ])  # fmt: skip
    task = StudentTask(recipe)
    learning = [name for name, each in task.student.named_parameters() if each.requires_grad]
    assert learning and all(name.startswith("doubt.") for name in learning)
    optimizer = torch.optim.Adam(task.parameters("student"), 0.01)
    generator = torch.Generator().manual_seed(0)
    low = to_network(torch.tensor([2000.0, 3500.0])[:, None, None, None].expand(2, 4, 8, 8))
    width = torch.tensor([5.0, 50.0])[:, None, None, None]
    k = math.log(WIDER) / math.log(0.95 / 0.683)
    with torch.no_grad():
        image = from_network(task.student(low))
    for _ in range(500):
        sign, share = torch.randn(image.shape, generator=generator).sign(), torch.rand(image.shape, generator=generator)
        pair = Pair(low, to_network(image + sign * width * (share / 0.683) ** k))
        (update,) = task.updates(pair, 0, 0, generator)
        optimizer.zero_grad()
        update.loss.backward()
        optimizer.step()
    assert isinstance(task.student, CompactStudent)
    with torch.no_grad():
        said = task.student.with_uncertainty(low)[1]
        figures = task.predict(pair, generator)[1]
    for part, wanted in zip(said, (5, 50), strict=True):
        assert float(part.mean()) == pytest.approx(wanted, rel=0.1)
    assert float(figures["within_1"]) == pytest.approx(0.683, abs=0.03)
    assert float(figures["within_2.5"]) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["losses.gan_weight=0", *NO_TEACHER], "set student.uncertainty = true"),
        (["student.uncertainty=true", *NO_TEACHER], "set distillation and gan_weight to 0"),
        (["student.uncertainty=true", "losses.gan_weight=0"], "set distillation and gan_weight to 0"),
    ],
)
def test_only_a_second_head_learns_alone(more: list[str], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load_recipe(RECIPE, [*COMPACT, "learns=uncertainty", *more])


@pytest.mark.parametrize(("family", "halo"), [("faithful", 4), ("sharp", 6)])
@pytest.mark.parametrize("scale", [4, 8])
def test_what_is_balanced_has_more_context(family: str, halo: int, scale: int) -> None:
    """Files that ship say of their tiles what the next training would."""
    model = descriptor_of(family, scale)
    assert model.header is not None
    config = CompactConfig.model_validate(model.header["config"])
    assert (config.balance > 0) == (family == "sharp")
    assert tiles_of(config, scale) == (model.tile, model.halo, model.overlap) == (160, halo, 4)
