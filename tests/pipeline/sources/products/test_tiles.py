"""Windows put together from tiles that are each decoded once, by many threads, in bounded memory."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safes import GROUND, write_jp2

from rsup.models.sensors.sentinel2 import SENTINEL2
from rsup.pipeline.sources import asset_file
from rsup.pipeline.sources.products import tiles

IMAGE = np.arange(100 * 130, dtype=np.uint16).reshape(100, 130)


def windows(side: int) -> list[tuple[slice, slice]]:
    return [
        (slice(max(0, row), min(100, row + side)), slice(max(0, col), min(130, col + side)))
        for row in range(-7, 100, side)
        for col in range(-7, 130, side)
    ]


def test_every_window_is_right_and_every_tile_is_decoded_once() -> None:
    decoded: Counter[tuple[int, int]] = Counter()
    lock = Lock()

    def decode(tile: tuple[slice, slice]) -> NDArray[Any]:
        with lock:
            decoded[tile[0].start, tile[1].start] += 1
        return IMAGE[tile]

    def read(window: tuple[slice, slice]) -> NDArray[Any]:
        return tiles.assemble("image", IMAGE.shape, (32, 48), window, decode)

    with tiles.keeping(), ThreadPoolExecutor(4) as pool:
        for window, found in zip(windows(40), pool.map(read, windows(40)), strict=True):
            np.testing.assert_array_equal(found, IMAGE[window])
    assert set(decoded.values()) == {1} and len(decoded) == 4 * 3
    read(windows(40)[0])
    assert decoded[0, 0] == 2  # nothing is kept any more


def test_what_is_kept_is_bounded_and_what_is_used_is_not_dropped() -> None:
    dropped: list[int] = []
    kept = tiles.Kept(2, dropped.append)
    with kept.lend("a", lambda: (1, 1)):
        for number in (2, 3, 4):
            with kept.lend(number, lambda number=number: (number, 1)):  # type: ignore[misc]
                pass
        assert 1 not in dropped
    assert dropped == [2, 3]
    kept.shrink(-1)
    assert sorted(dropped) == [1, 2, 3, 4]


def test_a_failure_leaves_nothing_behind() -> None:
    kept = tiles.Kept(2)

    def fail() -> Any:
        raise OSError("no")

    with pytest.raises(OSError, match="no"), kept.lend("a", fail):
        pass
    with kept.lend("a", lambda: (5, 1)) as value:
        assert value == 5


def test_a_file_gives_the_numbers_that_gdal_gives(tmp_path: Path) -> None:
    path = tmp_path / "a.jp2"
    write_jp2(path, np.random.default_rng(0).integers(0, 9000, (128, 192), dtype=np.uint16), GROUND)
    header = asset_file.read_header("a", str(path), SENTINEL2, False)
    assert tiles.has_tiles(str(path)) and not tiles.has_tiles("https://example.org/a.jp2")
    with tiles.keeping():
        for rows, cols in ((slice(0, 128), slice(0, 192)), (slice(3, 70), slice(60, 65)), (slice(64, 65), slice(0, 1))):
            found = tiles.read_window(str(path), header, rows, cols, False)
            np.testing.assert_array_equal(found, asset_file.read_window(str(path), header, rows, cols, False))
