"""`rsup upscale` through real worker processes: what it writes, where, and that chunks and workers cannot show."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from numpy.typing import NDArray
from rio_cogeo import cog_validate

from rsup.models.base.errors import ArgumentError, ModelError, OutputError, RsupError
from rsup.models.upscaler import ENGINES, descriptor_of
from rsup.pipeline.jobs.upscale import upscale
from rsup.pipeline.jobs.upscale_plan import UpscalePlan, UpscaleRequest
from rsup.pipeline.lattice import Window
from rsup.pipeline.ledger import Ledger
from rsup.pipeline.mosaics.passes import tiling_of
from rsup.pipeline.mosaics.quality import block_errors, spectral_angles
from rsup.pipeline.scenes.scene import Scene
from rsup.pipeline.tiling import Tiling
from rsup.pipeline.workers.local import local_client
from rsup.pipeline.workers.pool import Pool


def coordinates(height: int, width: int) -> NDArray[np.uint16]:
    """Pixels that say where they are, a different way in each band, so that no flip or shift can hide."""
    y, x = np.mgrid[:height, :width]
    return np.stack([1000 + y, 2000 + 3 * x, 5000 + 7 * y + 11 * x]).astype(np.uint16)


def stored(path: Path, bands: tuple[str, ...] = ("red", "green", "blue")) -> NDArray[np.uint16]:
    """Raw numbers [band, y, x] of a mosaic store, by xarray alone."""
    with xr.open_dataset(path, engine="zarr", mask_and_scale=False) as mosaic:
        return np.stack([mosaic[band].values for band in bands])


def border_ratio(image: NDArray[np.uint16], window: Window, tiling: Tiling, scale: int) -> float:
    """Mean step across tile borders (where ramps start and end) over the mean step across all other LR pixels' borders.

    Others of the same phase, for within an LR pixel every super-resolved picture is smoother than between two.
    """
    ratios = []
    for axis, start in ((1, window.row), (2, window.col)):
        steps = np.abs(np.diff(image.astype(float), axis=axis)).mean((0, 3 - axis))[scale - 1 :: scale]
        position = np.arange(1, len(steps) + 1) + start
        phase = position % tiling.stride
        on_border = (phase == tiling.halo) | (phase == (tiling.halo + tiling.overlap) % tiling.stride)
        assert on_border.any() and not on_border.all()
        ratios.append(steps[on_border].mean() / steps[~on_border].mean())
    return float(np.mean(ratios))


def test_nearest_is_the_whole_scene_enlarged_and_every_output_says_so(
    make_scene: Callable[..., Scene], rsup: Callable[..., object], tmp_path: Path
) -> None:
    dn = coordinates(301, 270)
    dn[:, 100:130, 50:90] = 0
    corner = (-568_628 + 7, 65_536 + 3)
    aoi = Window(corner[0] + 20, corner[1] + 10, 260, 250)
    scene = make_scene(dn, corner=corner, aoi=aoi)
    out = tmp_path / "out"
    options = "--scale 8 --model nearest --chunk 128 --consistency mean --json".split()
    asked = ("upscale", scene.path, *options, "-o", out)
    result = rsup(*asked)
    assert result.returncode == 0, result.stderr  # type: ignore[attr-defined]
    summary = json.loads(result.stdout)  # type: ignore[attr-defined]
    expected = dn[:, 20:280, 10:260].repeat(8, 1).repeat(8, 2)
    np.testing.assert_array_equal(stored(out / "scene_x8.zarr"), expected)
    assert {path.name for path in out.iterdir()} == {".rsup"} | {
        f"scene_x8{e}" for e in (".zarr", ".tif", ".json", ".html", "_model.json")
    }

    with xr.open_dataset(out / "scene_x8.zarr", engine="zarr", decode_coords="all") as mosaic:
        assert mosaic.rio.crs == "EPSG:32631"
        assert mosaic.rio.transform() == aoi.transform(8)
        reflectance = np.where(expected[0] == 0, np.nan, expected[0] * 1e-4 - 0.1)
        np.testing.assert_allclose(mosaic["red"].values, reflectance, atol=1e-6)
        assert mosaic["x"].values[0] == aoi.bounds[0] + 0.625 and mosaic["y"].values[0] == aoi.bounds[3] - 0.625
    assert cog_validate(out / "scene_x8.tif", strict=True, quiet=True) == (True, [], [])
    with rasterio.open(out / "scene_x8.tif") as cog:
        np.testing.assert_array_equal(cog.read(), expected)
        assert cog.transform == aoi.transform(8) and cog.crs.to_epsg() == 32631 and cog.nodata == 0
        assert cog.descriptions == ("red", "green", "blue") and cog.overviews(1)
    item = json.loads((out / "scene_x8.json").read_text())
    assert item["properties"]["proj:shape"] == [2080, 2000] and item["id"] == "scene_x8"
    assert (out / "scene_x8.html").stat().st_size > 10_000
    assert summary["consistency"]["block_mean_error_mean"] == 0 and summary["already_done"] is False

    before = (out / "scene_x8.tif").stat().st_mtime_ns
    again = rsup(*asked)
    assert json.loads(again.stdout)["already_done"] is True  # type: ignore[attr-defined]
    assert (out / "scene_x8.tif").stat().st_mtime_ns == before


def test_only_what_is_asked_for_is_written(make_scene: Callable[..., Scene], tmp_path: Path) -> None:
    dn, out = coordinates(40, 30), tmp_path / "out"
    scene = make_scene(dn)

    def run(*outputs: str, overwrite: bool = False) -> dict[str, Any]:
        options = {"model": "nearest", "device": "cpu", "consistency": "mean", "overwrite": overwrite}
        return upscale(UpscaleRequest(scene.path, 4, out, outputs=outputs, **options))

    def there() -> set[str]:
        return {path.name.removeprefix("scene_x4") for path in out.iterdir()} - {".rsup"}

    run("cog", "item")
    assert there() == {".tif", ".json", "_model.json"}
    assert list((out / ".rsup/scene_x4").iterdir()) == [out / ".rsup/scene_x4/ledger.jsonl"], "the chunks are gone"
    assert set(json.loads((out / "scene_x4.json").read_text())["assets"]) == {"cog"}
    with rasterio.open(out / "scene_x4.tif") as image:
        np.testing.assert_array_equal(image.read(), dn.repeat(4, 1).repeat(4, 2))
    before = (out / "scene_x4.tif").stat().st_mtime_ns
    assert run("item", "cog")["already_done"] and (out / "scene_x4.tif").stat().st_mtime_ns == before
    with pytest.raises(RsupError, match=r"outputs differ"):
        run("cog")
    with pytest.raises(OutputError, match=r"scene_x4_model\.json would stand beside a mosaic that it is not of"):
        run("cog", "zarr", overwrite=True)
    assert there() == {".tif", ".json", "_model.json"}
    run("zarr", "cog", "item", "page", overwrite=True)
    assert there() == {".tif", ".json", "_model.json", ".zarr", ".html"}
    np.testing.assert_array_equal(stored(out / "scene_x4.zarr"), dn.repeat(4, 1).repeat(4, 2))
    for wrong in ((), ("cog", "tiff")):
        with pytest.raises(ArgumentError, match="--outputs"):
            run(*wrong)


@pytest.mark.slow
def test_chunk_size_and_workers_cannot_show(
    make_scene: Callable[..., Scene], tiny_student: Callable[[int], Path], tmp_path: Path
) -> None:
    y, x = np.mgrid[:150, :140]
    rng = np.random.default_rng(0)
    dn = np.stack([2000 + 600 * np.sin(x / (9 + k)) * np.cos(y / 13) + rng.normal(0, 90, x.shape) for k in range(3)])
    dn[:, 100:110, :70] = 0
    scene = make_scene(dn.astype(np.uint16))
    mosaics = {}
    for chunk, workers in ((500, 1), (128, 2), (64, 4)):
        out = tmp_path / f"{chunk}-{workers}"
        upscale(
            UpscaleRequest(
                scene.path,
                4,
                out,
                str(tiny_student(4)),
                device="cpu",
                workers=workers,
                chunk=chunk,
                bands=("red", "green"),
            )
        )
        mosaics[chunk, workers] = stored(out / "scene_x4.zarr", ("red", "green")).astype(int)
    first, *others = mosaics.values()
    enlarged = dn[:2].astype(int).repeat(4, 1).repeat(4, 2)
    assert np.abs(first - enlarged)[first > 0].mean() > 20, "the network did nothing that could differ"
    for other in others:
        assert np.abs(other - first).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("scale", [4, 8])
def test_a_real_scene_keeps_its_radiometry_and_shows_no_seam(
    scale: int, real_scene: Scene, tiny_student: Callable[[int], Path], make_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    bands = ("red", "green", "blue", "nir")[: 4 if scale == 4 else 3]
    window = Window(real_scene.window.row + 300, real_scene.window.col + 100, 160, 160)
    lr = real_scene.read(bands, window)
    scene = make_scene(lr, bands=bands, corner=(window.row, window.col))
    held = "sensor" if scale == 4 else "mean"
    request = UpscaleRequest(
        scene.path, scale, tmp_path / "out", str(tiny_student(scale)), bands, device="cpu", chunk=64, consistency=held
    )
    figures = upscale(request)["consistency"]
    sr = stored(tmp_path / "out" / f"scene_x{scale}.zarr", bands)
    errors = block_errors(sr, lr, scale)
    # Of eight of the nine chunks.
    assert figures["block_mean_error_mean"] == pytest.approx(errors.mean(), rel=0.15)
    if held == "mean":
        assert errors.mean() <= 1 and np.percentile(errors, 99) <= 2
        assert spectral_angles(sr, lr, scale).mean() <= 0.1
    else:
        assert figures["sensor_rms"] <= 1 and figures["sensor_bias_p99"] <= 1 and figures["sam_deg"] <= 0.5
    assert ((sr == 0) == (lr == 0).repeat(scale, 1).repeat(scale, 2)).all()

    plain = tmp_path / "bicubic"
    upscale(UpscaleRequest(scene.path, scale, plain, "bicubic", bands, device="cpu", consistency=held))
    tiling = tiling_of(descriptor_of(str(tiny_student(scale)), scale))
    with_tiles, without = (
        border_ratio(image, window, tiling, scale) for image in (sr, stored(plain / f"scene_x{scale}.zarr", bands))
    )
    # The scene's own edges fall where they fall, on tile borders too: bicubic, which has none, says how many.
    assert abs(with_tiles / without - 1) <= 0.02


@pytest.mark.slow
def test_a_cluster_that_stands_already_gives_the_same_mosaic(
    make_scene: Callable[..., Scene],
    tiny_student: Callable[[int], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = make_scene(coordinates(150, 140))
    with local_client(Pool("cpu", (None,), 1), threads=2) as standing:
        address = standing.scheduler.address
        # Relative paths mean the same to workers that run in another folder.
        monkeypatch.chdir(tmp_path)
        weights, here = (os.path.relpath(path) for path in (tiny_student(4), scene.path))
        upscale(UpscaleRequest(Path(here), 4, Path("far"), weights, chunk=64, scheduler=address))
    upscale(UpscaleRequest(scene.path, 4, tmp_path / "near", str(tiny_student(4)), chunk=64, device="cpu"))
    far, near = (stored(tmp_path / out / "scene_x4.zarr") for out in ("far", "near"))
    np.testing.assert_array_equal(far, near)


@pytest.mark.slow
def test_a_run_goes_on_in_the_arithmetic_it_was_begun_in(
    make_scene: Callable[..., Scene], quick_student: Path, tmp_path: Path
) -> None:
    scene = make_scene(coordinates(20, 20))
    begun = {}
    for arithmetic in ("float32", "bfloat16 on cpu", "float16 on cuda"):
        out = tmp_path / arithmetic.replace(" ", "-")
        request = UpscaleRequest(scene.path, 4, out, str(quick_student), chunk=64, device="cpu")
        plan = UpscalePlan.make(request)
        with Ledger.open(plan.work / "ledger.jsonl") as ledger:
            ledger.begin(plan.fingerprint())
            ledger.record("arithmetic", "settled", value=arithmetic)
        if "cuda" in arithmetic:
            with pytest.raises(ModelError, match="computed in float16 on cuda, which cpu here cannot do"):
                upscale(request)
        else:
            upscale(request)
            begun[arithmetic] = stored(out / "scene_x4.zarr")
            with Ledger.open(plan.work / "ledger.jsonl") as ledger:
                assert ledger.settled("arithmetic") == arithmetic
    assert (begun["float32"] != begun["bfloat16 on cpu"]).any()


@pytest.mark.slow
@pytest.mark.parametrize("device", ENGINES)
def test_an_engine_s_mosaic_is_pytorch_s_in_float32_within_one(
    make_scene: Callable[..., Scene], quick_student: Path, rsup: Callable[..., Any], tmp_path: Path, device: str
) -> None:
    for package in ENGINES[device].packages:
        pytest.importorskip(package)
    rng = np.random.default_rng(1)
    dn = np.clip(coordinates(90, 70) + rng.normal(0, 90, (3, 90, 70)), 1, 65535).astype(np.uint16)
    dn[:, 30:40, :20] = 0
    scene = make_scene(dn)
    found = {}
    for name, count, arithmetic in ((device, 1, None), (device, 2, None), ("cpu", 1, "float32")):
        out = tmp_path / f"{name}-{count}"
        plan = UpscalePlan.make(UpscaleRequest(scene.path, 4, out, str(quick_student), chunk=64, device=name))
        if arithmetic is not None:
            with Ledger.open(plan.work / "ledger.jsonl") as ledger:
                ledger.begin(plan.fingerprint())
                ledger.record("arithmetic", "settled", value=arithmetic)
        options = ("--scale", 4, "--model", quick_student, "--chunk", 64, "--device", name, "--workers", count)
        result = rsup("upscale", scene.path, *options, "-o", out)
        assert result.returncode == 0, result.stderr
        with Ledger.open(plan.work / "ledger.jsonl") as ledger:
            assert ledger.settled("arithmetic") == (arithmetic or f"float32 on {device}")
        found[out.name] = stored(out / "scene_x4.zarr").astype(int)
    np.testing.assert_array_equal(found[f"{device}-1"], found[f"{device}-2"])
    assert abs(found[f"{device}-1"] - found["cpu-1"]).max() <= 1
    assert found["cpu-1"].std() > 100


@pytest.mark.slow
def test_uncertainty_stands_beside_a_mosaic_that_is_the_same_without_it(
    make_scene: Callable[..., Scene], sure_student: Path, rsup: Callable[..., Any], tmp_path: Path
) -> None:
    y, x = np.mgrid[:100, :90]
    rng = np.random.default_rng(0)
    dn = np.stack([2000 + 600 * np.sin(x / (9 + k)) * np.cos(y / 13) + rng.normal(0, 90, x.shape) for k in range(4)])
    dn[:, 50:60, :40] = 0
    bands = ("red", "green", "blue", "nir")
    scene = make_scene(dn.astype(np.uint16), bands=bands)
    asked = UpscaleRequest(scene.path, 4, tmp_path / "plain", str(sure_student), bands, device="cpu", chunk=64)
    upscale(asked)
    options = f"--scale 4 --chunk 64 --device cpu --workers 2 --bands {','.join(bands)} --uncertainty --json".split()
    out = tmp_path / "sure"
    result = rsup("upscale", scene.path, *options, "--model", sure_student, "-o", out)
    assert result.returncode == 0, result.stderr
    names = {f"scene_x4{ending}" for ending in (".html", "_model.json", ".json", ".tif", "_uncertainty.tif", ".zarr")}
    said = json.loads(result.stdout)
    assert {Path(name).name for name in said["outputs"]} == {path.name for path in out.iterdir()} - {".rsup"} == names

    plain, sure = tmp_path / "plain" / "scene_x4.zarr", out / "scene_x4.zarr"
    pieces = [path.relative_to(plain) for path in plain.glob("**/c/**/*") if path.is_file()]
    assert len(pieces) > 12
    assert all((plain / piece).read_bytes() == (sure / piece).read_bytes() for piece in pieces)
    assert (tmp_path / "plain/scene_x4.tif").read_bytes() == (out / "scene_x4.tif").read_bytes()

    deviations = stored(sure, tuple(f"{band}_uncertainty" for band in bands))
    assert ((deviations == 0) == (scene.read(bands, scene.aoi) == 0).repeat(4, 1).repeat(4, 2)).all()
    median = np.quantile(deviations[deviations > 0], 0.5, method="inverted_cdf")
    assert said["consistency"]["uncertainty_median"] == median and deviations.std() > 5
    with rioxarray.open_rasterio(out / "scene_x4_uncertainty.tif", mask_and_scale=True) as tif:
        np.testing.assert_allclose(tif, np.where(deviations > 0, deviations * 1e-4, np.nan), atol=1e-6)
    item = json.loads((out / "scene_x4.json").read_text())
    assert item["assets"]["uncertainty"]["href"] == "scene_x4_uncertainty.tif"
    assert f"Its median is {median * 1e-4:.2g} in reflectance" in (out / "scene_x4.html").read_text()

    # Neither kind of run goes on in the other's place, and none leaves another's uncertainty beside its mosaic.
    with pytest.raises(OutputError, match=r"belongs to another run \(uncertainty differ\)"):
        upscale(replace(asked, output=out))
    with pytest.raises(OutputError, match=r"scene_x4_uncertainty\.tif would stand beside a mosaic that it is not of"):
        upscale(replace(asked, output=out, overwrite=True))
    assert upscale(replace(asked, output=out, uncertainty=True))["already_done"] is True


def test_more_memory_than_there_is_is_refused_before_anything_is_written(
    make_scene: Callable[..., Scene], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = make_scene(coordinates(70, 64))
    monkeypatch.setattr("rsup.pipeline.workers.pool.free_memory", lambda: 10**8)
    for dry_run in (True, False):
        with pytest.raises(
            ArgumentError, match=r"1 workers need 0\.\d GB .* 0\.1 GB are free: ask for a smaller --chunk$"
        ):
            upscale(UpscaleRequest(scene.path, 4, tmp_path / "out", "nearest", device="cpu"), dry_run=dry_run)
    assert not (tmp_path / "out").exists()
