"""`rsup batch` against a real STAC API: units shared, killed, done again where items are new, and nothing twice."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from pathlib import Path

import psutil
import pystac
import pytest
import rasterio
from archives import files_of
from buckets import KEY, SECRET, Bucket
from forks import Forks, Rsup
from months import CELLS, MONTHS, PROGRAM, UNITS, Item, Serve, counts, told, write_job
from rasterio.windows import Window

from rsup.models.base.errors import CatalogError
from rsup.pipeline.batch.catalogue import Catalogue
from rsup.pipeline.batch.job import load_job
from rsup.pipeline.batch.status import status
from rsup.pipeline.demo.archive import Archive
from rsup.pipeline.demo.session import moved


@pytest.mark.slow
def test_an_archive_is_its_mosaics_and_a_collection(undisturbed: Path, items: list[Item]) -> None:
    shown = ("33N_x4.vrt", "mosaic_x4.json")
    expected = {"job.json", "collection.json", *(f"{month}/{name}" for month in MONTHS for name in shown)}
    for unit in UNITS:
        cell, month = unit.split("_")
        expected |= {
            f"{month}/{cell}/{name}"
            for name in ("unit.json", *(f"{unit}_x4{e}" for e in (".html", "_model.json", ".json", ".tif")))
        }
    assert {name for name in files_of(undisturbed) if ".zarr/" not in name} == expected
    collection = pystac.Collection.from_file(str(undisturbed / "collection.json"))
    assert set(collection.assets) == {f"{month}/{name}" for month in MONTHS for name in shown}
    assert (
        collection.title == "Sentinel-2 super-resolved to 2.5 m" and collection.get_single_link("license") is not None
    )
    found = list(collection.get_items())
    assert [item.id for item in found] == [f"{unit}_x4" for unit in UNITS]
    for item in found:
        assert item.get_collection() is collection and item.get_root() is collection
        cog = item.assets["cog"].get_absolute_href()
        assert cog is not None and Path(cog).is_file()
        west, south, east, north = item.properties["proj:bbox"]
        assert item.id.startswith(f"33N-E{west:.0f}-N{south:.0f}_") and (east - west, north - south) == (640, 640)
        record = json.loads((Path(cog).parent / "unit.json").read_text())
        assert record["state"] == "done" and record["sources"] == sorted(item.properties["rsup:sources"])
    for month in MONTHS:
        vrt = collection.assets[f"{month}/33N_x4.vrt"].get_absolute_href()
        assert vrt is not None
        with rasterio.open(vrt) as whole:  # the two cells side by side
            assert (whole.height, whole.width, whole.count) == (256, 512, 3)
            for cell, first in zip(CELLS, (0, 256), strict=True):
                with rasterio.open(undisturbed / month / cell / f"{cell}_{month}_x4.tif") as cog:
                    assert (whole.read(window=Window(first, 0, 256, 256)) == cog.read()).all()
    (extent,) = collection.extent.spatial.bboxes
    boxes = [item.bbox for item in found if item.bbox is not None]
    assert extent == [*map(min, list(zip(*boxes, strict=True))[:2]), *map(max, list(zip(*boxes, strict=True))[2:])]
    ((first, last),) = collection.extent.temporal.intervals
    assert first is not None and last is not None and (first.month, last.month) == (5, 6)
    assert collection.title == "Sentinel-2 super-resolved to 2.5 m"
    assert [provider.name for provider in collection.providers or []] == ["ESA"]
    assert collection.get_single_link("license") is not None  # which STAC asks for where the licence is "other"
    assert collection.summaries.lists["rsup:scale"] == [4] and collection.summaries.lists["gsd"] == [2.5]
    assert not any(str(undisturbed) in path.read_text() for path in undisturbed.glob("**/*.json"))


@pytest.mark.slow
def test_a_new_item_makes_its_units_stale_and_no_others(
    undisturbed: Path, serve: Serve, items: list[Item], archive: Archive, rsup: Rsup, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed, tmp_path / "archive")
    new = moved(
        next(item for item in items if item["id"] == "S2A_33UUQ_20240617_0_L2A"), date(2024, 6, 17), date(2024, 5, 17)
    )
    with serve(items) as catalog:
        job = write_job(archive, catalog, tmp_path, "archive")
        assert counts(told(rsup("batch", "run", job, "--json"))) == {"already_done": 4}
        assert files_of(tmp_path / "archive") == files_of(undisturbed)
    with serve([*items, new]):
        assert counts(told(rsup("batch", "plan", job, "--json"))) == {"stale": 2, "done": 2}
        assert counts(status(load_job(job))) == {"done": 4}  # which asks no catalogue
        again = rsup("batch", "run", job, "--json")
        assert counts(told(again)) == {"done": 2, "already_done": 2}
        assert again.stderr.count("1 items are new and 0 gone since it was done: it is done again") == 2
    before, after = files_of(undisturbed), files_of(tmp_path / "archive")
    changed = {name for name in before if before[name] != after.get(name)}
    assert {name.split("/")[0] for name in changed} <= {"2024-05", "collection.json"}
    for cell in CELLS:
        record = json.loads((tmp_path / "archive/2024-05" / cell / "unit.json").read_text())
        assert new["id"] in record["sources"] and f"2024-05/{cell}/unit.json" in changed


@pytest.mark.slow
def test_two_runners_share_the_units(
    undisturbed: Path, serve: Serve, items: list[Item], archive: Archive, forks: Forks, tmp_path: Path
) -> None:
    with serve(items) as catalog:
        job = write_job(archive, catalog, tmp_path, "archive")
        runners = [forks.begin(["batch", "run", job, "--json"]) for _ in range(2)]
        said = [told(runner.end()) for runner in runners]
    assert sum(each["done"] for each in said) == 4 and all(each["done"] for each in said)
    assert not sum(each["failed"] + each["empty"] for each in said)
    assert files_of(tmp_path / "archive") == files_of(undisturbed)


@pytest.mark.slow
def test_a_runner_that_is_killed_again_and_again(
    undisturbed: Path, serve: Serve, items: list[Item], archive: Archive, rsup: Rsup, tmp_path: Path
) -> None:
    """While the first unit is fetched, while it is upscaled, and with one done and the next begun."""
    output = tmp_path / "archive"
    first, second = (output / "2024-05" / cell for cell in CELLS)
    moments: list[Callable[[], bool]] = [
        (first / ".unit" / "ledger.jsonl").exists,
        (first / ".unit" / ".rsup").exists,
        lambda: (first / "unit.json").exists() and (second / ".unit").exists(),
    ]
    with serve(items) as catalog:
        job = write_job(archive, catalog, tmp_path, "archive")
        for moment in moments:
            with subprocess.Popen([*PROGRAM, "batch", "run", job], stderr=subprocess.DEVNULL) as process:
                until = time.monotonic() + 90
                while not moment():
                    assert process.poll() is None and time.monotonic() < until
                    time.sleep(0.005)
                children = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(signal.SIGKILL)
            assert not psutil.wait_procs(children, timeout=30)[1], "workers outlived the command"
        assert counts(status(load_job(job))) == {"done": 1, "waiting": 3}
        done = (first / "unit.json").stat()
        assert counts(told(rsup("batch", "run", job, "--json"))) == {"done": 3, "already_done": 1}
        assert (first / "unit.json").stat().st_mtime_ns == done.st_mtime_ns
    assert files_of(output) == files_of(undisturbed)


@pytest.mark.slow
def test_ground_and_months_without_items_are_empty_until_there_are_some(
    serve: Serve, items: list[Item], archive: Archive, rsup: Rsup, tmp_path: Path
) -> None:
    with serve(items) as catalog:
        job = write_job(archive, catalog, tmp_path, "cloudy", dates="2024-06-18/2024-07-31")
        said = rsup("batch", "run", job, "--json")
        assert counts(told(said)) == {"empty": 4}
        records = {path: json.loads(path.read_text()) for path in (tmp_path / "cloudy").glob("*/*/unit.json")}
        newest = {path.parts[-3]: record.get("newest") for path, record in records.items()}
        assert newest == {"2024-06": "2024-06-22T10:10:31.024000Z", "2024-07": None}
        assert {record["state"] for record in records.values()} == {"empty"} and len(records) == 4
        before = files_of(tmp_path / "cloudy")
        assert counts(told(rsup("batch", "run", job, "--json"))) == {"empty": 4} == counts(status(load_job(job)))
        assert files_of(tmp_path / "cloudy") == before
    later = moved(
        next(item for item in items if item["id"] == "S2A_33UUQ_20240617_0_L2A"), date(2024, 6, 17), date(2024, 7, 17)
    )
    with serve([*items, later]):
        assert counts(told(rsup("batch", "plan", job, "--json"))) == {"stale": 2, "empty": 2}


def test_acquisitions_are_the_days_that_the_catalogue_has_clear_items_of(
    serve: Serve, items: list[Item], archive: Archive, tmp_path: Path
) -> None:
    with serve(items) as catalog:
        job = load_job(write_job(archive, catalog, tmp_path, "days", interval="acquisition"))
        days = ["2024-05-12", "2024-06-12", "2024-06-15", "2024-06-17"]
        units = Catalogue(job).units()
    assert [unit.name for unit in units] == [f"{cell}_{day}" for day in days for cell in CELLS]
    assert units[0].interval.dates == "2024-05-12/2024-05-12"


def test_the_next_interval_is_asked_for_ahead(
    serve: Serve, items: list[Item], archive: Archive, tmp_path: Path
) -> None:
    """Its answer, or what asking raised, comes when it is asked for."""
    job = load_job(write_job(archive, "http://127.0.0.1:9", tmp_path, "nobody"))
    may, june = (job.units()[number].interval for number in (0, 2))
    catalogue = Catalogue(job)
    catalogue.look_ahead(june)
    with pytest.raises(CatalogError):
        catalogue.ask(june)
    with serve(items) as catalog:
        job = load_job(write_job(archive, catalog, tmp_path, "ahead"))
        catalogue, other = Catalogue(job), Catalogue(job)
        catalogue.ask(may)
        catalogue.look_ahead(june)
        assert catalogue._ahead is not None
        catalogue._ahead[1].exception(60)
        expected = [[item.id for item in other.items(unit)] for unit in job.units()]
    assert [[item.id for item in catalogue.items(unit)] for unit in job.units()] == expected  # nobody is there any more


def test_what_fails_is_said_and_the_exit_code_says_so(
    serve: Serve, items: list[Item], archive: Archive, rsup: Rsup, tmp_path: Path
) -> None:
    """Files that are not there, a catalogue that is none, another job's output, an odd part."""
    gone = json.loads(json.dumps(items).replace("/red.tif", "/nowhere.tif"))
    with serve(gone) as catalog:
        job = write_job(archive, catalog, tmp_path, "failing", dates="2024-05")
        done = rsup("batch", "run", job, "--json")
        assert done.returncode == 7 and counts(json.loads(done.stdout)) == {"failed": 2}
        assert "2 of 2 units failed (" in done.stderr and "band red" in done.stderr and "Traceback" not in done.stderr
        assert counts(status(load_job(job))) == {"failed": 2}
        assert told(rsup("batch", "retry", job, "--json"))["forgotten"] == UNITS[:2]
    assert rsup("batch", "run", job).returncode == 4  # nobody answers any more
    assert counts(status(load_job(job))) == {"waiting": 2}
    assert rsup("batch", "run", job, "--part", "3/2").returncode == 2
    other = write_job(archive, catalog, tmp_path, "failing", dates="2024-05", cells=128)
    assert rsup("batch", "run", other).returncode == 6 and rsup("batch", "status", other).returncode == 6
    assert rsup("batch", "plan", tmp_path / "missing.toml").returncode == 2


def test_an_area_without_items_is_refused_before_anything_is_touched(
    serve: Serve, items: list[Item], archive: Archive, rsup: Rsup, tmp_path: Path
) -> None:
    """As long as there is no archive: one that has begun waits for what may come."""
    with serve(items) as catalog:
        nowhere: tuple[dict[str, object], ...] = (
            {"bbox": [30.0, 10.0, 30.001, 10.001]},
            {"dates": "2023-01"},
            {"dates": "2023-01", "interval": "acquisition"},
        )
        for number, changes in enumerate(nowhere):
            job = write_job(archive, catalog, tmp_path, f"nothing-{number}", **changes)
            done = rsup("batch", "run", job)
            assert done.returncode == 4 and done.stderr.count("\n") == 1, done.stderr
            assert f"{catalog} has no sentinel-2-l2a item over the area from 202" in done.stderr
            assert not (tmp_path / f"nothing-{number}").exists()


def objects_of(bucket: Bucket) -> dict[str, str]:
    """As `files_of`, of the archive in a bucket."""
    return {key: hashlib.sha256(data).hexdigest() for key, data in bucket.archive().items()}


@pytest.mark.slow
def test_two_runners_that_share_nothing_but_a_bucket(
    undisturbed: Path,
    serve: Serve,
    items: list[Item],
    archive: Archive,
    forks: Forks,
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serve(items) as catalog, bucket.faults(0.1):
        runners = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            monkeypatch.setenv("TMPDIR", str(tmp_path / name))
            job = write_job(archive, catalog, tmp_path / name, bucket.address("archive"))
            runners.append(forks.begin(["batch", "run", job, "--json"]))
        said = [told(runner.end()) for runner in runners]
    assert sum(each["done"] for each in said) == 4 and not sum(each["failed"] + each["empty"] for each in said)
    assert objects_of(bucket) == files_of(undisturbed)


@pytest.mark.slow
def test_a_runner_on_a_bucket_that_is_killed_at_random_moments(
    undisturbed: Path,
    serve: Serve,
    items: list[Item],
    archive: Archive,
    forks: Forks,
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every other time its folder on this machine is lost as well; and half of the time requests are refused."""
    dice, kills = random.Random(5), 0
    with serve(items) as catalog:
        job = write_job(archive, catalog, tmp_path, bucket.address("archive"))
        for turn in range(20):
            monkeypatch.setenv("TMPDIR", str(tmp_path / f"scratch-{turn // 2}"))
            with bucket.faults(0.1) if turn % 4 < 2 else nullcontext():
                runner = forks.begin(["batch", "run", job, "--json"])
                time.sleep(dice.uniform(0.2, 4))
                kills += runner.poll() is None
                runner.kill()
                runner.end()
            for key in (key for key in bucket.keys("archive/") if key.endswith("unit.json")):
                unit = key.removesuffix("unit.json")
                mosaics = [each for each in bucket.keys(f"archive/{unit}") if each.endswith("_x4.zarr/zarr.json")]
                assert len(mosaics) == 1, "a record of what is not there"
        assert kills > 3
        said = told(forks.begin(["batch", "run", job, "--json"]).end())
        assert said["done"] + said["already_done"] == 4
    assert objects_of(bucket) == files_of(undisturbed)


def test_what_a_store_refuses_is_one_sentence(
    serve: Serve,
    items: list[Item],
    archive: Archive,
    rsup: Rsup,
    bucket: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No bucket, nobody at the address, plain http through a network, a login in the address."""
    with serve(items) as catalog:

        def said(address: str) -> str:
            done = rsup("batch", "status", write_job(archive, catalog, tmp_path, address))
            assert done.returncode in (2, 6) and "Traceback" not in done.stderr and done.stderr.count("\n") == 1
            assert SECRET not in done.stderr and KEY not in done.stderr
            return done.stderr

        assert "there is no bucket nowhere" in said("s3://nowhere/archive")
        assert "holds no login" in said("s3://me:password@bucket/archive")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3.example.org")
        assert "AWS_ENDPOINT_URL is plain http" in said("s3://bucket/archive")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        assert "does not answer" in said("s3://bucket/archive")


def kind_of(name: str) -> str:
    """Which of the outputs a file of an archive is, or shows; a record is always there, as items are."""
    if ".zarr/" in name:
        return "zarr"
    if name.endswith((".tif", ".vrt")) or "/mosaic_x4" in name:
        return "cog"
    return "page" if name.endswith(".html") else "item"


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [("cog", "item"), ("page", "item", "zarr")])
def test_units_publish_what_the_job_names(
    outputs: tuple[str, ...],
    undisturbed: Path,
    serve: Serve,
    items: list[Item],
    archive: Archive,
    rsup: Rsup,
    tmp_path: Path,
) -> None:
    """And the archive leads to that and to nothing else; what it has is what it would have among all."""
    with serve(items) as catalog:
        job = write_job(archive, catalog, tmp_path, "archive", dates="2024-05-01/2024-05-31")
        job.write_text(f"{job.read_text()}\noutputs = {json.dumps(outputs)}\n")
        assert counts(told(rsup("batch", "run", job, "--json"))) == {"done": 2}
        made = files_of(tmp_path / "archive")
        assert counts(told(rsup("batch", "run", job, "--json"))) == {"already_done": 2}
        assert files_of(tmp_path / "archive") == made
    whole = files_of(undisturbed)
    expected = {name for name in whole if name.startswith("2024-05/") and kind_of(name) in outputs}
    assert set(made) == expected | {"job.json", "collection.json"}
    same = {name for name in expected if not name.endswith("_x4.json") or "/mosaic_x4" in name}
    assert {name: made[name] for name in same} == {name: whole[name] for name in same}
    collection = pystac.Collection.from_file(str(tmp_path / "archive" / "collection.json"))
    mosaics = list(collection.get_items())
    assert len(mosaics) == 2
    for mosaic in mosaics:
        assert set(mosaic.assets) == set(outputs) - {"item"}
        assert all(Path(asset.get_absolute_href() or "").exists() for asset in mosaic.assets.values())
    assert len(collection.assets) == (2 if "cog" in outputs else 0)
    told(rsup("batch", "status", job, "--json", "--page", tmp_path / "map.html"))
    assert ('"root":null' in (tmp_path / "map.html").read_text()) == ("page" not in outputs)
