"""The comparison as a whole: its lines, their sums, and what is left out."""

import json

import pytest
import torch

from rsup.models.bench import run, turns
from rsup.models.bench.contender import Row
from rsup.models.bench.own import REFERENCE
from rsup.models.bench.run import bench, table
from rsup.models.show import show_model


@pytest.mark.slow
def test_two_networks_and_one_that_is_missing(monkeypatch):
    monkeypatch.setattr(turns, "find_spec", lambda package: None)
    told = []
    result = bench("cpu", lambda done, total, note="": told.append((done, total, note)), ("x4", "x8", "swinir"))
    assert json.loads(json.dumps(result)) == result
    assert result["device"] == "cpu" and result["cores"] >= 1 and result["machine"]
    assert result["skipped"] == [{"name": "SwinIR", "reason": "spandrel is not installed"}]
    for line, scale in zip(result["networks"], (4, 8), strict=True):
        shown = show_model(f"compact-x{scale}")
        assert (line["scale"], line["parameters"], line["gmac"]) == (scale, shown["parameters"], shown["gmac_512"])
        assert 2 <= line["turns"] <= run.ROUNDS
        # 10,980 px of 10 m are so many tiles of 512 px of output, on one core of those that are here.
        hours = line["seconds"] * (10_980 * scale / 512) ** 2 / 3600 / result["cores"]
        assert line["full_tile_hours"] == pytest.approx(hours)
        assert line["for_an_hour"] - 1 < hours <= line["for_an_hour"]
        assert line["ratio"] is None  # the paper's student took no part
    assert told[-1][1] == 12
    text = table(result)
    assert "left out SwinIR: spandrel is not installed" in text and "comes with rsup, x8" in text


def test_a_line_is_the_sum_of_its_passes():
    taken = turns.Seat("diffusion", None, None)
    taken.sizes = {"encode": turns.Size(10, 1.0), "unet": turns.Size(100, 2.0)}
    taken.seconds = [{"encode": 1.0, "unet": 3.0}, {"encode": 2.0, "unet": 1.0}, {"encode": 1.0, "unet": 2.0}]
    line = run._line(Row("made", 4, {"encode": 1, "unet": 50}), taken, None)
    assert (line["seconds"], line["gmac"], line["parameters"]) == (101.0, 101.0, 110)


@pytest.mark.slow
def test_the_papers_student_is_what_others_are_compared_with():
    result = bench("cpu", names=("float32", "written", "run"))
    lines = {line["name"]: line for line in result["networks"]}
    assert lines[REFERENCE]["ratio"] == 1
    assert {line["parameters"] for line in lines.values()} == {55_974_802}
    assert all(line["ratio"] == line["seconds"] / lines[REFERENCE]["seconds"] for line in lines.values())


def test_a_device_that_is_not_there_ends_the_command(rsup):
    done = rsup("bench", "--device", "tpu9")
    assert (done.returncode, done.stdout) == (3, "")
    assert "not tpu9" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.gpu
def test_a_card_is_timed_by_the_clock():
    result = bench("cuda", names=("x4",))
    (line,) = result["networks"]
    assert result["cores"] is None and result["machine"] == torch.cuda.get_device_name()
    assert 0 < line["seconds"] < 1 and line["peak_bytes"] > 4 * line["parameters"]
