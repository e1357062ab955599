"""Bits of masks in the terms of scene classes; each against its guide, bit by bit."""

import numpy as np
import pytest

from rsup.models.sensors.sentinel2 import CLASSES
from rsup.pipeline.sources.products.flags import classes_of, href_of, is_flags


@pytest.mark.parametrize(
    ("kind", "flags", "name"),
    [
        ("theia", 0, "unclassified"),
        ("theia", 0b00000001, "water"),
        ("theia", 0b00000011, "cloud_high_probability"),
        ("theia", 0b00000100, "snow"),
        ("theia", 0b00001001, "cloud_shadow"),
        ("theia", 0b00010000, "dark_area"),
        ("theia", 0b11100000, "unclassified"),  # hidden or tangent slopes
        ("hls", 0, "unclassified"),
        ("hls", 0b11000000, "unclassified"),  # much aerosol
        ("hls", 0b00000001, "thin_cirrus"),
        ("hls", 0b00100010, "cloud_high_probability"),
        ("hls", 0b00000100, "cloud_medium_probability"),
        ("hls", 0b00001100, "cloud_shadow"),
        ("hls", 0b00010000, "snow"),
        ("hls", 0b01100000, "water"),
        ("hls", 255, "no_data"),
    ],
)
def test_each_bit_has_its_class(kind: str, flags: int, name: str) -> None:
    assert CLASSES.names[int(classes_of(kind, np.array([flags], np.uint8))[0])] == name


def test_addresses() -> None:
    assert is_flags(href_of("theia", "/a/b.tif")) and not is_flags("/a/b.tif") and not is_flags("https://a/flags-hls:b")
