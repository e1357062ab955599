"""The mosaic store: what xarray reads, bytes in any order, overviews against numpy's masked mean."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rioxarray  # noqa: F401 (registers .rio)
import xarray as xr
import zarr
import zarr_cm
from numpy.typing import NDArray

from rsup.models.base.errors import OutputError
from rsup.models.base.intervals import DETAIL
from rsup.pipeline.lattice import Window, chunks
from rsup.pipeline.mosaics.overviews import build_overviews
from rsup.pipeline.mosaics.planes import write_chunk
from rsup.pipeline.mosaics.store import (
    bands_of,
    create_mosaic,
    has_valid_pixel,
    uncertainties_of,
    uncertainty_of,
)

CRS = "EPSG:32633"
WINDOW = Window(-500_123, 40_007, 75, 131)
SCALE, CHUNK = 8, 32
SIDE = SCALE // DETAIL
BANDS = ("red", "nir")


def scene_pixels(window: Window = WINDOW, scale: int = SCALE, seed: int = 1) -> NDArray[np.uint16]:
    """Random numbers [band, y, x] with a nodata wedge; no symmetry hides a flip."""
    rng = np.random.default_rng(seed)
    data = rng.integers(1, 65536, (len(BANDS), window.height * scale, window.width * scale), dtype=np.uint16)
    rows, cols = np.ogrid[: data.shape[1], : data.shape[2]]
    data[:, cols > 2 * rows + 700] = 0
    return data


def write_all(path: Path, data: NDArray[np.uint16], order: list[int] | None = None) -> None:
    parts = list(chunks(WINDOW, CHUNK))
    for k in order if order is not None else range(len(parts)):
        index, part = parts[k]
        rows, cols = (slice(s.start * SCALE, s.stop * SCALE) for s in part.within(WINDOW))
        write_chunk(path, BANDS, index, data[:, rows, cols])


def create(path: Path, **attributes: Any) -> None:
    create_mosaic(path, WINDOW, CRS, SCALE, BANDS, CHUNK, {"title": "made", **attributes})


def digest(path: Path) -> dict[str, str]:
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


def halved(data: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Mean of valid pixels in 2 x 2 blocks, by numpy's own masked mean in float64, rounded half up."""
    height, width = data.shape
    padded = np.zeros((height + height % 2, width + width % 2))
    padded[:height, :width] = data
    blocks = padded.reshape(padded.shape[0] // 2, 2, padded.shape[1] // 2, 2)
    mean = np.ma.masked_equal(blocks, 0).mean(axis=(1, 3)).filled(0)
    return np.floor(np.asarray(mean) + 0.5).astype(np.uint16)


def test_xarray_reads_reflectance_and_the_exact_grid(tmp_path: Path) -> None:
    store, data = tmp_path / "a.zarr", scene_pixels()
    create(store)
    write_all(store, data)
    with xr.open_dataset(store, engine="zarr", decode_coords="all") as ds:
        assert set(ds.data_vars) == set(BANDS)
        assert bands_of(store) == BANDS
        assert ds.rio.crs.to_epsg() == 32633
        assert ds.rio.transform() == WINDOW.transform(SCALE)
        assert ds.rio.transform(recalc=True) == WINDOW.transform(SCALE)
        assert ds.rio.bounds() == WINDOW.bounds
        expected = np.where(data[1] == 0, np.nan, data[1] * 1e-4 - 0.1)
        np.testing.assert_allclose(ds["nir"].values, expected, rtol=0, atol=1e-9)
        assert float(ds["x"][0]) == WINDOW.col * 10 + 0.625
        assert float(ds["y"][-1]) == -WINDOW.stop_row * 10 + 0.625
    with xr.open_dataset(store, engine="zarr", mask_and_scale=False) as raw:
        np.testing.assert_array_equal(raw["red"].values, data[0])


def test_the_uncertainty_is_an_array_beside_each_band_at_every_level(tmp_path: Path) -> None:
    data = scene_pixels()
    widths = scene_pixels(seed=2)[:, ::SIDE, ::SIDE]
    deviations = widths.repeat(SIDE, 1).repeat(SIDE, 2)
    names = ("red", "nir", "red_uncertainty", "nir_uncertainty")
    for name, uncertainty in (("with", True), ("without", False)):
        create_mosaic(tmp_path / name, WINDOW, CRS, SCALE, BANDS, CHUNK, {}, uncertainty)
        for index, part in chunks(WINDOW, CHUNK):
            rows, cols = (slice(s.start * SCALE, s.stop * SCALE) for s in part.within(WINDOW))
            squares = widths[:, *(slice(s.start * DETAIL, s.stop * DETAIL) for s in part.within(WINDOW))]
            write_chunk(tmp_path / name, BANDS, index, data[:, rows, cols], squares if uncertainty else None)
        figures = build_overviews(tmp_path / name, lambda *_: None)
        for found, plane in zip(figures.values(), (*data, *deviations), strict=False):
            valid = plane[plane > 0].astype(float)
            want = (valid.min(), valid.max(), valid.mean(), valid.std(), 100 * valid.size / plane.size)
            np.testing.assert_allclose(list(found.figures().values()), want, rtol=1e-9)
    store = tmp_path / "with"
    assert bands_of(store) == BANDS and uncertainties_of(store) == names[2:]
    assert uncertainties_of(tmp_path / "without") == ()
    expected = list(deviations)
    for group in (None, "2", "4"):
        with xr.open_dataset(store, engine="zarr", group=group, decode_coords="all") as ds:
            assert set(ds.data_vars) == set(names)
            for band, plane in zip(BANDS, expected, strict=True):
                beside = ds[ds[band].attrs["ancillary_variables"]]
                assert beside.name == uncertainty_of(band) and band in beside.attrs["long_name"]
                assert beside.attrs["standard_name"].endswith(" standard_error") and beside.attrs["units"] == "1"
                reflectance = np.where(plane == 0, np.nan, plane * 1e-4)  # a difference has no offset
                np.testing.assert_allclose(beside.values, reflectance, rtol=0, atol=1e-9)
        expected = [halved(plane) for plane in expected]
    chunks_with, chunks_without = (
        {name: each for name, each in digest(tmp_path / kind).items() if "/c/" in name and "uncertainty" not in name}
        for kind in ("with", "without")
    )
    assert chunks_with == chunks_without


@pytest.mark.parametrize("bits", [16, 14])
def test_every_overview_is_a_dataset_and_the_mean_of_valid_pixels(tmp_path: Path, bits: int) -> None:
    """Also of numbers whose sums fit in 16 bits, and of those that just do not."""
    store, data = tmp_path / "a.zarr", scene_pixels()
    data = np.where(data > 0, np.maximum(data >> (16 - bits), 1), 0).astype(np.uint16)
    create(store)
    write_all(store, data)
    seen: list[tuple[int, int]] = []
    build_overviews(store, lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 0
    attributes: Any = dict(zarr.open_group(store, mode="r").attrs)
    layout = attributes["multiscales"]["layout"]
    assert [level["asset"] for level in layout] == [".", "2", "4"]  # 1048 -> 524 -> 262
    assert attributes["proj:code"] == "EPSG:32633" and 'ID["EPSG",32633]' in attributes["proj:wkt2"]
    for level in layout:
        node = json.loads((store / level["asset"] / "zarr.json").read_text())
        root = level["asset"] == "."
        conventions: list[Any] = [zarr_cm.proj, zarr_cm.spatial, *([zarr_cm.multiscales] if root else [])]
        for convention in conventions:
            convention.validate_group_metadata(node)
        newest = zarr_cm.latest_revisions()
        assert zarr_cm.detect_revisions(node["attributes"]) == {
            name: newest[name] for name in ("proj", "spatial", "multiscales") if root or name != "multiscales"
        }
        assert node["attributes"]["spatial:shape"] == level["spatial:shape"]
        dimensions = node["attributes"]["spatial:dimensions"]
        array = json.loads((store / level["asset"] / "red" / "zarr.json").read_text())
        assert array["dimension_names"] == dimensions and array["shape"] == level["spatial:shape"]
    expected = list(data)
    for level in layout[1:]:
        expected = [halved(band) for band in expected]
        with xr.open_dataset(
            store, engine="zarr", group=level["asset"], decode_coords="all", mask_and_scale=False
        ) as ds:
            for band, plane in zip(BANDS, expected, strict=True):
                np.testing.assert_array_equal(ds[band].values, plane)
            assert ds.rio.crs.to_epsg() == 32633
            assert list(ds.rio.transform())[:6] == level["spatial:transform"]
            assert ds.rio.transform().a == 1.25 * int(level["asset"])
            assert list(ds["red"].shape) == level["spatial:shape"] and ds.rio.x_dim == f"x_{level['asset']}"
    with xr.open_datatree(store, engine="zarr", mask_and_scale=False) as tree:
        assert tree.groups == ("/", "/2", "/4")
        np.testing.assert_array_equal(tree["red"].values, data[0])
        np.testing.assert_array_equal(tree["4/red"].values, expected[0])


def test_odd_sides_round_up_and_overview_pixels_lie_on_the_pixels_they_cover(tmp_path: Path) -> None:
    window = Window(3, 5, 1, 257)
    store = tmp_path / "a.zarr"
    create_mosaic(store, window, CRS, 4, ("red",), 100, {})
    data = np.random.default_rng(2).integers(1, 65536, (4, 1028), dtype=np.uint16)
    for index, part in chunks(window, 100):
        rows, cols = (slice(s.start * 4, s.stop * 4) for s in part.within(window))
        write_chunk(store, ("red",), index, data[None, rows, cols])
    build_overviews(store, lambda *_: None)
    with xr.open_dataset(store, engine="zarr", group="4", mask_and_scale=False) as ds:
        np.testing.assert_array_equal(ds["red"].values, halved(halved(data)))
        assert float(ds["x_4"][0]) == 50 + 5  # a 10 m pixel over the first LR pixel


def test_bytes_depend_on_neither_order_nor_repetition_nor_process(tmp_path: Path) -> None:
    data, count = scene_pixels(), len(list(chunks(WINDOW, CHUNK)))
    first, second = tmp_path / "first.zarr", tmp_path / "second.zarr"
    create(first)
    write_all(first, data)
    build_overviews(first, lambda *_: None)
    create(second)
    order = list(np.random.default_rng(3).permutation(count))
    wrong = scene_pixels(seed=9)
    write_all(second, wrong, order[:4])  # to be written over
    create(second)
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(write_all, [second] * 3, [data] * 3, [order[:9], order[9:], order[:5]]))
    build_overviews(second, lambda *_: None)
    build_overviews(second, lambda *_: None)
    assert digest(first) == digest(second)


def test_a_writer_killed_in_mid_chunk_leaves_nothing_behind(tmp_path: Path) -> None:
    data = scene_pixels()
    calm, killed = tmp_path / "calm.zarr", tmp_path / "killed.zarr"
    for store in (calm, killed):
        create(store)
    program = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from rsup.pipeline.mosaics.planes import write_chunk\n"
        "data = np.random.default_rng(0).integers(1, 65536, (2, 256, 256), dtype=np.uint16)\n"
        "print('go', flush=True)\n"
        "while True:\n"
        "    write_chunk(Path(sys.argv[1]), ('red', 'nir'), (0, 0), data)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(killed)], stdout=subprocess.PIPE)
    assert writer.stdout is not None and writer.stdout.readline() == b"go\n"
    while not all((killed / band / "c/0/0").exists() for band in ("red", "nir")):  # they come side by side
        assert writer.poll() is None
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    (killed / "red/c/0/0.0123.partial").write_bytes(b"half")  # what a kill between open and rename leaves
    for store in (calm, killed):
        write_all(store, data)
        build_overviews(store, lambda *_: None)
    assert digest(calm) == digest(killed)


def test_one_valid_pixel_is_found_in_the_coarsest_overview(tmp_path: Path) -> None:
    store, data = tmp_path / "a.zarr", scene_pixels()
    create(store)
    build_overviews(store, lambda *_: None)
    assert not has_valid_pixel(store)
    data[:] = 0
    data[1, 599, 3] = 1
    write_all(store, data)
    build_overviews(store, lambda *_: None)
    assert has_valid_pixel(store)


def test_creating_again_keeps_the_pixels_and_another_mosaic_is_refused(tmp_path: Path) -> None:
    store, data = tmp_path / "a.zarr", scene_pixels()
    create(store)
    write_all(store, data)
    before = digest(store)
    create(store)
    assert digest(store) == before
    for change in ({"scale": 4}, {"chunk": 16}, {"bands": ("red",)}, {"window": WINDOW.grow(1)}):
        options: dict[str, Any] = {"window": WINDOW, "scale": SCALE, "bands": BANDS, "chunk": CHUNK} | change
        with pytest.raises(OutputError, match="holds another mosaic"):
            create_mosaic(store, crs=CRS, attributes={"title": "made"}, **options)
    with pytest.raises(OutputError, match="holds another mosaic"):
        create(store, title="other")
    assert digest(store) == before


def test_a_folder_that_may_not_be_written_is_one_sentence(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # nobody, for root may write anywhere
    try:
        with pytest.raises(OutputError, match="Permission denied"):
            create(tmp_path / "a.zarr")
    finally:
        os.seteuid(user)


def test_a_path_under_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="Not a directory"):
        create(tmp_path / "file" / "a.zarr")


def test_memory_of_overviews_does_not_grow_with_the_mosaic(tmp_path: Path) -> None:
    def peak(side: int) -> int:
        store, window = tmp_path / f"{side}.zarr", Window(0, 0, side, side)
        create_mosaic(store, window, CRS, 8, ("red",), 64, {})
        block = np.random.default_rng(0).integers(1, 5000, (1, 512, 512), dtype=np.uint16)
        for index, _ in chunks(window, 64):
            write_chunk(store, ("red",), index, block)
        tracemalloc.start()
        build_overviews(store, lambda *_: None)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(512) < 1.3 * peak(256) + 2**20


def test_the_root_says_where_it_lies_without_cf(tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    create(store, items=[{"id": "S2A"}])
    attributes = json.loads((store / "zarr.json").read_text())["attributes"]
    assert attributes["proj:code"] == CRS
    assert attributes["spatial:bbox"] == list(WINDOW.bounds)
    assert attributes["spatial:shape"] == [600, 1048]
    assert attributes["items"] == [{"id": "S2A"}]
    assert attributes["title"] == "made"
