"""An archive whose runners are killed at random moments, and one whose disk is full: reruns end as if nothing was."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from archives import files_of
from forks import Forks, Rsup
from months import Item, Serve, counts, told, write_job

from rsup.pipeline.batch.job import load_job
from rsup.pipeline.batch.status import status
from rsup.pipeline.demo.archive import Archive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_twenty_kills_at_random_moments(
    undisturbed: Path, serve: Serve, items: list[Item], archive: Archive, forks: Forks, rsup: Rsup, tmp_path: Path
) -> None:
    """What is recorded is whole after each of them; an archive that is finished early is begun again."""
    output, dice, kills = tmp_path / "archive", random.Random(11), 0
    with serve(items) as catalog:
        job = write_job(archive, catalog, tmp_path, "archive")
        while kills < 20:
            runner = forks.begin(["batch", "run", job, "--json"])
            until = time.monotonic() + dice.uniform(0.0, 4.0)
            while runner.poll() is None and time.monotonic() < until:
                time.sleep(0.002)
            kills += runner.poll() is None
            runner.kill()
            runner.end()
            for record in output.glob("*/*/unit.json"):
                whole = files_of(undisturbed / record.parent.relative_to(output))
                assert {**files_of(record.parent), **whole} == files_of(record.parent), record
            said = counts(status(load_job(job)))
            assert sum(said.values()) == 4 and "failed" not in said
            if said == {"done": 4} and (output / "collection.json").exists():
                assert counts(told(rsup("batch", "run", job, "--json"))) == {"already_done": 4}
                assert files_of(output) == files_of(undisturbed)
                shutil.rmtree(output)
        told(rsup("batch", "run", job, "--json"))
    assert files_of(output) == files_of(undisturbed)


def test_a_full_disk_harms_nothing_and_the_rerun_ends_the_work(
    undisturbed: Path, serve: Serve, items: list[Item], archive: Archive, rsup: Rsup, small_disk: Any
) -> None:
    output = small_disk.path / "archive"
    size = sum(path.stat().st_size for path in undisturbed.rglob("*") if path.is_file())
    with serve(items) as catalog:
        job = write_job(archive, catalog, small_disk.path.parent, str(output))
        for share in (0.1, 0.6, 0.95):
            small_disk.remount(f"size={int(share * size)}")
            done = rsup("batch", "run", job, "--json")
            assert done.returncode == 6 and "No space left" in done.stderr and "Traceback" not in done.stderr
        small_disk.remount("size=200m")
        assert "failed" not in counts(status(load_job(job)))
        told(rsup("batch", "run", job, "--json"))
    assert files_of(output) == files_of(undisturbed)
