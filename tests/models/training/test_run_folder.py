"""Run folders: what may begin where, and go on with what; a check touches nothing."""

from pathlib import Path

import pytest
import torch
from places import RECIPES

from rsup.models.base.errors import RecipeError, TrainingError
from rsup.models.training.recipe import Recipe, load_recipe
from rsup.models.training.run_folder import WEIGHTS, begin_run, check_run, load_state, recipe_of, save_state


def recipe(*overrides: str, name: str = "slimdiffsr/smoke-teacher.toml") -> Recipe:
    return load_recipe(RECIPES / name, overrides)


def test_a_new_folder(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "one"
    check_run(run, recipe(), resume=False)
    check_run(run, recipe(), resume=True)
    assert not run.parent.exists()
    begin_run(run, recipe())
    assert recipe_of(run) == recipe() and [path.name for path in run.iterdir()] == ["recipe.toml"]
    run.joinpath("recipe.toml").unlink()
    check_run(run, recipe(), resume=False)  # an empty one is as good as none


def test_what_is_there_is_not_harmed(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(TrainingError, match="not empty: go on with --resume, or give another folder"):
        check_run(tmp_path, recipe(), resume=False)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(TrainingError, match="no folder"):
        check_run(tmp_path / "letter.txt", recipe(), resume=False)
    with pytest.raises(TrainingError, match="cannot be written"):
        begin_run(tmp_path / "letter.txt", recipe())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["optimizer.lr=1e-3"], "another optimizer"),
        (["seed=1"], "another seed"),
        (["batch=2"], "another batch"),
        (["ema=0.5"], "another ema"),
        (["precision=bf16"], "another precision"),
        (["losses.gan_weight=0"], "another losses"),
        (["estimator_steps=41"], "another estimator_steps"),
        (["steps=81"], None),
        (["keep=1", "validate_every=3", "checkpoint_every=7", "loaders=2", "validation_images=2"], None),
    ],
)
def test_what_may_differ_on_resuming(overrides: list[str], words: str | None, tmp_path: Path) -> None:
    begin_run(tmp_path, recipe())
    if words is None:
        check_run(tmp_path, recipe(*overrides), resume=True)
        return
    with pytest.raises(TrainingError, match=words):
        check_run(tmp_path, recipe(*overrides), resume=True)
    assert recipe_of(tmp_path) == recipe()


def test_a_falling_rate_fixes_the_steps(tmp_path: Path) -> None:
    begin_run(tmp_path, recipe("discriminator_optimizer.schedule=cosine"))
    with pytest.raises(TrainingError, match="80 steps, over which its learning rate falls"):
        check_run(tmp_path, recipe("discriminator_optimizer.schedule=cosine", "steps=90"), resume=True)
    check_run(tmp_path, recipe("discriminator_optimizer.schedule=cosine", "keep=9"), resume=True)


def test_another_method(tmp_path: Path) -> None:
    begin_run(tmp_path, recipe())
    with pytest.raises(TrainingError, match="holds a slimdiffsr-teacher run, not rsd"):
        check_run(tmp_path, recipe(name="rsd/smoke.toml"), resume=True)


def test_no_run(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(RecipeError, match="no training run"):
            recipe_of(folder)


def test_weights_of_a_run(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="let that run reach a checkpoint"):
        load_state(tmp_path)
    state = {"a.b": torch.randn(2, 3).T, "c": torch.tensor(4)}
    save_state(tmp_path / WEIGHTS, state)
    back = load_state(tmp_path)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items()) and len(back) == 2
    (tmp_path / WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_state(tmp_path)
    with pytest.raises(TrainingError, match="cannot be written"):
        save_state(tmp_path / "no" / WEIGHTS, state)
