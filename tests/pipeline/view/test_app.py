"""What the server answers, asked by a plain HTTP client: ranges, headers, and nothing that is not the mosaic's."""

import http.client
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from time import sleep

import numpy as np
import pytest
import uvicorn

from rsup.pipeline.view.app import HEADERS, view_app
from rsup.pipeline.view.find import find
from rsup.pipeline.view.mosaic import SIDE

from .conftest import numbers

Answer = tuple[int, dict[str, str], bytes]


class Server:
    """view_app on loopback."""

    def __init__(self, path: Path) -> None:
        self._server = uvicorn.Server(uvicorn.Config(view_app(find(path)), port=0, log_level="error", lifespan="off"))
        self._thread = Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            sleep(0.02)
        self.port = self._server.servers[0].sockets[0].getsockname()[1]

    def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.putrequest(method, path, skip_host="host" in headers)  # the path as it is, dots and all
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        said = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        connection.close()
        return said

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture(scope="module")
def server(viewed: Path) -> Iterator[Server]:
    server = Server(viewed / "mosaic")
    yield server
    server.close()


def test_the_cog_is_served_by_ranges(server: Server, viewed: Path) -> None:
    cog = (viewed / "mosaic" / "field_x4.tif").read_bytes()
    status, headers, body = server.ask("/mosaics/0/mosaic.tif", range="bytes=100-299")
    assert (status, body) == (206, cog[100:300]) and headers["content-range"] == f"bytes 100-299/{len(cog)}"
    assert server.ask("/mosaics/0/mosaic.tif")[2] == cog
    status, headers, body = server.ask("/mosaics/0/mosaic.tif", method="HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(cog)), b"")
    assert server.ask("/mosaics/0/mosaic.tif", range=f"bytes={len(cog)}-")[0] == 416


def test_tiles_and_descriptions(server: Server) -> None:
    assert json.loads(server.ask("/mosaics")[2]) == [{"name": "field_x4"}]
    said = json.loads(server.ask("/mosaics/0")[2])
    assert said["cog"] == "mosaics/0/mosaic.tif" and said["uncertainty"] is None
    tile = np.frombuffer(server.ask("/mosaics/0/coarse/1/1/0")[2], "<u2").reshape(4, SIDE, SIDE)
    np.testing.assert_array_equal(tile[:, : 330 - SIDE], numbers()[:, SIDE:, :SIDE])


@pytest.mark.parametrize(
    "path",
    [
        "/mosaics/1", "/mosaics/-1", "/mosaics/0/uncertainty.tif", "/mosaics/0/coarse/3/0/0", "/mosaics/0/coarse/1/9/0",
        "/mosaics/0/coarse/1/-1/0", "/mosaics/0/../../field.zarr/zarr.json", "/../field.zarr/zarr.json", "//etc/passwd",
        "/mosaics/0/%2e%2e/%2e%2e/field.zarr/zarr.json", "/mosaics/0/field_x4.json", "/app.py", "/web/main.js",
        "/view.js/../app.py", "/mosaics/0/mosaic.tif%00", "/mosaics/0/coarse/99999999999999999999/0/0", "/mosaics/0/x",
    ],
)  # fmt: skip
def test_nothing_else_is_there(server: Server, path: str) -> None:
    status, headers, _ = server.ask(path)
    assert status == 404 and headers.items() >= HEADERS.items()


@pytest.mark.parametrize(
    "path", ["/", "/view.js", "/view.css", "/view.LICENSES.txt", "/mosaics", "/mosaics/0/mosaic.tif"]
)
def test_what_is_there_says_what_a_browser_may_do_with_it(server: Server, path: str) -> None:
    status, headers, body = server.ask(path)
    assert status == 200 and body and headers.items() >= HEADERS.items()
    assert "default-src 'none'" in headers["content-security-policy"] and "unsafe" not in str(headers)
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert server.ask(path, method=method)[0] == 405


def test_only_this_machine_is_a_host(server: Server) -> None:
    for host in ("evil.example", f"evil.example:{server.port}", "127.0.0.1.evil.example", ""):
        status, headers, body = server.ask("/mosaics/0/mosaic.tif", host=host)
        assert status == 400 and len(body) < 100 and headers.items() >= HEADERS.items()
    for host in (f"127.0.0.1:{server.port}", f"localhost:{server.port}", "localhost"):
        assert server.ask("/mosaics", host=host)[0] == 200


def test_a_mosaic_that_changes_under_the_server_is_refused_in_a_sentence(viewed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(viewed / "mosaic", tmp_path / "m")
    (tmp_path / "secret.tif").write_bytes(b"secret")
    server = Server(folder)
    try:
        assert server.ask("/mosaics/0")[0] == 200
        (folder / "field_x4.tif").unlink()
        (folder / "field_x4.tif").symlink_to(tmp_path / "secret.tif")
        for path in ("/mosaics/0/mosaic.tif", "/mosaics/0/coarse/1/0/0"):
            status, _, body = server.ask(path)
            assert status == 500 and b"secret" not in body and b"has no COG beside its item" in body
    finally:
        server.close()
