"""A kill at every step of publishing: what is visible is whole and of one run, and the next run ends it."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forks import COMMAND, Forks
from kills import KILLED, was_killed

from rsup.models.base.errors import OutputError
from rsup.pipeline.demo.archive import Archive
from rsup.pipeline.jobs import fetch
from rsup.pipeline.jobs.upscale import upscale
from rsup.pipeline.jobs.upscale_plan import UpscaleRequest
from rsup.pipeline.scenes.scene import Scene
from rsup.pipeline.sources.request import FetchRequest

HOOK = """
import os, sys
def arm(folder, step):
    count = 0
    def hear(event, arguments):
        nonlocal count
        if event not in ("os.rename", "os.remove", "os.rmdir", "open"):
            return
        paths = [str(path) for path in arguments[: 2 if event == "os.rename" else 1]]
        if count == 0 and (event != "os.rename" or folder not in map(os.path.dirname, paths)):
            return
        if event == "open" and paths != [folder]:
            return
        if count == step:
            os._exit(137)
        count += 1
    sys.addaudithook(hear)
"""
"""`arm(folder, step)`: end this process before its step-th act on names, counted from the first rename in `folder`.

Python announces each before it happens; the folder itself is opened to force its names to the disk.
"""


def killed(action: Callable[[], Any], folder: Path, step: int) -> bool:
    """Run in a process that is ended before that step; False where it was over before."""

    def armed() -> None:
        space: dict[str, Any] = {}
        exec(HOOK, space)
        space["arm"](str(folder), step)
        action()

    return was_killed(armed)


def digests(folder: Path) -> dict[str, str]:
    """Every visible name of a folder, and a digest of all that it holds."""
    found = {}
    for path in folder.iterdir():
        if not path.name.startswith("."):
            files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
            whole = hashlib.sha256()
            for file in files:
                whole.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes())
            found[path.name] = whole.hexdigest()
    return found


def check_visible(folder: Path, last: str, *runs: dict[str, str]) -> None:
    """What can be seen is of one run; all of it, where the last name is there."""
    seen = digests(folder)
    assert any(seen.items() <= run.items() for run in runs), "files of two runs, or half a file"
    assert last not in seen or seen in runs


def copies(source: Path, action: Callable[[Path], Any], folder: Path) -> list[Path]:
    """Copies of `source`, in each of which the action was killed one step later; its outputs lie directly in them."""
    made: list[Path] = []
    while True:
        copy = folder / str(len(made))
        shutil.copytree(source, copy, symlinks=True)
        if not killed(partial(action, copy), copy, len(made)):
            shutil.rmtree(copy)
            return made
        made.append(copy)


def put(folder: Path, replacing: bool, *names: str) -> dict[str, str]:
    """What was there before, or nothing; and its digests."""
    folder.mkdir()
    for name in names if replacing else ():
        path = folder / name
        if path.suffix == ".zarr":
            (path / "red").mkdir(parents=True)
            path = path / "zarr.json"
            (path.parent / "red" / "zarr.json").write_text("{}")
        path.write_text(f'{{"old": "{name}"}}')
    return digests(folder)


def finish(forks: Forks, scene: Path, folder: Path, *options: str) -> None:
    """Upscale in a process that is killed before it publishes anything in the folder."""
    asked = ["upscale", scene, "--scale", "4", "--device", "cpu", "--model", "nearest", "-o", folder, *options]
    process = forks.begin([folder, *asked], f"{HOOK}\narm(sys.argv.pop(1), 0)\n{COMMAND}")
    assert process.end().returncode == KILLED


@pytest.mark.parametrize("replacing", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_upscale(make_scene: Callable[..., Scene], forks: Forks, replacing: bool, tmp_path: Path) -> None:
    dn = np.random.default_rng(0).integers(1, 65535, (3, 40, 40)).astype(np.uint16)
    scene, begun = make_scene(dn).path, tmp_path / "begun"
    old = put(begun, replacing, *(f"scene_x4{ending}" for ending in (".html", "_model.json", ".json", ".tif", ".zarr")))
    finish(forks, scene, begun, "--overwrite")
    assert digests(begun) == old

    def again(folder: Path, **options: Any) -> dict[str, Any]:
        return upscale(replace(UpscaleRequest(scene, 4, folder, "nearest", device="cpu"), **options))

    whole = tmp_path / "whole"
    shutil.copytree(begun, whole)
    again(whole)
    new = digests(whole)
    assert new.keys() >= old.keys() and len(new) == 5 and not new.items() & old.items()
    folders = copies(begun, again, tmp_path)
    assert len(folders) >= 4 + 8 * replacing
    for number, folder in enumerate(folders):
        check_visible(folder, "scene_x4.zarr", old, new)
        if number % 2:  # what the next run asks for does not matter
            with pytest.raises(OutputError, match="belongs to another run"):
                again(folder, chunk=64)
        else:
            assert again(folder, overwrite=number % 4 == 0)["already_done"]
        assert digests(folder) == new
        hidden = [str(path.relative_to(folder)) for path in folder.rglob(".*")]
        assert hidden == [".rsup"] and os.listdir(folder / ".rsup" / "scene_x4") == ["ledger.jsonl"]


@pytest.mark.slow
def test_a_run_without_uncertainty_ends_what_one_with_it_has_begun(
    make_scene: Callable[..., Scene], forks: Forks, sure_student: Path, tmp_path: Path
) -> None:
    dn = np.random.default_rng(0).integers(1, 65535, (3, 40, 40)).astype(np.uint16)
    scene, begun, whole = make_scene(dn).path, tmp_path / "begun", tmp_path / "whole"
    begun.mkdir()
    finish(forks, scene, begun, "--model", str(sure_student), "--uncertainty")

    def again(folder: Path, **options: Any) -> dict[str, Any]:
        request = UpscaleRequest(scene, 4, folder, str(sure_student), device="cpu", uncertainty=True)
        return upscale(replace(request, **options))

    shutil.copytree(begun, whole)
    again(whole)
    new = digests(whole)
    assert len(new) == 6 and "scene_x4_uncertainty.tif" in new
    folders = copies(begun, again, tmp_path)
    assert len(folders) >= 5
    for number, folder in enumerate(folders):
        check_visible(folder, "scene_x4.zarr", {}, new)
        words = "belongs to another run" if number % 2 else "_uncertainty.tif would stand beside"
        with pytest.raises(OutputError, match=words):
            again(folder, uncertainty=False, overwrite=number % 2 == 0)
        assert digests(folder) == new and again(folder)["already_done"]


@pytest.mark.parametrize("replacing", [False, True])
def test_fetch(archive: Archive, replacing: bool, tmp_path: Path) -> None:
    def again(folder: Path, **options: Any) -> dict[str, Any]:
        request = FetchRequest(archive.bbox, "2024-06", folder / "s.zarr", str(archive.root))
        return fetch.run(fetch.plan(replace(request, **options)), lambda *_: None)

    begun, whole = tmp_path / "begun", tmp_path / "whole"
    old = put(begun, replacing, "s.zarr")
    assert killed(lambda: again(begun, overwrite=True), begun, 0)
    assert digests(begun) == old
    shutil.copytree(begun, whole)
    assert again(whole)["already_done"]
    new = digests(whole)
    folders = copies(begun, again, tmp_path)
    assert len(folders) >= 2 + 4 * replacing
    for number, folder in enumerate(folders):
        check_visible(folder, "s.zarr", old, new)
        if number % 2:
            with pytest.raises(OutputError, match=r"s\.zarr exists and is of another request \(bands differ\)"):
                again(folder, bands=("red",))
        else:
            assert again(folder, overwrite=number % 4 == 0)["already_done"]
        assert digests(folder) == new and os.listdir(folder) == ["s.zarr"]


def test_a_file_that_comes_while_outputs_wait_is_not_replaced(
    make_scene: Callable[..., Scene], forks: Forks, tmp_path: Path
) -> None:
    scene = make_scene(np.full((3, 40, 40), 2000, np.uint16)).path
    request = UpscaleRequest(scene, 4, tmp_path / "out", "nearest", device="cpu")
    (tmp_path / "out").mkdir()
    finish(forks, scene, tmp_path / "out")
    stranger = tmp_path / "out" / "scene_x4.json"
    stranger.write_text("mine")
    with pytest.raises(OutputError, match=r"scene_x4\.json (has come|exists)"):
        upscale(request)
    assert digests(tmp_path / "out").keys() == {stranger.name} and stranger.read_text() == "mine"
    stranger.unlink()
    upscale(request)
    assert len(digests(tmp_path / "out")) == 5


def test_fetch_looks_again_once_the_place_is_its_own(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = FetchRequest(archive.bbox, "2024-06", tmp_path / "s.zarr", str(archive.root))
    opened = fetch.Ledger.open

    def after_another(path: Path) -> Any:
        """Another fetch of other bands has found the place empty as well, and ends while this one waits."""
        monkeypatch.setattr(fetch.Ledger, "open", opened)
        fetch.run(fetch.plan(replace(request, bands=("red",))), lambda *_: None)
        return opened(path)

    monkeypatch.setattr(fetch.Ledger, "open", after_another)
    with pytest.raises(OutputError, match=r"exists and is of another request \(bands differ\)"):
        fetch.run(fetch.plan(request), lambda *_: None)
    assert (tmp_path / "s.zarr" / "red").is_dir() and not (tmp_path / "s.zarr" / "green").exists()
    assert os.listdir(tmp_path) == ["s.zarr"]
