"""Assets as files: what is opened, what is asked of a server twice, and whether a file is whole."""

import base64
import hashlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from buckets import Bucket

from rsup.models.base.errors import SceneError
from rsup.models.sensors.sentinel2 import SENTINEL2
from rsup.pipeline.lattice import Window
from rsup.pipeline.places import credentials
from rsup.pipeline.sources import remote, retry
from rsup.pipeline.sources.asset_file import GDAL_OPTIONS, check_whole, read_coarse, read_header
from rsup.pipeline.sources.assets import inspect, quiet, read
from rsup.pipeline.sources.stac.catalog import ItemReference

CRS, CORNER = "EPSG:32633", (500_000, 5_100_000)
SIDE = 512
WINDOW = Window(-CORNER[1] // 10, CORNER[0] // 10, SIDE, SIDE)
DATA = np.random.default_rng(1).integers(1500, 9000, (SIDE, SIDE)).astype(np.uint16)

Fault = Callable[["Handler", bytes], bool]
"""Answers in its own way and says True, or leaves it to the handler."""


class Handler(BaseHTTPRequestHandler):
    """Serves the files of `server.folder` with ranges, HTTP/1.1."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def log_message(self, *_: Any) -> None: ...

    def do_HEAD(self) -> None:  # noqa: N802
        self.do_GET()

    def do_GET(self) -> None:  # noqa: N802
        body = (self.server.folder / self.path.strip("/")).read_bytes()
        asked = self.headers.get("Range")
        self.first = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        last = min(int(asked.split("-")[1] or len(body)), len(body) - 1) if asked else len(body) - 1
        part = body[self.first : last + 1]
        if self.server.fault(self, part):
            return
        self.answer(206 if asked else 200, part, f"bytes {self.first}-{last}/{len(body)}")

    def answer(self, status: int, body: bytes, content_range: str = "", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Accept-Ranges", "bytes")
        if content_range and status == 206:
            self.send_header("Content-Range", content_range)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    folder: Path
    fault: Fault = staticmethod(lambda handler, part: False)

    def handle_error(self, *_: Any) -> None: ...

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.folder = tmp_path / "served"
    made.folder.mkdir()
    Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "WAITS", (0.0, 0.0, 0.0))
    monkeypatch.setitem(GDAL_OPTIONS, "GDAL_HTTP_RETRY_DELAY", 0.01)


def write(path: Path, **options: Any) -> Path:
    profile: dict[str, Any] = {
        "driver": "GTiff", "height": SIDE, "width": SIDE, "count": 1, "dtype": "uint16", "crs": CRS, "tiled": True,
        "transform": Affine(10, 0, CORNER[0], 0, -10, CORNER[1]), "blockxsize": 128, "blockysize": 128,
    }  # fmt: skip
    with rasterio.open(path, "w", **profile | options) as sink:
        sink.write(DATA, 1)
    return path


def item(href: str, asset: dict[str, Any] | None = None, metadata: str | None = None) -> ItemReference:
    return ItemReference(
        sensor=SENTINEL2, generation=(),
        id="made", collection=None, datetime="2024-06-10T10:00:00Z", cloud=None, platform=None, tile=None, segment=None,
        baseline=None, geometry=None, hrefs={"red": href}, evidence_band="red", assets={"red": asset or {}},
        product_metadata=metadata, properties={},
    )  # fmt: skip


def fetched(href: str, asset: dict[str, Any] | None = None, window: Window = WINDOW) -> np.ndarray[Any, Any]:
    with quiet():
        return read(inspect(item(href, asset), -1000, False), "red", window, CRS).numbers


def reset(handler: Handler, part: bytes) -> None:
    handler.send_response(206)
    handler.send_header("Content-Length", str(len(part)))
    handler.end_headers()
    handler.wfile.write(part[:100])
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()
    handler.close_connection = True


def cut(handler: Handler, part: bytes) -> None:
    handler.send_response(206)
    handler.send_header("Content-Length", str(len(part)))
    handler.send_header("Content-Range", f"bytes {handler.first}-{handler.first + len(part) - 1}/{10**7}")
    handler.end_headers()
    handler.wfile.write(part[: len(part) // 2])
    handler.close_connection = True


FAULTS: dict[str, Callable[[Handler, bytes], None]] = {
    "reset": reset,
    "cut": cut,
    "short": lambda handler, part: handler.answer(206, part[: len(part) * 2 // 3]),
    "broken": lambda handler, part: handler.answer(500, b"broke"),
    "busy": lambda handler, part: handler.answer(429, b"slow down"),
    "page": lambda handler, part: handler.answer(200, b"<html>log in</html>" * 20),
    "zeros": lambda handler, part: handler.answer(206, bytes(len(part))),
}


@pytest.mark.parametrize(
    ("fault", "compress"),
    # Of zeros in a file without compression only file:checksum could tell.
    [(fault, way) for fault in FAULTS for way in ("none", "deflate", "lzw") if (fault, way) != ("zeros", "none")],
)
def test_what_goes_wrong_for_a_while_is_asked_for_anew(server: Server, fault: str, compress: str) -> None:
    """Small windows, which GDAL caches, and a large one; the first three data ranges of each fail."""
    write(server.folder / "red.tif", compress=compress)
    left = [0]

    def break_some(handler: Handler, part: bytes) -> bool:
        if handler.first == 0 or not left[0]:
            return False
        left[0] -= 1
        FAULTS[fault](handler, part)
        return True

    server.fault = break_some
    href = f"http://{server.address}/red.tif"
    with quiet():
        source = inspect(item(href), -1000, False)
        for window in (Window(WINDOW.row + 300, WINDOW.col + 300, 50, 50), WINDOW):
            left[0] = 3
            found = read(source, "red", window, CRS).numbers
            np.testing.assert_array_equal(found, DATA[window.within(WINDOW)])


@pytest.mark.parametrize("compress", ["none", "deflate"])
@pytest.mark.parametrize("fault", ["reset", "cut", "short", "broken", "page"])
def test_what_stays_wrong_is_a_sentence_not_zeros(server: Server, fault: str, compress: str) -> None:
    write(server.folder / "red.tif", compress=compress)

    def break_all(handler: Handler, part: bytes) -> bool:
        if handler.first:
            FAULTS[fault](handler, part)
        return handler.first > 0

    server.fault = break_all
    with pytest.raises(SceneError, match="item made, band red: its asset cannot be read .*run the same command again"):
        fetched(f"http://{server.address}/red.tif")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "it is not where its item says"),
        (410, "it is not where its item says"),
        (401, "needs credentials, or those in it have expired"),
        (403, "needs credentials, or those in it have expired"),
    ],
)
def test_what_no_second_attempt_helps_is_not_tried_again(server: Server, status: int, words: str) -> None:
    write(server.folder / "red.tif")
    asked: list[str] = []

    def refuse(handler: Handler, part: bytes) -> bool:
        asked.append(handler.command)
        handler.answer(status, b"")
        return True

    server.fault = refuse
    with pytest.raises(SceneError, match=rf"HTTP response code: {status}\); .*{words}") as failure:
        fetched(f"http://{server.address}/red.tif")
    assert "again" not in str(failure.value) and asked.count("HEAD") <= 1 and len(asked) <= 4
    with pytest.raises(SceneError, match="No such file or directory.; it is not where its item says"):
        fetched(str(server.folder / "gone.tif"))


def asking_for(password: bytes) -> Fault:
    """A server's fault: who does not name themselves by `user:password` is refused."""
    right = "Basic " + base64.b64encode(password).decode()

    def guard(handler: Handler, part: bytes) -> bool:
        if handler.headers.get("Authorization") == right:
            return False
        handler.answer(401, b"", WWW_Authenticate="Basic realm=archive")
        return True

    return guard


def test_credentials_in_an_address_are_used_and_its_length_is_checked(server: Server) -> None:
    size = write(server.folder / "red.tif").stat().st_size
    server.fault = asking_for(b"me:p@ss")
    href = f"http://me:p%40ss@{server.address}/red.tif"
    np.testing.assert_array_equal(fetched(href, {"file:size": size}), DATA)
    with pytest.raises(SceneError, match=rf"its asset has {size} bytes and its item says {size + 1}"):
        fetched(href, {"file:size": size + 1})
    (server.folder / "MTD.xml").write_text("<BOA_ADD_OFFSET>-1000</BOA_ADD_OFFSET>")
    with quiet():
        known = inspect(item(href, None, f"http://me:p%40ss@{server.address}/MTD.xml"), None, False)
    assert known.decision.evidence[0] == "product metadata: -1000"


@pytest.mark.parametrize("status", [403, 405, 501])
def test_where_head_is_refused_get_is_tried(server: Server, status: int) -> None:
    """As by presigned addresses, whose signature is good for one method."""
    write(server.folder / f"signed-{status}.tif")
    asked: list[str] = []

    def refuse_head(handler: Handler, part: bytes) -> bool:
        asked.append(handler.command)
        if handler.command != "HEAD":
            return False
        handler.answer(status, b"")
        return True

    server.fault = refuse_head
    np.testing.assert_array_equal(fetched(f"http://{server.address}/signed-{status}.tif"), DATA)
    assert asked.count("HEAD") <= 1 and "GET" in asked


TOKEN = "Bearer s3cr3t, of-the-tests"


@pytest.fixture
def private(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, dict[str, list[str]]]]:
    """A server that wants TOKEN, whose `/out/` leads to a second one; what both were told, by address."""
    told: dict[str, list[str]] = {}
    other = Server(("127.0.0.1", 0), Handler)
    other.folder = server.folder
    Thread(target=other.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def listen(handler: Handler, part: bytes) -> bool:
        sent = [value for name, value in handler.headers.items() if name.lower() in ("authorization", "x-key")]
        told.setdefault(handler.server.address, []).extend(sent)
        if handler.server is server and TOKEN not in sent:
            handler.answer(401, b"")
            return True
        if handler.server is server and handler.path.startswith("/out"):
            handler.answer(302, b"", Location=f"http://{other.address}/red.tif")
            return True
        return False

    server.fault = other.fault = listen
    monkeypatch.setattr(credentials, "_trusted", set())
    monkeypatch.setenv("RSUP_HEADERS", f"Authorization: {TOKEN}\nX-Key: k3y")
    write(server.folder / "red.tif")
    write(server.folder / "out.tif")
    yield server, told
    other.shutdown()
    other.server_close()


def test_headers_of_the_environment_reach_the_catalogue_s_server(private: tuple[Server, dict[str, list[str]]]) -> None:
    server, told = private
    size = (server.folder / "red.tif").stat().st_size
    with pytest.raises(SceneError, match="HTTP response code: 401.*needs credentials.*RSUP_HEADERS") as failure:
        fetched(f"http://{server.address}/red.tif")
    assert "s3cr3t" not in str(failure.value) and not told[server.address]
    credentials.trust(f"http://{server.address}/v1")
    np.testing.assert_array_equal(fetched(f"http://{server.address}/red.tif", {"file:size": size}), DATA)
    assert set(told[server.address]) == {TOKEN, "k3y"}
    (server.folder / "MTD.xml").write_text("<BOA_ADD_OFFSET>-1000</BOA_ADD_OFFSET>")
    assert remote.text(f"http://{server.address}/MTD.xml")


def test_headers_go_no_further_than_their_server(private: tuple[Server, dict[str, list[str]]]) -> None:
    """By GDAL, and by requests for lengths and texts."""
    server, told = private
    credentials.trust(f"http://{server.address}/v1")
    address = f"http://{server.address}/out.tif"
    size = (server.folder / "red.tif").stat().st_size
    np.testing.assert_array_equal(fetched(address, {"file:size": size}), DATA)
    assert remote.length(address) == size and remote.text(address) is None  # it is no text, and was asked for
    others = {name: sent for name, sent in told.items() if name != server.address}
    assert len(others) == 1 and not any(others.values())
    assert "k3y" in told[server.address]


def test_where_a_server_leads_to_is_not_left_to_gdal(private: tuple[Server, dict[str, list[str]]]) -> None:
    """Where rsup's own question is refused, GDAL, which would take all headers along, does not ask."""
    server, told = private
    listen = server.fault

    def refuse_the_first(handler: Handler, part: bytes) -> bool:
        if handler.server is server and handler.headers.get("Range") == "bytes=0-0":
            handler.answer(503, b"")
            return True
        return listen(handler, part)

    server.fault = refuse_the_first
    credentials.trust(f"http://{server.address}/v1")
    with pytest.raises(SceneError, match="cannot be read .HTTP response code: 503.; run the same command again"):
        fetched(f"http://{server.address}/out.tif")
    assert set(told) <= {server.address}
    server.fault = lambda handler, part: handler.answer(404, b"") is None
    with pytest.raises(retry.GoneError, match="HTTP response code: 404"):
        fetched(f"http://{server.address}/red.tif")


def test_a_password_of_netrc_is_used(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    size = write(server.folder / "netrc.tif").stat().st_size
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password s3cr3t\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.fault = asking_for(b"me:s3cr3t")
    address = f"http://{server.address}/netrc.tif"
    np.testing.assert_array_equal(fetched(address, {"file:size": size}), DATA)
    assert remote.length(address) == size


def test_objects_of_s3_are_read_from_where_the_environment_says(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("tiles/red.tif", write(tmp_path / "red.tif").read_bytes())
    np.testing.assert_array_equal(fetched(bucket.address("tiles/red.tif")), DATA)
    with pytest.raises(retry.GoneError, match="it is not where its item says"):
        fetched(bucket.address("tiles/gone.tif"))


def test_objects_of_s3_without_keys_are_said_to_need_some(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("CPL_AWS_AUTODETECT_EC2", "NO")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(SceneError, match="its bucket needs credentials: give them in AWS_ACCESS_KEY_ID") as failure:
        fetched(bucket.address("tiles/red.tif"))
    assert "again" not in str(failure.value)


def test_a_server_that_gives_no_parts_is_said_to_be_one(server: Server) -> None:
    path = write(server.folder / "whole.tif")  # a name of its own: GDAL remembers what lay at a port that comes again

    def give_all(handler: Handler, part: bytes) -> bool:
        handler.answer(200, path.read_bytes())
        return True

    server.fault = give_all
    with pytest.raises(SceneError, match="or its server gives no ranges of it"):
        fetched(f"http://{server.address}/whole.tif")


@pytest.mark.parametrize("scheme", ["file", "ftp", "gopher", "dict"])
def test_a_redirect_leads_to_http_only(server: Server, scheme: str, tmp_path: Path) -> None:
    name = f"{scheme}-{tmp_path.parent.name}.tif"  # GDAL remembers addresses, and systems give ports again
    write(server.folder / name)
    secret = write(tmp_path / "secret.tif")
    target = f"file://{secret}" if scheme == "file" else f"{scheme}://127.0.0.1:9/secret.tif"

    def redirect(handler: Handler, part: bytes) -> bool:
        handler.answer(302, b"", Location=target)
        return True

    server.fault = redirect
    with pytest.raises(SceneError, match="band red: its asset cannot be read"):
        fetched(f"http://{server.address}/{name}")
    assert remote.text(f"http://{server.address}/{name}") is None


def vrt(folder: Path, shown: Path) -> Path:
    path = folder / "other.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="{SIDE // 2}" rasterYSize="{SIDE // 2}"><VRTRasterBand dataType="UInt16" band="1">'
        f"<SimpleSource><SourceFilename>{shown}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
        "</VRTRasterBand></VRTDataset>"
    )
    return path


def test_a_file_leads_to_no_other_file(tmp_path: Path) -> None:
    """A VRT as the overview of a GeoTIFF: named in its metadata, beside it, or in its side-car."""
    secret = tmp_path / "secret.tif"
    with quiet(), rasterio.open(secret, "w", driver="GTiff", height=256, width=256, count=1, dtype="uint16") as sink:
        sink.write(np.full((256, 256), 777, np.uint16), 1)
    other = vrt(tmp_path, secret)
    named = write(tmp_path / "named.tif")
    with rasterio.open(named, "r+") as sink:
        sink.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(other))
    beside = write(tmp_path / "beside.tif")
    (tmp_path / "beside.tif.ovr").write_bytes(other.read_bytes())
    with quiet():
        aside = write(tmp_path / "aside.tif", crs=None, transform=None)
    (tmp_path / "aside.tif.aux.xml").write_text(
        f"<PAMDataset><SRS>{CRS}</SRS><GeoTransform>500000,10,0,5100000,0,-10</GeoTransform>"
        f'<Metadata domain="OVERVIEWS"><MDI key="OVERVIEW_FILE">{other}</MDI></Metadata></PAMDataset>'
    )
    for path in (named, beside, aside):
        with quiet(), rasterio.open(path) as source:
            assert 777 in source.read(1, out_shape=(256, 256)), "what GDAL does by itself"
        with quiet():
            header = read_header("red", str(path), SENTINEL2, False)
            assert 777 not in read_coarse(str(path), header, False)
        assert header.grid.crs == CRS
        np.testing.assert_array_equal(fetched(str(path)), DATA)


def test_a_side_car_does_not_overrule_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "red.tif")
    (tmp_path / "red.tif.aux.xml").write_text(
        "<PAMDataset><SRS>EPSG:32650</SRS><GeoTransform>0,10,0,0,0,-10</GeoTransform></PAMDataset>"
    )
    np.testing.assert_array_equal(fetched(str(path)), DATA)


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    pipe, folder = tmp_path / "pipe.tif", tmp_path / "folder.tif"
    os.mkfifo(pipe)
    folder.mkdir()
    for path, kind in ((pipe, "no regular file"), (folder, "a folder"), (Path("/dev/zero"), "no regular file")):
        with pytest.raises(SceneError, match=f"band red: its asset {path} is {kind}"):
            fetched(str(path))
        assert remote.text(str(path)) is None


def multihash(name: str, code: str, data: bytes) -> str:
    digest = hashlib.new(name, data).digest()
    return f"{code}{len(digest):02x}{digest.hex()}"


def test_checksum_and_size_of_local_files(tmp_path: Path) -> None:
    path = write(tmp_path / "red.tif")
    data = path.read_bytes()
    checksums = [
        multihash("sha256", "12", data), multihash("sha1", "11", data), multihash("sha512", "13", data),
        multihash("md5", "d501", data), multihash("sha3_256", "16", data), multihash("blake2b", "c0e402", data),
    ]  # fmt: skip
    for checksum in checksums:
        np.testing.assert_array_equal(fetched(str(path), {"file:checksum": checksum, "file:size": len(data)}), DATA)
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1  # uncompressed: nothing else would tell
    path.write_bytes(damaged)
    for checksum in checksums:
        with pytest.raises(SceneError, match="band red: its asset is not the file its item describes"):
            fetched(str(path), {"file:checksum": checksum})
    with pytest.raises(SceneError, match=f"its asset has {len(data)} bytes and its item says 5"):
        fetched(str(path), {"file:size": 5})
    for nonsense in ("", "zz", "1220ab", "9920" + "00" * 32, "ff" * 40, "12" + "20" + "00" * 31):
        with pytest.raises(SceneError, match="is no multihash that rsup can verify"):
            check_whole("red", str(path), {"file:checksum": nonsense})


@contextmanager
def talker(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that says what it likes to everyone."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with suppress(OSError), connection:
                        connection.recv(65536)
                        answer(connection)

        Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/MTD_MSIL2A.xml"


def endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(bytes(1 << 20))


def drip(connection: socket.socket) -> None:
    for byte in b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1000:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def test_product_metadata_are_bounded_and_never_a_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(remote, "SECONDS", 0.5)
    monkeypatch.setattr(remote, "LONGEST", 100_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n"
    answers: list[Callable[[socket.socket], None]] = [
        endless,
        drip,
        lambda connection: connection.sendall(head + b"\r\n<BOA_ADD"),  # cut off
        lambda connection: connection.sendall(head + b"Content-Encoding: gzip\r\n\r\n" + b"x" * 50),
        lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe"),
        lambda connection: connection.sendall(b"\x00\x01nonsense"),
        lambda connection: connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        lambda connection: None,
    ]
    for answer in answers:
        with talker(answer) as href:
            assert remote.text(href) is None
            assert remote.length(href) is None or answer is answers[2] or answer is answers[4]
    for href in ("http://[::1", "http://127.0.0.1:9/x", "s3://bucket/key", "ftp://127.0.0.1/x", str(tmp_path / "gone")):
        assert remote.text(href) is None
    (tmp_path / "long.xml").write_bytes(b"x" * 100_001)
    assert remote.text(str(tmp_path / "long.xml")) is None
    (tmp_path / "short.xml").write_bytes(b"x" * 100_000)
    assert remote.text(str(tmp_path / "short.xml")) == "x" * 100_000
