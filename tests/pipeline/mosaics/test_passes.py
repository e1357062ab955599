"""Which bands go through the network together."""

from dataclasses import replace

from rsup.models.upscaler import descriptor_of
from rsup.pipeline.mosaics.passes import Pass, false_colour, passes

RGB = ("red", "green", "blue")


def test_the_network_s_own_bands_go_together_and_others_beside_guides() -> None:
    own = Pass(RGB, ((0, "red"), (2, "blue")))
    assert passes(("red", "blue"), (*RGB, "nir"), RGB) == [own]
    assert passes(("nir", "red"), (*RGB, "nir"), RGB) == [
        Pass(RGB, ((0, "red"),)),
        Pass(("nir", "red", "green"), ((0, "nir"),)),
    ]
    assert passes(("red",), ("red", "green"), RGB) == [Pass(("red", "green", "red"), ((0, "red"),))]
    assert passes(("swir16",), ("swir16",), RGB) == [Pass(("swir16",) * 3, ((0, "swir16"),))]


def test_a_network_of_four_bands_sees_them_together_and_others_alone() -> None:
    four = (*RGB, "nir")
    assert passes(("nir", "red"), four, four) == [Pass(four, ((0, "red"), (3, "nir")))]
    assert passes(("red", "green"), RGB, four) == [Pass((*RGB, "red"), ((0, "red"), (1, "green")))]
    assert passes(("swir16",), (*four, "swir16"), four) == [Pass(("swir16",) * 4, ((0, "swir16"),))]


def test_false_colour_is_what_a_network_did_not_learn() -> None:
    four = descriptor_of("default", 4)
    assert four.bands == (*RGB, "nir")
    three = replace(four, bands=RGB)
    for model, other in ((three, "nir"), (four, "swir16")):
        assert false_colour(("red", "blue"), (*RGB, other), model) == []
        assert false_colour((other, "red"), (*RGB, other), model) == [other]
        assert false_colour(("red", "green"), ("red", "green"), model) == ["red", "green"]
    assert false_colour(("nir", "red"), (*RGB, "nir"), four) == []
    assert false_colour(("nir",), (*RGB, "nir"), descriptor_of("bicubic", 4)) == []
