"""What the documents say is held against the program: commands, options, exit codes, files, and their Python."""

import re
import shlex
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rioxarray
import typer.main
from places import ROOT

from rsup.models.base import errors
from rsup.pipeline.batch.job import Job
from rsup.pipeline.cli.app import app
from rsup.pipeline.lattice import Window
from rsup.pipeline.mosaics.overviews import build_overviews
from rsup.pipeline.mosaics.planes import write_chunk
from rsup.pipeline.mosaics.store import create_mosaic
from rsup.pipeline.mosaics.tiff.cog import write_cog
from rsup.pipeline.scenes.scene import Scene

DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
README, CONTRIBUTING, CHANGELOG = ((ROOT / name).read_text() for name in DOCUMENTS)
PROGRAM: Any = typer.main.get_command(app)  # typer carries a click of its own, so click's types do not fit


def indented_lines(text: str) -> list[str]:
    """Lines of indented code."""
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


def commands_of(group: Any, prefix: str = "") -> dict[str, Any]:
    """Every command that does something, by its words."""
    found = {}
    for name, command in group.commands.items():
        words = f"{prefix}{name}"
        found |= commands_of(command, f"{words} ") if hasattr(command, "commands") else {words: command}
    return found


COMMANDS = commands_of(PROGRAM)
OPTIONS = {"--help"} | {name for each in (PROGRAM, *COMMANDS.values()) for part in each.params for name in part.opts}
SESSION = [line for line in indented_lines(README) if line.startswith("rsup ")]


@pytest.mark.parametrize("line", SESSION)
def test_each_command_line_is_understood(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    name = " ".join(words[: 2 if words[0] in ("models", "batch") else 1])
    arguments = words[len(name.split()) :]
    COMMANDS[name].make_context(name, arguments)  # parses and checks; runs nothing


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_option_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    other_tools = {"--strict", "--nproc-per-node", "--array"}  # mypy's, torchrun's, sbatch's
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) - other_tools
    assert named <= OPTIONS


def test_the_table_lists_every_command() -> None:
    table = re.findall(r"^\| `rsup ((?:models |batch )?[a-z]+)", README, re.MULTILINE)
    assert sorted(table) == sorted(COMMANDS)
    assert len(SESSION) > 5  # else the test of the session had nothing to read


def test_the_job_is_one() -> None:
    said = re.search(r"```toml\n(.*?)```", README, re.DOTALL)
    assert said is not None
    job = Job.model_validate(tomllib.loads(said.group(1)))
    assert len(job.units()) == 3 * len(job.places) > 200


def test_the_exit_codes_are_the_programs() -> None:
    table = {int(code) for code in re.findall(r"^\| (\d) \|", README, re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RsupError)]
    assert table == {0} | {kind.exit_code for kind in kinds}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_each_make_target_exists(name: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)(?=`|  )", (ROOT / name).read_text())) <= targets
    assert {"demo", "test"} <= targets


def test_each_file_named_exists() -> None:
    paths = re.findall(
        r"`((?:pipeline|models|tests|\.ci|\.src)/[\w./-]*|pyproject\.toml|constraints\.txt)`", CONTRIBUTING
    )
    assert len(paths) > 20
    assert not [path for path in paths if "NAME" not in path and not (ROOT / path).exists()]
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).is_file()
    pictures = re.findall(r"\]\((docs/[^)]+\.jpg)\)", README)
    assert pictures == ["docs/naip.jpg", "docs/sentinel2.jpg"]
    assert all((ROOT / picture).stat().st_size < 250_000 for picture in pictures)


def test_the_python_of_the_readme_reads_reflectance(
    real_scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, recipe = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("mosaic").mkdir()
    shutil.copytree(real_scene.path, "potsdam.zarr")
    window = Window(real_scene.window.row + 500, real_scene.window.col + 200, 96, 96)
    bands = ("red", "green", "blue", "nir")
    dn = real_scene.read(bands, window).repeat(8, 1).repeat(8, 2)
    store = Path("mosaic/potsdam_x8.zarr")
    create_mosaic(store, window, real_scene.crs, 8, bands, 96, {})
    write_chunk(store, bands, (0, 0), dn)
    statistics = build_overviews(store, lambda done, total: None)
    write_cog(store, Path("mosaic/potsdam_x8.tif"), statistics, lambda done, total: None)

    read: dict[str, Any] = {}
    exec(reading, read)
    exec(recipe, read)
    mean = np.where(dn[0] > 0, dn[0] * 1e-4 - 0.1, np.nan)
    assert read["mosaic"].rio.resolution() == (1.25, -1.25)
    np.testing.assert_allclose(read["mosaic"].red.values, mean, atol=1e-9)
    np.testing.assert_allclose(read["image"][0].values, mean, atol=1e-6)
    assert (
        read["coarse"].sizes == {"y_2": 384, "x_2": 384}
        and read["everything"].groups == ("/", "/2")
        and "nir" in read["scene"]
    )
    nir = dn[3] * 1e-4 - 0.1
    with rioxarray.open_rasterio("ndvi.tif", masked=True) as ndvi:
        np.testing.assert_allclose(ndvi[0], (nir - mean) / (nir + mean), rtol=1e-5)
    assert f"{real_scene.crs} (1.25, -1.25)" in capsys.readouterr().out


def test_the_seconds_that_plans_reckon_with_are_those_of_the_table() -> None:
    students = tomllib.loads((ROOT / "models" / "weights" / "index.toml").read_text())["student"]
    for student in students:
        design = f"compact-x{student['scale']}"  # the sharp ones are the same networks, trained otherwise
        (row,) = (line for line in README.splitlines() if line.startswith(f"| {design}, comes with `rsup`"))
        assert float(row.split("|")[2]) == student["seconds"]
