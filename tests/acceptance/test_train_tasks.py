"""The kinds of training, small: what changes and what must not, going on, weights that say what they are."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from places import RECIPES
from safetensors import safe_open
from torch import Tensor, nn

from rsup.models.base.errors import ModelError, RecipeError, RsupError, TrainingError
from rsup.models.base.radiometry import from_network, to_network
from rsup.models.consistency import hold
from rsup.models.degradation.sensor import RESPONSES
from rsup.models.losses.terms import decibels, l1
from rsup.models.methods.rsd import RsdTask, new_resshift
from rsup.models.methods.slimdiffsr_student import StudentTask
from rsup.models.methods.slimdiffsr_teacher import TeacherTask, load_teacher
from rsup.models.networks.discriminators import DinoDiscriminator
from rsup.models.networks.interpolation import interpolator
from rsup.models.registry import descriptor_of
from rsup.models.train import TrainRequest, train
from rsup.models.training.recipe import ResShiftRecipe, RsdRecipe, StudentRecipe, TeacherRecipe, load_recipe
from rsup.models.training.task import Pair, Task, pair_of, seeded
from rsup.models.weights_file import load_student, read_header

OFTEN = ("batch=1", "validate_every=2", "checkpoint_every=2", "validation_images=1")
KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "teacher": ("slimdiffsr/smoke-teacher.toml", (*OFTEN, "estimator_steps=3", "steps=3")),
    "student": ("slimdiffsr/smoke-student.toml", (*OFTEN, "steps=4")),
    "rsd": (
        "rsd/smoke.toml",
        (*OFTEN, "steps=3", "rsd.fake_updates=2", "train_teacher.steps=3", "train_teacher.batch=1",
         "train_teacher.validate_every=2", "train_teacher.checkpoint_every=2", "train_teacher.validation_images=1"),
    ),
}  # fmt: skip
Train = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def go(training_images: Path) -> Iterator[Train]:
    """`go(kind, folder, "key=value", ...)`: what `rsup train` does; `stop=n` breaks off in the n-th step it reports."""

    def train_small(kind: str, output: Path, *settings: str, resume: bool = False, stop: int = 0) -> dict[str, Any]:
        steps = 0

        def progress(done: int, total: int, losses: str) -> None:
            nonlocal steps
            steps += 1
            if steps == stop:
                raise KeyboardInterrupt

        name, small = KINDS[kind]
        AcceleratorState._reset_state(True)
        role: Any = "teacher" if kind == "teacher" else "student"
        request = TrainRequest(role, RECIPES / name, training_images, output, (*small, *settings), resume)
        return train(request, progress)

    yield train_small
    AcceleratorState._reset_state(True)


@pytest.fixture(scope="module")
def teacher(go: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher's run."""
    run = tmp_path_factory.mktemp("runs") / "teacher"
    go("teacher", run)
    return run


@pytest.fixture(scope="module")
def runs(go: Train, teacher: Path) -> dict[str, Path]:
    """An undisturbed run of each kind, and what more its recipe is given."""
    found = {"teacher": teacher}
    for kind, more in (("student", (f"teacher={teacher}",)), ("rsd", ())):
        found[kind] = teacher.with_name(kind)
        go(kind, found[kind], *more)
    return found


def bits(run: Path) -> dict[str, Any]:
    """Weights, newest checkpoint and figures of a run and of the one inside it, each to the last bit."""
    folders = [run, *([run / "teacher"] if (run / "teacher").is_dir() else [])]
    paths = [folder / name for folder in folders for name in ("weights.safetensors", "validation.jsonl")]
    for folder in folders:
        paths += sorted(sorted((folder / "checkpoints").iterdir())[-1].iterdir())
    return {str(path.relative_to(run)): _content(path) for path in paths}


def _content(path: Path) -> Any:
    """Of safetensors, header and tensors apart: the order of two entries of a header is a matter of chance."""
    if path.suffix != ".safetensors":
        return path.read_bytes()
    with safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return file.metadata(), {name: (str(tensor.dtype), tensor.tobytes()) for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    ("kind", "stop"),
    [
        pytest.param("teacher", 3, marks=pytest.mark.slow),
        pytest.param("teacher", 5, marks=pytest.mark.slow),
        pytest.param("student", 3, marks=pytest.mark.slow),
        ("rsd", 6),
    ],
)
def test_a_killed_run_goes_on_bit_for_bit(
    kind: str, stop: int, go: Train, runs: dict[str, Path], tmp_path: Path
) -> None:
    more = (f"teacher={runs['teacher']}",) if kind == "student" else ()
    with pytest.raises(KeyboardInterrupt):
        go(kind, tmp_path / "run", *more, stop=stop)
    go(kind, tmp_path / "run", *more, resume=True)
    found, wanted = bits(tmp_path / "run"), bits(runs[kind])
    assert found.keys() == wanted.keys() and len(wanted) >= 4
    assert [name for name in wanted if found[name] != wanted[name]] == []


def frozen(*networks: nn.Module) -> dict[str, Tensor]:
    """A copy of everything in the networks."""
    return {
        f"{number}.{name}": tensor.clone()
        for number, network in enumerate(networks)
        for name, tensor in network.state_dict().items()
    }


def changed(before: dict[str, Tensor], *networks: nn.Module) -> list[str]:
    return [name for name, tensor in frozen(*networks).items() if not torch.equal(tensor, before[name])]


def a_pair(task: Task) -> tuple[Pair, torch.Generator]:
    recipe, generator = task.recipe, seeded(5)
    torch.manual_seed(5)
    high = torch.rand(2, len(recipe.data.bands), recipe.crop, recipe.crop)
    return pair_of(high, recipe, generator), generator


def optimizer_of(task: Task, name: str) -> torch.optim.Optimizer:
    return torch.optim.Adam(task.parameters(name), lr=1e-3)


def test_a_student_of_four_bands_learns_through_what_holds_its_mosaics(tmp_path: Path) -> None:
    """Half of the loss behind that step, put together again here; the weights file says which bands it takes."""
    settings = [
        'initialise="random"', 'data.bands=["red","green","blue","nir"]', 'degradation.kind="sentinel2"',
        'degradation.bands=["red","green","blue","nir"]', 'radiometry.kind="reflectance"', "crop=64", "through=0.5",
        "distillation.mse=0", "distillation.mmd=0", "losses.gan_weight=0", 'losses.perceptual="none"',
        "losses.perceptual_weight=0", "losses.decibels_weight=0.1",
        'student={architecture="compact-student",scale=4,bands=4,local=true,channels=[16,32],deep_channels=32}',
    ]  # fmt: skip
    recipe = load_recipe(RECIPES / KINDS["student"][0], settings)
    assert isinstance(recipe, StudentRecipe)
    task = StudentTask(recipe)
    pair, generator = a_pair(task)
    assert [response.mtf for response in pair.responses] == [RESPONSES[band].mtf for band in recipe.data.bands]
    update = next(task.updates(pair, 0, 0, generator))
    with torch.no_grad():
        raw = task.student(pair.low)
        held = to_network(hold(from_network(raw), from_network(pair.low), 4, pair.responses).clamp(1, 65535))
    for name, term in (("l1", l1), ("decibels", decibels)):
        wanted = (float(term(raw, pair.high)) + float(term(held, pair.high))) / 2
        assert float(update.terms[name].detach()) == pytest.approx(wanted, rel=1e-4)
    update.loss.backward()
    assert all(each.grad is not None for each in task.parameters("student"))
    with torch.no_grad():
        torch.testing.assert_close(task.predict(pair, generator)[0], held, rtol=0, atol=1e-5)
    task.export(tmp_path / "w.safetensors", "images", {})
    assert descriptor_of(str(tmp_path / "w.safetensors"), 4).bands == ("red", "green", "blue", "nir")


def test_a_step_of_the_student_leaves_its_teachers_alone(teacher: Path) -> None:
    recipe = load_recipe(RECIPES / KINDS["student"][0], [f"teacher={teacher}", "losses.spectrum_weight=0.02"])
    assert isinstance(recipe, StudentRecipe)
    task = StudentTask(recipe)
    discriminator = task.reconstruction.discriminator
    assert task.teacher is not None and isinstance(discriminator, DinoDiscriminator)
    pair, generator = a_pair(task)
    fixed_ones = frozen(task.teacher, discriminator.backbone)
    # Of the discriminator, what an optimiser changes: spectral norms are estimated anew with every look.
    judge = [each.detach().clone() for each in task.parameters("discriminator")]
    student = frozen(task.student)
    updates = task.updates(pair, 0, 0, generator)
    update = next(updates)
    # The whole of equations 19, 20 and 23 and the spectrum's term, put together again from its parts.
    weights = {"l1": 1, "perceptual": 1, "spectrum": 0.02, "gan": 0.01, "mse": 1, "mmd": 0.1}
    assert update.optimizer == "student" and update.terms.keys() == weights.keys()
    wanted = sum(weights[name] * float(term.detach()) for name, term in update.terms.items())
    assert float(update.loss.detach()) == pytest.approx(wanted, rel=1e-5)
    update.loss.backward()
    assert all(each.grad is None for each in (*discriminator.parameters(), *task.teacher.parameters()))
    assert all(each.grad is not None for each in task.parameters("student"))
    optimizer = optimizer_of(task, "student")
    optimizer.step()
    optimizer.zero_grad()
    assert changed(student, task.student)
    assert all(map(torch.equal, judge, task.parameters("discriminator")))
    update = next(updates)
    update.loss.backward()
    assert update.optimizer == "discriminator" and all(each.grad is None for each in task.parameters("student"))
    optimizer_of(task, "discriminator").step()
    assert not any(map(torch.equal, judge, task.parameters("discriminator")))
    assert not changed(fixed_ones, task.teacher, discriminator.backbone)
    assert next(updates, None) is None


def test_the_estimator_first_and_the_teacher_after_it() -> None:
    recipe = load_recipe(RECIPES / KINDS["teacher"][0], ["estimator_steps=1"])
    assert isinstance(recipe, TeacherRecipe)
    task = TeacherTask(recipe)
    discriminator = task.reconstruction.discriminator
    assert task.steps == 81 and task.teacher.estimator is not None and isinstance(discriminator, DinoDiscriminator)
    pair, generator = a_pair(task)
    before, estimator = frozen(task.teacher), frozen(task.teacher.estimator)
    (update,) = task.updates(pair, 0, 0, generator)
    update.loss.backward()
    optimizer = optimizer_of(task, "estimator")
    optimizer.step()
    optimizer.zero_grad()
    names = changed(before, task.teacher)
    assert update.optimizer == "estimator" and names and all("estimator." in name for name in names)
    before, estimator = frozen(task.teacher), frozen(task.teacher.estimator)
    backbone = frozen(discriminator.backbone)
    for update in task.updates(pair, 1, 0, generator):
        update.loss.backward()
        if update.optimizer == "teacher":
            assert all(each.grad is None for each in discriminator.parameters())
            assert all(each.grad is None for each in task.parameters("estimator"))
        optimizer = optimizer_of(task, update.optimizer)
        optimizer.step()
        optimizer.zero_grad()
    names = changed(before, task.teacher)
    assert not changed(estimator, task.teacher.estimator) and not changed(backbone, discriminator.backbone)
    assert names and all(".lora_" in name or "predictor." in name for name in names)
    # A fresh adapter's first half has no gradient while its other half is zero: that one alone has to change.
    assert any("vae" in name for name in names) and any("unet" in name for name in names)
    assert any("predictor." in name for name in names)


def test_turns_of_rsd() -> None:
    recipe = load_recipe(RECIPES / KINDS["rsd"][0])
    assert isinstance(recipe, RsdRecipe) and recipe.train_teacher is not None
    task = RsdTask(recipe, *new_resshift(recipe.train_teacher))
    assert task.turns == 6
    pair, generator = a_pair(task)
    rsd = task.rsd
    for turn, mine, others in (
        (0, [rsd.fake, rsd.head], [rsd.student, rsd.teacher, task.latents]),
        (5, [rsd.student], [rsd.fake, rsd.head, rsd.teacher, task.latents]),
    ):
        learning, resting = frozen(*mine), frozen(*others)
        (update,) = task.updates(pair, 0, turn, generator)
        update.loss.backward()
        assert update.optimizer == ("fake" if turn == 0 else "student")
        assert all(each.grad is None for other in others for each in other.parameters())
        optimizer = optimizer_of(task, update.optimizer)
        optimizer.step()
        optimizer.zero_grad()
        assert changed(learning, *mine) and not changed(resting, *others)


def test_exported_students_say_what_they_are(runs: dict[str, Path], training_images: Path) -> None:
    for kind, architecture in (("student", "slimdiffsr-student"), ("rsd", "rsd-student")):
        header, _ = read_header(runs[kind] / "weights.safetensors")
        assert (header.architecture, header.scale, header.data) == (architecture, 4, "images")
        last = json.loads((runs[kind] / "validation.jsonl").read_text().splitlines()[-1])
        del last["step"]
        assert header.metrics == last and header.metrics["psnr_y_bicubic"] > 10
        assert (
            header.recipe is not None and header.recipe["steps"] in (3, 4) and header.licence.startswith("Apache-2.0")
        )
        assert str(training_images.parent) not in header.model_dump_json()
        student = load_student(runs[kind] / "weights.safetensors")
        with torch.no_grad():
            assert student(torch.zeros(1, 3, 64, 64)).isfinite().all()


def test_a_teacher_comes_back(runs: dict[str, Path]) -> None:
    teacher = load_teacher(runs["teacher"])
    assert not teacher.training and not any(each.requires_grad for each in teacher.parameters())
    with pytest.raises(RecipeError, match="holds a rsd run"):
        load_teacher(runs["rsd"])


def test_a_student_learns_from_a_student(go: Train, runs: dict[str, Path], tmp_path: Path) -> None:
    for source in (runs["student"], runs["student"] / "weights.safetensors"):
        result = go("student", tmp_path / source.name, f"teacher={source}", "steps=1")
        assert result["steps"] == 1


@pytest.mark.slow
def test_half_precision_on_a_cpu(go: Train, teacher: Path, tmp_path: Path) -> None:
    low = torch.rand(1, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        enlarged = interpolator("bicubic", 4)(low)
    assert torch.equal(enlarged, interpolator("bicubic", 4)(low))
    result = go("student", tmp_path / "run", f"teacher={teacher}", "precision=bf16", "steps=2")
    header, _ = read_header(Path(result["weights"]))
    assert header.recipe is not None and header.recipe["precision"] == "bf16"
    saved = load_student(Path(result["weights"])).state_dict()
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    with pytest.raises(RecipeError, match="precision fp16 is for GPUs"):
        go("student", tmp_path / "other", f"teacher={teacher}", "precision=fp16")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("kind", "settings", "error", "words"),
    [
        ("teacher", ["losses.perceptual=lpips-vgg"], ModelError, "vgg16-397923af.pth"),
        ("teacher", ["discriminator.backbone=/nowhere/dino"], ModelError, "/nowhere/dino"),
        ("teacher", ["sources.stable_diffusion=/nowhere/sd"], ModelError, "/nowhere/sd"),
        ("teacher", ["crop=96"], RecipeError, "crop 96"),
        ("student", ["distillation.mse=0", "distillation.mmd=0", "sources.taesd=/nowhere/t"], ModelError, "/nowhere/t"),
        ("student", [], RecipeError, "names no teacher"),
        ("student", ["teacher=/nowhere/run"], RsupError, "/nowhere/run"),
        ("rsd", ["rsd.perceptual=lpips-vgg"], ModelError, "vgg16-397923af.pth"),
        ("rsd", ["train_teacher.resshift.autoencoder=/nowhere/vq"], ModelError, "/nowhere/vq"),
        ("rsd", ["data.validation=0.000001"], RsupError, "no image for validation"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_made(
    kind: str, settings: list[str], error: type[RsupError], words: str, go: Train, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    if words == "no image for validation":
        settings = [*settings, "train_teacher.data.validation=0.000001"]
    with pytest.raises(error, match=words) as caught:
        go(kind, tmp_path / "run", *settings)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_roles_and_a_recipe_without_a_teacher(training_images: Path, tmp_path: Path) -> None:
    for role, name, words in (
        ("student", "slimdiffsr/smoke-teacher.toml", "rsup train teacher"),
        ("teacher", "rsd/smoke.toml", "rsup train student"),
        ("student", "rsd/student.toml", "names none"),
    ):
        asked: Any = role
        with pytest.raises(RecipeError, match=words):
            train(TrainRequest(asked, RECIPES / name, training_images, tmp_path / "run"), lambda *_: None)
    assert not (tmp_path / "run").exists()


def test_the_teacher_of_rsd_alone(go: Train, runs: dict[str, Path], training_images: Path, tmp_path: Path) -> None:
    """What the two halves of the smoke recipe do in one go, one recipe after the other does, bit for bit."""
    recipe = load_recipe(RECIPES / KINDS["rsd"][0], KINDS["rsd"][1])
    assert isinstance(recipe, RsdRecipe) and isinstance(recipe.train_teacher, ResShiftRecipe)
    text = (RECIPES / KINDS["rsd"][0]).read_text().split("[train_teacher]")[0]
    (tmp_path / "alone.toml").write_text(text)
    AcceleratorState._reset_state(True)
    settings = [each for each in KINDS["rsd"][1] if not each.startswith("train_teacher")]
    request = TrainRequest(
        "student", tmp_path / "alone.toml", training_images, tmp_path / "run",
        (*settings, f"teacher={runs['rsd'] / 'teacher'}"),
    )  # fmt: skip
    train(request, lambda *_: None)
    ours, theirs = (load_student(run / "weights.safetensors").state_dict() for run in (tmp_path / "run", runs["rsd"]))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_run_in_the_way(go: Train, runs: dict[str, Path]) -> None:
    for kind in ("teacher", "rsd"):
        before = bits(runs[kind])
        with pytest.raises(TrainingError, match="--resume"):
            go(kind, runs[kind])
        with pytest.raises(TrainingError, match="another optimizer"):
            go(kind, runs[kind], "optimizer.lr=0.5", resume=True)
        assert bits(runs[kind]) == before


@pytest.mark.slow
def test_validation_falls(go: Train, tmp_path: Path) -> None:
    settings = ("steps=20", "estimator_steps=0", "validate_every=20", "checkpoint_every=20")
    go("teacher", tmp_path / "run", *settings, "validation_images=2")
    rows = [json.loads(line) for line in (tmp_path / "run/validation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 20] and rows[1]["loss"] < 0.8 * rows[0]["loss"]
