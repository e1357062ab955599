"""Object stores once more, on Ceph's gateway: conditions, leases, an archive of two runners, one of them killed."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator
from pathlib import Path

import ceph
import pytest
from archives import files_of
from buckets import KEY, SECRET, Bucket
from forks import Forks
from months import Item, Serve, told, write_job

from rsup.models.base.errors import OutputError
from rsup.pipeline.batch.leases.bucket import acquire, leased
from rsup.pipeline.batch.records import claim
from rsup.pipeline.demo.archive import Archive
from rsup.pipeline.places import objects
from rsup.pipeline.places.address import ObjectPath
from rsup.pipeline.places.upload import upload

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(ceph.lacking()), reason=f"{', '.join(ceph.lacking())} not installed"),
]


@pytest.fixture(scope="module")
def gateway() -> Iterator[str]:
    with ceph.gateway() as address:
        yield address


@pytest.fixture
def store(gateway: str, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket of its own, with its server and credentials in the environment."""
    for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3", "AWS_ALLOW_HTTP"):
        monkeypatch.delenv(name, raising=False)
    said = {"ENDPOINT_URL": gateway, "REGION": "us-east-1", "ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET}
    for name, value in said.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    found = Bucket(gateway, f"bucket-{random.getrandbits(60):x}")
    found.client.create_bucket(Bucket=found.name)
    return found


def test_conditions_are_kept_and_found_to_be(store: Bucket) -> None:
    place = ObjectPath(store.name, "job.json")
    assert objects.create(place, b"one") and not objects.create(place, b"two")
    assert objects.keeps_conditions(place, b"one")
    first = objects.look(place)
    assert first is not None and objects.swap(place, first.tag, b"three")
    assert not objects.swap(place, first.tag, b"four") and store.get("job.json") == b"three"


def test_a_profile_is_let_in_and_another_is_not(store: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = f"aws_access_key_id = {KEY}\naws_secret_access_key ="
    (tmp_path / "credentials").write_text(f"[right]\n{keys} {SECRET}\n[wrong]\n{keys} of-somebody-else\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.delenv(f"AWS_{name}")
    monkeypatch.setenv("AWS_PROFILE", "right")
    objects.put(ObjectPath(store.name, "key"), b"by a profile")
    assert store.get("key") == b"by a profile"
    monkeypatch.setenv("AWS_PROFILE", "wrong")
    with pytest.raises(OutputError, match="credentials are refused .SignatureDoesNotMatch."):
        objects.put(ObjectPath(store.name, "key"), b"by nobody")


def test_a_lease_is_one_runners_until_it_is_given_back(store: Bucket) -> None:
    output = ObjectPath(store.name, "archive")
    claim(output, {"upscale": {"model": "0"}})
    lease = acquire(output, "unit")
    assert lease is not None and acquire(output, "unit") is None
    with lease:
        assert leased(output) == {"unit"} and lease._renewed() and lease.held()
    assert leased(output) == set() and acquire(output, "unit") is not None


def test_a_large_object_of_many_parts_is_whole(store: Bucket, tmp_path: Path) -> None:
    (tmp_path / "large.tif").write_bytes(random.Random(1).randbytes(3 * objects.PART + 5))
    upload({tmp_path / "large.tif": ObjectPath(store.name, "large.tif")})
    assert store.get("large.tif") == (tmp_path / "large.tif").read_bytes() and not store.uploads()


def test_two_runners_one_of_which_is_killed(
    undisturbed: Path,
    serve: Serve,
    items: list[Item],
    archive: Archive,
    forks: Forks,
    store: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serve(items) as catalog:
        runners = []
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            monkeypatch.setenv("TMPDIR", str(tmp_path / name))
            job = write_job(archive, catalog, tmp_path / name, store.address("archive"))
            runners.append(forks.begin(["batch", "run", job, "--json"]))
        until = time.monotonic() + 120
        while not any(key.endswith("unit.json") for key in store.keys("archive/")):
            assert time.monotonic() < until
            time.sleep(0.2)
        runners[0].kill()
        runners[0].end()
        told(runners[1].end())
        told(forks.begin(["batch", "run", job, "--json"]).end())
    found = store.archive()
    assert {key: hashlib.sha256(data).hexdigest() for key, data in found.items()} == files_of(undisturbed)
    assert not any(SECRET.encode() in data or KEY.encode() in data for data in found.values())
