"""The command line itself: quick to answer, and speaking to machines where asked."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
from forks import Rsup

from rsup.pipeline.cli.options import print_result

HEAVY = ("numpy", "pydantic", "torch", "xarray", "dask", "distributed", "odc", "rasterio", "zarr", "diffusers", "scipy")


def test_help_answers_within_half_a_second_and_without_torch() -> None:
    program = [sys.executable, "-m", "rsup.pipeline.cli", "--help"]
    times: list[float] = []
    while len(times) < 10 and min(times, default=1.0) >= 0.5:  # a busy machine is not what this is about
        before = os.times()
        assert "upscale" in subprocess.run(program, capture_output=True, text=True, check=True).stdout
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(times) < 0.5
    code = f"import sys, rsup.pipeline.cli; print(sorted(set({HEAVY}) & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_version_and_completion(rsup: Rsup) -> None:
    assert rsup("--version").stdout == f"rsup {version('rsup')}\n"
    assert "--install-completion" in rsup("--help").stdout
    # What the installed script asks when somebody types "rsup ups" and presses tab.
    asked = {"_RSUP_COMPLETE": "complete_bash", "COMP_WORDS": "rsup ups", "COMP_CWORD": "1"}
    program = Path(sys.executable).with_name("rsup")
    answer = subprocess.run([program], env=os.environ | asked, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["upscale"]


def test_models_for_machines(rsup: Rsup, tiny_student: Callable[[int], Path]) -> None:
    names = {row["name"] for row in json.loads(rsup("models", "list", "--json").stdout)}
    assert {"nearest", "bicubic", "lanczos"} <= names
    lines = rsup("models", "list").stdout.splitlines()
    assert {line.split()[0] for line in lines if line.endswith("faithful, default")} == {"compact-x4", "compact-x8"}
    assert {line.split()[1] for line in lines if line.startswith("--model")} == {"faithful", "sharp"}
    shown = json.loads(rsup("models", "show", tiny_student(8), "--json").stdout)
    assert shown["parameters_as_published"] > shown["parameters"] > 1000 and shown["gmac_512"] > 0


@pytest.mark.parametrize("command", ["fetch", "upscale", "demo"])
def test_a_command_without_its_arguments_says_what_it_needs(command: str, rsup: Rsup) -> None:
    result = rsup(command, "--no-such-option")
    assert result.returncode == 2 and "No such option" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("command", [("--help",), ("models", "list", "--json")])
def test_a_full_disk_behind_standard_output_is_one_sentence(command: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        run = [sys.executable, "-m", "rsup.pipeline.cli", *command]
        result = subprocess.run(run, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 6
    assert result.stderr.splitlines() == [
        "rsup: standard output cannot be written (No space left on device); send it elsewhere"
    ]


def test_a_full_disk_behind_standard_error_does_not_end_the_work(capfd: pytest.CaptureFixture[str]) -> None:
    code = "from rsup.pipeline.cli import _open_streams; _open_streams()\n"
    code += "from rsup.models.base.progress import say; say('news'); print('the work goes on')"
    with open("/dev/full", "w") as full:
        subprocess.run([sys.executable, "-c", code], stderr=full, check=True)
    assert capfd.readouterr().out == "the work goes on\n"


def test_the_number_of_a_closed_stream_goes_to_no_file(tmp_path: Path) -> None:
    code = "from rsup.pipeline.cli import _open_streams; _open_streams()\n"
    code += f"file = open({str(tmp_path / 'chunk')!r}, 'w'); print('a line'); file.write(str(file.fileno()))"
    subprocess.run(
        [sys.executable, "-c", code], close_fds=False, check=True, preexec_fn=lambda: [os.close(n) for n in range(3)]
    )
    assert int((tmp_path / "chunk").read_text()) > 2


def limited(kind: int, soft: int, hard: int, code: str = "main()") -> "subprocess.CompletedProcess[str]":
    """`rsup models list` where the system allows no more."""
    program = f"from rsup.pipeline.cli import main; import sys; sys.argv[1:] = ['models', 'list']; {code}"
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(kind, (soft, hard)),
    )


def test_too_few_open_files_are_said_and_a_low_soft_limit_is_raised() -> None:
    refused = limited(resource.RLIMIT_NOFILE, 20, 20)
    assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1
    assert "only 20 files" in refused.stderr and "ulimit -n" in refused.stderr
    assert limited(resource.RLIMIT_NOFILE, 20, 512).returncode == 0


def test_too_little_memory_is_said() -> None:
    refused = limited(resource.RLIMIT_AS, 10**9, 10**9)
    assert refused.returncode == 1 and len(refused.stderr.splitlines()) == 1
    assert "only 1.0 GB of address space" in refused.stderr and "ulimit -v" in refused.stderr
    # Enough to begin with, and then a library wants more.
    code = "import rsup.models.upscaler as u; u.list_models = lambda: bytearray(1 << 42); main()"
    spent = limited(resource.RLIMIT_AS, 1 << 32, 1 << 32, code)
    assert spent.returncode == 1
    assert spent.stderr.splitlines() == ["rsup: not enough memory (none is left): free some, or ask for less at once"]


def test_ctrl_c_is_settled_before_anything_slow_is_imported() -> None:
    code = "import sys, signal; before = set(sys.modules); import rsup.pipeline.cli\n"
    code += "print(signal.getsignal(signal.SIGINT) == signal.SIG_DFL, {'typer', 'pydantic'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True set()\n"


def test_what_a_terminal_obeys_does_not_reach_it(rsup: Rsup, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "a\n\x1b[31m\u202eb\u2066"
    result = rsup("fetch", f"--{hostile}")
    assert result.returncode == 2 and "No such option" in result.stderr
    assert not {"\x1b", "\u202e", "\u2066"} & set(result.stderr)
    result = rsup("upscale", hostile, "--scale", 4)
    assert result.returncode == 5 and len(result.stderr.splitlines()) == 1
    assert not {"\x1b", "\u202e", "\u2066"} & set(result.stderr)
    print_result({"scene": hostile, "items": [{"id": hostile}], "figures": {hostile: 1.0}}, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and not {"\x1b", "\u202e", "\u2066"} & set("".join(lines))


def test_figures_are_short_for_people_and_whole_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"rms": 0.04466790621174009, "angle": 1.2e-5, "psnr": 38.1267, "lost": 1234567.0, "dark": 7, "no": None}
    print_result({"consistency": figures, "seconds": 12.25}, as_json=False)
    assert capsys.readouterr().out == (
        "consistency: rms 0.0447, angle 1.2e-05, psnr 38.13, lost 1234567, dark 7, no None\nseconds: 12.25\n"
    )
    print_result({"consistency": figures}, as_json=True)
    assert json.loads(capsys.readouterr().out) == {"consistency": figures}
