"""Splits that no one moves, batches that follow from their number, damage that is named; on made and on real files."""

import os
import pickle
import re
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from numpy.typing import NDArray
from PIL import Image
from places import SHARED
from torch.utils.data import DataLoader

from rsup.models.base.errors import DataError
from rsup.models.data.batches import Batches
from rsup.models.data.images import DataConfig, Images

REAL = SHARED / "data/hr"
real = pytest.mark.skipif(not REAL.exists(), reason="needs the imagery beside the project")


def coordinates(number: int, height: int = 48, width: int = 56) -> NDArray[np.uint8]:
    """[y, x, 3]: the number of the image, row and column, so that a crop tells where it is from."""
    rows, cols = np.mgrid[:height, :width]
    return np.stack([np.full_like(rows, number), rows, cols], 2).astype(np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 images of 20 places, two years of each, in two folders and three levels."""
    for number in range(40):
        year = 2018 + number % 2
        path = tmp_path / "images" / ("a" if number % 2 else "b/c") / f"town_{year}_{number // 2}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coordinates(number)).save(path)
    return tmp_path / "images"


def number_of(path: Path) -> int:
    """The number of the image that the fixture wrote under this name."""
    _, year, place = path.stem.split("_")
    return int(place) * 2 + int(year) - 2018


def drawn(images: Images, seed: int = 0, count: int = 200) -> list[NDArray[np.int_]]:
    rng = np.random.default_rng(seed)
    return [np.rint(images.draw(rng) * 255).astype(int) for _ in range(count)]


def places(images: Images) -> set[str]:
    return {name.rsplit("_", 1)[1] for name in images.names()}


def test_years_of_a_place_stay_together_and_nothing_is_lost(folder: Path) -> None:
    learning, held = (Images(folder, split, DataConfig(validation=0.3), 32) for split in ("train", "validation"))
    assert len(learning) + len(held) == 40
    assert learning.names() == sorted(learning.names())
    assert not places(learning) & places(held) and len(places(learning) | places(held)) == 20
    assert len(places(held)) * 2 == len(held)
    assert not learning.skipped


def test_a_split_depends_on_no_other_file(folder: Path) -> None:
    config = DataConfig(validation=0.3)
    before = set(Images(folder, "validation", config, 32).names())
    for path in sorted(folder.rglob("*.png"))[::3]:
        path.unlink()
    after = set(Images(folder, "validation", config, 32).names())
    assert after and after < before
    assert places(Images(folder, "validation", DataConfig(validation=0.5), 32)) >= {
        name.rsplit("_", 1)[1] for name in after
    }


def test_a_crop_is_a_window_of_one_image(folder: Path) -> None:
    images = Images(folder, "train", DataConfig(), 32)
    corners, mirrored = Counter[tuple[int, int]](), 0
    numbers = set()
    for crop in drawn(images, count=1500):
        assert crop.shape == (3, 32, 32)
        flip = crop[2, 0, 0] > crop[2, 0, 1]
        crop = crop[..., ::-1] if flip else crop
        number, row, col = crop[:, 0, 0]
        np.testing.assert_array_equal(crop, coordinates(number)[row : row + 32, col : col + 32].transpose(2, 0, 1))
        corners[row, col] += 1
        mirrored += flip
        numbers.add(int(number))
    assert {row for row, _ in corners} == set(range(17)) and {col for _, col in corners} == set(range(25))
    assert len(numbers) == len(images)
    # 5 standard deviations of a fair coin.
    assert abs(mirrored - 750) < 5 * np.sqrt(1500) / 2


def test_dihedral_turns_in_all_eight_ways(folder: Path) -> None:
    images = Images(folder, "train", DataConfig(augment="dihedral"), 32)
    seen = Counter[tuple[int, int, int, int]]()
    for crop in drawn(images, count=400):
        steps = crop[1:, 1, 0] - crop[1:, 0, 0], crop[1:, 0, 1] - crop[1:, 0, 0]
        seen[tuple(np.concatenate(steps).tolist())] += 1
    unit = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    assert set(seen) == {(*a, *b) for a in unit for b in unit if a[0] * b[0] + a[1] * b[1] == 0}
    assert min(seen.values()) > 20


def test_batches_are_functions_of_seed_number_and_rank(folder: Path) -> None:
    def batches(seed: int = 3, rank: int = 0, cache_mb: int = 64) -> Batches:
        return Batches(Images(folder, "train", DataConfig(cache_mb=cache_mb), 32), 4, seed, rank)

    first = batches()
    expected = [first[n] for n in range(6)]
    assert expected[0].shape == (4, 3, 32, 32) and expected[0].dtype == torch.float32
    other = batches(cache_mb=0)
    for n in (5, 0, 3):
        assert torch.equal(other[n], expected[n])
    for changed in (batches(seed=4)[0], batches(rank=1)[0], first[1], batches(seed=0, rank=3)[0]):
        assert not torch.equal(changed, expected[0])


def test_reading_processes_change_nothing(folder: Path) -> None:
    batches = Batches(Images(folder, "train", DataConfig(), 32), 2, 1)
    loader = DataLoader(
        batches, batch_size=None, sampler=range(2, 8), num_workers=2, multiprocessing_context="forkserver"
    )
    for n, batch in zip(range(2, 8), loader, strict=True):
        assert torch.equal(batch, batches[n])


def test_the_cache_keeps_to_its_budget(tmp_path: Path) -> None:
    for number in range(6):
        Image.fromarray(coordinates(number, 256, 256)).save(tmp_path / f"{number}.png")
    # 0.75 MiB an image.
    images = Images(tmp_path, "train", DataConfig(cache_mb=2, validation=0.01), 32)
    drawn(images)
    for path in tmp_path.glob("*.png"):
        path.unlink()
    kept = 0
    for index in range(len(images)):
        try:
            images.image(index)
            kept += 1
        except Exception as error:
            assert "cannot be read" in str(error)
    assert kept == 2
    assert len(pickle.loads(pickle.dumps(images)).names()) == 6


def test_damaged_files_are_named_once_and_replaced(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = Images(folder, "train", DataConfig(cache_mb=0), 32)
    whole = drawn(images)
    broken = folder.parent / images.names()[3]
    broken.write_bytes(broken.read_bytes()[:80])  # the header and a few rows
    found = drawn(images)
    number = number_of(broken)
    assert any(crop[0, 0, 0] == number for crop in whole) and all(crop[0, 0, 0] != number for crop in found)
    (skipped,) = images.skipped
    assert skipped.path == broken and skipped.reason.startswith("cannot be read (")
    assert capsys.readouterr().err.count(str(broken)) == 1
    again = Images(folder, "train", DataConfig(), 32)
    assert all((a == b).all() for a, b in zip(drawn(again), found, strict=True))


def test_what_cannot_be_used_is_skipped_with_its_reason(folder: Path) -> None:
    (folder / "empty.tif").touch()
    (folder / "notes.txt").write_text("not an image")
    (folder / "dangling.png").symlink_to(folder / "nowhere.png")
    Image.fromarray(coordinates(0, 28, 200)).save(folder / "flat.png")
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(folder / "deep.png")
    Image.fromarray(np.zeros((64, 64), np.uint8)).convert("P").save(folder / "palette.png")
    (folder / "text.png").write_text("no image, whatever its name")
    (folder / "folder.png").mkdir()
    (folder / "empty.zarr").mkdir()
    (folder / "file.zarr").write_text("no store")
    locked = folder / "locked.png"
    Image.fromarray(coordinates(0)).save(locked)
    locked.chmod(0)
    images = Images(folder, "train", DataConfig(), 32)
    reasons = {each.path.name: each.reason for each in images.skipped}
    # root reads what it may not.
    assert reasons.pop("locked.png", "cannot be opened (").startswith("cannot be opened (")
    assert set(reasons) == {
        *("empty.tif", "flat.png", "deep.png", "dangling.png", "palette.png", "text.png", "empty.zarr")
    }
    assert reasons["text.png"].startswith("cannot be opened (") and "palette: save it as RGB" in reasons["palette.png"]
    assert reasons["flat.png"] == "is smaller than a crop (28 x 200 against 32 pixels)"
    assert "data.white" in reasons["deep.png"] and reasons["empty.tif"].startswith("cannot be opened (")


def test_links_are_followed_once(folder: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "set").symlink_to(folder)
    (linked / "again").symlink_to(folder)
    os.symlink(linked, folder / "round")
    config = DataConfig(validation=0.3)
    assert len(Images(linked, "train", config, 32)) == len(Images(folder, "train", config, 32))


def test_just_too_small_is_mirrored(tmp_path: Path) -> None:
    Image.fromarray(coordinates(7, 30, 40)).save(tmp_path / "image.png")
    images = Images(tmp_path, "train", DataConfig(validation=0.01), 32)
    (crop,) = images.centres(1)
    found = np.rint(crop * 255).astype(int)
    np.testing.assert_array_equal(found[1, :, 0], [*range(30), 28, 27])
    np.testing.assert_array_equal(found[2, 0], range(4, 36))
    assert {each.shape for each in drawn(images)} == {(3, 32, 32)}


def test_centres(folder: Path) -> None:
    images = Images(folder, "train", DataConfig(), 32)
    found = [np.rint(crop * 255).astype(int) for crop in images.centres(5)]
    numbers = [number_of(Path(images.names()[k])) for k in (0, len(images) - 1)]
    assert [found[0][0, 0, 0], found[-1][0, 0, 0]] == numbers and len(found) == 5
    for crop in found:
        np.testing.assert_array_equal(crop[1:, 0, 0], [8, 12])
    assert len(images.centres(1000)) == len(images)
    broken = folder.parent / images.names()[0]
    broken.write_bytes(b"")
    again = Images(folder, "train", DataConfig(), 32)
    assert len(again.centres(5)) == 5


def test_crops_avoid_what_is_missing(tmp_path: Path) -> None:
    data = np.full((3, 100, 100), 0.5, np.float32)
    data[:, :, :60] = np.nan
    place = Affine(1, 0, 500_000, 0, -1, 5_000_000)
    with rasterio.open(tmp_path / "half.tif", "w", "GTiff", 100, 100, 3, "EPSG:32631", place, "float32") as file:
        file.write(data)
    images = Images(tmp_path, "train", DataConfig(white=1, validation=0.01), 32)
    rng = np.random.default_rng(0)
    assert all((images.draw(rng) == 0.5).all() for _ in range(30))
    with pytest.raises(DataError, match="no image of the split can be read"):
        images.centres(1)
    with pytest.raises(DataError, match="crops in a row were unreadable or lack data"):
        Images(tmp_path, "train", DataConfig(white=1, validation=0.01), 64).draw(rng)


def test_nothing_to_learn_from(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty has no image for train among 0 files"):
        Images(tmp_path / "empty", "train", DataConfig(), 32)
    with pytest.raises(DataError, match=r"40 of them skipped \(the first: .*town_2019_0.png is smaller than a crop"):
        Images(folder, "train", DataConfig(), 512)
    with pytest.raises(DataError, match="no image for validation among 40 files.* or set data.validation, now 0.001"):
        Images(folder, "validation", DataConfig(validation=0.001), 32)
    for wrong in (tmp_path / "nowhere", folder / "a/town_2019_0.png"):
        with pytest.raises(DataError, match="is no folder"):
            Images(wrong, "train", DataConfig(), 32)


def test_a_large_raster_serves_both_splits(tmp_path: Path) -> None:
    rows, cols = (steps.astype(np.uint8) for steps in np.mgrid[:4096, :4096] // 16)
    profile = {"width": 4096, "height": 4096, "count": 3, "dtype": "uint8", "tiled": True, "compress": "deflate"}
    place = {"crs": "EPSG:32631", "transform": rasterio.Affine(1, 0, 0, 0, -1, 0.5)}
    with rasterio.open(tmp_path / "city.tif", "w", "GTiff", photometric="RGB", **place, **profile) as file:
        file.write(np.stack([rows, cols, rows * 0]))
    learning, held = (Images(tmp_path, split, DataConfig(), 512) for split in ("train", "validation"))
    assert (len(learning), len(held)) == (14, 2)
    ground = {
        split: {(int(crop[0].min() * 255) // 64, int(crop[1].min() * 255) // 64) for crop in images.centres(20)}
        for split, images in (("train", learning), ("validation", held))
    }
    assert len(ground["train"]) == 14 and not ground["train"] & ground["validation"]


@real
def test_real_files_are_read_as_rasterio_reads_them() -> None:
    folder = REAL / "naip_ca_0.6m"
    images = Images(folder, "validation", DataConfig(bands=("nir", "red", "green")), 128)
    assert not images.skipped and 20 < len(images) < 60
    with rasterio.open(REAL / images.names()[0]) as file:
        expected = file.read([4, 1, 2]) / np.float32(255)
    np.testing.assert_array_equal(images.image(0), expected)


@real
def test_the_split_of_a_real_survey_stays() -> None:
    """What published figures are measured on: no file may ever change sides."""
    learning, held = (Images(REAL / "naip_ca_0.6m", split, DataConfig(), 128) for split in ("train", "validation"))
    tenth = (2**256 // 10).to_bytes(32)
    assert (len(learning), len(held)) == (359, 43) and not learning.skipped
    sites = {name: re.sub(r"_20\d\d_", "_", Path(name).stem) for name in (*learning.names(), *held.names())}
    assert held.names() == sorted(name for name, site in sites.items() if sha256(site.encode()).digest() < tenth)


@real
def test_two_resolutions_of_a_town_fall_on_one_side() -> None:
    sides = [
        {Path(name).stem for name in Images(REAL, split, DataConfig(gsd=1.25), 128).names()}
        for split in ("train", "validation")
    ]
    learning, held = ({"_".join(w for w in name.split("_") if len(w) != 4) for name in s} for s in sides)
    assert not learning & held
    assert 0.07 < len(held) / len(learning | held) < 0.13


@real
def test_a_finer_survey_averages_to_the_coarser_one() -> None:
    images = Images(REAL / "naip_ca_0.6m", "validation", DataConfig(gsd=1.2), 128)
    path = REAL / images.names()[0]
    with rasterio.open(path) as file:
        expected = file.read([1, 2, 3]).reshape(3, 128, 2, 128, 2).mean((2, 4)) / 255
    np.testing.assert_allclose(images.image(0), expected, atol=1e-6)
