"""The layout of a pyramid in a BigTIFF, read by GDAL."""

import io
from itertools import product

import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile

from rsup.pipeline.mosaics.tiff.bigtiff import Pyramid, read_tags

LONG = "a name too long to lie in a directory"


def template(**options: object) -> bytes:
    """A TIFF of one empty tile, by GDAL."""
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=16, height=16, count=2, dtype="uint16", tiled=True, blockxsize=16, blockysize=16,
            sparse_ok=True, crs="EPSG:32633", transform=rasterio.transform.from_origin(7, 9, 2, 2), **options,
        ) as target:  # fmt: skip
            target.descriptions = ("one", LONG)
        return bytes(memory.read())


@pytest.mark.parametrize("data", [b"", b"MM\0\x2b", template(bigtiff="no"), template(bigtiff="yes", endianness="big")])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="BigTIFF"):
        read_tags(data)


def test_every_tile_is_where_it_belongs_and_coarse_ones_come_first() -> None:
    rng, file = np.random.default_rng(0), io.BytesIO()
    shapes = [(50, 40), (25, 20), (13, 10)]
    images = [rng.integers(0, 65535, (*shape, 2)).astype("<u2") for shape in shapes]
    pyramid = Pyramid(file, read_tags(template(bigtiff="yes", interleave="pixel")), shapes)
    for level in (2, 1, 0):
        padded = np.zeros((64, 48, 2), "<u2")
        padded[: shapes[level][0], : shapes[level][1]] = images[level]
        places = list(product(*map(range, pyramid.levels[level].grid)))
        for row, col in rng.permutation(places):
            pyramid.add(level, row, col, padded[row * 16 : row * 16 + 16, col * 16 : col * 16 + 16].tobytes())
    pyramid.close()
    for level, image in enumerate(images):
        options = {"overview_level": level - 1} if level else {}
        with MemoryFile(file.getvalue()) as memory, memory.open(**options) as tif:
            np.testing.assert_array_equal(tif.read().transpose(1, 2, 0), image)
            if level == 0:
                assert tif.descriptions == ("one", LONG) and tif.crs.to_epsg() == 32633
                assert tif.overviews(1) == [2, 4]
    firsts = [min(level.offsets) for level in pyramid.levels]
    assert firsts == sorted(firsts, reverse=True)
