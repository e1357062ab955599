"""Scenes on s3:// and behind a web server: the numbers of the same scene on the disk, and sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from buckets import KEY, SECRET, Bucket
from strangers import WINDOW, numbers, store, tiff

from rsup.models.base.errors import ArgumentError, SceneError
from rsup.pipeline.demo.servers import serve_assets
from rsup.pipeline.places.address import ObjectPath
from rsup.pipeline.places.credentials import introduce
from rsup.pipeline.places.upload import upload
from rsup.pipeline.places.web import scene_place
from rsup.pipeline.scenes.opening import open_scene


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same numbers as a store and as a GeoTIFF."""
    folder = tmp_path_factory.mktemp("remote")
    store(folder / "scene.zarr", numbers())
    tiff(folder / "scene.tif", numbers())
    return folder


@pytest.fixture(scope="module")
def web(folder: Path) -> Iterator[str]:
    with serve_assets(folder) as address:
        yield address


@pytest.fixture
def on_s3(bucket: Bucket, folder: Path) -> Bucket:
    base = ObjectPath(bucket.name, "in")
    upload({folder / name: base / name for name in ("scene.zarr", "scene.tif")})
    return bucket


@pytest.mark.parametrize("name", ["scene.zarr", "scene.tif"])
def test_the_same_numbers_as_on_the_disk(name: str, folder: Path, web: str, on_s3: Bucket) -> None:
    local = open_scene(folder / name)
    for address in (f"{web}/{name}", on_s3.address(f"in/{name}")):
        scene = open_scene(scene_place(address))
        assert str(scene.path) == address and scene.path.stem == "scene"
        assert (scene.crs, scene.window, scene.aoi, scene.bands) == (local.crs, local.window, local.aoi, local.bands)
        assert scene.attributes == local.attributes
        np.testing.assert_array_equal(scene.read(scene.bands, WINDOW), numbers())
        assert scene.fingerprint() == open_scene(scene_place(address)).fingerprint()


def test_a_change_is_another_fingerprint(on_s3: Bucket) -> None:
    scene = open_scene(scene_place(on_s3.address("in/scene.zarr")))
    before = scene.fingerprint()
    key = next(key for key in on_s3.keys() if key.startswith("in/scene.zarr/red/c/"))
    on_s3.put(key, on_s3.get(key) + b"\0")
    assert scene.fingerprint() != before


def test_a_chunk_that_is_lost_is_said(on_s3: Bucket) -> None:
    scene = open_scene(scene_place(on_s3.address("in/scene.zarr")))
    key = next(key for key in on_s3.keys() if key.startswith("in/scene.zarr/red/c/"))
    on_s3.client.delete_object(Bucket=on_s3.name, Key=key)
    with pytest.raises(SceneError, match=f"{key} is lost; fetch the scene anew"):
        scene.read(scene.bands, WINDOW)


def test_what_is_not_there_or_no_scene_is_one_sentence(on_s3: Bucket, web: str) -> None:
    on_s3.put("odd.zarr/zarr.json", b"{")
    on_s3.put("odd.tif", b"no raster")
    for address, words in (
        (on_s3.address("in/none.zarr"), "does not exist"),
        (on_s3.address("in/none.tif"), "does not exist"),
        (f"{web}/none.zarr", "does not exist"),
        (on_s3.address("odd.zarr"), "is not a readable Zarr group"),
        (on_s3.address("odd.tif"), "is neither a Zarr store nor a raster"),
        ("s3://nowhere-at-all/scene.zarr", "does not exist|there is no bucket"),
        ("http://127.0.0.1:1/scene.zarr", "does not answer"),
    ):
        with pytest.raises(SceneError, match=words) as caught:
            open_scene(scene_place(address))
        assert "\n" not in str(caught.value) and KEY not in str(caught.value) and SECRET not in str(caught.value)
    for address in ("https://me:secret@example.org/a.zarr", "https://example.org/a?sig=secret", "ftp://example.org/a"):
        with pytest.raises(ArgumentError) as refused:
            scene_place(address)
        assert "secret" not in str(refused.value)


def test_a_broken_line_is_said_with_what_to_do(bucket: Bucket, tmp_path: Path) -> None:
    tiff(tmp_path / "odd.tif", numbers(), crs="EPSG:3857")
    upload({tmp_path / "odd.tif": ObjectPath(bucket.name, "odd.tif")})
    with pytest.raises(SceneError, match="copy it to this machine and give that") as caught:
        open_scene(scene_place(bucket.address("odd.tif")))
    assert "\n" not in str(caught.value)


class Doorkeeper(BaseHTTPRequestHandler):
    """Serves a folder to who shows the token, or leads to `elsewhere`; remembers what it was told by whom."""

    folder: Path
    elsewhere = ""
    told: list[dict[str, str]]

    def do_GET(self) -> None:  # noqa: N802 # the base class asks for it by that name
        self.told.append({name.lower(): value for name, value in self.headers.items()})
        path = self.folder / self.path.lstrip("/")
        if self.elsewhere:
            self.send_response(302)
            self.send_header("Location", f"{self.elsewhere}{self.path}")
            self.end_headers()
            return
        allowed = self.headers.get("Authorization") == "Bearer t0ken"
        content = path.read_bytes() if allowed and path.is_file() else b""
        first, last = 0, len(content) - 1
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(asked[1]), min(last, int(asked[2] or last))
        self.send_response((206 if asked else 200) if content else 404 if allowed else 401)
        self.send_header("Content-Length", str(len(content[first : last + 1])))
        self.send_header("Last-Modified", "Sat, 01 Jun 2024 00:00:00 GMT")
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[first : last + 1])

    do_HEAD = do_GET  # noqa: N815 # as above

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests have their own."""


@contextmanager
def door(folder: Path, elsewhere: str = "") -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server's address, and the headers of every request that it got."""
    told: list[dict[str, str]] = []
    kind = type("Kept", (Doorkeeper,), {"folder": folder, "elsewhere": elsewhere, "told": told})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", told
        server.shutdown()


@pytest.mark.parametrize("name", ["scene.zarr", "scene.tif"])
def test_a_server_that_wants_to_know_who_asks_is_told(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with door(folder) as (web, told):
        with pytest.raises(SceneError, match=r"the server does not let this asker in \(status 401\): say who asks"):
            open_scene(scene_place(f"{web}/{name}"))
        told.clear()
        monkeypatch.setenv("RSUP_HEADERS", "Authorization: Bearer t0ken\nX-Key: k3y\nhttps://a.example X-Other: o")
        introduce(f"{web}/{name}")
        scene = open_scene(scene_place(f"{web}/{name}"))
        np.testing.assert_array_equal(scene.read(scene.bands, WINDOW), numbers())
        assert told and all(each["authorization"] == "Bearer t0ken" for each in told)
        assert not [each for each in told if {"x-key", "x-other"} & set(each)]
        said = capsys.readouterr().err
        server = web.removeprefix("http://")
        assert f"RSUP_HEADERS: Authorization is sent to {server}\n" in said and "X-Key is not sent to" in said
        assert "t0ken" not in said and "k3y" not in said and "X-Other" not in said


@pytest.mark.parametrize("name", ["scene.zarr", "scene.tif"])
def test_whom_a_server_leads_to_is_not_told(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSUP_HEADERS", "Authorization: Bearer t0ken")
    with door(folder) as (other, overheard), door(folder, other) as (web, told):
        with pytest.raises(SceneError):
            open_scene(scene_place(f"{web}/{name}"))
        assert told and all("authorization" in each for each in told)
        assert overheard and not [each for each in overheard if "authorization" in each]
