"""The state of a job from its records: quickly, of many units, and whatever lies there."""

from __future__ import annotations

import json
import time

from archives import WriteJob

from rsup.pipeline.batch.job import load_job
from rsup.pipeline.batch.leases.folder import acquire
from rsup.pipeline.batch.records import claim, write_failure
from rsup.pipeline.batch.status import retry, status


def test_ten_thousand_units_in_no_time(write_job: WriteJob) -> None:
    job = load_job(write_job(bbox=[13.0, 52.0, 16.0, 53.6], cells=512, dates="2024"))
    units = job.units()
    claim(job.output, job.identity())
    model = job.upscale_plan.model.sha256
    record = json.dumps({"model": model, "sources": ["S2A_33UUQ_20240612_0_L2A"] * 12, "state": "done"})
    for unit in units[: len(units) // 2]:
        (job.output / unit.path).mkdir(parents=True)
        (job.output / unit.path / "unit.json").write_text(record)
    start = time.process_time()
    said = status(job)
    assert time.process_time() - start < 5
    assert said["units"] == len(units) > 10_000
    assert (said["done"], said["waiting"]) == (len(units) // 2, len(units) - len(units) // 2)


def test_every_state_is_told_by_what_lies_there(write_job: WriteJob) -> None:
    job = load_job(write_job(dates="2024"))
    claim(job.output, job.identity())
    folders = [job.output / unit.path for unit in job.units()]
    done = json.dumps({"state": "done", "sources": ["a"], "model": job.upscale_plan.model.sha256})
    for folder, record in zip(
        folders,
        (done, '{"state": "empty", "sources": []}', "{", '{"state": "odd"}'),
        strict=False,
    ):
        folder.mkdir(parents=True)
        (folder / "unit.json").write_text(record)
    (folders[4] / ".unit").mkdir(parents=True)
    (folders[5] / ".unit").mkdir(parents=True)
    (folders[5] / "unit.json").write_text(done)
    write_failure(folders[6], ("a",), "item a cannot be read from https://me:secret@example.org/a.tif\x1b[2J")
    lease = acquire(job.output, job.units()[7].name)
    assert lease is not None
    with lease:
        said = status(job)
    states = {"done": 1, "stale": 1, "empty": 1, "failed": 1, "running": 1, "waiting": 7}
    assert {key: said[key] for key in states} == states and said["units"] == 12
    (failure,) = said["failures"]
    assert failure["unit"] == job.units()[6].name and "secret" not in failure["reason"] and "\x1b" not in str(failure)
    assert retry(job)["forgotten"] == [failure["unit"]] and status(job)["failed"] == 0


def test_of_acquisitions_those_that_something_is_known_of_are_told(write_job: WriteJob) -> None:
    job = load_job(write_job(interval="acquisition"))
    claim(job.output, job.identity())
    cell = job.places[0].name
    assert status(job)["units"] == 0
    (job.output / "2024-05-12" / cell).mkdir(parents=True)
    (job.output / "2024-05-12" / cell / "unit.json").write_text('{"state": "empty", "sources": ["a"]}')
    write_failure(job.output / "2024-05-17" / cell, ("b",), "no")
    for name in ("2024-13-45", "20240512", "notes", ".hidden"):  # somebody else's
        (job.output / name / cell).mkdir(parents=True)
        (job.output / name / cell / "unit.json").write_text('{"state": "empty", "sources": ["a"]}')
    assert {key: status(job)[key] for key in ("units", "empty", "failed")} == {"units": 2, "empty": 1, "failed": 1}
    assert retry(job)["forgotten"] == [f"{cell}_2024-05-17"]
