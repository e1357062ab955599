"""The page of crops, read back: pictures to the last pixel, names escaped, nothing asked of the network."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from rsup.models.base.errors import DataError
from rsup.models.metrics.page import Row, write_comparison


def rows():
    rng = np.random.default_rng(0)
    draw = {name: rng.integers(0, 256, (12, 10, 3), dtype=np.uint8) for name in ("LR", "<bicubic>", "truth")}
    return [Row('a"><script>alert(1)</script>.png', draw), Row("b", {"LR": draw["LR"]})]


def test_pictures_come_back_and_names_are_escaped(tmp_path):
    out = tmp_path / "new" / "page.html"
    write_comparison(out, "x4 & x8", "<b>", rows())
    page = out.read_text(encoding="utf-8")
    found = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
        for text in re.findall(r"data:image/png;base64,([^\"]+)", page)
    ]
    wanted = [picture for row in rows() for picture in row.pictures.values()]
    assert len(found) == len(wanted) == 4
    for image, picture in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(image, picture)
    assert "<script" not in page and "<b>" not in page and "<bicubic>" not in page
    assert "x4 &amp; x8" in page and "&lt;bicubic&gt;" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_equal_input_equal_page_and_no_litter(tmp_path):
    for name in ("a.html", "b.html"):
        write_comparison(tmp_path / name, "t", "s", rows())
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"page\.html cannot be written .*: move away what stands there"):
        write_comparison(tmp_path / "file" / "page.html", "t", "s", rows())
