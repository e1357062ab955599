"""Planning asks, reads and computes as much as there is new, and no more: the number of things done is counted."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archives import WriteJob

from rsup.pipeline.batch import catalogue
from rsup.pipeline.batch.job import Job, load_job
from rsup.pipeline.batch.plan import plan
from rsup.pipeline.batch.records import Record, claim, write_record
from rsup.pipeline.batch.status import status
from rsup.pipeline.jobs.forecast import recorded
from rsup.pipeline.sources import footprint

MONTHS = 6


def listed(west: int, south: int, month: int) -> dict[str, Any]:
    """An item of one degree."""
    ring = [[west, south], [west + 1, south], [west + 1, south + 1], [west, south + 1], [west, south]]
    name = f"S2A_33U{chr(65 + west)}{chr(65 + south - 45)}_2024{month:02}12_0_L2A"
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "sentinel-2-l2a", "links": [],
        "geometry": {"type": "Polygon", "coordinates": [ring]}, "bbox": [west, south, west + 1, south + 1],
        "properties": {"datetime": f"2024-{month:02}-12T10:10:31Z", "eo:cloud_cover": 1},
        "assets": {key: {"href": f"https://example.org/{name}/{key}.tif"} for key in ("red", "green", "blue", "scl")},
    }  # fmt: skip


def done(write_job: WriteJob, tmp_path: Path, side: float) -> Job:
    """A job of which every unit is done, over `side` degrees, and a catalogue of 25 degrees around it."""
    items = [listed(11 + n % 5, 50 + n // 5, month) for n in range(25) for month in range(1, MONTHS + 1)]
    catalog = tmp_path / "items.json"
    catalog.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    bbox = [13.1, 52.1, 13.1 + side, 52.1 + side]
    job = load_job(
        write_job(output=f"of-{side}", bbox=bbox, dates="2024-01-01/2024-06-30", fetch={"catalog": str(catalog)})
    )
    claim(job.output, job.identity())
    for unit in job.units():
        name = f"S2A_33UNH_2024{unit.interval.first.month:02}12_0_L2A"
        write_record(job.output / unit.path, Record(state="done", sources=(name,), model=job.upscale_plan.model.sha256))
    return job


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Files opened, catalogues asked, boxes worked out and footprints looked at."""
    count = Counter[str]()

    def count_calls(owner: Any, name: str) -> None:
        plain = getattr(owner, name)

        def counting(*arguments: Any, **options: Any) -> Any:
            count[name] += 1
            return plain(*arguments, **options)

        monkeypatch.setattr(owner, name, counting)

    count_calls(io, "open")  # of pathlib
    count_calls(catalogue, "ask")
    count_calls(catalogue, "query_of")
    count_calls(footprint.Footprint, "touches")
    return count


def test_what_a_unit_costs_does_not_grow_with_the_job(
    write_job: WriteJob, tmp_path: Path, counted: Counter[str]
) -> None:
    each = {}
    for side in (0.02, 0.06):
        job = done(write_job, tmp_path, side)
        units = len(job.units())
        counted.clear()
        said = plan(job)
        assert (said["done"], said["units"]) == (units, units) and "network_seconds" not in said["each"]
        assert counted["ask"] == MONTHS
        assert counted["query_of"] <= len(job.places) + MONTHS + 1  # not once a unit
        assert counted["open"] <= 2 * units + MONTHS + 4  # a record, and a failure that is not there
        asked = 25 * MONTHS  # by the listing itself
        each[units] = (counted["touches"] - asked) / units
        counted.clear()
        assert status(job)["done"] == units
        assert counted["open"] <= 2 * units + 2 and counted["ask"] == 0
    few, many = each
    assert many > 4 * few and each[few] == each[many] == 1  # of 25 footprints


LOOK = """
import json, pathlib, resource, sys
from rsup.pipeline import cli
sys.argv[0] = "rsup"
try:
    cli.main()
finally:
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps([sorted(sys.modules), peak, children]), file=sys.stderr)
"""
"""The command; then, on the other stream, what it has imported, the MB that it took at most (ru_maxrss would begin with
its parent's), and what children took."""


@pytest.mark.parametrize(
    ("command", "without"),
    [("plan", {"torch", "scipy", "xarray"}), ("status", {"torch", "scipy", "xarray", "distributed", "pystac"})],
)
def test_ten_thousand_units_without_pytorch_and_with_half_a_gigabyte(
    command: str, without: set[str], write_job: WriteJob
) -> None:
    """With a student, on the CPU: what its network takes is recorded."""
    job = write_job(bbox=[13.0, 52.0, 16.0, 53.6], cells=512, dates="2024", upscale={"scale": 4, "device": "cpu"})
    done = subprocess.run(
        [sys.executable, "-c", LOOK, "batch", command, str(job), "--json"], capture_output=True, text=True, check=True
    )
    said = json.loads(done.stdout)
    assert said["units"] == said["waiting"] > 10_000
    modules, peak, children = json.loads(done.stderr.splitlines()[-1])
    assert not without & set(modules)
    assert peak < 500 and not children
    if command == "plan":
        assert said["each"]["network_seconds"] > 0


def test_seconds_are_those_of_as_many_cores_and_only_where_they_are_known(
    write_job: WriteJob, tiny_student: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the README's table: 0.379 s a core for 512 px at x4, tiles of 160 px of which 6 on each side are context."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(4))
    upscale = {"scale": 4, "device": "cpu"}
    job = load_job(write_job(cells=512, upscale=upscale))
    tiles = job.upscale_plan.summary()["tiles"]
    assert recorded(job.plan_here) == pytest.approx(tiles * (640 / 512) ** 2 * 0.379 / 4, abs=0.05)
    assert recorded(load_job(write_job(cells=512, upscale=upscale | {"workers": 2})).plan_here) == recorded(
        job.plan_here
    )
    assert recorded(load_job(write_job(upscale=upscale | {"model": "nearest"})).plan_here) == 0
    assert recorded(load_job(write_job(upscale=upscale | {"model": str(tiny_student(4))})).plan_here) is None
