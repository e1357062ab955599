"""The codec against Pillow's: the same image at the same quality."""

import io

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from places import SHARED

from rsup.models.degradation.jpeg import CHROMA_TABLE, LUMA_TABLE, jpeg, quantisation


def picture(height: int, width: int) -> NDArray[np.uint8]:
    """RGB [y, x, band]: smooth shades, coloured fields with hard edges, some noise."""
    rng = np.random.default_rng(4)
    y, x = np.mgrid[:height, :width]
    waves = [110 + 60 * np.sin(x / (9 + 4 * k)) * np.cos(y / (13 - 3 * k)) for k in range(3)]
    fields = 50 * ((x // 23 + y // 17) % 3)[..., None] * np.array([1, 0.2, 0.6])
    image = np.stack(waves, -1) + fields + rng.normal(0, 5, (height, width, 1))
    return np.asarray(np.clip(image, 0, 255), np.uint8)


def by_pillow(image: NDArray[np.uint8], quality: int) -> NDArray[np.float64]:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(file), np.float64)


def ours(image: NDArray[np.uint8], quality: int) -> NDArray[np.float64]:
    out = jpeg(torch.tensor(image).permute(2, 0, 1) / 255, quality)
    return out.permute(1, 2, 0).double().numpy() * 255


def assert_same_damage(image: NDArray[np.uint8], quality: int) -> None:
    """Pillow's codec computes in integers: a frequency halfway between two steps may fall to the other one."""
    expected, out = by_pillow(image, quality), ours(image, quality)
    damage = np.abs(expected - image).mean()
    assert abs(np.abs(out - image).mean() - damage) < 0.03 * damage + 0.05
    assert np.abs(out - expected).mean() < (0.2 if quality <= 80 else 0.35) * damage
    assert np.abs((out - expected).mean((0, 1))).max() < 0.15


@pytest.mark.parametrize("quality", [30, 60, 80, 95, 100])
@pytest.mark.parametrize(("h", "w"), [(128, 160), (75, 50)])
def test_the_decoded_image_is_pillows(quality: int, h: int, w: int) -> None:
    assert_same_damage(picture(h, w), quality)


@pytest.mark.parametrize("quality", [60, 95])
def test_real_imagery_is_compressed_as_pillow_does(quality: int) -> None:
    files = sorted((SHARED / "data/hr").glob("*.png"))
    if not files:
        pytest.skip("no imagery beside the checkout")
    assert_same_damage(np.asarray(Image.open(files[0]).convert("RGB"))[:256, :256], quality)


def test_tables_are_those_pillow_writes() -> None:
    for quality in (10, 50, 75, 100):
        file = io.BytesIO()
        Image.fromarray(picture(16, 16)).save(file, "JPEG", quality=quality)
        tables = Image.open(file).quantization  # type: ignore[attr-defined]
        np.testing.assert_array_equal(quantisation(LUMA_TABLE, quality).flatten(), tables[0])
        np.testing.assert_array_equal(quantisation(CHROMA_TABLE, quality).flatten(), tables[1])


def test_what_lies_beyond_the_range_is_clipped() -> None:
    out = jpeg(torch.tensor([-1.0, 0.5, 2.0])[:, None, None].expand(3, 16, 16), 100)
    assert out.min() >= 0 and out.max() <= 1
    torch.testing.assert_close(out[:, 8, 8], torch.tensor([0, 0.5, 1]), atol=0.015, rtol=0)
