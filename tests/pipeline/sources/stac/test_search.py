"""Where items are looked for, and what a server may not decide: real servers on loopback that ask for too much."""

import gzip
import json
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from catalogues import item, query, write_static

from rsup.models.base.errors import CatalogError
from rsup.pipeline.sources.stac import io as stac_io
from rsup.pipeline.sources.stac import search as stac_search
from rsup.pipeline.sources.stac.catalog import search

Answer = tuple[int, dict[str, str], bytes]


class Server:
    """Answers each path by its route: a JSON object, or a function of (method, query, body); remembers requests."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.routes: dict[str, Any] = {}
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length)) if length else None
                server.asked.append((self.command, self.path, dict(self.headers), body))
                path, _, asked = self.path.partition("?")
                route = server.routes.get(path, (404, {}, b"no such thing"))
                answer = route(asked, body) if callable(route) else route
                if isinstance(answer, dict):
                    answer = (200, {}, json.dumps(answer).encode())
                status, headers, data = answer
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if callable(server.trickle):
                    server.trickle(self.wfile)
                else:
                    self.wfile.write(data)

            do_GET = do_POST = do_DELETE = do_PUT = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self.trickle: Callable[[Any], None] | None = None
        self.server = ThreadingHTTPServer((host, 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://{host}:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def api(self, *pages: dict[str, Any]) -> None:
        """A landing page, and a search by POST whose first answer is the first page."""
        links = [{"rel": "search", "href": f"{self.url}/search", "method": "POST"}]
        self.routes["/"] = self.routes[""] = {"type": "Catalog", "id": "api", "links": links}
        self.routes["/search"] = pages[0]

    def methods(self, path: str) -> list[str]:
        return [method for method, asked, _, _ in self.asked if asked.partition("?")[0] == path]

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(stac_io, "BACKOFF", 0.01)
    served = Server()
    yield served
    served.stop()


@pytest.fixture
def stranger() -> Iterator[Server]:
    """Another host."""
    served = Server("127.0.0.2")
    yield served
    served.stop()


def page(*items: dict[str, Any], **next_link: Any) -> dict[str, Any]:
    links = [{"rel": "next", **next_link}] if next_link else []
    return {"type": "FeatureCollection", "features": list(items), "links": links}


def ids(where: str, **changes: Any) -> list[str]:
    return sorted(found.id for found in search(query(where, **changes)))


def test_a_next_page_is_asked_of_the_own_server_by_get_or_post(server: Server, stranger: Server) -> None:
    for link in (
        {"href": f"{stranger.url}/search", "method": "GET"},
        {"href": f"{stranger.url}/search", "method": "POST", "body": {"token": 1}},
        {"href": "//127.0.0.2/search"},
        {"href": "file:///etc/passwd"},
        {"href": "http://[::1/search"},
    ):
        server.api(page(item("a"), **link))
        with pytest.raises(CatalogError, match="not its own server|no address"):
            ids(server.url)
    for method in ("DELETE", "PUT", "\x1b[31mX"):
        server.api(page(item("a"), href=f"{server.url}/search", method=method))
        with pytest.raises(CatalogError, match="GET or POST"):
            ids(server.url)
    assert not stranger.asked and not {"DELETE", "PUT"} & {method for method, *_ in server.asked}


def test_nothing_of_a_next_link_is_sent_but_its_path_and_body(server: Server) -> None:
    link = {"href": f"{server.url}/more?token=2", "method": "POST", "headers": {"X-Evil": "1"}, "body": {"token": 2}}
    server.api(page(item("a"), **link))
    server.routes["/more"] = page(item("b"))
    with_login = server.url.replace("://", "://user:secret@")
    assert ids(with_login) == ["a", "b"]
    method, path, headers, body = server.asked[-1]
    assert (method, path, body) == ("POST", "/more?token=2", {"token": 2})
    assert "X-Evil" not in headers and headers["Authorization"].startswith("Basic ")


def test_a_merged_body_keeps_what_was_asked(server: Server) -> None:
    link = {"href": "/more", "method": "POST", "body": {"token": 2}, "merge": True}
    server.api(page(item("a"), **link))
    server.routes["/more"] = page(item("b"))
    assert ids(server.url) == ["a", "b"]
    assert server.asked[-1][3]["token"] == 2 and server.asked[-1][3]["collections"] == ["sentinel-2-l2a"]


def test_redirects_stay_on_the_own_server(server: Server, stranger: Server) -> None:
    server.api(page(item("a")))
    server.routes["/old"] = (301, {"Location": "/"}, b"")
    assert ids(f"{server.url}/old") == ["a"]
    server.routes["/gone"] = (307, {"Location": f"{stranger.url}/latest/meta-data?key=secret"}, b"")
    with pytest.raises(CatalogError, match=r"redirects to http://127\.0\.0\.2:\d+/latest/meta-data, which") as caught:
        ids(f"{server.url}/gone")
    assert "secret" not in str(caught.value) and not stranger.asked
    server.routes["/file"] = (302, {"Location": "file:///etc/passwd"}, b"")
    with pytest.raises(CatalogError, match="redirects to file:///etc/passwd"):
        ids(f"{server.url}/file")


def test_a_redirected_search_keeps_its_method_and_body(server: Server) -> None:
    server.api(page(item("a")))
    server.routes["/"]["links"][0]["href"] = "/moved"
    server.routes["/moved"] = (301, {"Location": "/search"}, b"")
    assert ids(f"{server.url}/") == ["a"]
    method, path, _, body = server.asked[-1]
    assert (method, path, body["collections"]) == ("POST", "/search", ["sentinel-2-l2a"])
    server.routes["/loop"] = (302, {"Location": "/loop"}, b"")
    with pytest.raises(CatalogError, match="redirects more than 10 times"):
        ids(f"{server.url}/loop")


def test_a_search_address_is_asked_for_its_collection(server: Server) -> None:
    server.routes["/search"] = page(item("a"), href="/search?token=2")
    server.routes["/x"] = page()
    ids(f"{server.url}/search?ids=a&ids=b")
    asked = [path for _, path, *_ in server.asked if "limit" in path][0]
    assert asked.count("ids=") == 2 and "collections=sentinel-2-l2a" in asked


def test_every_address_of_an_api_leads_to_all_its_pages(server: Server) -> None:
    server.api(page(item("a"), href="/search2", method="POST", body={"token": 2}))
    server.routes["/search2"] = page(href="/search3", method="POST", body={"token": 3})  # empty, and not the last
    server.routes["/search3"] = page(item("b"))
    assert ids(server.url) == ["a", "b"]

    collection = {"type": "Collection", "id": "sentinel-2-l2a", "links": [{"rel": "root", "href": server.url}]}
    server.routes["/collections/sentinel-2-l2a"] = collection
    assert ids(f"{server.url}/collections/sentinel-2-l2a") == ["a", "b"]
    server.routes["/collections/other"] = collection | {"id": "other"}
    with pytest.raises(CatalogError, match="is the collection other: ask for it with --collection"):
        ids(f"{server.url}/collections/other")

    def items(asked: str, _: Any) -> dict[str, Any]:
        assert "page=2" not in asked or "bbox=15.0" in asked  # a server's next link keeps what was asked
        if "page=2" in asked:
            return page(item("d"))
        return page(item("c"), href=f"{server.url}/items?{asked}{'&' if asked else ''}page=2")

    server.routes["/items"] = items
    assert ids(f"{server.url}/items") == ["c", "d"]
    asked = next(path for _, path, *_ in server.asked if path.startswith("/items?"))
    assert "limit=100" in asked and "datetime=2024-06-01" in asked


def test_a_catalogue_without_a_search_is_walked_through_its_items_pages(server: Server) -> None:
    server.routes["/"] = {"type": "Catalog", "links": [{"rel": "child", "href": "/c"}]}
    server.routes["/c"] = {"type": "Collection", "links": [{"rel": "items", "href": "/c/items"}]}
    server.routes["/c/items"] = lambda asked, _: page(item("b")) if "p=2" in asked else page(item("a"), href="?p=2")
    assert ids(f"{server.url}/") == ["a", "b"]


def test_pages_of_a_local_file_are_followed(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(page(item("a"), href="./two.json")))
    (tmp_path / "two.json").write_text(json.dumps(page(item("b"))))
    assert ids(str(tmp_path / "one.json")) == ["a", "b"]
    (tmp_path / "one.json").write_text(json.dumps(page(item("a"), href="../two.json")))
    with pytest.raises(CatalogError, match="outside its own folder"):
        ids(str(tmp_path / "one.json"))
    saved = page(item("a"), href="https://example.org/search", method="POST", body={"token": 2})
    (tmp_path / "one.json").write_text(json.dumps(saved))
    with pytest.raises(CatalogError, match="only its API can give"):
        ids(str(tmp_path / "one.json"))


def test_nothing_is_called_absent_that_was_not_looked_for(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_text(json.dumps({"type": "Catalog", "links": []}))
    with pytest.raises(CatalogError, match="leads to no items and to no search"):
        ids(str(tmp_path))


def test_a_bomb_costs_a_few_bytes_more_than_the_limit(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stac_io, "DOCUMENT_BYTES", 1 << 20)
    bomb = gzip.compress(b'{"x":"' + b" " * (64 << 20) + b'"}', 1)
    server.routes["/"] = (200, {"Content-Encoding": "gzip"}, bomb)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CatalogError, match="more than 1 MiB"):
        ids(f"{server.url}/")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB


def test_an_answer_byte_by_byte_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stac_io, "ANSWER_SECONDS", 0.5)

    def trickle(stream: Any) -> None:
        for _ in range(100):
            stream.write(b" ")
            stream.flush()
            time.sleep(0.05)

    server.trickle = trickle
    server.routes["/"] = (200, {"Content-Length": "1000"}, b"")
    start = time.monotonic()
    with pytest.raises(CatalogError, match="did not answer in time"):
        ids(f"{server.url}/")
    assert time.monotonic() - start < 3


def test_endless_pages_children_and_documents_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stac_search, "PAGES", 5)
    count = iter(range(1000))
    server.api(page())
    server.routes["/search"] = lambda *_: page(item("a"), href="/search", method="POST", body={"token": next(count)})
    with pytest.raises(CatalogError, match="more than 5 pages"):
        ids(server.url)
    server.routes["/"] = lambda *_: {"type": "Catalog", "links": [{"rel": "child", "href": f"/?{next(count)}"}]}
    with pytest.raises(CatalogError, match="more than 32 deep"):
        ids(f"{server.url}/")
    monkeypatch.setattr(stac_io, "DOCUMENTS", 20)
    many = [{"rel": "item", "href": f"/?{k}"} for k in range(100)]
    server.routes["/"] = {"type": "Catalog", "links": many}
    with pytest.raises(CatalogError, match="more than 20 documents"):
        ids(f"{server.url}/")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[" * 200_000 + b"]" * 200_000, "nested too deeply"),
        (b'{"type": "Catalog"' * 3, "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b'{"type": "FeatureCollection", "features": 7}', "no STAC"),
        (b'{"type": "FeatureCollection", "features": [7]}', "no STAC"),
    ],
)
def test_documents_that_are_none(server: Server, data: bytes, words: str) -> None:
    server.routes["/"] = (200, {}, data)
    with pytest.raises(CatalogError, match=words):
        ids(f"{server.url}/")


def test_an_answer_that_breaks_off_is_said(server: Server) -> None:
    server.routes["/"] = (200, {"Content-Length": "1000"}, b'{"type": ')
    with pytest.raises(CatalogError, match="broke off|did not answer|no JSON|cannot be reached"):
        ids(f"{server.url}/")


def test_waiting_for_a_server_is_said(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    answers = iter([(429, {"Retry-After": "1"}, b""), {"type": "Catalog", "links": []}])
    server.routes["/"] = lambda *_: next(answers)
    with pytest.raises(CatalogError, match="no items"):
        ids(f"{server.url}/")
    assert "asks to wait (HTTP 429); trying again in 1 s" in capsys.readouterr().err


def test_only_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    root = {"type": "Catalog", "links": [{"rel": "item", "href": "pipe.json"}]}
    (tmp_path / "catalog.json").write_text(json.dumps(root))
    with pytest.raises(CatalogError, match=r"pipe\.json is no file"):
        ids(str(tmp_path))


def test_messages_hold_no_secret(server: Server) -> None:
    secret = server.url.replace("://", "://user:s3cret@") + "/{}?key=s3cret#s3cret"
    server.routes["/item"] = item("a", assets={})
    server.routes["/empty"] = {"type": "Catalog", "links": []}
    server.routes["/html"] = (200, {}, b"<html>")
    addresses = [secret.format(path) for path in ("item", "empty", "html", "none")]
    for address in (*addresses, secret.replace(str(server.server.server_port), "9").format("x"), "ftp://u:s3cret@x"):
        with pytest.raises(Exception, match="item|STAC|JSON|HTTP|refused|neither|no items") as caught:
            ids(address)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "href",
    [
        "http://169.254.169.254/latest/meta-data", "http://127.0.0.1:8080/a.tif", "//localhost/a.tif", "http://[::1]/a.tif",
        "https://2130706433/a.tif", "http://0x7f.1/a.tif", "http://[::ffff:127.0.0.1]/a.tif", "http://[fe80::1]/a.tif",
        "http://0/a.tif", "http://u:p@api.localhost./a.tif",
    ],
)  # fmt: skip
def test_what_lies_inside_this_machine_is_only_named_from_there(href: str) -> None:
    with pytest.raises(CatalogError, match="inside this machine"):
        stac_search.resolve(href, "https://catalogue.example/item.json", None)
    here = "http://127.0.0.1:9000/item.json"
    assert stac_search.resolve(href, here, None) in (href, f"http:{href}")


@pytest.mark.parametrize(
    "href",
    [
        "http://10.0.0.7/a.tif", "s3://bucket/a.tif", "https://other.example/a.tif",
        "https://notlocalhost/a.tif", "a.tif",
    ],
)  # fmt: skip
def test_assets_may_lie_on_other_servers(href: str) -> None:
    found = stac_search.resolve(href, "https://catalogue.example/item.json", None)
    assert found == ("https://catalogue.example/a.tif" if href == "a.tif" else href)


def test_stored_addresses_are_public_and_the_same_wherever_a_folder_lies(tmp_path: Path) -> None:
    signed = {"href": "https://user:s3cret@example.org/a/red.tif?sig=s3cret#s3cret"}
    for name in ("one", "two"):
        write_static(tmp_path / name, item("local", assets={"red": {"href": "../red.tif"}, "scl": signed}))
    one, two = (search(query(str(tmp_path / name), bands=("red",)))[0] for name in ("one", "two"))
    assert one.public_hrefs == {"red": "red.tif", "scl": "https://example.org/a/red.tif"} == two.public_hrefs
    assert one.public_href == "items/0.json" == two.public_href
    assert one.hrefs["red"] == str(tmp_path / "one" / "red.tif") and one.hrefs["scl"] == signed["href"]


def test_an_item_of_a_page_lies_where_it_says_or_nowhere(server: Server) -> None:
    own = [{"rel": "self", "href": f"{server.url}/items/a?key=secret"}]
    server.api(page(item("a", links=own), item("b")))
    assert {found.id: found.public_href for found in search(query(server.url))} == {
        "a": f"{server.url}/items/a",
        "b": None,
    }


@pytest.mark.parametrize(
    "unwanted",
    [
        item("x", cloud=90, assets={}),
        item("x", cloud=90, assets={"red": {"href": "file:///etc/passwd"}}),
        item("x", day="2020-01-01", assets=None, geometry="none"),
        item("x", collection="landsat", geometry=7, properties={"eo:cloud_cover": "much"}),
        item("x", corner=(40, 40), assets=[]),
        item("x", collection="landsat", assets={"red": 7}),
    ],
)
def test_an_item_that_is_not_wanted_ends_nothing(tmp_path: Path, unwanted: dict[str, Any]) -> None:
    (tmp_path / "items.json").write_text(json.dumps(page(item("a"), unwanted)))
    assert ids(str(tmp_path / "items.json")) == ["a"]
