"""The made archive as it is served: real COGs and STAC items whose pixels go back to the truth; the whole demo."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pystac
import pystac_client
import pytest
import rasterio
from numpy.typing import NDArray
from pystac_client.exceptions import APIError
from rasterio.warp import Resampling, reproject
from rio_cogeo.cogeo import cog_validate

from rsup.models.base.errors import ArgumentError, OutputError
from rsup.pipeline.demo.acquisitions import ACQUISITIONS
from rsup.pipeline.demo.archive import Archive, make_archive
from rsup.pipeline.demo.run import run_demo
from rsup.pipeline.demo.sensor import FINE
from rsup.pipeline.demo.session import run_session

JUNE = "2024-06-01/2024-06-30"
(WEST_TILE, EAST_TILE, REPROCESSED, NEXT_ORBIT, HAZIER, NEXT_ZONE, CLOUDY, OLD) = (
    each.item_id for each in ACQUISITIONS
)
CLEAR = (4, 5, 6)


def read(archive: Archive, item: str, band: str) -> tuple[NDArray[Any], rasterio.Affine]:
    with rasterio.open(archive.root / item / f"{band}.tif") as source:
        return source.read(1), source.transform


def clear(archive: Archive, item: str) -> NDArray[np.bool_]:
    """10 m pixels without cloud or shadow, well inside their 20 m class's neighbourhood."""
    scl, _ = read(archive, item, "scl")
    return np.kron(np.isin(scl, CLEAR), np.ones((2, 2), bool))


@pytest.mark.slow
def test_an_archive_in_a_relative_folder_leads_to_its_assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    archive = make_archive(Path("made/archive"), size=32)
    monkeypatch.chdir("/")
    for item in archive.items:
        assets = pystac.Item.from_file(str(archive.root / item / f"{item}.json")).assets.values()
        assert assets
        for asset in assets:
            assert Path(asset.get_absolute_href() or "").is_file()


@pytest.mark.parametrize("item", [each.item_id for each in ACQUISITIONS])
def test_assets_are_valid_cogs_that_the_item_describes(archive: Archive, item: str) -> None:
    described = pystac.Item.from_file(str(archive.root / item / f"{item}.json"))
    for name, asset in described.assets.items():
        path = archive.root / item / f"{name}.tif"
        valid, errors, warnings = cog_validate(path)
        assert valid and not errors and not warnings
        with rasterio.open(path) as source:
            assert source.crs == described.properties["proj:code"]
            assert list(source.shape) == asset.extra_fields["proj:shape"]
            assert list(source.transform)[:6] == asset.extra_fields["proj:transform"]
            assert source.nodata == 0 and source.dtypes[0] == asset.extra_fields["raster:bands"][0]["data_type"]
    scl, _ = read(archive, item, "scl")
    cloud = np.isin(scl, (8, 9)).sum() / (scl > 0).sum()
    assert described.properties["eo:cloud_cover"] == pytest.approx(100 * cloud, abs=1e-4)
    # What has a class has a reflectance, but for half a class's pixel along the swath's edge.
    red, _ = read(archive, item, "red")
    differ = (red > 0) != np.kron(scl > 0, np.ones((2, 2), bool))
    assert differ.sum(axis=1).max() <= 1


@pytest.mark.parametrize("item", [WEST_TILE, NEXT_ORBIT, OLD])
def test_offset_and_scale_lead_back_to_the_truth(archive: Archive, item: str) -> None:
    described = pystac.Item.from_file(str(archive.root / item / f"{item}.json"))
    for number, band in enumerate(("red", "green", "blue", "nir"), start=1):
        stored, transform = read(archive, item, band)
        with rasterio.open(archive.truth) as source:
            truth = source.read(number) * 1e-4 - 0.1
            col, row = (round(edge) for edge in ~transform @ (source.bounds.left, source.bounds.top))
        height, width = (length // FINE for length in truth.shape)
        # Half of the western tile's product lies west of the truth's middle: compare what both have.
        inside = (slice(row, row + height), slice(max(col, 0), min(col + width, stored.shape[1])))
        means = truth.reshape(height, FINE, width, FINE).mean(axis=(1, 3))
        means = means[:, inside[1].start - col : inside[1].stop - col]
        packing = described.assets[band].extra_fields["raster:bands"][0]
        reflectance = stored[inside] * packing["scale"] + packing["offset"]
        usable = clear(archive, item)[inside]
        assert usable.mean() > 0.15
        error = (reflectance - means)[usable]
        # The PSF smears edges, noise is 0.1 %: no bias, and a spread well below the landscape's own.
        assert abs(error.mean()) < 0.002
        assert error.std() < 0.5 * means[usable].std()


def test_products_of_one_overpass_agree_and_the_reprocessed_one_does_not(archive: Archive) -> None:
    west, west_affine = read(archive, WEST_TILE, "red")
    east, east_affine = read(archive, EAST_TILE, "red")
    first, _ = read(archive, REPROCESSED, "red")
    assert west_affine == east_affine  # the landscape's corner: tile edges cut the east only
    common = east[:, : west.shape[1]]
    np.testing.assert_array_equal(west[common > 0], common[common > 0])
    assert np.median(first.astype(float) - west) < -50


def test_tiles_and_swaths_leave_ground_to_each_other(archive: Archive) -> None:
    pixels = {item: read(archive, item, "red")[0] for item in (WEST_TILE, EAST_TILE, NEXT_ORBIT)}
    seen = {item: np.zeros_like(pixels[EAST_TILE], bool) for item in pixels}
    for item, values in pixels.items():
        seen[item][:, : values.shape[1]] = values > 0
        assert 0.2 < seen[item].mean() < 0.95
    assert np.logical_or.reduce(list(seen.values())).all()
    _, west_affine = read(archive, WEST_TILE, "red")
    assert west_affine.c + pixels[WEST_TILE].shape[1] * 10 == 309_780  # tile 33UTQ's eastern edge


def test_the_neighbouring_zone_shows_the_same_ground_in_its_place(archive: Archive) -> None:
    with rasterio.open(archive.root / NEXT_ZONE / "nir.tif") as other:
        assert other.crs.to_epsg() == 32632
        with rasterio.open(archive.root / OLD / "nir.tif") as home:
            here = home.read(1).astype(float)
            there = np.zeros(here.shape)
            reproject(
                other.read(1).astype(float),
                there,
                src_transform=other.transform,
                src_crs=other.crs,
                src_nodata=0,
                dst_transform=home.transform,
                dst_crs=home.crs,
                dst_nodata=0,
                resampling=Resampling.cubic,
            )
    usable = clear(archive, OLD) & (there > 0)

    def disagreement(rows: int, columns: int) -> float:
        difference = np.roll(here + 1000, (rows, columns), (0, 1)) - there
        return float(np.median(np.abs(difference)[usable]))

    shifts = {(r, c): disagreement(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1)}
    assert usable.sum() > 1000
    assert min(shifts, key=lambda shift: shifts[shift]) == (0, 0)
    assert shifts[0, 0] < 0.6 * min(value for shift, value in shifts.items() if shift != (0, 0))


def test_the_api_searches_by_box_and_date(archive: Archive, stac_server: str) -> None:
    client = pystac_client.Client.open(stac_server)

    def found(bbox: tuple[float, ...], dates: str) -> set[str]:
        search = client.search(collections=["sentinel-2-l2a"], bbox=bbox, datetime=dates)
        return {item.id for item in search.items()}

    assert found(archive.bbox, JUNE) == set(archive.items) - {OLD}
    assert found(archive.bbox, "2021-06-18") == {OLD}
    west, south, east, north = archive.bbox
    assert found((west + 2, south, east + 2, north), JUNE) == set()


def test_assets_answer_ranges_and_nothing_outside_the_folder(archive: Archive, asset_server: str) -> None:
    href = f"{asset_server}/{WEST_TILE}/red.tif"
    whole = (archive.root / WEST_TILE / "red.tif").read_bytes()
    asked = urllib.request.Request(href, headers={"Range": "bytes=100-299"})
    with urllib.request.urlopen(asked) as answer:
        assert answer.status == 206 and answer.read() == whole[100:300]
    with rasterio.open(href) as source:
        np.testing.assert_array_equal(source.read(1), read(archive, WEST_TILE, "red")[0])
    for path, method, status in (("/../archive.json", "GET", 404), (f"/{WEST_TILE}/red.tif", "PUT", 405)):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(urllib.request.Request(asset_server + path, method=method))
        assert refusal.value.code == status
        refusal.value.close()


def test_the_static_catalogue_leads_to_every_item(archive: Archive, asset_server: str) -> None:
    catalog = pystac.Catalog.from_file(f"{asset_server}/catalog.json")
    items = {item.id: item for item in catalog.get_items(recursive=True)}
    assert set(items) == set(archive.items)
    href = items[OLD].assets["red"].get_absolute_href()
    assert href == f"{asset_server}/{OLD}/red.tif"


def test_servers_end_with_the_process_that_started_them(archive: Archive, tmp_path: Path) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from rsup.pipeline.demo.servers import serve_archive\n"
        "with serve_archive(Path(sys.argv[1])) as addresses:\n"
        "    sys.stdout.write(' '.join(addresses) + '\\n')\n"
        "    sys.stdout.flush()\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(archive.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        addresses = parent.stdout.readline().split()
        assert len(addresses) == 2
        for address in addresses:
            assert _alive(address)
        os.kill(parent.pid, signal.SIGKILL)
    until = time.monotonic() + 10
    while any(_alive(address) for address in addresses) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(_alive(address) for address in addresses)


def test_commands_end_with_the_process_that_started_them() -> None:
    script = (
        "import sys\n"
        "from rsup.pipeline.demo.servers import start\n"
        "code = 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'\n"
        "start([sys.executable, '-c', code]).wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        command = psutil.Process(int(parent.stdout.readline()))
        assert command.is_running()
        os.kill(parent.pid, signal.SIGKILL)
    command.wait(10)


def _alive(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=2).close()
    except urllib.error.HTTPError as answer:
        answer.close()
    except OSError:
        return False
    return True


def test_faulty_servers_are_faulty_as_told(faulty: Callable[..., str], archive: Archive) -> None:
    def search(root: str) -> list[pystac.Item]:
        client = pystac_client.Client.open(root)
        return list(client.search(collections=["sentinel-2-l2a"], bbox=archive.bbox, datetime=JUNE).items())

    assert {item.id for item in search(faulty("healthy"))} == set(archive.items) - {OLD}
    for fault in ("500", "html", "malformed"):
        with pytest.raises((APIError, json.JSONDecodeError, pystac.STACTypeError)):
            search(faulty(fault))
    for fault, code in (("throttled", 429), ("flaky", 503)):
        root = faulty(fault)
        statuses = [_status(root) for _ in range(3)]
        assert statuses == [code, code, 200]
    start = time.monotonic()
    assert _status(faulty("slow", 0.5)) == 200 and time.monotonic() - start > 0.5
    assert all(item.id.startswith("../../") for item in search(faulty("escaping-ids")))
    assert all(item.assets["red"].href.startswith("file://") for item in search(faulty("local-files")))


def test_faulty_assets_are_faulty_as_told(faulty: Callable[..., str], archive: Archive) -> None:
    def href(fault: str) -> str:
        client = pystac_client.Client.open(faulty(fault))
        found = client.search(collections=["sentinel-2-l2a"], bbox=archive.bbox, datetime=JUNE).items()
        return next(iter(found)).assets["red"].href

    assert _status(href("asset-404")) == 404
    assert _status(href("asset-500")) == 500
    flaky = href("asset-flaky")
    assert [_status(flaky) for _ in range(3)] == [503, 503, 200]
    with urllib.request.urlopen(href("asset-truncated")) as answer, pytest.raises(OSError, match="IncompleteRead"):
        try:
            answer.read()
        except Exception as error:  # http.client.IncompleteRead is no OSError
            raise OSError(repr(error)) from error
    with pytest.raises(rasterio.RasterioIOError):
        rasterio.open(href("asset-not-tiff"))


def _status(address: str) -> int:
    try:
        with urllib.request.urlopen(address) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as answer:
        answer.close()
        return answer.code


def test_the_demo_leaves_other_peoples_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="something else"):
        run_demo(tmp_path, size=32)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "wrong",
    [{"scale": 5}, {"scale": -4}, {"seed": -1}, {"seed": 2**32}, {"seed": 10**26}, {"size": 0}, {"size": 10**30}],
)
def test_what_the_demo_cannot_do_it_says_at_once(tmp_path: Path, wrong: dict[str, int]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ArgumentError, match=f"^--{name} {value}: choose "):
        run_demo(tmp_path / "demo", **wrong)
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_the_demo_runs_the_public_commands_from_fetch_to_page(tmp_path: Path) -> None:
    result = run_demo(tmp_path / "demo", scale=4, size=32, seed=3)
    cog, truth = Path(result["cog"]), Path(result["truth"])
    assert cog_validate(cog)[0] and Path(result["page"]).stat().st_size > 10_000
    with rasterio.open(cog) as image, rasterio.open(truth) as known:
        assert image.crs == known.crs and image.res == (2.5, 2.5)
        assert image.width >= 32 * 4 and image.height >= 32 * 4
        window = rasterio.windows.from_bounds(*image.bounds, known.transform)
        red, fine = image.read(1).astype(float), known.read(1, window=window).astype(float)
    # PSNR anew, straight from its definition.
    difference = (red - fine.reshape(len(red), 2, -1, 2).mean(axis=(1, 3)))[red > 0] / 10_000
    assert result["psnr_db"]["red"] == pytest.approx(-10 * np.log10(np.mean(difference**2)), abs=0.01)
    assert (red > 0).mean() > 0.95
    # In place: moved by a pixel either way it is less like the truth.
    assert 30 < result["psnr_db"]["red"] < 60 and 30 < result["psnr_db_classical"]["red"] < 60
    for shift in ((2, 0), (-2, 0), (0, 2), (0, -2)):
        moved = np.roll(fine, shift, (0, 1)).reshape(len(red), 2, -1, 2).mean(axis=(1, 3))
        inner = (slice(4, -4), slice(4, -4))
        worse = np.square((red - moved)[inner][red[inner] > 0]).mean()
        still = fine.reshape(len(red), 2, -1, 2).mean(axis=(1, 3))
        assert worse > np.square((red - still)[inner][red[inner] > 0]).mean()
    marked = json.loads((tmp_path / "demo" / "mosaic" / "scene_x4.json").read_text())
    assert marked["type"] == "Feature"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_archive_from_end_to_end(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Planned, killed in the middle, gone on with, and drawn; what was done before the kill is not done again."""
    said = run_session(tmp_path / "session")
    told = capfd.readouterr().out
    assert (said["units"], said["done"]) == (12, 12) and told.count("$ kill -KILL ") == 1
    before = re.findall(r"^(done|stale|waiting): (\d+)$", told, re.MULTILINE)[3:6]
    done, stale, waiting = (int(count) for _, count in before)
    assert done >= 3 and done + stale + waiting == 12
    assert f"done: {12 - done}\nalready done: {done}\n" in told
    collection = pystac.Collection.from_file(said["collection"])
    assert len(list(collection.get_items())) == 12
    with rasterio.open(said["a_month_in_qgis"]) as month:  # three cells in two rows
        assert (month.height, month.width) == (2 * 96 * 4, 3 * 96 * 4) and month.read(1).any()
    page = Path(said["map"]).read_text()
    assert page.count('"33N-E') == 6 and "<h2>Failures" not in page
