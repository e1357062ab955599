"""Names of a mosaic's outputs, by what is asked for."""

import pytest

from rsup.pipeline.jobs.artefacts import OUTPUTS, artefacts_of

ALL = {
    "page": "a.html",
    "model": "a_model.json",
    "item": "a.json",
    "cog": "a.tif",
    "uncertainty": "a_uncertainty.tif",
    "zarr": "a.zarr",
}


@pytest.mark.parametrize(
    ("outputs", "uncertainty", "expected"),
    [
        (OUTPUTS, True, list(ALL)),
        (("zarr", "page", "item", "cog"), False, ["page", "model", "item", "cog", "zarr"]),
        (("item", "cog"), True, ["model", "item", "cog", "uncertainty"]),
        (("zarr",), True, ["zarr"]),
    ],
)
def test_the_store_is_last_and_items_and_uncertainty_come_with_what_they_are_of(
    outputs: tuple[str, ...], uncertainty: bool, expected: list[str]
) -> None:
    found = artefacts_of("a", outputs, uncertainty)
    assert list(found) == expected and found == {key: ALL[key] for key in expected}
