"""Searching: static catalogues on disk and a small real STAC API that can misbehave."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from catalogues import item, query, write_static

from rsup.models.base.errors import ArgumentError, CatalogError
from rsup.models.sensors.sentinel2 import SENTINEL2
from rsup.pipeline.sources.footprint import Box, Footprint
from rsup.pipeline.sources.stac import io as stac_io
from rsup.pipeline.sources.stac.catalog import search
from rsup.pipeline.sources.stac.items import ItemReference, distinct
from rsup.pipeline.sources.stac.search import resolve


def test_a_static_catalogue_is_filtered_and_sorted(tmp_path: Path) -> None:
    path = write_static(
        tmp_path,
        item("b", cloud=9),
        item("unknown", cloud=None),
        item("later", cloud=9, day="2024-06-20"),
        item("a", cloud=9),
        item("clear", cloud=0.5, day="2024-06-30"),
        item("cloudy", cloud=20.1),
        item("early", day="2024-05-31"),
        item("late", day="2024-07-01"),
        item("far", corner=(20, 45.5)),
        item("other", collection="landsat-c2-l2"),
    )
    expected = ["clear", "a", "b", "later", "unknown"]
    assert [found.id for found in search(query(path))] == expected
    assert [found.id for found in search(query(str(tmp_path)))] == expected


def test_assets_by_every_catalogue_s_names(tmp_path: Path) -> None:
    def assets(*keys: str) -> dict[str, Any]:
        return {key: {"href": f"https://example.org/{key}.tif"} for key in keys}

    path = write_static(
        tmp_path,
        item("es", assets=assets("red", "nir08", "scl", "red-jp2")),
        item("pc", assets=assets("B04", "B8A", "SCL", "visual")),
        item("cdse", assets=assets("B04_10m", "B04_20m", "B8A_20m", "SCL_20m")),
    )
    found = {i.id: i.hrefs for i in search(query(path, bands=("red", "nir08")))}
    assert {name: [Path(h).stem for h in hrefs.values()] for name, hrefs in found.items()} == {
        "es": ["red", "nir08", "scl"],
        "pc": ["B04", "B8A", "SCL"],
        "cdse": ["B04_10m", "B8A_20m", "SCL_20m"],
    }
    with pytest.raises(CatalogError, match=r"item es has no asset for band green \(looked for green, B03, B03_10m\)"):
        search(query(write_static(tmp_path / "one", item("es", assets=assets("red", "scl"))), bands=("red", "green")))


def test_signatures_are_not_kept(tmp_path: Path) -> None:
    signed = {"href": "https://x.blob.core.windows.net/s2/B04.tif?se=2024-06-10&sig=secret"}
    path = write_static(tmp_path, item("pc", assets={"B04": signed, "SCL": signed}))
    assert search(query(path, bands=("red",)))[0].hrefs["red"] == "https://x.blob.core.windows.net/s2/B04.tif"


def test_nothing_found_says_what_was_asked_and_what_helps(tmp_path: Path) -> None:
    path = write_static(tmp_path, item("cloudy", cloud=43), item("worse", cloud=88))
    with pytest.raises(CatalogError, match="15,46,15.1,46.1 in 2024-06-01/2024-06-30 with at most 20 % cloud; .*43 %"):
        search(query(path))
    with pytest.raises(CatalogError, match="widen --date"):
        search(query(path, start=datetime(2024, 6, 11, tzinfo=UTC)))


@pytest.mark.parametrize(
    "href",
    [
        "file:///etc/passwd",
        "/etc/passwd",
        "../../outside.tif",
        "/vsicurl/https://example.org/x.tif",
        "/vsizip/archive.zip/x.tif",
        "ftp://example.org/x.tif",
        "zip+https://example.org/x.zip",
        "link/inside.tif",
    ],
)
def test_hrefs_that_leave_a_local_catalogue_are_refused(tmp_path: Path, href: str) -> None:
    folder = tmp_path / "catalogue"
    folder.mkdir()
    (folder / "items").mkdir()
    (folder / "items" / "link").symlink_to(tmp_path)
    path = write_static(folder, item("../../evil", assets={"red": {"href": href}, "scl": {"href": href}}))
    with pytest.raises(CatalogError, match="points to"):
        search(query(path, bands=("red",)))


def test_hrefs_inside_a_local_catalogue_are_followed(tmp_path: Path) -> None:
    for href in ("red.tif", "../items/red.tif", (tmp_path / "items" / "red.tif").as_uri()):
        path = write_static(tmp_path, item("a", assets={"red": {"href": href}}))
        assert search(query(path, bands=("red",)))[0].hrefs["red"] == str(tmp_path.resolve() / "items" / "red.tif")


def test_links_that_leave_a_local_catalogue_are_refused(tmp_path: Path) -> None:
    (tmp_path / "outside.json").write_text(json.dumps(item("outside")))
    folder = tmp_path / "catalogue"
    folder.mkdir()
    root = {"type": "Catalog", "links": [{"rel": "item", "href": "../outside.json"}]}
    (folder / "catalog.json").write_text(json.dumps(root))
    with pytest.raises(CatalogError, match="outside its own folder"):
        search(query(str(folder)))


@pytest.mark.parametrize("href", ["file:///etc/passwd", "/vsicurl/https://example.org/x.tif", "ftp://example.org/x"])
def test_a_remote_catalogue_may_not_name_files(href: str) -> None:
    with pytest.raises(CatalogError, match="remote catalogue"):
        resolve(href, "https://example.org/stac/item.json", None)


def test_a_remote_catalogue_s_relative_hrefs_stay_remote() -> None:
    assert resolve("../B04.tif", "https://example.org/stac/a/item.json", None) == "https://example.org/stac/B04.tif"
    assert resolve("/etc/passwd", "https://example.org/stac/item.json", None) == "https://example.org/etc/passwd"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("<html><body>hello</body></html>", r"no JSON \(it starts with '<html>"),
        ('{"type": "Catalog", "links": [', "no JSON"),
        ("[1, 2]", r"no STAC object at .*catalog\.json"),
        ('{"type": "Dataset"}', "no STAC catalogue"),
        ('{"type": "FeatureCollection", "features": [{"id": "a"}]}', "no STAC"),
        ('{"type": "Catalog", "links": [{"rel": "item", "href": "missing.json"}]}', "cannot read .*missing.json"),
    ],
)
def test_nonsense_is_called_so(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "catalog.json").write_text(text)
    with pytest.raises(CatalogError, match=sentence):
        search(query(str(tmp_path)))


def test_an_unknown_catalogue_is_an_argument_error() -> None:
    with pytest.raises(ArgumentError, match="neither earth-search nor planetary-computer"):
        search(query("earthsearch"))


def square(west: float, south: float, side: float = 1.0) -> Footprint:
    ring = [[west, south], [west + side, south], [west + side, south + side], [west, south + side], [west, south]]
    return Footprint({"type": "Polygon", "coordinates": [ring]})


def reference(item_id: str, baseline: str | None = None, segment: str | None = None, **changes: Any) -> ItemReference:
    known: dict[str, Any] = {
        "sensor": SENTINEL2,
        "id": item_id,
        "collection": None,
        "datetime": "2024-06-10T10:00:00Z",
        "cloud": 1.0,
        "platform": "2A",
        "tile": "33TWL",
        "segment": segment,
        "baseline": baseline,
        "generation": (),
        "geometry": None,
        "hrefs": {},
        "assets": {},
        "evidence_band": "blue",
        "product_metadata": None,
        "properties": {},
    }
    return ItemReference(**known | changes)


def kept(*items: ItemReference) -> list[str]:
    return sorted(i.id for i in distinct(items))


FIRST, SECOND = "20240610T095630", "20240610T095702"


def test_an_acquisition_votes_once_however_it_is_listed() -> None:
    assert kept(reference("a", "05.10", FIRST), reference("a", "05.10", FIRST)) == ["a"]
    assert kept(reference("old", "02.14", FIRST), reference("new", "05.00", FIRST)) == ["new"]
    # Another baseline whose datastrip begins a second later; and one that names none.
    assert kept(reference("old", "04.00", "20240610T095631"), reference("new", "05.10", FIRST)) == ["new"]
    assert kept(reference("old", "04.00"), reference("new", "05.10", FIRST)) == ["new"]
    # A second listing, whose time is the tile's and not the datatake's.
    assert kept(reference("one", "05.10"), reference("two", "05.10", datetime="2024-06-10T10:06:31.024Z")) == ["two"]
    # Nothing but a time says that they are one.
    bare = {"platform": None, "baseline": None}
    assert kept(reference("one", **bare), reference("two", **bare)) == ["two"]
    assert kept(reference("one", tile=None, geometry=square(15, 46)), reference("two", geometry=square(15, 46))) == [
        "two"
    ]
    early = reference("z-early", "05.10", FIRST, generation=("2024-06-10T12:00:00Z", ""))
    late = reference("late", "05.10", FIRST, generation=("2024-06-11T12:00:00Z", ""))
    assert kept(late, early) == ["late"]


def test_what_is_no_duplicate_stays() -> None:
    assert kept(reference("north", "05.10", FIRST), reference("south", "05.10", SECOND)) == ["north", "south"]
    # Segments without datastrips: the parts of the tile tell.
    north, south = reference("north", geometry=square(15, 46)), reference("south", geometry=square(15, 45.1))
    assert kept(north, south) == ["north", "south"]
    assert kept(reference("a", "05.10", FIRST), reference("b", "04.00", FIRST, tile="33TWM")) == ["a", "b"]
    assert kept(reference("a", tile=None), reference("b", "05.10", tile=None)) == ["a", "b"]
    assert kept(reference("a"), reference("b", platform="2B")) == ["a", "b"]
    orbit_later = reference("b", datetime="2024-06-10T11:40:36Z")
    assert kept(reference("a"), orbit_later) == ["a", "b"]
    assert kept(reference("a"), reference("b", platform=None, datetime="2024-06-10T10:00:30Z")) == ["a", "b"]


class Api:
    """A STAC API on loopback; `answers` are given to successive searches, the last one for ever."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str], str]] = []
        self.searches: list[dict[str, Any]] = []
        self.delay = 0.0
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                search = {
                    "rel": "search",
                    "href": f"{api.url}/search",
                    "method": "POST",
                    "type": "application/geo+json",
                }
                self.answer(200, {}, json.dumps({"type": "Catalog", "id": "api", "links": [search]}))

            def do_POST(self) -> None:
                api.searches.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                time.sleep(api.delay)
                self.answer(*(api.answers.pop(0) if len(api.answers) > 1 else api.answers[0]))

            def answer(self, status: int, headers: dict[str, str], text: str) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(text.encode()))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def give(self, *items: dict[str, Any], follow: bool = False) -> tuple[int, dict[str, str], str]:
        links = (
            [{"rel": "next", "href": f"{self.url}/search", "method": "POST", "body": {"token": "2"}}] if follow else []
        )
        return 200, {}, json.dumps({"type": "FeatureCollection", "features": items, "links": links})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr(stac_io, "BACKOFF", 0.01)
    served = Api()
    thread = threading.Thread(target=served.server.serve_forever)
    thread.start()
    yield served
    served.server.shutdown()
    thread.join()
    served.server.server_close()


def test_an_api_is_asked_page_by_page(api: Api) -> None:
    api.answers = [api.give(item("a"), item("b"), follow=True), api.give(item("c"), item("a"))]
    assert [found.id for found in search(query(api.url))] == ["a", "b", "c"]
    asked = api.searches[0]
    assert asked["limit"] <= 100 and asked["collections"] == ["sentinel-2-l2a"]
    assert asked["bbox"] == [15.0, 46.0, 15.1, 46.1]
    assert asked["datetime"] == "2024-06-01T00:00:00Z/2024-06-30T23:59:59Z"
    assert "query" not in asked and "filter" not in asked and "sortby" not in asked


def test_pages_in_a_circle_end(api: Api) -> None:
    api.answers = [api.give(item("a"), follow=True)]
    assert [found.id for found in search(query(api.url))] == ["a"]


def test_the_antimeridian_is_asked_for_in_two_boxes(api: Api) -> None:
    api.answers = [api.give(item("west", corner=(179.2, -17.5))), api.give(item("east", corner=(-180, -17.5)))]
    found = search(query(api.url, box=Box.of((179.9, -17.0, -179.9, -16.9))))
    assert [i.id for i in found] == ["east", "west"]
    assert [asked["bbox"] for asked in api.searches] == [[179.9, -17.0, 180.0, -16.9], [-180.0, -17.0, -179.9, -16.9]]


def test_throttling_and_passing_errors_are_waited_out(api: Api) -> None:
    api.answers = [(429, {"Retry-After": "0"}, ""), (503, {}, ""), (500, {}, ""), api.give(item("a"))]
    assert [found.id for found in search(query(api.url))] == ["a"]
    assert len(api.searches) == 4


def test_a_long_retry_after_is_cut_short(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stac_io, "LONGEST_WAIT", 0.2)
    api.answers = [(429, {"Retry-After": "3600"}, ""), api.give(item("a"))]
    start = time.monotonic()
    assert search(query(api.url))
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((500, {}, "oops"), "answered HTTP 500; try again later"),
        ((429, {}, ""), "left alone"),
        ((404, {}, ""), "answered HTTP 404; check --catalog"),
        ((200, {}, "<html>login</html>"), "no JSON"),
        ((200, {}, '{"features": [{"id": 1}]}'), "no STAC"),
        ((200, {}, "{}"), "no sentinel-2-l2a item"),
    ],
)
def test_failures_of_an_api_are_sentences(api: Api, answer: tuple[int, dict[str, str], str], sentence: str) -> None:
    api.answers = [answer]
    with pytest.raises(CatalogError, match=sentence):
        search(query(api.url))


def test_a_slow_api_is_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stac_io, "TIMEOUT", (0.2, 0.2))
    api.delay = 1.0
    api.answers = [api.give(item("a"))]
    with pytest.raises(CatalogError, match="did not answer in time"):
        search(query(api.url))


def test_a_catalogue_that_is_down_is_named() -> None:
    with pytest.raises(CatalogError, match=r"http://127\.0\.0\.1:9 refused the connection"):
        search(query("http://127.0.0.1:9"))
