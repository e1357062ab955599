"""Items, scenes and mosaics of a batch's units, made in no time: what is tested with them is the order of things."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rsup.models.base.errors import RsupError, SceneError
from rsup.models.base.files import replacing
from rsup.pipeline.batch.job import Job
from rsup.pipeline.batch.status import STATES, status
from rsup.pipeline.batch.units import Unit
from rsup.pipeline.jobs.fetch import NoPixelError
from rsup.pipeline.jobs.upscale_plan import UpscaleRequest
from rsup.pipeline.sources.plan import FetchPlan
from rsup.pipeline.sources.stac.catalog import NothingFoundError

WriteJob = Callable[..., Path]


class Made:
    """Items by month, and what is made of them: a scene that lists them, and outputs that repeat it."""

    def __init__(self, items: dict[str, list[str]]) -> None:
        self.items = items
        self.blank: set[str] = set()
        """Items without a pixel; `broken` ones cannot be read."""
        self.broken: set[str] = set()
        self.refused: dict[str, RsupError] = {}
        """Why a month's items cannot be used."""
        self.lacking: list[dict[str, str]] = []
        """What fetch says of items that it has left out."""
        self.fetched: list[str] = []
        self.upscaled: list[str] = []

    def catalogue(self, job: Job) -> Any:
        def items(unit: Unit) -> list[Any]:
            if unit.interval.name in self.refused:
                raise self.refused[unit.interval.name]
            if not self.items.get(unit.interval.name):
                raise NothingFoundError("nothing", None)
            return [SimpleNamespace(id=name, hrefs={}) for name in self.items[unit.interval.name]]

        silent = dict.fromkeys(("ask", "look_ahead", "refuse_nothing"), lambda *_: None)
        return SimpleNamespace(units=job.units, items=items, left_out=lambda unit: [], **silent)

    def fetch(self, plan: FetchPlan, progress: object) -> dict[str, Any]:
        names = [item.id for item in plan.items]
        if self.broken & set(names):
            raise SceneError(f"item {names[0]} cannot be read")
        if self.blank >= set(names):
            raise NoPixelError("no pixel is left")
        if not plan.request.output.exists():
            self.fetched.append(plan.request.output.stem)
            write_store(plan.request.output, " ".join(names))
        return {"left_out": self.lacking}

    def upscale(self, request: UpscaleRequest, workers: object) -> None:
        said = (request.scene / "zarr.json").read_text()
        stem = f"{request.scene.stem}_x{request.scale}"
        if (request.output / f"{stem}.zarr").exists():
            return
        self.upscaled.append(request.scene.stem)
        properties = {
            "gsd": 2.5, "proj:code": "EPSG:32633", "rsup:scale": 4, "rsup:model_sha256": "0", 
            "rsup:sources": said.split(), "datetime": "2024-05-01T00:00:00Z",
            "proj:shape": [256, 256], "proj:transform": [2.5, 0, 300000, 0, -2.5, 5900000],
        }  # fmt: skip
        band = {"name": "red", "data_type": "uint16", "nodata": 0, "raster:scale": 1e-4, "raster:offset": -0.1}
        cog = {"href": f"{stem}.tif", "bands": [band]}
        item = {"id": stem, "bbox": [13, 52, 14, 53], "properties": properties, "links": [], "assets": {"cog": cog}}
        for ending, content in ((".html", said), ("_model.json", said), (".json", json.dumps(item)), (".tif", said)):
            with replacing(request.output / f"{stem}{ending}") as fresh:
                fresh.write_text(content)
        write_store(request.output / f"{stem}.zarr", said)


def write_store(path: Path, said: str) -> None:
    with replacing(path) as fresh:
        fresh.mkdir()
        (fresh / "zarr.json").write_text(said)


def write_tables(path: Path, said: dict[str, object], catalog: str) -> Path:
    """A job of nearest pixels at `path`, in small chunks, from a catalogue; `said` is its first table."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in said.items()]
    lines += ["[fetch]", f"catalog = {json.dumps(catalog)}", "max_cloud = 30"]
    lines += ["[upscale]", "scale = 4", 'model = "nearest"', 'device = "cpu"', "chunk = 64"]
    path.write_text("\n".join(lines))
    return path


def files_of(output: Path) -> dict[str, str]:
    """Every file, hidden or not, and its hash."""
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(output.rglob("*"))
        if path.is_file()
    }


def became(result: dict[str, Any]) -> dict[str, int]:
    """What a run says that units came to, by outcome."""
    keys = ("done", "already_done", "empty", "failed", "running")
    return {key: result[key] for key in keys if result[key]}


def counted(job: Job) -> dict[str, int]:
    """Units by state, those that there are."""
    said = status(job)
    return {state: said[state] for state in STATES if said[state]}
