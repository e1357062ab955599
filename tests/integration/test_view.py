"""The map of `rsup view` in Chromium: its colours, its numbers, its keys, and that it asks nobody else for anything."""

import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rasterio
from chromium import Page
from numpy.typing import NDArray
from PIL import Image
from places import ROOT

from rsup.pipeline.jobs.upscale import upscale
from rsup.pipeline.jobs.upscale_plan import UpscaleRequest
from rsup.pipeline.scenes.scene import Scene

pytestmark = pytest.mark.slow
BANDS = ("red", "green", "blue", "nir")
DRAWN = "document.documentElement?.dataset.drawn"
NUMBERS = "[...document.querySelectorAll('#values tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"
READ_UNTIL_STILL = "new Promise((done) => { map.once('rendercomplete', () => done(1)); map.render(); })"


def numbers() -> NDArray[np.uint16]:
    """The scene's [band, y, x]; a corner is nodata."""
    y, x = np.mgrid[:120, :100]
    dn = np.stack([2200 + 300 * k + 800 * np.sin(x / (4 + k)) * np.cos(y / 6) for k in range(4)]).astype(np.uint16)
    dn[:, :10, :10] = 0
    return dn


@pytest.fixture
def mosaic(make_scene: Callable[..., Scene], tmp_path: Path) -> Path:
    """A mosaic of 960 x 800 pixels with its uncertainty, a corner nodata; the scene lies beside it."""
    scene = make_scene(numbers(), bands=BANDS)
    upscale(UpscaleRequest(scene.path, 8, tmp_path / "m", "default", device="cpu", chunk=64, uncertainty=True))
    return tmp_path / "m"


@contextmanager
def viewing(mosaic: Path) -> Iterator[str]:
    """The address of `rsup view`."""
    command = [sys.executable, "-m", "rsup.pipeline.cli", "view", str(mosaic)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.fullmatch("address: (.*)\n", line):
                    yield found[1]
                    break
        finally:
            process.terminate()


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with Page(tmp_path / "chromium") as page:
        yield page


def choose(page: Page, title: str) -> None:
    """Pick what is shown by its title, as a reader of the page would."""
    page.run(
        f"(() => {{ const list = document.getElementById('show'); const of = [...list.options];"
        f"list.value = of.findIndex((each) => each.textContent === '{title}');"
        "list.dispatchEvent(new Event('change')); })()"
    )
    page.run(READ_UNTIL_STILL)


def pictured(page: Page) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(page.picture())).convert("RGB"))


def seen(image: NDArray[np.uint16], ranges: list[list[float]], gamma: float) -> NDArray[np.float64]:
    """Stored numbers [band, y, x] as shades [y, x, band], by the definition."""
    low, high = (np.array(end)[:, None, None] for end in zip(*ranges, strict=True))
    shade = np.clip((image * 1e-4 - 0.1 - low) / (high - low), 0, 1) ** (1 / gamma)
    return np.asarray(255 * shade.transpose(1, 2, 0))


def test_the_map_shows_scene_and_mosaic_and_their_numbers(mosaic: Path, page: Page) -> None:
    with viewing(mosaic) as address, rasterio.open(mosaic / "scene_x8.tif") as cog:
        fine, dn = cog.read(), numbers()
        with rasterio.open(mosaic / "scene_x8_uncertainty.tif") as file:
            doubt = file.read()
        page.open(address)
        page.wait(DRAWN)
        # Full resolution, a pixel of the mosaic a pixel of the screen, its corner (300, 100) in the map's corner.
        west, north = cog.transform * (300, 100)
        width, height = page.run("map.getSize()")
        centre = [west + width / 2 * 1.25, north - height / 2 * 1.25]
        page.run(f"map.getView().setResolution(1.25); map.getView().setCenter({centre})")
        page.run(READ_UNTIL_STILL)
        box = page.run("(({x, y}) => [x, y])(document.getElementById('map').getBoundingClientRect())")
        left, top = map(round, box)
        line = width // 2
        ranges = page.run("fetch('mosaics/0').then((answer) => answer.json())")["stretch"][:3]

        shot = pictured(page)[top:, left:]
        coarse = seen(dn[:3].repeat(8, 1).repeat(8, 2)[:, 100:, 300:], ranges, 1.5)
        expected = seen(fine[:3, 100:, 300:], ranges, 1.5)
        assert line > 300
        assert np.abs(shot[60:560, 60 : line - 20] - coarse[60:560, 60 : line - 20]).max() <= 2

        # A line drawn to the left end leaves the mosaic alone.
        swipe = "document.getElementById('swipe')"
        page.run(f"{swipe}.value = 0; {swipe}.dispatchEvent(new Event('input'))")
        shot = pictured(page)[top:, left:]
        assert np.abs(shot[60:560, 60:480] - expected[60:560, 60:480]).max() <= 2

        # Numbers under the pointer, of both, and how far the mosaic may be off.
        choose(page, "Uncertainty of nir")
        page.mouse("mouseMoved", box[0] + 200.5, box[1] + 300.5)
        page.mouse("mouseMoved", box[0] + 201.5, box[1] + 300.5)
        found = {name: values for name, *values in page.wait(f"(({NUMBERS}))")}
        y, x = 100 + 300, 300 + 201
        for k, band in enumerate(BANDS):
            expected_numbers = [dn[k, y // 8, x // 8] * 1e-4 - 0.1, fine[k, y, x] * 1e-4 - 0.1, doubt[k, y, x] * 1e-4]
            np.testing.assert_allclose([float(value) for value in found[band]], expected_numbers, atol=6e-5)
        nir, red = (fine[k, y, x] * 1e-4 - 0.1 for k in (3, 0))
        assert abs(float(found["NDVI"][1]) - (nir - red) / (nir + red)) < 1e-3
        shot = pictured(page)[top:, left:]
        low, high = page.run("[...document.querySelectorAll('#ranges input')].map((each) => each.valueAsNumber)")
        shade = 255 * np.clip((doubt[3, 100:, 300:] * 1e-4 - low) / (high - low), 0, 1)
        assert np.abs(shot[60:560, 60:480, 0] - shade[60:560, 60:480]).max() <= 6  # the ends are rounded for reading

        assert {asked for asked in page.asked if not asked.startswith((address, "data:"))} == set()
        assert (f"{address}mosaics/0/mosaic.tif", 206) in page.answered
        assert (f"{address}mosaics/0/mosaic.tif", 200) not in page.answered  # by ranges, never whole
        assert page.complaints == []


def test_it_is_used_by_keys_and_says_where_it_is(mosaic: Path, page: Page) -> None:
    with viewing(mosaic) as address:
        page.open(address)
        page.wait(DRAWN)
        assert page.run("document.getElementById('left').textContent") == "scene, 10 m"
        said = "(each) => each.labels?.[0]?.textContent.trim() || each.ariaLabel"
        assert all(page.run(f"[...document.querySelectorAll('select, input, #map')].map({said})"))

        page.run("document.getElementById('map').focus()")
        (x, y), resolution = page.run("[map.getView().getCenter(), map.getView().getResolution()]")
        page.press("ArrowRight")
        page.wait(f"map.getView().getCenter()[0] > {x} && !map.getView().getAnimating()")
        page.press("+")
        page.wait(f"map.getView().getResolution() < {resolution} && !map.getView().getAnimating()")
        page.run(READ_UNTIL_STILL)
        assert "in the middle of the map" in page.run("document.getElementById('where').textContent")
        assert page.run("getComputedStyle(document.getElementById('cross')).display") == "block"

        page.run("document.getElementById('swipe').focus()")
        page.press("ArrowRight")
        assert page.run("getComputedStyle(document.getElementById('stage')).getPropertyValue('--at')") == "50.5%"

        choose(page, "NDVI")
        assert page.run("document.getElementById('key').hidden") is False
        page.run("document.getElementById('fit').click()")
        low, high = page.run("[...document.querySelectorAll('#ranges input')].map((each) => each.valueAsNumber)")
        assert -1 <= low < high <= 1 and (low, high) != (-0.1, 0.9)
        shot = pictured(page)
        assert shot.std() > 20
        assert page.complaints == []


def test_an_archive_has_a_choice_of_mosaics_and_says_what_is_not_at_hand(
    mosaic: Path, page: Page, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    for month in ("2024-05", "2024-06"):
        shutil.copytree(mosaic, archive / month / "cell")
    items = "".join(f', {{"rel": "item", "href": "./{month}/cell/scene_x8.json"}}' for month in ("2024-05", "2024-06"))
    (archive / "collection.json").write_text(f'{{"links": [{{"rel": "root", "href": "."}}{items}]}}')
    with viewing(archive) as address:
        page.open(f"{address}?mosaic=1")
        page.wait(DRAWN)
        chosen = "(({options, value}) => [[...options].map((each) => each.textContent), value])"
        names, value = page.run(f"{chosen}(document.getElementById('mosaic'))")
        assert names == ["2024-05/scene_x8", "2024-06/scene_x8"] and value == "1"
        assert page.run("document.getElementById('left').textContent") == "mosaic's means, 10 m"
        (archive / "2024-05" / "cell" / "scene_x8.tif").write_bytes(b"no image")
        page.open(f"{address}?mosaic=0")
        page.wait("document.getElementById('trouble')?.textContent.includes('cannot be read as a mosaic')")


def test_the_bundle_is_what_its_sources_give(tmp_path: Path) -> None:
    npm, view = shutil.which("npm"), ROOT / "pipeline" / "view"
    if npm is None:
        pytest.skip("npm is not installed")
    sources = shutil.copytree(view / "web", tmp_path / "web", ignore=shutil.ignore_patterns("node_modules"))
    installed = subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=sources, capture_output=True, timeout=280)
    if installed.returncode:
        pytest.skip("npm cannot install what the bundle is made of here")
    (tmp_path / "out").mkdir()
    subprocess.run(["node", "build.mjs", tmp_path / "out"], cwd=sources, check=True, timeout=60)
    for name in ("view.js", "view.LICENSES.txt"):
        assert (tmp_path / "out" / name).read_bytes() == (view / name).read_bytes()
    assert (view / "view.js").stat().st_size < 400_000
    licences = (view / "view.LICENSES.txt").read_text()
    assert all(f"\n{name} " in licences for name in ("ol", "geotiff", "rbush", "quick-lru", "xml-utils"))
