"""The page: self-contained, escaped, deterministic, and its pictures show the same ground on both sides."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from rsup.models.base import intervals
from rsup.models.base.errors import OutputError
from rsup.pipeline.lattice import Window, chunks
from rsup.pipeline.mosaics.overviews import build_overviews
from rsup.pipeline.mosaics.page import write_page
from rsup.pipeline.mosaics.pictures import (
    DETAIL,
    SHARP,
    Stretch,
    data_uri,
    details,
    ground,
    overview,
    shown_bands,
    uncertainty_map,
)
from rsup.pipeline.mosaics.planes import write_chunk
from rsup.pipeline.mosaics.store import create_mosaic
from rsup.pipeline.scenes.opening import open_scene
from rsup.pipeline.scenes.scene import Scene
from rsup.pipeline.scenes.writer import create_scene

BANDS = ("red", "green", "blue", "nir")
WINDOW = Window(-512_000, 31_000, 300, 420)
MODEL = {"name": "bicubic", "sha256": "ab" * 32, "header": None}
FIGURES = {
    "block_mean_error_mean": 0.12345,
    "block_mean_error_p99": 0.5,
    "sam_deg": 0.0123,
    "dark_pixels": 1234,
    "lost_pixels": 7,
}
ITEM = {
    "id": "S2A_<script>alert(1)</script>",
    "datetime": "2023-07-01T10:20:30Z",
    "baseline": "05.09",
    "offset": -1000,
    "evidence": ['says "so" & so'],
    "href": "https://example.com/?sig=secret",
}


def make(
    folder: Path,
    window: Window = WINDOW,
    scale: int = 8,
    items: Any = (ITEM,),
    nodata: bool = True,
    uncertainty: bool = False,
) -> tuple[Scene, Path, NDArray[np.uint16]]:
    """A scene with margin, textured in its south-east, empty in a corner; the mosaic repeats its pixels.

    Where it has uncertainty, that is a tenth of the pixels' numbers.
    """
    rng = np.random.default_rng(6)
    outer = window.grow(8)
    rows, cols = np.mgrid[: outer.height, : outer.width]
    smooth = 2000 + 2 * rows + cols
    rough = smooth + rng.integers(-300, 300, smooth.shape) * ((rows > 200) & (cols > 250))
    lr = np.stack([rough + 200 * band for band in range(4)]).astype(np.uint16)
    if nodata:
        lr[:, :40, :40] = 0
    writer = create_scene(folder / "s.zarr", outer, "EPSG:32633", BANDS, 256, aoi=window, attributes={"items": items})
    for index, part in chunks(outer, 256):
        plane = np.zeros((part.height, part.width), np.uint8)
        writer.write(index, lr[(slice(None), *part.within(outer))], plane, plane.astype(np.uint16))
    store = folder / "s_x.zarr"
    create_mosaic(store, window, "EPSG:32633", scale, BANDS, 128, {}, uncertainty)
    for index, part in chunks(window, 128):
        sr = lr[(slice(None), *part.within(outer))].repeat(scale, 1).repeat(scale, 2)
        side = scale // intervals.DETAIL
        write_chunk(store, BANDS, index, sr, sr[:, ::side, ::side] // 10 if uncertainty else None)
    build_overviews(store, lambda *_: None)
    return open_scene(folder / "s.zarr"), store, lr[(slice(None), *window.within(outer))]


class Elements(HTMLParser):
    """Every start tag with its attributes, and the text outside of style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def pixels(uri: str | None) -> NDArray[np.uint8]:
    assert uri is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


Made = tuple[Scene, Path, NDArray[np.uint16]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("made"))


def page_of(made: Made) -> tuple[str, Elements]:
    scene, store, _ = made
    out = scene.path.with_name("p.html")
    write_page(out, scene, store, ("red", "green", "blue"), MODEL, "sensor", FIGURES)
    text = out.read_text(encoding="utf-8")
    return text, Elements(text)


def test_the_page_asks_for_nothing_and_escapes_what_others_wrote(made: Made) -> None:
    text, page = page_of(made)
    addresses = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert addresses and all(str(value).startswith("data:image/") for value in addresses)
    assert not re.search(r"url\(|@import|https?:|secret", text)
    assert "<script>alert" not in text and "S2A_<script>alert(1)</script>" in page.text
    assert 'says "so" & so' in page.text
    assert len(page.of("script")) == 1
    assert str(made[1].parent) not in text
    assert len(text) < 3_000_000


def test_no_direction_and_no_line_of_the_page_is_changed_by_what_others_wrote(tmp_path: Path) -> None:
    items = [{"id": "S2A\u202egpj.\u2066x\n<b>", "evidence": ["a\r\x1b[31m"], "collection": "\u2028"}]
    text, page = page_of(make(tmp_path, Window(0, 0, 70, 90), 4, items))
    assert not set("\u202e\u2066\u2028\r\x1b") & set(text)
    assert "S2A\\u202egpj.\\u2066x\\n<b>" in page.text


def test_the_page_tells_what_made_the_mosaic(made: Made) -> None:
    _, page = page_of(made)
    for expected in (
        "s.zarr",
        "EPSG:32633",
        "420 × 300 at 10 m, 3360 × 2400 at 1.25 m",
        "bicubic",
        "ab" * 32,
        "0.123 DN",
        "0.0123°",
        "darkest value here1,234",
        "nodata in the scene7",
        "2023-07-01 10:20:30",
        "05.09",
        "-1000",
        "4.2 km × 3 km",
        "Contains modified Copernicus Sentinel data 2023.",
    ):
        assert expected in page.text, expected


def test_every_slider_has_a_name_and_every_picture_a_text(made: Made) -> None:
    _, page = page_of(made)
    sliders = page.of("input")
    assert len(sliders) >= 3 and all(slider["type"] == "range" for slider in sliders)
    names = [slider["aria-label"] for slider in sliders]
    assert len(set(names)) == len(names) and None not in names
    assert len(page.of("img")) == 2 * len(sliders) and all(image["alt"] for image in page.of("img"))


def test_both_sides_show_the_same_ground_in_the_same_shades(made: Made) -> None:
    _, page = page_of(made)
    images = page.of("img")
    for after, before in zip(images[::2], images[1::2], strict=True):
        sharp, coarse = (pixels(image["src"]).astype(int) for image in (after, before))
        times = sharp.shape[0] // coarse.shape[0]
        assert sharp.shape[:2] == (coarse.shape[0] * times, coarse.shape[1] * times)
        # The mosaic repeats the scene's pixels, so the sides differ by JPEG alone.
        difference = np.abs(sharp - coarse.repeat(times, 0).repeat(times, 1))
        assert difference.mean() < 4


def test_equal_input_gives_an_equal_page(made: Made, tmp_path: Path) -> None:
    scene, store, _ = made
    for name in ("a.html", "b.html"):
        write_page(tmp_path / name, scene, store, BANDS, MODEL, "sensor", FIGURES)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


@pytest.mark.parametrize("items", [None, [], "S2A", [{"id": None}], [{"datetime": 5, "evidence": "one"}, "x"]])
def test_a_scene_that_knows_little_of_its_items_has_a_page_all_the_same(tmp_path: Path, items: Any) -> None:
    _, page = page_of(make(tmp_path, Window(0, 0, 70, 90), 4, items))
    assert "Contains modified Copernicus Sentinel data." in page.text


@pytest.mark.parametrize(
    ("window", "scale"), [(Window(0, 0, 1, 1), 8), (Window(0, 0, 1, 40), 4), (Window(7, 3, 70, 9), 4)]
)
def test_a_scene_of_few_pixels_has_a_page(tmp_path: Path, window: Window, scale: int) -> None:
    text, page = page_of(make(tmp_path, window, scale))
    assert pixels(page.of("img")[0]["src"]).shape[:2] == (window.height * scale, window.width * scale)
    assert "nan" not in page.text


def test_the_map_of_the_uncertainty_shows_where_it_is_large(tmp_path: Path) -> None:
    window = Window(0, 0, 90, 150)
    scene, store, lr = make(tmp_path, window, 4, uncertainty=True)
    bands = ("red", "green", "blue")
    for name, median in (("a.html", {"uncertainty_median": 234.0}), ("b.html", {})):
        write_page(tmp_path / name, scene, store, bands, MODEL, "sensor", FIGURES | median)
    page = Elements((tmp_path / "a.html").read_text())
    assert "Its median is 0.023 in reflectance." in page.text and "median234 DN" in page.text
    assert "Its median" not in Elements((tmp_path / "b.html").read_text()).text
    (image,) = [image for image in page.of("img") if "uncertainty" in str(image["alt"])]
    shown = pixels(image["src"]).astype(float)
    assert shown.shape == (360, 600)
    expected = (lr[:3] // 10).mean(0).repeat(4, 0).repeat(4, 1)
    valid = expected > 0
    low, high = np.percentile(expected[valid], (1, 99))
    grey = np.where(valid, 40 + 215 * np.clip((expected - low) / (high - low), 0, 1), 0)
    assert np.abs(shown - grey).mean() < 2  # JPEG
    for number in (low, high):
        assert f"{number * 1e-4:.2g}" in str(image["alt"]) and f"{number * 1e-4:.2g}" in page.text
    assert "in reflectance, mean of red, green, blue" in page.text
    assert not re.search(r"url\(|@import|https?:", (tmp_path / "a.html").read_text())


def test_a_map_of_a_large_mosaic_is_of_an_overview_and_one_of_nothing_is_none(tmp_path: Path) -> None:
    scene, store, lr = make(tmp_path, Window(0, 0, 70, 300), 4, uncertainty=True)
    found = uncertainty_map(store, ["red_uncertainty", "nir_uncertainty"])
    assert found.shape == (140, 600)
    low = (lr[[0, 3]] // 10).astype(float).mean(0).repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(found, np.where(low > 0, low, np.nan))
    for index, part in chunks(scene.aoi, 128):
        nothing = (np.zeros((4, part.height * fine, part.width * fine), np.uint16) for fine in (4, intervals.DETAIL))
        write_chunk(store, BANDS, index, *nothing)
    build_overviews(store, lambda *_: None)
    write_page(tmp_path / "p.html", scene, store, BANDS, MODEL, "sensor", {})
    assert "Uncertainty" not in Elements((tmp_path / "p.html").read_text()).text


def test_a_mosaic_without_uncertainty_has_no_map(made: Made) -> None:
    text, _ = page_of(made)
    assert "ncertainty" not in text


def test_details_lie_where_the_texture_is_and_apart(made: Made) -> None:
    scene, store, lr = made
    bands, stretch = ("red", "green", "blue"), Stretch.of(lr[:3])
    whole = overview(scene, store, bands)
    pairs = details(scene, store, bands, stretch, whole)
    assert pairs
    # Where the overview is coarser they are read anew, and are the same.
    again = details(scene, store, bands, stretch, replace(whole, coarser=2))
    for one, other in zip(pairs, again, strict=True):
        assert one.window == other.window and (one.before == other.before).all()
    first = pairs[0].window
    assert first.row - WINDOW.row >= 190 - 64 and first.col - WINDOW.col >= 240 - 64
    for k, pair in enumerate(pairs):
        rows, cols = pair.window.within(WINDOW)
        np.testing.assert_array_equal(pair.before, lr[:3, rows, cols])
        np.testing.assert_array_equal(pair.after, pair.before.repeat(8, 1).repeat(8, 2))
        assert pair.after.shape[1:] == (DETAIL, DETAIL) and (pair.before > 0).all()
        assert all(pair.window.grow(32).intersect(other.window) is None for other in pairs[:k])


def test_the_overview_of_a_large_scene_is_averaged_on_both_sides(tmp_path: Path) -> None:
    window = Window(-512_000, 31_000, 130, 2601)
    scene, store, lr = make(tmp_path, window=window, scale=4)
    pair = overview(scene, store, ("red",))
    assert pair.coarser == 4 and pair.before.shape == (1, 33, 651)
    assert SHARP // 2 < max(pair.after.shape) <= SHARP
    padded = np.zeros((132, 2604))
    padded[:130, :2601] = lr[0]
    mean = np.asarray(np.ma.masked_equal(padded.reshape(33, 4, 651, 4), 0).mean(axis=(1, 3)).filled(0))
    assert np.abs(pair.before[0] - mean).max() < 1
    sharp = pair.after[0].astype(float).reshape(33, 2, 651, 2).mean(axis=(1, 3))
    inner = (slice(10, 32), slice(10, 650))  # nodata and the cut edge apart
    assert np.abs(sharp[inner] - mean[inner]).max() < 2


def test_a_scene_without_one_whole_detail_shows_the_overview_alone(tmp_path: Path) -> None:
    scene, store, _ = make(tmp_path, window=Window(0, 0, 30, 30))
    write_page(tmp_path / "p.html", scene, store, ("nir",), MODEL, "sensor", {})
    assert len(Elements((tmp_path / "p.html").read_text()).of("figure")) == 1


def test_stretch_is_monotone_keeps_black_for_nodata_and_survives_clouds() -> None:
    rng = np.random.default_rng(0)
    land = rng.integers(1300, 2300, (3, 100, 100), dtype=np.uint16)
    land[:, :30] = 12_000  # cloud over 30 %
    land[:, 99] = 0
    stretch = Stretch.of(land)
    shades = stretch(np.broadcast_to(np.arange(1000, 9000, dtype=np.uint16), (3, 1, 8000)))[0]
    assert (np.diff(shades.astype(int), axis=0) >= 0).all()
    assert (stretch(land)[99] == 0).all()
    assert stretch(land)[40:90].mean() > 60  # the land is not black for the cloud's sake
    assert (Stretch.of(np.zeros((3, 2, 2), np.uint16))(np.zeros((3, 2, 2), np.uint16)) == 0).all()


def test_pictures_keep_their_pixels() -> None:
    small = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    np.testing.assert_array_equal(pixels(data_uri(small)), small)
    assert pixels(data_uri(np.full((300, 300, 1), 77, np.uint8))).shape == (300, 300)


def test_true_colour_first() -> None:
    assert shown_bands(("nir", "blue", "green", "red")) == ("red", "green", "blue")
    assert shown_bands(("nir", "red", "green")) == ("nir", "red", "green")
    assert shown_bands(("nir", "red")) == ("nir",)
    assert ground(Window(0, 0, 64, 64)) == "640 m × 640 m"


def test_a_page_that_cannot_be_written_is_one_sentence(made: Made, tmp_path: Path) -> None:
    scene, store, _ = made
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_page(tmp_path / "file" / "p.html", scene, store, ("red",), MODEL, "sensor", {})
