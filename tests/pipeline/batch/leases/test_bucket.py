"""Jobs whose output is a prefix of an object store: what a folder would hold, held units, refusals and faults."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from archives import Made, WriteJob, became, counted
from buckets import KEY, SECRET, Bucket

from rsup.models.base.errors import OutputError
from rsup.pipeline.batch.job import Job, load_job
from rsup.pipeline.batch.leases import folder as leases
from rsup.pipeline.batch.leases import holder
from rsup.pipeline.batch.leases.holding import acquire, leased, sweep
from rsup.pipeline.batch.run import run
from rsup.pipeline.batch.status import retry, status
from rsup.pipeline.places.address import ObjectPath

ALL = (1, 1)


@pytest.fixture(autouse=True)
def _scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))


@pytest.fixture
def job(write_job: WriteJob, bucket: Bucket, tmp_path: Path) -> Job:
    """In "archive" of the bucket; its prefix has a neighbour that begins with the same letters."""
    bucket.put("archive-of-others/thesis.txt", b"years of work")
    return load_job(in_bucket(write_job(), bucket))


def in_bucket(job: Path, bucket: Bucket, prefix: str = "archive") -> Path:
    lines = job.read_text().splitlines()
    assert lines[0].startswith("output = ")
    job.write_text("\n".join([f'output = "{bucket.address(prefix)}"', *lines[1:]]))
    return job


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_prefix_holds_what_a_folder_would(
    job: Job, made: Made, write_job: WriteJob, bucket: Bucket, tmp_path: Path
) -> None:
    assert counted(job) == {"waiting": 2} and bucket.objects("archive/") == {}
    result = run(job, ALL)
    assert became(result) == {"done": 2} and result["collection"] == bucket.address("archive/collection.json")
    local = load_job(write_job(output="folder"))
    run(local, ALL)
    assert bucket.archive() == files(tmp_path / "folder")
    assert became(run(job, ALL)) == {"already_done": 2} and counted(job) == {"done": 2}
    assert not (tmp_path / "scratch").exists() or not files(tmp_path / "scratch")
    assert bucket.get("archive-of-others/thesis.txt") == b"years of work"
    page = bucket.client.head_object(Bucket=bucket.name, Key=next(k for k in bucket.keys() if k.endswith(".html")))
    assert page["ContentType"].startswith("text/html")


def test_new_items_empty_units_and_failures_are_as_in_a_folder(job: Job, made: Made, bucket: Bucket) -> None:
    made.broken, june = {"a"}, made.items.pop("2024-06")
    assert became(run(job, ALL)) == {"failed": 1, "empty": 1} == counted(job)
    unit = f"{job.places[0].name}_2024-05"
    assert status(job)["failures"] == [{"unit": unit, "reason": "item b cannot be read"}]
    assert retry(job)["forgotten"] == [unit] and retry(job)["forgotten"] == []
    made.broken, made.items["2024-06"] = set(), june
    assert became(run(job, ALL)) == {"done": 2}
    made.items["2024-05"] = ["d", "a"]
    assert (
        became(run(job, ALL))
        == {"done": 1, "already_done": 1}
        == became(run(job, ALL)) | {"done": 1, "already_done": 1}
    )
    folder = f"archive/2024-05/{job.places[0].name}/"
    assert bucket.get(f"{folder}{unit}_x4.tif") == b"d a"
    assert json.loads(bucket.get(f"{folder}unit.json"))["sources"] == ["a", "d"]


def test_another_model_makes_a_prefix_anew_when_it_is_told_to(
    job: Job, write_job: WriteJob, made: Made, bucket: Bucket
) -> None:
    run(job, ALL)
    new = load_job(in_bucket(write_job(upscale={"scale": 4, "model": "bicubic", "device": "cpu"}), bucket))
    before = bucket.objects()
    with pytest.raises(OutputError, match="was made with another model"):
        run(new, ALL)
    assert bucket.objects() == before
    assert became(run(new, ALL, renew=True)) == {"done": 2} and counted(new) == {"done": 2}
    with pytest.raises(OutputError, match="was made with another model"):
        status(job)


def test_a_map_in_the_bucket_leads_to_the_pages_there_and_one_on_disk_nowhere(
    job: Job, made: Made, bucket: Bucket, tmp_path: Path
) -> None:
    run(job, ALL)
    in_the_bucket = ObjectPath.parse(bucket.address("maps/map.html"))
    for _ in "again":
        assert status(job, in_the_bucket)["page"] == bucket.address("maps/map.html")
    assert b'"root":"../archive"' in bucket.get("maps/map.html")
    status(job, tmp_path / "map.html")
    assert '"root":null' in (tmp_path / "map.html").read_text()
    with pytest.raises(OutputError, match="is no map of a job"):
        status(job, ObjectPath.parse(bucket.address("archive-of-others/thesis.txt")))
    assert bucket.get("archive-of-others/thesis.txt") == b"years of work"


def test_another_job_s_prefix_is_left_alone(job: Job, write_job: WriteJob, made: Made, bucket: Bucket) -> None:
    run(job, ALL)
    before = bucket.objects()
    for command in (status, retry, lambda other: run(other, ALL)):
        with pytest.raises(OutputError, match=r"belongs to another job \(cells differ\)"):
            command(load_job(in_bucket(write_job(cells=128), bucket)))
        with pytest.raises(OutputError, match="holds something that is no archive of a job"):
            command(load_job(in_bucket(write_job(), bucket, "archive-of-others")))
    assert bucket.objects() == before


def test_one_in_ten_requests_refused(job: Job, made: Made, write_job: WriteJob, bucket: Bucket, tmp_path: Path) -> None:
    """Also where the server has done what it was asked, and says that it has not."""
    made.items |= {f"2024-{month:02}": ["a"] for month in range(1, 9)}
    job = load_job(in_bucket(write_job(dates="2024-01-01/2024-08-31"), bucket))
    before = len(bucket.seen())
    with bucket.faults(0.1):
        assert became(run(job, ALL)) == {"done": 8}
    refused = [asked for asked in bucket.seen()[before:] if asked[2] == 503]
    assert len(refused) > 10
    local = load_job(write_job(output="folder", dates="2024-01-01/2024-08-31"))
    run(local, ALL)
    assert bucket.archive() == files(tmp_path / "folder")


def test_no_credential_is_written_anywhere(
    job: Job, made: Made, bucket: Bucket, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    made.broken = {"c"}
    said = json.dumps([run(job, ALL), status(job)]) + "".join(capfd.readouterr())
    stored = b"".join(bucket.objects().values()) + b"".join(files(tmp_path).values())
    for secret in (KEY, SECRET):
        assert secret not in said and secret.encode() not in stored


def test_what_is_no_prefix(write_job: WriteJob, bucket: Bucket) -> None:
    from rsup.models.base.errors import ArgumentError

    for address, words in (
        ("s3://me:secret@bucket/x", "holds no login"),
        ("s3:///x", "is no address of an object store"),
        ("s3://bucket/a//b", "an empty or an odd part"),
        ("s3://bucket/a?versionId=1", "an empty or an odd part"),
        ("gs://bucket/a", "nothing can be written to gs://"),
    ):
        job = write_job()
        job.write_text("\n".join([f'output = "{address}"', *job.read_text().splitlines()[1:]]))
        with pytest.raises(ArgumentError, match=words) as caught:
            load_job(job)
        assert "secret" not in str(caught.value)


# Leases.


def test_one_holder_at_a_time(bucket: Bucket) -> None:
    output = ObjectPath(bucket.name, "archive")
    held = acquire(output, "unit")
    assert held is not None and acquire(output, "unit") is None
    with held:
        assert held.held() and leased(output) == {"unit"} and acquire(output, "unit") is None
        sweep(output)
        assert held.held()
    assert bucket.objects() == {} and not held.held()


CHILD = """
import sys, time
from rsup.pipeline.batch.leases.holding import acquire
from rsup.pipeline.places.address import ObjectPath
bucket, name, go = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
mine = acquire(ObjectPath(bucket, "archive"), name)
print(mine is not None, flush=True)
if mine is not None:
    mine.__enter__()
sys.stdin.readline()
"""


def child(bucket: Bucket, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, bucket.name, name, ""]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process


def told(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_of_many_processes_one_gets_it_and_a_killed_one_s_is_taken_over(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = ObjectPath(bucket.name, "archive")
    children = [child(bucket, "unit") for _ in range(3)]
    assert {told(each) for each in children} == {"ready"}
    with bucket.faults(0.2):
        for each in children:
            go(each)
        said = [told(each) for each in children]
    assert sorted(said) == ["False", "False", "True"]
    holding = children[said.index("True")]
    assert acquire(output, "unit") is None and leased(output) == {"unit"}
    holding.kill()
    for each in children:
        each.communicate()
    # Here the process is known to be gone; elsewhere, only its age tells.
    monkeypatch.setattr(holder, "machine", lambda: "elsewhere")
    assert acquire(output, "unit") is None
    monkeypatch.setattr(leases, "STALE", 2.0)
    until, lease = time.monotonic() + 30, None
    while lease is None and time.monotonic() < until:
        time.sleep(0.2)
        lease = acquire(output, "unit")
    assert lease is not None
    with lease:
        assert lease.held()
    assert bucket.objects() == {}


def test_a_lease_that_is_beaten_is_not_taken_over_and_a_lost_one_not_renewed(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.2)
    output = ObjectPath(bucket.name, "archive")
    held = acquire(output, "unit")
    assert held is not None
    with held:
        before = bucket.get("archive/.leases/unit.json")
        time.sleep(1)
        assert bucket.get("archive/.leases/unit.json") != before and held.held()
        with monkeypatch.context() as patch:
            patch.setattr(holder, "machine", lambda: "elsewhere")
            patch.setattr(leases, "STALE", 3.0)
            time.sleep(4)
            assert acquire(output, "unit") is None
        bucket.put("archive/.leases/unit.json", b"another's")
        time.sleep(0.5)
        assert not held.held()
    assert bucket.get("archive/.leases/unit.json") == b"another's"


def test_a_runner_that_has_lost_its_lease_publishes_nothing(
    job: Job, made: Made, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    upscale = made.upscale

    def slow(request: Any, workers: Any) -> None:
        upscale(request, workers)
        for key in bucket.keys("archive/.leases"):
            bucket.put(f"archive/.leases/{key}", b"another's")

    monkeypatch.setattr("rsup.pipeline.batch.run.upscale", slow)
    assert became(run(job, ALL)) == {"running": 2}
    assert set(bucket.objects("archive/")) - {f".leases/{job.places[0].name}_2024-0{m}.json" for m in (5, 6)} == {
        "job.json"
    }


def test_a_store_that_ignores_conditions_is_refused(
    job: Job, made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rclone's server is one: two runners would both be given one lease."""
    import sysconfig

    from rsup.pipeline.demo.servers import serve

    (tmp_path / "served" / job.output.bucket).mkdir(parents=True)  # type: ignore[union-attr]
    rclone = [f"{sysconfig.get_path('scripts')}/rclone", "serve", "s3", str(tmp_path / "served"), "--config", ""]
    with serve(
        lambda port: [*rclone, "--addr", f"127.0.0.1:{port}", "--auth-key", f"{KEY},{SECRET}"], "rclone"
    ) as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(OutputError, match="does not keep to the condition"):
            run(job, ALL)
    assert made.fetched == []
