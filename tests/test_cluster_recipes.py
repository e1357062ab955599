"""The recipes for clusters pass the checkers of those who will read them, and what is no recipe does not.

Those for Slurm are submitted to one: integration/test_slurm.py.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from kubernetes_validate import ValidationError, validate
from places import RECIPES, ROOT

from rsup.pipeline.cli.app import app

CLUSTER = RECIPES / "cluster"
KUBERNETES = ("1.33", "1.37")
"""The first version that has all the manifests ask for, and the newest."""

MANIFESTS = sorted((CLUSTER / "kubernetes").iterdir())
CRONTABS = sorted(CLUSTER.glob("*/*crontab"))
UNITS = sorted((CLUSTER / "systemd").iterdir())


def manifest(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(path.read_text())
    return read


def job(path: Path) -> dict[str, Any]:
    """What a job or a cron job runs."""
    read = manifest(path)
    found: dict[str, Any] = read["spec"]["jobTemplate"]["spec"] if read["kind"] == "CronJob" else read["spec"]
    return found


def check(*command: object, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    line = list(map(str, command))
    if shutil.which(line[0]) is None:
        pytest.skip(f"{line[0]} is not installed")
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60, cwd=cwd)


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_keep_the_schemas_of_kubernetes(path: Path, version: str) -> None:
    validate(manifest(path), version, strict=True)
    broken = manifest(path)
    broken["spec"]["completionsMode"] = "Indexed"
    with pytest.raises(ValidationError):
        validate(broken, version, strict=True)


def test_a_night_runs_the_job_and_its_pods_take_every_part() -> None:
    first, second = map(job, MANIFESTS)
    assert first == second
    (container,) = first["template"]["spec"]["containers"]
    assert {"name": "PARTS", "value": str(first["completions"])} in container["env"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    for index, complaint in (
        (15, "/job/havelland.toml"),
        (16, "--part 17/16"),
    ):  # numbered from 0; there is no job here
        pod = os.environ | {"PATH": path, "JOB_COMPLETION_INDEX": str(index), "PARTS": "16"}
        said = subprocess.run(container["command"], env=pod, capture_output=True, text=True, check=False, timeout=60)
        assert said.returncode == 2 and said.stderr.startswith(f"rsup: {complaint}"), said.stderr


@pytest.mark.parametrize("path", CRONTABS, ids=lambda path: path.name)
def test_crontabs_are_read_by_cron(path: Path, tmp_path: Path) -> None:
    done = check("crontab", "-n", path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "broken").write_text(path.read_text().replace("30 1 ", "30 25 "))
    assert check("crontab", "-n", tmp_path / "broken").returncode


def test_units_are_read_by_systemd(tmp_path: Path) -> None:
    done = check("systemd-analyze", "verify", *UNITS)
    assert done.returncode == 0 and not done.stderr, done.stderr
    for unit in UNITS:
        (tmp_path / unit.name).write_text(unit.read_text().replace("01:", "25:"))
    done = check("systemd-analyze", "verify", *(tmp_path / unit.name for unit in UNITS))
    assert done.returncode or done.stderr


@pytest.mark.parametrize("path", [*CRONTABS, *UNITS], ids=lambda path: path.name)
def test_what_is_started_every_night_is_a_command(path: Path) -> None:
    """Of rsup; of Slurm, the recipe beside it."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    for line in lines:
        if found := re.search(r"\brsup batch run ([^>]*)", line):
            program: Any = typer.main.get_command(app)
            program.commands["batch"].commands["run"].make_context("run", shlex.split(found[1]))
        for recipe in re.findall(r"recipes/\S+", line):
            assert (ROOT / recipe).is_file()


@pytest.mark.parametrize("path", sorted((CLUSTER / "slurm").glob("*.sbatch")), ids=lambda path: path.name)
def test_scripts_are_read_by_bash(path: Path) -> None:
    done = check("bash", "-n", path)
    assert done.returncode == 0, done.stderr


def test_the_image_is_made_of_what_is_there(tmp_path: Path) -> None:
    dockerfile = CLUSTER / "Dockerfile"
    hadolint = Path(sys.executable).with_name("hadolint")
    done = check(hadolint, dockerfile)
    assert done.returncode == 0, done.stdout
    (tmp_path / "Dockerfile").write_text(dockerfile.read_text().replace("WORKDIR /opt/rsup", "WORKDIR opt"))
    assert check(hadolint, tmp_path / "Dockerfile").returncode
    text = dockerfile.read_text()
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", text, re.M) for name in line.split()}
    allowed = set(re.findall(r"^!(.*)$", dockerfile.with_name("Dockerfile.dockerignore").read_text(), re.M))
    assert copied == allowed and all((ROOT / name).exists() for name in copied)


def test_images_are_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for path in (CLUSTER / "Dockerfile", *MANIFESTS):
        assert set(re.findall(r"registry\.example/rsup:(\S+)", path.read_text())) == {version}
