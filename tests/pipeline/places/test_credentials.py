"""RSUP_HEADERS: which addresses are asked with what, and that no value is said or sent elsewhere."""

from __future__ import annotations

import pytest

from rsup.models.base.errors import ArgumentError
from rsup.pipeline.places import credentials
from rsup.pipeline.places.credentials import auth_for, headers_for, trust

SECRET = "Bearer s3cr3t, with: colons"


@pytest.fixture(autouse=True)
def _forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_trusted", set())
    monkeypatch.setattr(credentials, "_said", set())


@pytest.mark.parametrize(
    ("catalogue", "address", "sent"),
    [
        ("https://stac.example.org/v1", "https://stac.example.org/v1/search", True),
        ("https://stac.example.org/v1", "https://stac.example.org:443/a.tif", True),
        ("https://stac.example.org/v1", "https://other.example.org/a.tif", False),
        ("https://stac.example.org/v1", "https://stac.example.org.evil.net/a.tif", False),
        ("https://stac.example.org/v1", "https://evil.net@stac.example.org:8443/a.tif", False),
        ("https://stac.example.org/v1", "http://stac.example.org/a.tif", False),
        ("http://stac.example.org/v1", "https://stac.example.org/a.tif", True),
        ("http://127.0.0.1:81/v1", "http://127.0.0.1:82/a.tif", False),
        ("https://stac.example.org/v1", "s3://stac.example.org/a.tif", False),
        ("https://stac.example.org/v1", "/stac.example.org/a.tif", False),
        (None, "https://stac.example.org/a.tif", False),
    ],
)
def test_what_names_no_server_goes_to_the_catalogue_s(
    catalogue: str | None, address: str, sent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSUP_HEADERS", f"Authorization: {SECRET}")
    assert headers_for(address) == {}, "nobody has named a catalogue yet"
    trust(catalogue)
    assert headers_for(address) == ({"Authorization": SECRET} if sent else {})
    assert (auth_for(address) is not None) is sent


def test_servers_may_be_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (
        "X-Key: abc",
        f"https://assets.example.org Authorization: {SECRET}",
        "",
        "https://assets.example.org X-B: 1",
    )
    monkeypatch.setenv("RSUP_HEADERS", "\r\n".join(lines))
    trust("https://me:pw@stac.example.org/v1")
    assert headers_for("https://stac.example.org/v1") == {"X-Key": "abc"}
    assert headers_for("https://assets.example.org/a.tif") == {"Authorization": SECRET, "X-B": "1"}
    trust("https://stac.example.org/v1")
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "RSUP_HEADERS: X-Key is sent to stac.example.org",
        "RSUP_HEADERS: Authorization is sent to assets.example.org",
        "RSUP_HEADERS: X-B is sent to assets.example.org",
    ]


def test_a_catalogue_that_is_a_file_has_no_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RSUP_HEADERS", f"Authorization: {SECRET}")
    trust(None)
    assert (
        "Authorization is sent to nobody: the catalogue is a file; put https://HOST before" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "text", ["s3cr3t", ": s3cr3t", "Na me: s3cr3t", "A: s3cr3t\x07", "A: b\nftp://x A: s3cr3t", "A:"]
)
def test_what_is_no_header_is_said_without_it(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSUP_HEADERS", text)
    with pytest.raises(ArgumentError, match=r"RSUP_HEADERS: its line [12] is no header: write NAME: VALUE") as caught:
        trust("https://stac.example.org")
    assert "s3cr3t" not in str(caught.value)


def test_without_any_nothing_is_sent_and_nothing_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RSUP_HEADERS", raising=False)
    trust("https://stac.example.org")
    assert headers_for("https://stac.example.org/a") == {} and auth_for("https://stac.example.org/a") is None
    assert not capsys.readouterr().err
