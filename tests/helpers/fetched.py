"""Scenes fetched from products, as arrays."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from rsup.pipeline.jobs.fetch import plan, run
from rsup.pipeline.jobs.product import request_of
from rsup.pipeline.lattice import Window
from rsup.pipeline.sources.footprint import box_of
from rsup.pipeline.sources.request import FetchRequest

BANDS = ("red", "nir", "nir08")
"""Of both resolutions."""


def no_progress(done: int, total: int) -> None:
    pass


def arrays(store: Path) -> dict[str, NDArray[Any]]:
    """Every array [y, x] of a scene."""
    group = zarr.open_group(store, mode="r")
    return {name: np.asarray(array[:]) for name, array in group.arrays() if array.ndim == 2}


def said(store: Path) -> dict[str, Any]:
    """A scene's attributes."""
    return dict(json.loads((store / "zarr.json").read_text())["attributes"])


def fetched(output: Path, *products: Path | str, box: Window | None = None, **options: Any) -> dict[str, NDArray[Any]]:
    """The arrays of the scene of these products, of all of their ground or of a window of zone 33."""
    asked: dict[str, Any] = {"date": None, "max_cloud": 100, "bands": BANDS, "chunk": 64} | options
    request = request_of([str(each) for each in products], None if box is None else bbox_of(box), **asked)
    fields = {name: getattr(request, name) for name, about in request.__dataclass_fields__.items() if about.init}
    run(plan(FetchRequest(**fields | {"output": output})), no_progress)
    return arrays(output)


def bbox_of(window: Window) -> tuple[float, float, float, float]:
    box = box_of(window, "EPSG:32633")
    return box.west, box.south, box.east, box.north
