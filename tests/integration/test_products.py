"""Products as a user gives them to the command: one command to the mosaic, and one sentence for what is malformed."""

from __future__ import annotations

import json
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from eopfs import write_eopf
from fetched import BANDS, arrays
from forks import Rsup
from safes import metadata, planes, write_safe, zipped

from rsup.pipeline.demo.servers import serve_assets

OPTIONS = ("--scale", 4, "--model", "nearest", "--device", "cpu")
COLOURS = ("red", "green", "blue")


@pytest.mark.slow
def test_from_a_zip_to_a_mosaic_in_one_command(rsup: Rsup, tmp_path: Path) -> None:
    safe = write_safe(tmp_path, planes(bands=COLOURS))
    path = zipped(safe, tmp_path / f"{safe.name}.zip")
    shutil.rmtree(safe)
    done = rsup(
        "upscale", path, *OPTIONS, "--bands", "red,green,blue", "-o", tmp_path / "out", "--keep-scene", "--json"
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["scene"] == str(tmp_path / "out" / f"{safe.stem}.zarr") and Path(said["scene"]).is_dir()
    assert all(Path(each).exists() for each in said["outputs"]) and len(said["outputs"]) == 6
    item = json.loads((tmp_path / "out" / f"{safe.stem}_x4.json").read_text())
    assert item["properties"]["datetime"] == "2024-06-10T10:05:59.024000Z"


@pytest.mark.slow
def test_an_eopf_store_on_a_web_server_and_a_scene_beside_it_are_told_apart(rsup: Rsup, tmp_path: Path) -> None:
    write_eopf(tmp_path / "served" / "scene.zarr", planes(bands=COLOURS))
    with serve_assets(tmp_path / "served") as web:
        done = rsup("fetch", f"{web}/scene.zarr", "--bands", "red,green,blue", "-o", tmp_path / "served" / "S2A.zarr")
        assert done.returncode == 0, done.stderr
        # A scene, whatever it is called and whatever it was made of.
        options = (*OPTIONS, "--bands", "red,green,blue")
        for name, out in (("scene.zarr", "product"), ("S2A.zarr", "scene")):
            done = rsup("upscale", f"{web}/{name}", *options, "-o", tmp_path / out)
            assert done.returncode == 0, done.stderr
        refused = rsup("upscale", f"{web}/S2A.zarr", *options, "-o", tmp_path / "kept", "--keep-scene")
        assert refused.returncode == 2 and "is a scene already" in refused.stderr
    (one,), (other,) = ((tmp_path / out).glob("*_x4.tif") for out in ("product", "scene"))
    assert one.stem != other.stem
    mosaics = [arrays(next((tmp_path / out).glob("*_x4.zarr"))) for out in ("product", "scene")]
    assert all((mosaics[0][band] == mosaics[1][band]).all() for band in COLOURS)


def truncated(safe: Path) -> Path:
    image = next(safe.rglob("*_B04_10m.jp2"))
    image.write_bytes(image.read_bytes()[:-2000])
    return safe


def missing(safe: Path) -> Path:
    next(safe.rglob("*_B08_10m.jp2")).unlink()
    return safe


def not_xml(safe: Path) -> Path:
    (safe / "MTD_MSIL2A.xml").write_bytes(b"\x89PNG")
    return safe


def entities(safe: Path) -> Path:
    extra = '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
    (safe / "MTD_MSIL2A.xml").write_text(metadata("&e;", extra=extra))
    return safe


def long(safe: Path) -> Path:
    (safe / "MTD_MSIL2A.xml").write_bytes(b"<a>" + b" " * (17 << 20) + b"</a>")
    return safe


def symlink(safe: Path) -> Path:
    folder = next((safe / "GRANULE").iterdir()) / "IMG_DATA" / "R10m"
    folder.rename(safe.parent / "R10m")
    folder.symlink_to(safe.parent / "R10m")
    return safe


def upwards(safe: Path) -> Path:
    path = zipped(safe, safe.parent / "a.zip")
    with zipfile.ZipFile(path, "a") as sink:
        sink.writestr("../../evil.sh", "x")
    return path


def bomb(safe: Path) -> Path:
    path = zipped(safe, safe.parent / "a.zip")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as sink:
        sink.writestr(f"{safe.name}/zeros", bytes(50 << 20))
    return path


def link_in_zip(safe: Path) -> Path:
    path = zipped(safe, safe.parent / "a.zip")
    entry = zipfile.ZipInfo(f"{safe.name}/MTD_LINK.xml")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as sink:
        sink.writestr(entry, "/etc/passwd")
    return path


def cut_zip(safe: Path) -> Path:
    path = zipped(safe, safe.parent / "a.zip")
    path.write_bytes(path.read_bytes()[:-500])
    return path


def truncated_in_zip(safe: Path) -> Path:
    return zipped(truncated(safe), safe.parent / "a.zip")


def spoilt(safe: Path, method: int) -> Path:
    """A zip of one image whose pixels were changed, and whose markers were not."""
    path = zipped(safe, safe.parent / "a.zip", method)
    with zipfile.ZipFile(path) as source:
        (entry,) = (each for each in source.infolist() if each.filename.endswith("B04_10m.jp2"))
    raw = bytearray(path.read_bytes())
    end = entry.header_offset + 30 + len(entry.filename) + entry.compress_size
    raw[end - 220 : end - 200] = bytes(each ^ 0x55 for each in raw[end - 220 : end - 200])
    path.write_bytes(raw)
    return path


def spoilt_in_zip(safe: Path) -> Path:
    return spoilt(safe, zipfile.ZIP_STORED)


def spoilt_in_packed_zip(safe: Path) -> Path:
    return spoilt(safe, zipfile.ZIP_DEFLATED)


def zip_in_zip(safe: Path) -> Path:
    path = zipped(safe, safe.parent / "a.SAFE.zip")
    with zipfile.ZipFile(safe.parent / "order.zip", "w") as order:
        order.write(path, "order/a.SAFE.zip")
    return safe.parent / "order.zip"


def message(safe: Path) -> Path:
    path = safe.parent / "a.SAFE.zip"
    path.write_bytes(b"<html><body>Sign in</body></html>")
    return path


def tar(safe: Path) -> Path:
    with tarfile.open(safe.parent / "a.SAFE.tar.gz", "w:gz") as sink:
        sink.add(safe, safe.name)
    return safe.parent / "a.SAFE.tar.gz"


def around(safe: Path) -> Path:
    return safe.parent


def empty(safe: Path) -> Path:
    return zipped(safe.parent / "nothing", safe.parent / "a.zip")


MALFORMED: dict[Callable[[Path], Path], str] = {
    truncated: "it is cut off",
    truncated_in_zip: "it is cut off",
    missing: "no image of nir",
    not_xml: "it is no XML",
    entities: "declares a document type",
    long: "has more than 16 MiB",
    symlink: "leads out of its product",
    upwards: "leads out of it",
    bomb: "a bomb",
    link_in_zip: "is a link",
    cut_zip: "it is cut off or damaged",
    empty: "holds no product",
    spoilt_in_zip: "is damaged (Bad CRC-32",
    spoilt_in_packed_zip: "is damaged (Bad CRC-32",
    zip_in_zip: "it holds order/a.SAFE.zip; unpack it",
    message: "is called a zip and does not begin as one",
    tar: "is a tar archive, which cannot be read in place; unpack it",
    around: ".SAFE; give that",
}


@pytest.mark.parametrize("spoil", MALFORMED)
def test_a_malformed_product_is_one_sentence_and_nothing_is_written(
    rsup: Rsup, tmp_path: Path, spoil: Callable[[Path], Path]
) -> None:
    (tmp_path / "in").mkdir()
    product = spoil(write_safe(tmp_path / "in", planes(bands=BANDS)))
    before = sorted(tmp_path.rglob("*"))
    for command in (("fetch", product), ("upscale", product, *OPTIONS)):
        done = rsup(*command, "--bands", ",".join(BANDS), "-o", tmp_path / "out.zarr")
        lines = done.stderr.strip().splitlines()
        assert done.returncode == 5 and len(lines) == 1, done.stderr
        assert lines[0].startswith("rsup: ") and MALFORMED[spoil] in lines[0] and "Traceback" not in lines[0]
        assert done.stdout == "" and sorted(tmp_path.rglob("*")) == before


def test_without_products_fetch_asks_for_ground_and_dates(rsup: Rsup, tmp_path: Path) -> None:
    done = rsup("fetch", "-o", tmp_path / "a.zarr")
    assert done.returncode == 2 and "--bbox and --date" in done.stderr
    done = rsup("fetch", tmp_path, "-o", tmp_path / "a.zarr")
    assert done.returncode == 5 and "is no product: give a SAFE product" in done.stderr


def test_what_is_asked_of_a_catalogue_is_not_asked_of_products(
    rsup: Rsup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    safe = write_safe(tmp_path, planes(bands=COLOURS))
    for option, value in (("--catalog", "earth-search"), ("--collection", "sentinel-2-l1c")):
        done = rsup("fetch", safe, option, value, "-o", tmp_path / "a.zarr", "--dry-run")
        assert (done.returncode, done.stdout) == (2, "") and done.stderr.count("\n") == 1
        assert f"{option} says where to search, and products are what is found" in done.stderr
    monkeypatch.setenv("RSUP_CATALOG", "https://stac.example.org")  # for other calls: no word about this one
    done = rsup("fetch", safe, "-o", tmp_path / "a.zarr", "--dry-run")
    assert done.returncode == 0, done.stderr


def test_a_zip_elsewhere_is_to_be_downloaded(rsup: Rsup, tmp_path: Path) -> None:
    address = "https://127.0.0.1:9/S2B.SAFE.zip"
    for command in (("fetch", address), ("upscale", address, *OPTIONS)):
        done = rsup(*command, "-o", tmp_path / "out")
        assert done.returncode == 5 and f"{address} lies elsewhere" in done.stderr and "download it" in done.stderr
        assert not (tmp_path / "out").exists()
