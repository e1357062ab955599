"""Checkpoints: what comes back is what was put in, whatever the moment at which writing was cut off."""

import copy
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from rsup.models.base.errors import TrainingError
from rsup.models.training.checkpoint import State, checkpoints, load_latest, save


def names(folder: Path) -> list[str]:
    return [path.name for path in checkpoints(folder)]


def test_states_come_back(tmp_path: Path) -> None:
    state = State(7, plain={"mean_steps": 3, "scaler": {"scale": 65536.0, "_growth_tracker": 2}})
    torch.manual_seed(0)
    first = {"a.b.weight": torch.randn(3, 4), "half": torch.randn(5).bfloat16(), "count": torch.tensor(9)}
    state.put("network/one", first)
    state.put("network/one-more", {"a.b.weight": torch.randn(2, 3).T})
    save(tmp_path, state, keep=1)
    back = load_latest(tmp_path)
    assert back is not None and back.step == 7 and back.plain == state.plain
    assert back.tensors.keys() == state.tensors.keys()
    for name, tensor in state.tensors.items():
        assert back.tensors[name].dtype == tensor.dtype and torch.equal(back.tensors[name], tensor), name
    assert back.part("network/one").keys() == first.keys() and not back.part("network/on")


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
def test_an_optimiser_goes_on_where_it_was(kind: type[torch.optim.Adam], tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 2))
    network[0].bias.requires_grad_(False)
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = kind(learning, lr=0.1, weight_decay=0.1)
    inputs = torch.randn(6, 8, 4)

    def step(network: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> None:
        network(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    for x in inputs[:3]:
        step(network, optimizer, x)
    state = State(3)
    state.put_optimizer("one", optimizer)
    save(tmp_path, state, keep=1)
    other = copy.deepcopy(network)
    fresh = kind([p for p in other.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1)
    back = load_latest(tmp_path)
    assert back is not None
    back.load_optimizer("one", fresh)
    for x in inputs[3:]:
        step(network, optimizer, x)
        step(other, fresh, x)
    for ours, theirs in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (5, 90, 100, 1000):
        save(tmp_path, State(step, {"x": torch.full((1,), float(step))}), keep=2)
    assert names(tmp_path) == ["step-00000100", "step-00001000"]
    back = load_latest(tmp_path)
    assert back is not None and back.step == 1000 and back.tensors["x"] == 1000
    assert load_latest(tmp_path / "nothing") is None


def test_one_that_was_cut_off_is_not_seen(tmp_path: Path) -> None:
    save(tmp_path, State(5, {"x": torch.zeros(1)}), keep=3)
    torn = tmp_path / ".step-00000010.new"
    torn.mkdir()
    (torn / "tensors.safetensors").write_bytes(b"\x10\0\0\0")
    (tmp_path / "step-notes").mkdir()
    back = load_latest(tmp_path)
    assert back is not None and back.step == 5
    save(tmp_path, State(10, {"x": torch.ones(1)}), keep=3)
    assert names(tmp_path) == ["step-00000005", "step-00000010"] and not torn.exists()


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["shorter", "gone"])
def test_a_damaged_one_is_named(file: str, damage: str, tmp_path: Path) -> None:
    for step in (5, 10):
        save(tmp_path, State(step, {"x": torch.zeros(100)}), keep=3)
    path = tmp_path / "step-00000010" / file
    whole = path.read_bytes()
    path.unlink()
    if damage == "shorter":
        path.write_bytes(whole[:-5])
    with pytest.raises(TrainingError, match="step-00000010 is damaged.*remove it"):
        load_latest(tmp_path)


@pytest.mark.parametrize("text", ["[]", "3", "[" * 100_000, "{}", '{"step":'])
def test_one_that_says_something_else_is_damaged(text: str, tmp_path: Path) -> None:
    (save(tmp_path, State(5, {"x": torch.zeros(1)}), keep=3) / "state.json").write_text(text)
    with pytest.raises(TrainingError, match="step-00000005 is damaged"):
        load_latest(tmp_path)


def test_names_are_on_the_disk_before_older_ones_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file, its name, the checkpoint's name: a power cut leaves the old one or the new one."""
    save(tmp_path, State(5, {"x": torch.zeros(1)}), keep=1)
    synced = []

    def watch(descriptor: int, sync: Callable[[int], None] = os.fsync) -> None:
        synced.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")).name, names(tmp_path)))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    save(tmp_path, State(6, {"x": torch.zeros(1)}), keep=1)
    old, both = ["step-00000005"], ["step-00000005", "step-00000006"]
    files = [".tensors.safetensors.new", ".state.json.new"]
    assert [entry for entry in synced if entry[0] in files] == [(name, old) for name in files]
    assert synced[-2:] == [(".step-00000006.new", old), (tmp_path.name, both)]
    assert names(tmp_path) == both[1:]


def test_no_place_to_write(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with pytest.raises(TrainingError, match="cannot be written"):
        save(tmp_path / "checkpoints", State(1, {"x": torch.zeros(1)}), keep=3)
