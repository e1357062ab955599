"""A JPEG 2000 file cut anywhere is found out without decoding it, and one that is whole is not."""

import io
from pathlib import Path

import numpy as np
import pytest
from places import SHARED
from safes import GROUND, write_jp2

from rsup.pipeline.sources.products.safe.jpeg2000 import check_whole

REAL = SHARED / "data/sentinel2/mapchete_eo/full_products"


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """In tiles, as OpenJPEG writes it through GDAL."""
    path = tmp_path_factory.mktemp("jp2") / "a.jp2"
    data = np.random.default_rng(0).integers(1000, 9000, (GROUND.height, GROUND.width), dtype=np.uint16)
    write_jp2(path, data, GROUND)
    return path.read_bytes()


def test_a_whole_file_is_whole(image: bytes) -> None:
    check_whole(io.BytesIO(image), len(image))


@pytest.mark.skipif(not REAL.exists(), reason="no real products are at hand")
def test_real_files_are_whole_and_cut_ones_are_not() -> None:
    """Masks of real products, as ESA's own encoder wrote them."""
    files = sorted(REAL.rglob("*.jp2"))
    assert len(files) > 50
    for file in files:
        content = file.read_bytes()
        check_whole(io.BytesIO(content), len(content))
        for share in (0.3, 0.7, 0.95, 0.999):
            cut = content[: int(len(content) * share)]
            with pytest.raises(ValueError, match="cut off"):
                check_whole(io.BytesIO(cut), len(cut))


def test_boxes_may_follow_or_end_with_the_file(image: bytes) -> None:
    check_whole(io.BytesIO(image + b"\0\0\0\x0cfree1234"), len(image) + 12)
    open_end = bytearray(image)
    at = image.index(b"jp2c")
    open_end[at - 4 : at] = bytes(4)  # to the end of the file
    check_whole(io.BytesIO(open_end), len(image))


@pytest.mark.parametrize("open_end", [False, True])
@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.3, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_not(image: bytes, share: float, open_end: bool) -> None:
    cut = bytearray(image[: int(len(image) * share)])
    at = image.index(b"jp2c")
    if open_end and len(cut) > at:
        cut[at - 4 : at] = bytes(4)
    with pytest.raises(ValueError, match="cut off|no JPEG 2000"):
        check_whole(io.BytesIO(cut), len(cut))


@pytest.mark.parametrize("made", [b"", b"GIF89a", b"II*\0" * 100, bytes(4096)])
def test_what_is_none_is_told(made: bytes) -> None:
    with pytest.raises(ValueError, match="no JPEG 2000 file|is empty"):
        check_whole(io.BytesIO(made), len(made))


def test_no_byte_of_its_head_sends_it_in_circles(image: bytes, tmp_path: Path) -> None:
    """Whatever a byte is changed into, the check ends: whole, or a reason."""
    rng = np.random.default_rng(1)
    for _ in range(400):
        changed = bytearray(image)
        changed[rng.integers(0, 400)] = rng.integers(0, 256)
        try:
            check_whole(io.BytesIO(changed), len(changed))
        except ValueError as error:
            assert str(error)
