"""What `rsup upscale` is given and should refuse: one sentence, the right exit code, and nothing harmed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
import xarray as xr

from rsup.models.base.errors import ArgumentError, ModelError, OutputError, RsupError, SceneError
from rsup.pipeline.jobs.upscale import upscale
from rsup.pipeline.jobs.upscale_plan import UpscaleRequest
from rsup.pipeline.lattice import Window
from rsup.pipeline.ledger import Ledger
from rsup.pipeline.scenes.scene import Scene
from rsup.pipeline.scenes.writer import create_scene

Make = Callable[..., Scene]
Student = Callable[[int], Path]


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of every file below `folder`, hidden ones included."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def one_sentence(result: subprocess.CompletedProcess[str], code: int, words: str) -> None:
    """The command ended with `code`, said one sentence with `words` in it, and gave machines nothing to misread."""
    said = [line for line in result.stderr.splitlines() if line.startswith("rsup: ")]
    assert result.returncode == code, result.stderr
    assert len(said) == 1 and words in said[0] and said[0] == result.stderr.splitlines()[-1], result.stderr
    assert "Traceback" not in result.stderr and "Error:" not in result.stderr
    assert result.stdout == ""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small scene, and the folder of its finished mosaic x4 (nearest)."""
    folder = tmp_path_factory.mktemp("finished")
    window = Window(-568_628, 65_536, 70, 66)
    address = "https://user:pa55word@example.com/a.json?sig=s1gnature#fr4gment"
    item = {"id": "S2A_x", "datetime": "2024-06-01T10:00:00Z", "href": address, "hrefs": {"red": address}}
    bands = ("red", "green", "blue")
    writer = create_scene(folder / "scene.zarr", window, "EPSG:32631", bands, 128, attributes={"items": [item]})
    dn = np.random.default_rng(1).integers(1, 9999, (3, 70, 66)).astype(np.uint16)
    dn[0, 3:5, 9] = 0  # two pixels that are dark in one band
    dn[:, 40, 50:53] = 0  # three that came from the item and are gone
    writer.write((0, 0), dn, np.zeros((70, 66), np.uint8), np.ones((70, 66), np.uint16))
    upscale(UpscaleRequest(writer.path, 4, folder / "out", "nearest", device="cpu"))
    return writer.path, folder / "out"


def test_no_output_holds_an_address_s_secrets_and_the_mosaic_no_address(finished: tuple[Path, Path]) -> None:
    """Of what stands in a scene's attributes, as older stores have it."""
    for path in finished[1].rglob("*"):
        if path.is_file():
            text = path.read_bytes()
            assert not [word for word in (b"pa55word", b"s1gnature", b"fr4gment") if word in text], path
            assert b"example.com" not in text or path.suffix == ".json" and path.parent == finished[1], path
    mosaic = json.loads((finished[1] / "scene_x4.zarr" / "zarr.json").read_text())
    assert mosaic["attributes"]["items"] == [{"id": "S2A_x", "datetime": "2024-06-01T10:00:00Z"}]
    links = json.loads((finished[1] / "scene_x4.json").read_text())["links"]
    sources = [link["href"] for link in links if link["rel"] == "derived_from"]
    assert sources == ["https://example.com/a.json", "scene_x4_model.json"]


def test_dark_and_lost_pixels_are_counted_for_people_and_machines(finished: tuple[Path, Path]) -> None:
    page = (finished[1] / "scene_x4.html").read_text()
    assert "the darkest value here</th><td>2</td>" in page and "are nodata in the scene</th><td>3</td>" in page
    ledger = (finished[1] / ".rsup" / "scene_x4" / "ledger.jsonl").read_text().splitlines()
    figures = next(record["figures"] for record in map(json.loads, ledger) if record.get("key") == "finished")
    assert (figures["dark_pixels"], figures["lost_pixels"]) == (2, 3)
    with xr.open_dataset(finished[1] / "scene_x4.zarr", engine="zarr", mask_and_scale=False) as mosaic:
        assert (mosaic["red"].values[12:20, 36:40] >= 1).all() and (mosaic["red"].values[160:164, 200:212] == 0).all()


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"scale": 3}, ArgumentError, "--scale 3: choose 4"),
        ({"scale": 0}, ArgumentError, "--scale 0"),
        ({"chunk": 63}, ArgumentError, "--chunk 63: choose 64 to 4000"),
        ({"chunk": 4001}, ArgumentError, "--chunk 4001"),
        ({"bands": ("red", "nir")}, ArgumentError, "nir.* has red, green, blue"),
        ({"bands": ("red", "red")}, ArgumentError, "a band is named twice"),
        ({"bands": ("scl",)}, ArgumentError, "has red, green, blue"),
        ({"workers": 0}, ArgumentError, "at least one worker"),
        ({"device": "tpu"}, ArgumentError, "choose auto, cpu, cuda"),
        ({"device": "cuda:99"}, ArgumentError, "CUDA devices"),
        ({"scheduler": "tcp://127.0.0.1:1", "workers": 2}, ArgumentError, "leave out --workers"),
        ({"cluster": "pbs"}, ArgumentError, "choose slurm"),
        ({"cluster": "slurm", "scheduler": "tcp://127.0.0.1:1"}, ArgumentError, "leave out --scheduler"),
        ({"model": "esrgan"}, ModelError, "no model or file named esrgan: give one of default, faithful, sharp"),
        ({"model": "x" * 5000}, ModelError, "no model or file named"),
        ({"model": "/"}, ModelError, "no model or file named /"),
        (
            {"model": "bicubic"},
            OutputError,
            r"belongs to another run \(lattice, model differ\); choose another output or pass",
        ),
        ({"bands": ("red",)}, OutputError, r"belongs to another run \(bands differ\)"),
        ({"chunk": 64}, OutputError, r"belongs to another run \(chunk differ\)"),
    ],
)
def test_a_request_that_cannot_be_met_leaves_a_finished_mosaic_alone(
    finished: tuple[Path, Path], options: dict[str, Any], error: type[RsupError], words: str
) -> None:
    scene, output = finished
    before = snapshot(output)
    # What is refused for itself is refused whether or not it may replace something.
    for overwrite in {error is not OutputError, False}:
        asked = {"scene": scene, "scale": 4, "output": output, "model": "nearest", "overwrite": overwrite} | options
        with pytest.raises(error, match=words) as caught:
            upscale(UpscaleRequest(**asked))
        assert "\n" not in str(caught.value)
    assert snapshot(output) == before


def test_a_scheduler_that_is_none(finished: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="--scheduler nonsense: no Dask scheduler answers"):
        upscale(UpscaleRequest(finished[0], 4, tmp_path, "nearest", scheduler="nonsense"))
    assert not list(tmp_path.glob("scene_x4*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_a_card_is_a_sentence(finished: tuple[Path, Path]) -> None:
    scene, output = finished
    before = snapshot(output)
    with pytest.raises(ArgumentError, match="torch sees no CUDA device here; use --device cpu"):
        upscale(UpscaleRequest(scene, 4, output, "nearest", device="cuda", overwrite=True))
    assert snapshot(output) == before


def edit(store: Path, array: str, **changes: Any) -> None:
    """Change an array's (or, for "", the group's) own metadata; the copy in the root goes."""
    document = json.loads((store / array / "zarr.json").read_text())
    attributes = changes.pop("attributes", {})
    document |= changes
    document["attributes"] |= attributes
    document.pop("consolidated_metadata", None)
    (store / array / "zarr.json").write_text(json.dumps(document))
    root = json.loads((store / "zarr.json").read_text())
    root.pop("consolidated_metadata", None)
    (store / "zarr.json").write_text(json.dumps(root))


SPOILERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no CRS": (
        lambda store: (shutil.rmtree(store / "spatial_ref"), edit(store, "")),
        "has no CRS; give it its UTM zone",
    ),
    "CRS is a number": (lambda store: edit(store, "spatial_ref", attributes={"crs_wkt": 7}), "cannot be understood"),
    "pictures": (lambda store: edit(store, "red", data_type="uint8"), "red is uint8: a picture, not reflectance"),
    "scale is text": (
        lambda store: edit(store, "red", attributes={"scale_factor": "tiny"}),
        "a scale that is no number",
    ),
    "no GeoTransform": (
        lambda store: (shutil.rmtree(store / "x"), edit(store, "spatial_ref", attributes={"GeoTransform": "a b"})),
        "does not say where its pixels lie",
    ),
    "NaN in GeoTransform": (
        lambda store: (
            shutil.rmtree(store / "x"),
            edit(store, "spatial_ref", attributes={"GeoTransform": "nan 10 0 nan 0 -10"}),
        ),
        "NaN",
    ),
    "x is nodata": (lambda store: shutil.rmtree(store / "x" / "c"), "evenly spaced pixel centres"),
    "aoi is infinite": (lambda store: edit(store, "", attributes={"aoi": [float("inf")] * 4}), "its aoi"),
    "no bands": (
        lambda store: ([shutil.rmtree(store / band) for band in ("red", "green", "blue")], edit(store, "")),
        "has no band",
    ),
    "torn metadata": (lambda store: (store / "zarr.json").write_text('{"zarr_format": 3'), "not a readable Zarr group"),
    "no metadata": (lambda store: (store / "zarr.json").unlink(), "not a readable Zarr group"),
}


@pytest.mark.parametrize("fault", SPOILERS)
def test_a_broken_scene_is_named_with_its_fault(finished: tuple[Path, Path], fault: str, tmp_path: Path) -> None:
    store = tmp_path / "scene.zarr"
    shutil.copytree(finished[0], store)
    spoil, words = SPOILERS[fault]
    spoil(store)
    before = snapshot(tmp_path)
    with pytest.raises(SceneError, match=words) as caught:
        upscale(UpscaleRequest(store, 4, tmp_path / "out", "nearest"))
    assert "\n" not in str(caught.value) and "scene.zarr" in str(caught.value)
    assert snapshot(tmp_path) == before and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.zarr", "does not exist: give a scene store"),
        ("note.txt", "neither a Zarr store nor a raster"),
        ("", "not a readable Zarr group"),
        ("note.txt/scene.zarr", "cannot be opened"),
        ("x" * 300, "cannot be opened"),
    ],
)
def test_what_is_no_scene(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "note.txt").write_text("no raster")
    with pytest.raises(SceneError, match=words):
        upscale(UpscaleRequest(tmp_path / name, 4, tmp_path / "out", "nearest"))
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def nothing(weights: Path) -> None:
    weights.write_bytes(b"")


def garbage(weights: Path) -> None:
    weights.write_bytes(np.random.default_rng(0).bytes(9999))


def truncated(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-1000])


def truncated_header(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:100])


def unlabelled(weights: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros(3, np.float32)}, weights)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (nothing, "not a whole safetensors file"),
        (garbage, "not a whole safetensors file"),
        (truncated, "not a whole safetensors file"),
        (truncated_header, "not a whole safetensors file"),
        (unlabelled, "has no rsup header"),
    ],
)
def test_damaged_weights(
    finished: tuple[Path, Path],
    tiny_student: Student,
    spoil: Callable[[Path], None],
    words: str,
    tmp_path: Path,
) -> None:
    weights = tmp_path / "student.safetensors"
    shutil.copy(tiny_student(4), weights)
    spoil(weights)
    before = snapshot(finished[1])
    with pytest.raises(ModelError, match=words) as caught:
        upscale(UpscaleRequest(finished[0], 4, finished[1], str(weights), overwrite=True))
    assert "\n" not in str(caught.value) and snapshot(finished[1]) == before


def test_a_network_that_answers_nan_stops_the_run(
    finished: tuple[Path, Path], tiny_student: Student, tmp_path: Path
) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    with safe_open(tiny_student(4), framework="np") as file:
        header = file.metadata()
    tensors = {name: np.full_like(tensor, np.nan) for name, tensor in load_file(tiny_student(4)).items()}
    save_file(tensors, tmp_path / "nan.safetensors", metadata=header)
    with pytest.raises(ModelError, match="model nan gave NaN or infinity near row -5686"):
        upscale(UpscaleRequest(finished[0], 4, tmp_path / "out", str(tmp_path / "nan.safetensors"), device="cpu"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".rsup"]


def test_a_scene_of_one_pixel_and_one_of_none(make_scene: Make, tmp_path: Path) -> None:
    one = make_scene(np.array([[[1234]], [[1]], [[65535]]], np.uint16), "one")
    edit(one.path, "", attributes={"items": "a word that means something else to somebody else"})
    upscale(UpscaleRequest(one.path, 8, tmp_path, "nearest", device="cpu"))
    with xr.open_dataset(tmp_path / "one_x8.zarr", engine="zarr", mask_and_scale=False) as mosaic:
        for band, value in {"red": 1234, "green": 1, "blue": 65535}.items():
            np.testing.assert_array_equal(mosaic[band].values, np.full((8, 8), value))
    void = make_scene(np.zeros((3, 70, 9), np.uint16), "void")
    with pytest.raises(SceneError, match="no valid pixel in red, green, blue: nothing to upscale"):
        upscale(UpscaleRequest(void.path, 8, tmp_path / "nowhere", "nearest", device="cpu"))
    assert not (tmp_path / "nowhere").exists()


def test_a_mosaic_that_cannot_fit_is_refused_with_the_figure_and_planned_without_memory(tmp_path: Path) -> None:
    """A sparse TIFF of a few kilobytes may claim the ground of a continent."""
    profile = {"crs": "EPSG:32631", "nodata": 0, "transform": Window(-900_000, 0, 1, 1).transform()}
    tiles = {"tiled": True, "blockxsize": 4096, "blockysize": 4096, "sparse_ok": True, "bigtiff": "yes"}
    side = 800_000
    with rasterio.open(tmp_path / "s.tif", "w", "GTiff", side, side, 3, dtype="uint16", **profile, **tiles) as file:
        file.descriptions, file.scales, file.offsets = ("red", "green", "blue"), [1e-4] * 3, [-0.1] * 3
    request = UpscaleRequest(tmp_path / "s.tif", 8, tmp_path / "out", "nearest", device="cpu", chunk=64)
    tracemalloc.start()
    plan = upscale(request, dry_run=True)
    with pytest.raises(OutputError, match=r"has 245,760 GB of pixels, and .*out has [\d,]+ GB free; cut the scene"):
        upscale(request)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert plan["chunks"] == 12_500**2 and plan["bytes"] == side**2 * 64 * 6 and peak < 200 * 2**20
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ending", ["zarr", "tif", "json", "html"])
def test_other_peoples_files_are_not_replaced_unasked(finished: tuple[Path, Path], ending: str, tmp_path: Path) -> None:
    theirs = tmp_path / f"scene_x4.{ending}"
    theirs.write_text("years of work")
    with pytest.raises(OutputError, match=rf"scene_x4\.{ending} exists already; choose another --output"):
        upscale(UpscaleRequest(finished[0], 4, tmp_path, "nearest"))
    assert theirs.read_text() == "years of work"


LEDGERS = ["garbage\n", "[1, 2]\n", '{"a": 1}\nnull\n', "\xff\xfe\n", '{"a": 1}\n{"key": "0.0"}\n']


@pytest.mark.parametrize("text", LEDGERS)
def test_a_damaged_ledger_is_named(finished: tuple[Path, Path], text: str, tmp_path: Path) -> None:
    ledger = tmp_path / ".rsup" / "scene_x4" / "ledger.jsonl"
    ledger.parent.mkdir(parents=True)
    ledger.write_bytes(text.encode("latin-1"))
    with pytest.raises(OutputError, match=r"ledger\.jsonl is damaged|belongs to another run") as caught:
        upscale(UpscaleRequest(finished[0], 4, tmp_path, "nearest"))
    assert "\n" not in str(caught.value) and "--overwrite" in str(caught.value)
    assert ledger.read_bytes() == text.encode("latin-1")


def test_an_output_that_is_a_file(finished: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    for output in (tmp_path / "out", tmp_path / "out" / "below", tmp_path / ("x" * 300)):
        with pytest.raises(OutputError, match="cannot be written .*choose (another output|a shorter name)"):
            upscale(UpscaleRequest(finished[0], 4, output, "nearest"))
    assert (tmp_path / "out").read_text() == "a file"


def test_the_command_says_one_sentence_and_leaves_with_the_code_of_the_kind(
    finished: tuple[Path, Path],
    rsup: Callable[..., subprocess.CompletedProcess[str]],
    tiny_student: Student,
    tmp_path: Path,
) -> None:
    scene, output = finished
    shutil.copytree(scene, tmp_path / "scene.zarr")
    shutil.rmtree(tmp_path / "scene.zarr" / "spatial_ref")
    edit(tmp_path / "scene.zarr", "")
    before = snapshot(output)
    asked = ("--scale", 4, "-o", output, "--overwrite", "--json")
    one_sentence(rsup("upscale", scene, "--scale", 3, "-o", output, "--json"), 2, "--scale 3: choose 4")
    one_sentence(rsup("upscale", scene, *asked, "--model", tiny_student(8)), 3, "was trained for scale 8, not 4")
    one_sentence(rsup("upscale", tmp_path / "scene.zarr", *asked, "--model", "nearest"), 5, "has no CRS")
    with Ledger.open(tmp_path / "held" / ".rsup" / "scene_x4" / "ledger.jsonl"):
        held = rsup("upscale", scene, "--scale", 4, "-o", tmp_path / "held", "--model", "nearest", "--json")
    one_sentence(held, 6, "another rsup process is writing")
    usage = rsup("upscale", scene, "--scale", "three", "--json")
    assert usage.returncode == 2 and "Traceback" not in usage.stderr and usage.stdout == ""
    assert snapshot(output) == before


def without_privilege(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command, for whom file modes count: root is told to do without its right to ignore them."""
    command = [sys.executable, "-m", "rsup.pipeline.cli", *map(str, arguments)]
    if os.geteuid() == 0:
        rights = "-dac_override,-dac_read_search"
        if shutil.which("setpriv") is None:
            pytest.skip("root may read and write everything, and setpriv is not there to change that")
        command = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}", *command]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_no_permission(finished: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("locked", "sealed.zarr"):
        shutil.copytree(finished[0] if name.endswith("zarr") else finished[1], tmp_path / name)
    before = snapshot(tmp_path)
    asked = ("--scale", 4, "--model", "nearest", "--json", "--overwrite", "-o")
    try:
        for path in (tmp_path / "locked").rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
        (tmp_path / "locked").chmod(0o555)
        (tmp_path / "sealed.zarr").chmod(0)
        refused = without_privilege("upscale", finished[0], *asked, tmp_path / "locked")
        one_sentence(refused, 6, "cannot be written (Permission denied): get permission to write there")
        refused = without_privilege("upscale", tmp_path / "sealed.zarr", *asked, tmp_path / "out")
        one_sentence(refused, 5, "sealed.zarr/zarr.json cannot be opened (Permission denied)")
        refused = without_privilege("upscale", tmp_path / "sealed.zarr" / "red", *asked, tmp_path / "out")
        one_sentence(refused, 5, "cannot be opened (Permission denied)")
    finally:
        for folder in ("locked", "sealed.zarr"):
            (tmp_path / folder).chmod(0o755)
        for path in (tmp_path / "locked").rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert snapshot(tmp_path) == before
