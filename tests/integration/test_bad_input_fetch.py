"""What `rsup fetch` is given, and what catalogues and archives do to it: sentences, bounds, and nothing harmed."""

from __future__ import annotations

import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest
from forks import Forks, Rsup

from rsup.models.base.errors import ArgumentError, CatalogError, OutputError, RsupError, SceneError
from rsup.pipeline.demo.archive import Archive
from rsup.pipeline.jobs.fetch import fetch
from rsup.pipeline.scenes.opening import open_scene
from rsup.pipeline.sources import retry
from rsup.pipeline.sources.asset_file import GDAL_OPTIONS
from rsup.pipeline.sources.request import FetchRequest
from rsup.pipeline.sources.stac import io as stac_io

JUNE = "2024-06"
Faulty = Callable[..., str]


class SmallDisk(Protocol):
    """See conftest.py."""

    path: Path

    def remount(self, options: str) -> None: ...


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same number of attempts, sooner after one another."""
    monkeypatch.setattr(stac_io, "BACKOFF", 0.01)
    monkeypatch.setattr(retry, "WAITS", (0.01, 0.01))
    monkeypatch.setitem(GDAL_OPTIONS, "GDAL_HTTP_RETRY_DELAY", 0.01)


@pytest.fixture
def ask(archive: Archive, stac_server: str, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`ask(catalog=..., ...)`: fetch the archive's ground, in one band unless told otherwise."""

    def run(**options: Any) -> dict[str, Any]:
        asked = {"bbox": archive.bbox, "date": JUNE, "output": tmp_path / "scene.zarr", "bands": ("red",)}
        return fetch(FetchRequest(**asked | {"catalog": stac_server} | options))

    return run


Ask = Callable[..., dict[str, Any]]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def refused(ask: Ask, error: type[RsupError], words: str, **options: Any) -> None:
    with pytest.raises(error, match=words) as caught:
        ask(**options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700 + len(str(options))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bbox": (15.1, 46.1, 15.0, 46.2)}, "--bbox .*looks reversed: west is greater than east"),
        ({"bbox": (15.0, 46.2, 15.1, 46.1)}, "--bbox .*is reversed: south is greater than north"),
        ({"bbox": (200.0, 46.0, 201.0, 46.1)}, "--bbox .*lies outside the world"),
        ({"bbox": (15.0, 85.0, 15.1, 85.1)}, "beyond UTM"),
        ({"bbox": (15.0, 46.0, 15.1)}, "four numbers"),
        ({"bbox": (15.0, 46.0, 15.1, float("nan"))}, "four numbers"),
        ({"date": "2024-13"}, "'2024-13' is no date"),
        ({"date": "yesterday"}, "'yesterday' is no date"),
        ({"date": "2024-06-31"}, "no date"),
        ({"date": "2024-07/2024-06"}, "reversed: it ends before it starts"),
        ({"date": "a/b/c"}, "one date, or two"),
        ({"bands": ("red", "infrared")}, "--bands infrared: choose from"),
        ({"bands": ("red", "red")}, "twice"),
        ({"bands": ()}, "--bands"),
        ({"crs": "EPSG:4326"}, "--crs EPSG:4326: give a UTM zone"),
        ({"crs": "EPSG:32601"}, "further than 10 degrees from the middle of EPSG:32601"),
        ({"max_cloud": 101.0}, "no percentage"),
        ({"composite": "mean"}, "choose first or median"),
        ({"catalog": "sentinel-hub"}, "neither earth-search nor planetary-computer"),
        ({"catalog": "http://[::1"}, "nor a URL"),
        ({"catalog": "file:///etc/hostname"}, "nor a URL"),
        ({"catalog": "x" * 5000}, "nor a file"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_before_anything_is_written(
    ask: Ask, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    refused(ask, ArgumentError, words, **options)
    assert not list(tmp_path.iterdir())


def test_nothing_found_says_what_would_help(ask: Ask, tmp_path: Path) -> None:
    refused(ask, CatalogError, "has no sentinel-2-l2a item over .* in 1999-01-01/1999-12-31; widen --date", date="1999")
    refused(
        ask,
        CatalogError,
        "with at most 1 % cloud; the least cloudy .* raise --max-cloud",
        date="2024-06-22",
        max_cloud=1.0,
    )
    refused(ask, CatalogError, "has no landsat item", collection="landsat")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("500", "answered HTTP 500; try again later"),
        ("html", "no JSON .it starts with '<html>"),
        ("malformed", "no JSON|no STAC"),
        ("local-files", "points to 'file:///etc/hostname'; a remote catalogue may only name"),
    ],
)
def test_a_catalogue_that_misbehaves(ask: Ask, faulty: Faulty, fault: str, words: str, tmp_path: Path) -> None:
    refused(ask, CatalogError, words, catalog=faulty(fault))
    assert not list(tmp_path.iterdir())


def test_a_catalogue_that_is_down_or_slow_is_given_up(
    ask: Ask, faulty: Faulty, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refused(ask, CatalogError, "refused the connection; check --catalog", catalog="http://127.0.0.1:9")
    attempts = stac_io.CatalogIO()._session.get_adapter("http://").max_retries.read + 1
    assert attempts * stac_io.TIMEOUT[1] <= 60, "a minute is the longest anybody should stare at a dead catalogue"
    monkeypatch.setattr(stac_io, "TIMEOUT", (0.5, 0.5))
    start = time.monotonic()
    refused(ask, CatalogError, "did not answer in time; try again later", catalog=faulty("slow", 2))
    assert time.monotonic() - start < attempts * 0.5 + 3
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("fault", ["throttled", "flaky", "asset-flaky"])
def test_what_passes_is_waited_out(
    ask: Ask, faulty: Faulty, stac_server: str, fault: str, tmp_path: Path, archive: Archive
) -> None:
    ask(catalog=faulty(fault), output=tmp_path / "faulty.zarr")
    ask(output=tmp_path / "healthy.zarr")
    found, wanted = open_scene(tmp_path / "faulty.zarr"), open_scene(tmp_path / "healthy.zarr")
    assert (found.window, found.aoi) == (wanted.window, wanted.aoi)
    data = found.read(("red",), found.window)
    np.testing.assert_array_equal(data, wanted.read(("red",), wanted.window))
    assert (data > 0).mean() > 0.1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("asset-404", "cannot be read .*404"),
        ("asset-500", "cannot be read .*500"),
        ("asset-truncated", "cannot be read"),
        ("asset-not-tiff", "cannot be read"),
    ],
)
def test_an_asset_that_cannot_be_had_is_named_and_an_old_scene_stays(
    ask: Ask, faulty: Faulty, fault: str, words: str, tmp_path: Path
) -> None:
    old = tmp_path / "scene.zarr"
    old.mkdir()
    (old / "zarr.json").write_text("{}")
    refused(ask, SceneError, rf"item \S+, band \w+: its asset {words}", catalog=faulty(fault), overwrite=True)
    assert files(old) == {"zarr.json": b"{}"}


def test_one_item_s_files_are_gone_and_the_others_make_the_scene(
    ask: Ask, faulty: Faulty, archive: Archive, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    healthy = ask(catalog=faulty("asset-flaky"), output=tmp_path / "healthy.zarr")
    gone = healthy["items"][0]
    result = ask(catalog=faulty("item-404", gone))
    assert gone not in result["items"] and set(healthy["items"][1:]) <= set(result["items"])  # it may have a spare
    assert [each["id"] for each in result["left_out"]] == [gone]
    assert f"left out: item {gone}, band " in capsys.readouterr().err
    refused(
        ask,
        SceneError,
        rf"item {gone}, band \w+: its asset cannot be read \(HTTP response code: 404\); it is not where its item says$",
        catalog=faulty("item-404", gone),
        output=tmp_path / "strict.zarr",
        strict=True,
    )


def test_presigned_addresses_that_refuse_head_are_read(ask: Ask, faulty: Faulty, tmp_path: Path) -> None:
    refusing = ask(catalog=faulty("head-refused"))
    healthy = ask(catalog=faulty("asset-flaky"), output=tmp_path / "healthy.zarr")
    same = ("items", "valid_percent", "dark_pixels")
    assert [refusing[key] for key in same] == [healthy[key] for key in same]


def test_a_private_catalogue_is_read_with_headers_of_the_environment_and_keeps_none(
    archive: Archive, faulty: Faulty, rsup: Rsup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RSUP_HEADERS", raising=False)
    catalogue = faulty("private")
    secret = f"s3cr3t-{catalogue.rpartition('/')[2]}"
    refused = rsup(*command(archive, catalogue, tmp_path / "a.zarr"))
    assert refused.returncode == 4 and "answered HTTP 401: it wants credentials" in refused.stderr
    assert "RSUP_HEADERS or ~/.netrc" in refused.stderr and not (tmp_path / "a.zarr").exists()
    monkeypatch.setenv("RSUP_HEADERS", "Authorization: Bearer s3cr3t-wrong")
    refused = rsup(*command(archive, catalogue, tmp_path / "a.zarr"))
    assert refused.returncode == 4 and "s3cr3t" not in refused.stderr
    monkeypatch.setenv("RSUP_HEADERS", f"Authorization: Bearer {secret}")
    done = rsup(*command(archive, catalogue, tmp_path / "a.zarr"))
    assert done.returncode == 0 and "RSUP_HEADERS: Authorization is sent to 127.0.0.1:" in done.stderr
    assert "s3cr3t" not in done.stdout + done.stderr
    assert not [name for name, content in files(tmp_path).items() if b"s3cr3t" in content]
    assert json.loads(done.stdout)["valid_percent"] > 0


def test_ids_that_climb_out_of_folders_are_labels(ask: Ask, faulty: Faulty, tmp_path: Path) -> None:
    """Nothing is written but the store, whatever items are called."""
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    result = ask(catalog=faulty("escaping-ids"), output=inner / "scene.zarr")
    assert all(item.startswith("../../") for item in result["items"])
    assert [path.name for path in inner.iterdir()] == ["scene.zarr"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and [p.name for p in (tmp_path / "a").iterdir()] == ["b"]


def test_an_output_is_replaced_when_asked_and_only_a_scene_is(ask: Ask, tmp_path: Path) -> None:
    output = tmp_path / "scene.zarr"
    ask()
    before = files(output)
    refused(ask, OutputError, r"scene.zarr exists and .*bands differ\); choose another -o or", bands=("green",))
    assert files(output) == before
    ask(overwrite=True, bands=("green",))
    assert open_scene(output).bands == ("green",)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "wedding.jpg").write_text("irreplaceable")
    (tmp_path / "note.txt").write_text("irreplaceable")
    before = files(tmp_path)
    for name in ("photos", "note.txt"):
        refused(
            ask, OutputError, "no scene store, which is all that --overwrite", output=tmp_path / name, overwrite=True
        )
    for name in (tmp_path / "..", Path("/"), Path()):
        refused(ask, OutputError, "no name for a scene store", output=name, overwrite=True)
    refused(ask, OutputError, "cannot be written .*choose another output", output=tmp_path / "note.txt" / "scene.zarr")
    refused(
        ask, OutputError, "cannot be written .*name too long.: choose a shorter name", output=tmp_path / ("x" * 254)
    )
    assert files(tmp_path) == before


@pytest.mark.slow
def test_a_full_disk_loses_nothing_and_a_rerun_goes_on(ask: Ask, small_disk: SmallDisk, tmp_path: Path) -> None:
    output = small_disk.path / "scene.zarr"
    asked = {"output": output, "bands": ("red", "green", "blue"), "chunk": 128}
    small_disk.remount("size=40k")
    refused(ask, OutputError, "scene.zarr.* cannot be .*No space left on device", **asked)
    small_disk.remount("size=250k")
    refused(ask, OutputError, "scene.zarr.* cannot be .*No space left on device", **asked)
    ledger = small_disk.path / ".scene.zarr.ledger"
    assert ledger.read_text().count('"done"') > 3 and not output.exists()
    small_disk.remount("size=20m")
    ask(**asked)
    ask(**asked | {"output": tmp_path / "roomy.zarr"})
    assert files(output) == files(tmp_path / "roomy.zarr")
    assert [path.name for path in small_disk.path.iterdir()] == ["scene.zarr"]

    small_disk.remount("ro")
    refused(ask, OutputError, "Read-only file system", **asked, overwrite=True)
    refused(ask, OutputError, "Read-only file system", **asked | {"output": small_disk.path / "other.zarr"})
    assert files(output) == files(tmp_path / "roomy.zarr")


def command(archive: Archive, catalogue: str, output: Path, *more: str) -> list[str]:
    return [
        "fetch", "--bbox", ",".join(map(str, archive.bbox)), "--date", JUNE,
        "--catalog", catalogue, "-o", str(output), "--json", *more,
    ]  # fmt: skip


def test_the_command_says_one_sentence_and_leaves_with_the_code_of_the_kind(
    archive: Archive, faulty: Faulty, stac_server: str, rsup: Rsup, tmp_path: Path
) -> None:
    (tmp_path / "taken.zarr").mkdir()
    for code, words, arguments in (
        (2, "give four numbers", command(archive, stac_server, tmp_path / "a.zarr", "--bbox", "here,there")),
        (2, "'2024-13' is no date", command(archive, stac_server, tmp_path / "a.zarr", "--date", "2024-13")),
        (4, "starts with '<html>", command(archive, faulty("html"), tmp_path / "a.zarr")),
        (5, "its asset cannot be read", command(archive, faulty("asset-404"), tmp_path / "a.zarr")),
        (6, "taken.zarr exists", command(archive, stac_server, tmp_path / "taken.zarr")),
    ):
        result = rsup(*arguments, timeout=120)
        said = [line for line in result.stderr.splitlines() if line.startswith("rsup: ")]
        assert result.returncode == code and len(said) == 1 and words in said[0], result.stderr
        assert "Traceback" not in result.stderr and result.stdout == ""
    assert not (tmp_path / "a.zarr").exists() and not list((tmp_path / "taken.zarr").iterdir())


# The command has no --chunk: small ones make many moments to be killed at.
DRIVER = """
import sys
from pathlib import Path
from rsup.pipeline.jobs.fetch import fetch
from rsup.pipeline.sources.request import FetchRequest
bbox = tuple(float(part) for part in sys.argv[1].split(","))
fetch(FetchRequest(bbox, "2024-06", Path(sys.argv[3]), sys.argv[2], bands=("red", "nir"), chunk=128))
"""


@pytest.fixture(scope="module")
def undisturbed(archive: Archive, stac_server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("undisturbed") / "scene.zarr"
    fetch(FetchRequest(archive.bbox, JUNE, output, stac_server, bands=("red", "nir"), chunk=128))
    return files(output)


@pytest.mark.parametrize("moment", [0, 1, 4, 8])
def test_killed_at_any_moment_a_rerun_gives_the_same_bytes(
    undisturbed: dict[str, bytes], archive: Archive, stac_server: str, forks: Forks, moment: int, tmp_path: Path
) -> None:
    """Before the first of nine chunks, after one, four, eight."""
    output, ledger = tmp_path / "scene.zarr", tmp_path / ".scene.zarr.ledger"
    arguments = [",".join(map(str, archive.bbox)), stac_server, output]

    def recorded() -> list[str]:
        return [line for line in ledger.read_text().splitlines() if '"done"' in line] if ledger.exists() else []

    process = forks.begin(arguments, DRIVER)
    while len(recorded()) < moment + 1 and process.poll() is None:
        time.sleep(0.001)
    process.kill()
    assert process.end().returncode == -signal.SIGKILL and not output.exists()
    before = recorded()
    assert len(before) > moment
    again = forks.begin(arguments, DRIVER).end()
    assert again.returncode == 0, again.stderr
    assert files(output) == undisturbed
    assert [path.name for path in tmp_path.iterdir()] == ["scene.zarr"]


def test_a_static_catalogue_may_not_read_its_user_s_disk(archive: Archive, ask: Ask, tmp_path: Path) -> None:
    """A catalogue somebody sent: one asset leads out of its folder, by name or by a link."""
    secret = tmp_path / "secret.tif"
    for way in ("name", "link"):
        copy = tmp_path / way
        shutil.copytree(archive.root, copy)
        shutil.copy(next(copy.rglob("*.tif")), secret)
        for document in copy.rglob("*.json"):
            content = json.loads(document.read_text())
            for asset in content.get("assets", {}).values():
                if way == "link":
                    asset["href"] = "inside.tif"
                    (document.parent / "inside.tif").unlink(missing_ok=True)
                    (document.parent / "inside.tif").symlink_to(secret)
                else:
                    asset["href"] = str(secret)
            document.write_text(json.dumps(content))
        refused(ask, CatalogError, "outside its own folder", catalog=str(copy), output=tmp_path / "scene.zarr")
    assert not list(tmp_path.glob("*scene.zarr*"))
