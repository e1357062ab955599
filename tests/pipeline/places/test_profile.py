"""Profiles of ~/.aws, as boto3 reads them; and the sentences for those that give no access."""

from __future__ import annotations

from pathlib import Path

import boto3
import pytest
from buckets import Bucket

from rsup.models.base.errors import ArgumentError
from rsup.pipeline.places import objects
from rsup.pipeline.places.address import ObjectPath
from rsup.pipeline.places.profile import settings

CREDENTIALS = """\
[default]
aws_access_key_id = AKIDDEFAULT
aws_secret_access_key = default-secret

[agency]
aws_access_key_id = AKIDAGENCY
aws_secret_access_key = agency=secret%with#odd;signs
aws_session_token = agency-token
"""
CONFIG = """\
[default]
region = eu-north-1

[profile agency]
region = eu-central-1
endpoint_url = https://objects.example.org

[profile single]
sso_session = mine
region = eu-west-1

[profile bare]
region = eu-west-1
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "REGION", "DEFAULT_REGION", "PROFILE",
                 "DEFAULT_PROFILE", "CONFIG_FILE", "SHARED_CREDENTIALS_FILE", "ENDPOINT_URL"):  # fmt: skip
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(CREDENTIALS)
    (tmp_path / ".aws" / "config").write_text(CONFIG)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("profile", [None, "agency"])
def test_it_is_read_as_boto3_does(home: Path, profile: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if profile is not None:
        monkeypatch.setenv("AWS_PROFILE", profile)
    theirs = boto3.Session()
    keys = theirs.get_credentials().get_frozen_credentials()
    ours = settings({"HOME": str(home)} | ({"AWS_PROFILE": profile} if profile else {}))
    assert (ours["aws_access_key_id"], ours["aws_secret_access_key"]) == (keys.access_key, keys.secret_key)
    assert ours.get("aws_session_token") == keys.token and ours["region"] == theirs.region_name
    assert theirs.client("s3").meta.endpoint_url == ours.get("endpoint_url", theirs.client("s3").meta.endpoint_url)


def test_the_environment_goes_first(home: Path) -> None:
    environment = {"HOME": str(home), "AWS_PROFILE": "agency", "AWS_REGION": "us-west-2"}
    keys = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"}
    assert settings(environment | keys) == {"endpoint_url": "https://objects.example.org"}
    moved = home / "elsewhere"
    moved.write_text("[agency]\naws_access_key_id = AKIDMOVED\naws_secret_access_key = moved\n")
    assert settings(environment | {"AWS_SHARED_CREDENTIALS_FILE": str(moved)})["aws_access_key_id"] == "AKIDMOVED"


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("nobody", "there is no profile 'nobody'"),
        ("single", "gets its keys by sso_session: .*export-credentials --profile single"),
        ("bare", "has no keys: put them into the environment"),
    ],
)
def test_a_profile_without_access_is_one_sentence(home: Path, profile: str, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        settings({"HOME": str(home), "AWS_PROFILE": profile})
    (home / ".aws" / "credentials").write_text("[agency\naws_secret_access_key = agency-secret\n")
    with pytest.raises(ArgumentError, match="cannot be read") as caught:
        settings({"HOME": str(home), "AWS_PROFILE": "agency"})
    assert "agency-secret" not in str(caught.value)
    assert settings({"HOME": str(home)}) == {"region": "eu-north-1"}  # what nobody asked for harms nobody


def test_a_bucket_is_reached_by_a_profile(bucket: Bucket, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ENDPOINT_URL", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "REGION"):
        monkeypatch.delenv(f"AWS_{name}")
    (home / ".aws" / "config").write_text(f"[profile agency]\nregion = us-east-1\nendpoint_url = {bucket.endpoint}\n")
    monkeypatch.setenv("AWS_PROFILE", "agency")
    objects.put(ObjectPath(bucket.name, "key"), b"by a profile")
    assert bucket.get("key") == b"by a profile"
    assert objects.gdal_settings(bucket.name)["AWS_S3_ENDPOINT"] == bucket.endpoint.removeprefix("http://")
