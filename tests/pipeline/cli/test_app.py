"""The command line's boundary: any text as any option gives a plan or one sentence, never another exception."""

import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsup.models.base.errors import RsupError
from rsup.pipeline.cli.app import app
from rsup.pipeline.scenes.scene import Scene

ODD = [
    "",
    "/",
    "..",
    "nan",
    "-inf",
    "1e999",
    "-1",
    "0",
    "4.0",
    "４",
    "9" * 400,
    "1_0",
    "\n",
    "\u202e",
    "x" * 3000,
    "-x",
]
value = st.one_of(st.sampled_from(ODD), st.text(max_size=30), st.integers().map(str), st.floats().map(str))
number = st.one_of(value, st.floats(-200, 200).map(str))

FETCH = {
    "--bbox": st.one_of(value, st.lists(number, min_size=3, max_size=5).map(",".join)),
    "--date": st.one_of(value, st.lists(st.dates().map(str), min_size=1, max_size=3).map("/".join)),
    "--crs": value,
    "--bands": st.one_of(value, st.lists(st.sampled_from(["red", "B04", "nir", "x"]), max_size=4).map(",".join)),
    "--composite": value,
    "--offset": value,
    "--collection": value,
    "--max-cloud": number,
    "--catalog": value,
    "-o": value,
}
UPSCALE = {
    "--scale": st.one_of(value, st.sampled_from(["4", "8"])),
    "--bands": st.one_of(value, st.lists(st.sampled_from(["red", "B04", "nir", "x"]), max_size=4).map(",".join)),
    "--chunk": st.one_of(value, st.integers(60, 5000).map(str)),
    "--workers": value,
    "--device": st.one_of(value, value.map("cuda:{}".format)),
    "--model": value,
    "-o": value,
}
PROGRAM: Any = typer.main.get_command(app)
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def outcome(arguments: list[str]) -> None:
    """Run the command in this process: it prints a plan, is told that it was misused, or fails in a sentence."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(io.StringIO()):
        try:
            PROGRAM.main(arguments, prog_name="rsup")
        except SystemExit as end:
            if end.code in (0, None) and "--json" in arguments:
                assert isinstance(json.loads(printed.getvalue()), dict)
        except RsupError as error:
            assert str(error).strip()


@pytest.fixture
def empty_catalog(tmp_path: Path) -> Path:
    """A catalogue file without items: what is odd must be said before it is asked, or it has nothing."""
    path = tmp_path / "catalog.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": []}))
    return path


@quick
@given(st.sampled_from(list(FETCH)).flatmap(lambda name: st.tuples(st.just(name), FETCH[name])))
def test_any_text_as_any_option_of_fetch(empty_catalog: Path, option: tuple[str, str]) -> None:
    plain = {"--bbox": "12.4,48.93,12.41,48.94", "--date": "2024-06", "--catalog": str(empty_catalog)}
    if option[0] == "--catalog" and option[1].lower().startswith("http"):
        return  # no test may reach the network
    outcome(["fetch", *(part for pair in (plain | dict([option])).items() for part in pair), "--dry-run", "--json"])


@pytest.fixture
def plain_scene(make_scene: Callable[..., Scene]) -> Path:
    """A scene that nothing is wrong with."""
    return make_scene(np.full((3, 70, 66), 2000, np.uint16)).path


@quick
@given(st.sampled_from(list(UPSCALE)).flatmap(lambda name: st.tuples(st.just(name), UPSCALE[name])))
def test_any_text_as_any_option_of_upscale(plain_scene: Path, option: tuple[str, str]) -> None:
    plain = {"--scale": "4", "--model": "nearest", "--device": "cpu"}
    options = [part for pair in (plain | dict([option])).items() for part in pair]
    outcome(["upscale", str(plain_scene), *options, "--dry-run", "--json"])


@quick
@given(value)
def test_any_text_as_a_scene(text: str) -> None:
    outcome(["upscale", "--scale", "4", "--model", "nearest", "--device", "cpu", "--dry-run", "--", text])


@quick
@given(value)
def test_any_text_as_a_mosaic(text: str) -> None:
    outcome(["view", "--", text])


@quick
@given(value)
def test_any_text_as_a_port_or_a_scene_of_a_mosaic(tmp_path: Path, text: str) -> None:
    for option in ("--port", "--scene"):
        outcome(["view", option, text, str(tmp_path)])  # there is no mosaic: nothing is served


@quick
@given(value, st.sampled_from(["--seed", "--size", "--scale"]))
def test_any_text_as_a_number_of_the_demo(tmp_path: Path, text: str, option: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rsup.pipeline.demo.run.make_archive", _stop)  # what is odd must be said before anything is made
        try:
            outcome(["demo", option, text, "-o", str(tmp_path / "demo")])
        except _ReachedError:
            number = float(text)  # "4.0" is a whole number to the parser
            assert option != "--scale" or number in (4, 8)
            assert option != "--seed" or number >= 0
            assert option != "--size" or 0 < number < 100_000


class _ReachedError(Exception):
    """The options were taken for good ones."""


def _stop(*_: object) -> None:
    raise _ReachedError
