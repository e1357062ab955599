"""What a run does, does again and leaves alone; and a kill at every step, after which the same command goes on."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archives import Made, WriteJob, became, counted
from kills import KILLED, was_killed

from rsup.models.base.errors import ArgumentError, CatalogError, OutputError, RsupError
from rsup.pipeline.batch import plan as planning
from rsup.pipeline.batch import run as running
from rsup.pipeline.batch.job import Job, load_job
from rsup.pipeline.batch.leases.folder import FOLDER, acquire
from rsup.pipeline.batch.run import run
from rsup.pipeline.batch.status import STATES, retry, status

ALL = (1, 1)


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def job(write_job: WriteJob) -> Job:
    return load_job(write_job())


def test_a_run_does_all_and_the_next_one_nothing(job: Job, made: Made) -> None:
    assert counted(job) == {"waiting": 2}
    assert became(run(job, ALL)) == {"done": 2}
    before = files(job.output)
    cell = job.places[0].name
    shown = {f"{month}/{name}" for month in ("2024-05", "2024-06")
             for name in (f"{job.places[0].zone}_x4.vrt", "mosaic_x4.json")}  # fmt: skip
    assert set(before) == {"job.json", "collection.json"} | shown | {
        f"{month}/{cell}/{name}"
        for month in ("2024-05", "2024-06")
        for name in (
            "unit.json", f"{cell}_{month}_x4.html", f"{cell}_{month}_x4_model.json",
            f"{cell}_{month}_x4.json", f"{cell}_{month}_x4.tif",
            f"{cell}_{month}_x4.zarr/zarr.json",
        )
    }  # fmt: skip
    stamps = {path: path.stat().st_mtime_ns for path in job.output.rglob("*.*") if path.is_file()}
    assert became(run(job, ALL)) == {"already_done": 2}
    assert files(job.output) == before and len(made.fetched) == len(made.upscaled) == 2
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps  # nothing is written again as it was
    assert counted(job) == {"done": 2}
    made.items["2024-05"].reverse()  # clouds have been measured anew: the items are the same
    assert became(run(job, ALL)) == {"already_done": 2}


def test_a_new_item_makes_its_unit_anew_and_no_other(job: Job, made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    run(job, ALL)
    before = files(job.output)
    made.items["2024-05"] = ["d", "b", "a"]
    capsys.readouterr()
    assert became(run(job, ALL)) == {"done": 1, "already_done": 1}
    assert "1 items are new and 0 gone since it was done: it is done again" in capsys.readouterr().err
    after = files(job.output)
    changed = {name for name in before if before[name] != after[name]}
    assert before.keys() == after.keys() and {name[:7] for name in changed} == {"2024-05", "collect"}
    assert made.upscaled[2:] == [f"{job.places[0].name}_2024-05"]
    made.items["2024-05"] = []  # nothing is listed any more: the mosaic stays
    assert became(run(job, ALL)) == {"already_done": 2} and files(job.output) == after


def test_what_changes_while_another_unit_is_made_is_seen(job: Job, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Units are looked at ahead of the one in work: a failure that is forgotten meanwhile is tried again."""
    made.broken.add("c")
    assert became(run(job, ALL)) == {"done": 1, "failed": 1}
    made.items["2024-05"] = ["d"]  # May has to be made again
    upscale = made.upscale

    def upscale_and_forget(*arguments: Any, **options: Any) -> Any:
        made.broken.clear()
        retry(job)
        return upscale(*arguments, **options)

    monkeypatch.setattr(running, "upscale", upscale_and_forget)
    assert became(run(job, ALL)) == {"done": 2}


DAMAGE: dict[str, Callable[[Path], object]] = {
    "cut short": lambda item: item.write_bytes(item.read_bytes()[:200]),
    "no object": lambda item: item.write_text("[]"),
    "edited": lambda item: item.write_text(item.read_text().replace('"gsd"', '"metres"')),
    "without time": lambda item: item.write_text(item.read_text().replace("2024-05-01T", "soon")),
    "without sources": lambda item: item.write_text(
        item.read_text().replace('"rsup:sources": ', '"rsup:sources": 7, "x": ')
    ),
    "without pixels": lambda item: item.write_text(item.read_text().replace('"proj:shape"', '"shape"')),
    "gone": lambda item: item.unlink(),
    "without a mosaic": lambda item: item.with_suffix(".tif").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_unit_of_which_something_is_gone_or_damaged_is_made_anew(
    damage: Callable[[Path], object], job: Job, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    run(job, ALL)
    before = files(job.output)
    (item,) = job.output.glob("2024-05/*/*_x4.json")
    damage(item)
    capsys.readouterr()
    assert became(run(job, ALL)) == {"done": 1, "already_done": 1}
    assert "an output is gone, or its item is damaged: it is done again" in capsys.readouterr().err
    assert files(job.output) == before and len(made.upscaled) == 3


def test_a_damaged_item_that_cannot_be_made_anew_is_left_as_it_is(
    job: Job, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    run(job, ALL)
    (item,) = job.output.glob("2024-05/*/*_x4.json")
    item.write_text("{")
    made.items["2024-05"] = []
    capsys.readouterr()
    assert became(run(job, ALL)) == {"already_done": 2} and item.read_text() == "{"
    assert f"{item} is damaged, and left out of the collection" in capsys.readouterr().err
    links = [link["href"] for link in json.loads((job.output / "collection.json").read_text())["links"]]
    assert [link[:9] for link in links if link.endswith("_x4.json")] == ["./2024-06"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": "done"}', '{"state": "odd", "sources": []}', "\0" * 50])
def test_a_record_that_nobody_understands_is_made_anew(content: str, job: Job, made: Made) -> None:
    run(job, ALL)
    before = files(job.output)
    (record,) = job.output.glob("2024-05/*/unit.json")
    record.write_text(content)
    assert counted(job) == {"done": 1, "waiting": 1}
    assert became(run(job, ALL)) == {"done": 1, "already_done": 1} and files(job.output) == before


def test_what_a_later_version_adds_to_a_record_is_left_there(job: Job, made: Made) -> None:
    run(job, ALL)
    for record in job.output.glob("*/*/unit.json"):
        record.write_text(json.dumps(json.loads(record.read_text()) | {"rsup": "9.0", "cells": {"odd": [1]}}))
    before = files(job.output)
    assert became(run(job, ALL)) == {"already_done": 2} == {"already_done": counted(job)["done"]}
    assert files(job.output) == before and len(made.upscaled) == 2


def test_a_link_in_the_place_of_a_unit_s_own_folder_is_not_followed(job: Job, made: Made, tmp_path: Path) -> None:
    run(job, ALL)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (job.output / job.units()[0].path / ".unit").symlink_to(elsewhere)
    before = elsewhere.stat().st_mtime_ns
    assert became(run(job, ALL)) == {"failed": 1, "already_done": 1}
    assert "a link, pipe or device stands there" in status(job)["failures"][0]["reason"]
    assert elsewhere.stat().st_mtime_ns == before


def test_a_collection_that_was_edited_is_written_again(job: Job, made: Made) -> None:
    run(job, ALL)
    before = files(job.output)
    for name in ("collection.json", "2024-05/mosaic_x4.json"):
        (job.output / name).write_text("edited")
        assert became(run(job, ALL)) == {"already_done": 2} and files(job.output) == before


def test_what_is_published_stays_in_the_collection_when_the_job_ends_sooner(
    job: Job, write_job: WriteJob, made: Made
) -> None:
    run(job, ALL)
    before = files(job.output)
    (job.output / "notes").mkdir()
    assert became(run(load_job(write_job(dates="2024-05")), ALL)) == {"already_done": 1}
    assert files(job.output) == before


def test_another_model_makes_nothing_anew_until_it_is_told_to(
    write_job: WriteJob, made: Made, capsys: pytest.CaptureFixture[str]
) -> None:
    run(load_job(write_job()), ALL)
    made.items["2024-06"] = []  # and what cannot be made again stays
    new = load_job(write_job(upscale={"scale": 4, "model": "bicubic", "device": "cpu"}))
    before = files(new.output)
    for refused in (lambda: run(new, ALL), lambda: status(new)):
        with pytest.raises(OutputError, match="was made with another model"):
            refused()
    assert files(new.output) == before
    capsys.readouterr()
    assert became(run(new, ALL, renew=True)) == {"done": 1, "already_done": 1} and len(made.upscaled) == 3
    assert "it was made with another model: it is done again" in capsys.readouterr().err
    assert became(run(new, ALL)) == {"already_done": 2} and counted(new) == {"done": 1, "stale": 1}
    with pytest.raises(OutputError, match="was made with another model"):
        run(load_job(write_job()), ALL)


def test_a_kill_in_the_middle_of_a_renewal(write_job: WriteJob, made: Made) -> None:
    """What an attempt with the other model has left is not gone on with."""
    old = load_job(write_job(dates="2024-05"))
    made.items["2024-05"] = ["a"]
    run(old, ALL)
    new = load_job(write_job(dates="2024-05", upscale={"scale": 4, "model": "bicubic", "device": "cpu"}))
    made.items["2024-05"] = ["b"]
    assert killed(lambda: run(old, ALL), old.output, 12)
    (work,) = old.output.glob("*/*/.unit")
    assert any(path.suffix == ".zarr" for path in work.iterdir())
    assert became(run(new, ALL, renew=True)) == {"done": 1} and len(made.fetched) == len(made.upscaled) == 2
    assert counted(new) == {"done": 1}


def test_parts_do_not_meet(job: Job, made: Made) -> None:
    done = [became(run(job, (index, 3))).get("done", 0) for index in (1, 2, 3)]
    assert sum(done) == 2 == len(made.fetched)
    assert counted(job) == {"done": 2}


def test_a_unit_without_items_is_looked_at_again(job: Job, made: Made) -> None:
    june = made.items.pop("2024-06")
    made.blank = {"a", "b"}
    assert became(run(job, ALL)) == {"empty": 2} and run(job, ALL)["collection"] is None
    before = files(job.output)
    assert became(run(job, ALL)) == {"empty": 2} == counted(job) and files(job.output) == before
    assert sorted(before) == ["2024-05/" + job.places[0].name + "/unit.json", "2024-06/" + job.places[0].name
                              + "/unit.json", "job.json"]  # fmt: skip
    made.items["2024-06"] = june
    assert became(run(job, ALL)) == {"empty": 1, "done": 1}


def test_what_was_left_out_of_a_unit_is_recorded_and_done_for_all_that(job: Job, made: Made) -> None:
    made.lacking = [{"id": "gone", "reason": "item gone, band red: it is not where its item says"}]
    assert became(run(job, ALL)) == {"done": 2}
    records = [json.loads(said) for name, said in files(job.output).items() if name.endswith("unit.json")]
    assert len(records) == 2 and all(record["left_out"] == made.lacking for record in records)
    assert became(run(job, ALL)) == {"already_done": 2}


def test_a_failure_stops_no_other_unit_and_is_tried_again_when_it_is_told(job: Job, made: Made) -> None:
    made.broken = {"a"}
    failed = run(job, ALL)
    assert became(failed) == {"failed": 1, "done": 1}
    unit = f"{job.places[0].name}_2024-05"
    assert failed["failures"] == [{"unit": unit, "reason": "item b cannot be read"}] == status(job)["failures"]
    made.broken = set()
    assert became(run(job, ALL)) == {"failed": 1, "already_done": 1} and counted(job) == {"failed": 1, "done": 1}
    assert retry(job)["forgotten"] == [unit] and retry(job)["forgotten"] == []
    assert became(run(job, ALL)) == {"done": 1, "already_done": 1}
    made.broken, made.items["2024-05"] = {"d"}, ["d"]
    assert became(run(job, ALL)) == {"failed": 1, "already_done": 1}
    assert (job.output / "2024-05" / job.places[0].name / f"{unit}_x4.tif").read_text() == "b a"  # what was, stands
    made.items["2024-05"] = ["a", "b"]  # which it is of
    assert became(run(job, ALL)) == {"already_done": 2} and counted(job) == {"done": 2}


@pytest.mark.parametrize("kind", [CatalogError, ArgumentError])
def test_a_month_whose_items_cannot_be_used_stops_no_other(
    kind: type[RsupError], job: Job, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where none of them has the classes that --mask-clouds needs."""
    monkeypatch.setattr(planning, "Catalogue", made.catalogue)
    monkeypatch.setattr(planning, "_seconds", lambda job: {})
    made.refused = {"2024-05": kind("none has classes")}
    assert became(run(job, ALL)) == {"failed": 1, "done": 1} == counted(job) == planned(job)
    assert [each["reason"] for each in status(job)["failures"]] == ["none has classes"]
    made.refused = {}
    assert planned(job) == {"stale": 1, "done": 1}
    assert became(run(job, ALL)) == {"done": 1, "already_done": 1}
    made.refused = {"2024-05": kind("none has classes")}
    assert planned(job) == {"done": 2}  # what was made before stands
    assert became(run(job, ALL)) == {"failed": 1, "already_done": 1}


def planned(job: Job) -> dict[str, int]:
    said = planning.plan(job)
    return {state: said[state] for state in STATES if said[state]}


def test_a_unit_that_another_runner_has_is_left_to_it(job: Job, made: Made) -> None:
    run(job, ALL)
    made.items["2024-05"].append("d")
    lease = acquire(job.output, f"{job.places[0].name}_2024-05")
    assert lease is not None
    with lease:
        assert became(run(job, ALL)) == {"running": 1, "already_done": 1} == became(run(job, ALL))
        assert counted(job) == {"running": 1, "done": 1}
    assert not (job.output / FOLDER).exists()
    assert became(run(job, ALL)) == {"done": 1, "already_done": 1}


def killed(action: Callable[[], Any], folder: Path, step: int) -> bool:
    """Run in a process that is ended before its step-th act on names or files below `folder`; False if over before."""
    count = 0

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        acts = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir")
        opens = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if acts or (opens and str(arguments[0]).startswith(str(folder))):
            if count == step:
                os._exit(KILLED)
            count += 1

    def armed() -> None:
        sys.addaudithook(hear)
        action()

    return was_killed(armed)


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True], ids=["afresh", "again"])
def test_a_kill_at_every_step(again: bool, write_job: WriteJob, made: Made) -> None:
    """Of a first run, and of one that replaces a mosaic: then the same command ends as if nothing had been."""

    def begin(name: str) -> Job:
        job = load_job(write_job(output=name, dates="2024-05", keep_scenes=True))
        if again:
            made.items["2024-05"] = ["b", "a"]
            assert became(run(job, ALL)) == {"done": 1}
            made.items["2024-05"] = ["d", "a"]
        return job

    undisturbed = begin("undisturbed")
    run(undisturbed, ALL)
    expected, step = files(undisturbed.output), 0
    while True:
        job = begin(f"step-{step}")
        was_killed = killed(lambda job=job: run(job, ALL), job.output, step)  # type: ignore[misc]
        assert sum(counted(job).values()) == 1  # whatever lies there is understood
        assert became(run(job, ALL)).keys() <= {"done", "already_done"}
        assert files(job.output) == expected, step
        assert not any(path.name.startswith(".") for path in job.output.rglob("*")), step
        if not was_killed:
            break
        step += 1
    assert step > 30
