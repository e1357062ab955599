"""What an upscale leaves behind: a mosaic's name and what is asked for in, the names of its outputs out."""

from __future__ import annotations

from collections.abc import Collection

OUTPUTS = ("zarr", "cog", "item", "page")
"""Kinds of output: the pixels twice, what STAC says of them and of the model, and a page to look at."""


def artefacts_of(name: str, outputs: Collection[str], uncertainty: bool) -> dict[str, str]:
    """Names of the outputs of a mosaic in the order they are published: the store last, for it marks the end.

    By what they are; those with pixels, and the page, by the keys of `ASSETS` in `mosaics/stac/item.py`.
    """
    endings = {
        "page": {"page": ".html"},
        "item": {"model": "_model.json", "item": ".json"},
        "cog": {"cog": ".tif", **({"uncertainty": "_uncertainty.tif"} if uncertainty else {})},
        "zarr": {"zarr": ".zarr"},
    }
    return {key: name + ending for kind, files in endings.items() if kind in outputs for key, ending in files.items()}
