"""The command line itself: quick to answer, and speaking to machines where asked."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

HEAVY = ("torch", "xarray", "dask", "distributed", "odc", "rasterio", "zarr", "diffusers", "scipy")


def test_help_answers_within_half_a_second_and_without_torch(rsup: Run) -> None:
    times: list[float] = []
    while len(times) < 10 and min(times, default=1.0) >= 0.5:  # a busy machine is not what this is about
        before = os.times()
        assert "upscale" in rsup("--help").stdout
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(times) < 0.5
    code = f"import sys, rsup.pipeline.cli; print(sorted(set({HEAVY}) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_version_and_completion(rsup: Run) -> None:
    assert rsup("--version").stdout == f"rsup {version('rsup')}\n"
    assert "--install-completion" in rsup("--help").stdout
    # What the installed script asks when somebody types "rsup ups" and presses tab.
    asked = {"_RSUP_COMPLETE": "complete_bash", "COMP_WORDS": "rsup ups", "COMP_CWORD": "1"}
    program = Path(sys.executable).with_name("rsup")
    answer = subprocess.run([program], env=os.environ | asked, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["upscale"]


def test_models_for_machines(rsup: Run, tiny_student: Callable[[int], Path]) -> None:
    names = {row["name"] for row in json.loads(rsup("models", "list", "--json").stdout)}
    assert {"nearest", "bicubic", "lanczos"} <= names
    lines = rsup("models", "list").stdout.splitlines()
    assert {line.split()[0] for line in lines if line.endswith("default")} == {"compact-x4", "compact-x8"}
    shown = json.loads(rsup("models", "show", tiny_student(8), "--json").stdout)
    assert shown["parameters_as_published"] > shown["parameters"] > 1000 and shown["gmac_512"] > 0


@pytest.mark.parametrize("command", ["fetch", "upscale", "demo"])
def test_a_command_without_its_arguments_says_what_it_needs(command: str, rsup: Run) -> None:
    result = rsup(command, "--no-such-option")
    assert result.returncode == 2 and "No such option" in result.stderr and "Traceback" not in result.stderr
