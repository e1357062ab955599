"""The COG: valid by rio-cogeo, the store's numbers on the store's grid, equal bytes for equal stores."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rio_cogeo.cogeo import cog_validate

from rsup.models.base.errors import OutputError
from rsup.models.base.intervals import DETAIL
from rsup.pipeline.lattice import Window, chunks
from rsup.pipeline.mosaics.overviews import build_overviews
from rsup.pipeline.mosaics.planes import write_chunk
from rsup.pipeline.mosaics.store import create_mosaic
from rsup.pipeline.mosaics.tiff import cog
from rsup.pipeline.mosaics.tiff.cog import write_cog

CRS = "EPSG:32721"
WINDOW, SCALE, CHUNK = Window(-801_234, 50_003, 150, 201), 8, 50
SIDE = SCALE // DETAIL
PROVENANCE = {
    "title": "town_x8",
    "model": "bicubic",
    "model_sha256": "ab" * 32,
    "software": "rsup 0.2.0",
    "items": [{"id": "S2A_one"}, {"id": "S2B_two"}],
}


def make(path: Path, bands: tuple[str, ...], uncertainty: bool = False) -> NDArray[np.uint16]:
    """A store with smooth random planes, a nodata corner and one wholly empty chunk."""
    rng = np.random.default_rng(4)
    data, *widths = (
        np.cumsum(rng.integers(0, 7, (len(bands), WINDOW.height * fine, WINDOW.width * fine)), axis=2).astype(np.uint16)
        + np.uint16(1)
        for fine in (SCALE, DETAIL)[: 1 + uncertainty]
    )
    for part, fine in zip((data, *widths), (SCALE, DETAIL), strict=False):
        part[:, : 63 * fine, 137 * fine :] = 0
    create_mosaic(path, WINDOW, CRS, SCALE, bands, CHUNK, PROVENANCE, uncertainty)
    for index, window in chunks(WINDOW, CHUNK):
        (rows, cols), inside = window.within(WINDOW), []
        for part, fine in zip((data, *widths), (SCALE, DETAIL), strict=False):
            inside.append(part[:, rows.start * fine : rows.stop * fine, cols.start * fine : cols.stop * fine])
        write_chunk(path, bands, index, *inside)
    return np.concatenate([data, *(each.repeat(SIDE, 1).repeat(SIDE, 2) for each in widths)])


@pytest.mark.parametrize("bands", [("red", "green", "blue"), ("nir",), ("red", "green", "blue", "nir")])
def test_valid_and_the_store_s_numbers_on_the_store_s_grid(tmp_path: Path, bands: tuple[str, ...]) -> None:
    data = make(tmp_path / "a.zarr", bands)
    out = tmp_path / "a.tif"
    seen: list[tuple[int, int]] = []
    statistics = build_overviews(tmp_path / "a.zarr", lambda *_: None)
    write_cog(tmp_path / "a.zarr", out, statistics, lambda done, total: seen.append((done, total)))
    assert seen[0][0] == 0 and seen[-1][0] == seen[-1][1] == len(seen) - 1
    valid, errors, warnings = cog_validate(out, strict=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(out) as tif:
        np.testing.assert_array_equal(tif.read(), data)
        assert tif.transform == WINDOW.transform(SCALE)
        assert tif.crs.to_epsg() == 32721
        assert tif.nodatavals == (0,) * len(bands)
        assert tif.descriptions == bands
        assert tif.scales == (1e-4,) * len(bands) and tif.offsets == (-0.1,) * len(bands)
        assert tif.block_shapes == [(512, 512)] * len(bands)
        colours = {"red": ColorInterp.red, "green": ColorInterp.green, "blue": ColorInterp.blue}
        if "red" in bands:
            assert tif.colorinterp[:3] == tuple(colours[band] for band in bands[:3])
        assert ColorInterp.alpha not in tif.colorinterp
        tags = tif.tags()
        assert tags["AREA_OR_POINT"] == "Area"
        assert tags["TIFFTAG_SOFTWARE"] == "rsup 0.2.0"
        assert tags["MODEL"] == "bicubic" and tags["MODEL_SHA256"] == "ab" * 32
        assert tags["SOURCES"] == "S2A_one S2B_two"
        assert tif.overviews(1) == [2, 4]
        for number, plane in enumerate(data, start=1):
            said, valid = tif.tags(number), plane[plane > 0].astype(float)
            figures = {"MINIMUM": valid.min(), "MAXIMUM": valid.max(), "MEAN": valid.mean(), "STDDEV": valid.std()}
            figures["VALID_PERCENT"] = 100 * valid.size / plane.size
            assert {key: float(said[f"STATISTICS_{key}"]) for key in figures} == pytest.approx(figures)
            assert {key: said[f"STATISTICS_{key.upper()}"] for key in statistics[bands[number - 1]].figures()} == {
                key: f"{value:.14g}" for key, value in statistics[bands[number - 1]].figures().items()
            }
        assert tif.tags(len(bands), ns="IMAGERY")["CENTRAL_WAVELENGTH_UM"] == ("0.8328" if "nir" in bands else "0.4924")
    with rasterio.open(out, overview_level=0) as half:
        blocks = data[0].astype(float).reshape(600, 2, 804, 2)
        mean = np.asarray(np.ma.masked_equal(blocks, 0).mean(axis=(1, 3)).filled(0))
        assert np.abs(half.read(1) - mean).max() <= 0.5  # nodata takes no part in the average
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["a.tif", "a.zarr"]


def test_the_uncertainty_is_a_file_of_its_own_without_an_offset(tmp_path: Path) -> None:
    data = make(tmp_path / "a.zarr", ("red", "nir"), uncertainty=True)
    statistics = build_overviews(tmp_path / "a.zarr", lambda *_: None)
    write_cog(tmp_path / "a.zarr", tmp_path / "a.tif", statistics, lambda *_: None)
    write_cog(tmp_path / "a.zarr", tmp_path / "a_uncertainty.tif", statistics, lambda *_: None, uncertainty=True)
    assert cog_validate(tmp_path / "a_uncertainty.tif", strict=True) == (True, [], [])
    with rasterio.open(tmp_path / "a.tif") as bands, rasterio.open(tmp_path / "a_uncertainty.tif") as tif:
        np.testing.assert_array_equal(bands.read(), data[:2])
        np.testing.assert_array_equal(tif.read(), data[2:])
        assert tif.descriptions == ("red_uncertainty", "nir_uncertainty")
        assert tif.scales == (1e-4, 1e-4) and tif.offsets == (0, 0) and tif.nodatavals == (0, 0)
        assert ColorInterp.red not in tif.colorinterp and ColorInterp.alpha not in tif.colorinterp
        assert tif.transform == bands.transform and tif.overviews(1) == bands.overviews(1)


@pytest.mark.slow
def test_equal_stores_give_equal_bytes_whatever_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "a.zarr", ("red", "green", "blue"))
    statistics = build_overviews(tmp_path / "a.zarr", lambda *_: None)
    written = []
    for threads in (2, 2, 1, 7):
        monkeypatch.setattr(cog, "side_by_side", lambda _, threads=threads: threads)
        write_cog(tmp_path / "a.zarr", tmp_path / "a.tif", statistics, lambda *_: None)
        written.append((tmp_path / "a.tif").read_bytes())
    assert written[0] == written[1] == written[2] == written[3]


def test_a_store_without_provenance_still_makes_a_cog(tmp_path: Path) -> None:
    create_mosaic(tmp_path / "a.zarr", Window(0, 0, 3, 2), CRS, 4, ("swir16",), 16, {})
    write_chunk(tmp_path / "a.zarr", ("swir16",), (0, 0), np.full((1, 12, 8), 7, np.uint16))
    statistics = build_overviews(tmp_path / "a.zarr", lambda *_: None)
    write_cog(tmp_path / "a.zarr", tmp_path / "a.tif", statistics, lambda *_: None)
    with rasterio.open(tmp_path / "a.tif") as tif:
        assert (tif.read() == 7).all() and "SOURCES" not in tif.tags()


@pytest.mark.parametrize("kilobytes", [1, 300, 1200])
def test_a_write_that_fails_is_one_sentence_and_harms_nothing(tmp_path: Path, kilobytes: int) -> None:
    make(tmp_path / "a.zarr", ("red", "green", "blue"))
    out = tmp_path / "a.tif"
    statistics = build_overviews(tmp_path / "a.zarr", lambda *_: None)
    write_cog(tmp_path / "a.zarr", out, statistics, lambda *_: None)
    whole = out.read_bytes()
    assert len(whole) > 1300_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1000, before[1]))  # as a full disk: writes fail midway
    try:
        with pytest.raises(OutputError, match=r"a\.tif cannot be written"):
            write_cog(tmp_path / "a.zarr", out, statistics, lambda *_: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert out.read_bytes() == whole
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["a.tif", "a.zarr"]
