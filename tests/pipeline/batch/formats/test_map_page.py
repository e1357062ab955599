"""The map of a job: every unit in its state, every finished one's page where the link leads, nothing from elsewhere."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from archives import WriteJob
from pyproj import Geod

from rsup.models.base.errors import OutputError
from rsup.pipeline.batch.job import Job, load_job
from rsup.pipeline.batch.records import Record, claim, write_failure, write_record
from rsup.pipeline.batch.status import STATES, status

REASON = "item </script><script>alert(1)</script>\x1b[2J cannot be read"


@pytest.fixture
def job(write_job: WriteJob) -> Job:
    """Six cells in two zones and two months: one done, one failed."""
    job = load_job(write_job(output="my archive#1", bbox=[11.995, 52.0, 12.01, 52.005]))
    assert len({cell.crs for cell in job.places}) == 2
    claim(job.output, job.identity())
    first, second, *_ = job.units()
    write_record(job.output / first.path, Record(state="done", sources=("a",), model=job.upscale_plan.model.sha256))
    (job.output / first.path / f"{first.name}_x4.html").write_text("the mosaic's page")
    write_failure(job.output / second.path, ("a",), REASON)
    return job


def drawn(page: Path) -> dict[str, Any]:
    """What the script of the page is given."""
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    said: dict[str, Any] = json.loads(data)
    return said


def test_every_unit_is_in_its_state_and_leads_to_its_page(job: Job, tmp_path: Path) -> None:
    page = tmp_path / "maps" / "map.html"
    page.parent.mkdir()
    said = status(job, page)
    assert said == status(job) | {"page": str(page)}
    data = drawn(page)
    states = {
        f"{cell}_{interval}": STATES[int(digit)]
        for interval, row in zip(data["intervals"], data["units"], strict=True)
        for cell, digit in zip(data["cells"], row, strict=True)
    }
    first, second, *others = [unit.name for unit in job.units()]
    assert states == {first: "done", second: "failed"} | dict.fromkeys(others, "waiting")
    unit = job.units()[0]
    link = "/".join((data["root"], unit.interval.name, unit.cell.name, unit.name + data["ending"]))
    assert "#" not in link and (page.parent / unquote(link)).read_text() == "the mosaic's page"


def test_cells_lie_as_they_do_on_the_ground(job: Job, tmp_path: Path) -> None:
    """Their distances in the drawing are those on the ellipsoid, but for the drawing's rounding."""
    status(job, tmp_path / "map.html")
    data = drawn(tmp_path / "map.html")
    centres = np.array(data["corners"]).reshape(-1, 4, 2).mean(axis=1)
    places = {cell.name: cell.box.centre for cell in job.places}
    geod = Geod(ellps="WGS84")
    first = data["cells"][0]
    metres, units, bearings = [], [], []
    for name, centre in zip(data["cells"][1:], centres[1:], strict=True):
        bearing, _, far = geod.inv(*places[first], *places[name])
        east, south = centre - centres[0]
        metres.append(far)
        units.append(np.hypot(east, south))
        bearings.append((np.degrees(np.arctan2(east, -south)) - bearing + 180) % 360 - 180)
    scales = np.array(units) / metres
    assert np.ptp(scales) < 0.01 * scales.mean() and np.abs(bearings).max() < 1


def test_it_needs_nothing_and_says_nothing_twice(job: Job, tmp_path: Path) -> None:
    page = tmp_path / "map.html"
    status(job, page)
    text = page.read_text()
    assert "http" not in re.sub(r"http://www\.w3\.org/2000/svg", "", text).replace('http-equiv="Content', "")
    assert "default-src 'none'" in text and "<script>alert" not in text and "\x1b" not in text
    assert str(tmp_path) not in text
    status(job, page)  # replaced by itself
    assert page.read_text() == text
    other = tmp_path / "thesis.html"
    other.write_text("years of work")
    with pytest.raises(OutputError, match="is no map of a job"):
        status(job, other)
    assert other.read_text() == "years of work"
    with pytest.raises(OutputError):
        status(job, other / "map.html")


def test_of_acquisitions_a_cell_has_units_on_its_own_days(write_job: WriteJob, tmp_path: Path) -> None:
    job = load_job(write_job(interval="acquisition", bbox=[13.0, 52.0, 13.01, 52.0001]))
    claim(job.output, job.identity())
    status(job, tmp_path / "map.html")
    assert drawn(tmp_path / "map.html")["units"] == []
    one = job.places[0].name
    write_failure(job.output / "2024-05-12" / one, ("a",), "no")
    status(job, tmp_path / "map.html")
    data = drawn(tmp_path / "map.html")
    assert data["intervals"] == ["2024-05-12"] and data["units"][0].count(".") == len(job.places) - 1 > 0


def test_ten_thousand_units_are_a_page_of_a_megabyte(write_job: WriteJob, tmp_path: Path) -> None:
    job = load_job(write_job(bbox=[13.0, 52.0, 16.0, 53.6], cells=512, dates="2024"))
    claim(job.output, job.identity())
    start = time.process_time()
    assert status(job, tmp_path / "map.html")["units"] > 10_000
    assert time.process_time() - start < 20 and (tmp_path / "map.html").stat().st_size < 2**20
