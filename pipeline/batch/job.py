"""A job: a TOML file in; where, when, in which cells and how, checked, out.

Keys of the tables `fetch` and `upscale` are the options of these commands, with underscores; their checks are the same.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from datetime import date, time
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from rsup.models.base.errors import ArgumentError
from rsup.models.base.regular import read_at_most
from rsup.models.base.settings import Config, first_problem
from rsup.pipeline.jobs.artefacts import OUTPUTS
from rsup.pipeline.jobs.upscale_plan import UpscalePlan, UpscaleRequest
from rsup.pipeline.places.address import ObjectPath
from rsup.pipeline.places.place import Output
from rsup.pipeline.places.scratch import scratch
from rsup.pipeline.scenes.scene import Scene
from rsup.pipeline.sources.footprint import Box
from rsup.pipeline.sources.request import FetchRequest

from .area import of_box, of_file
from .cells import MGRS, SIDES, Cell, cells_of
from .units import ACQUISITION, Interval, Unit, days_of, intervals_of, units_of

WORK = ".unit"
"""Folder of a unit's unfinished outputs, where it stands beside the finished ones."""
LARGEST = 64 << 10
"""Bytes of a job: tomllib takes time that grows with the square of what it is given."""
Bands = Annotated[tuple[str, ...], Field(min_length=1)]


class FetchOptions(Config):
    """The options of `rsup fetch`, but for what the job says of ground, time and output; the defaults are the same."""

    catalog: str = FetchRequest.catalog
    collection: str = FetchRequest.collection
    max_cloud: float = FetchRequest.max_cloud
    bands: Bands = FetchRequest.bands
    composite: str = FetchRequest.composite
    mask_clouds: bool = FetchRequest.mask_clouds
    offset: str = FetchRequest.offset
    strict: bool = FetchRequest.strict


class UpscaleOptions(Config):
    """The options of `rsup upscale`, but for scene and output; the defaults are the same."""

    scale: int
    model: str = UpscaleRequest.model
    bands: tuple[str, ...] = UpscaleRequest.bands
    device: str = UpscaleRequest.device
    workers: int | None = UpscaleRequest.workers
    scheduler: str | None = UpscaleRequest.scheduler
    tls_ca: Path | None = UpscaleRequest.tls_ca
    tls_cert: Path | None = UpscaleRequest.tls_cert
    tls_key: Path | None = UpscaleRequest.tls_key
    consistency: str = UpscaleRequest.consistency
    uncertainty: bool = UpscaleRequest.uncertainty
    outputs: tuple[str, ...] = UpscaleRequest.outputs
    chunk: int = UpscaleRequest.chunk

    @field_validator("outputs")
    @classmethod
    def _with_item(cls, outputs: tuple[str, ...]) -> tuple[str, ...]:
        if "item" not in outputs:
            raise ValueError("name item as well: an archive's collection is made of the items of its mosaics")
        return outputs


WHERE_IT_RUNS = {"device", "workers", "scheduler", "tls_ca", "tls_cert", "tls_key"}
"""Options that change nothing of what is made."""


class Job(Config):
    """What `rsup batch` is given."""

    output: Output
    """A folder, or a prefix: "s3://bucket/prefix"."""
    bbox: tuple[float, float, float, float] | None = None
    """West, south, east, north in degrees; west > east crosses the antimeridian."""
    area: Path | None = None
    """A GeoJSON file or a GeoPackage of polygons, in the place of `bbox`."""
    dates: str
    """As fetch's --date, with both ends."""
    interval: str = "month"
    cells: int | str
    """Squares of MGRS, or of so many scene pixels."""
    keep_scenes: bool = False
    """Whether the scene store stays beside its mosaic."""
    fetch: FetchOptions = FetchOptions()
    upscale: UpscaleOptions

    @field_validator("cells")
    @classmethod
    def _squares(cls, cells: int | str) -> int | str:
        if cells != MGRS and not (isinstance(cells, int) and SIDES[0] <= cells <= SIDES[1]):
            raise ValueError(f'give "{MGRS}", or the side of the squares, {SIDES[0]} to {SIDES[1]} scene pixels')
        return cells

    @model_validator(mode="after")
    def _one_area(self) -> Self:
        if (self.bbox is None) == (self.area is None):
            raise ValueError(
                "give the ground either as bbox = [west, south, east, north] or as area = a GeoJSON or GeoPackage file"
            )
        return self

    @cached_property
    def ground(self) -> Any:
        """Its polygon, in degrees."""
        return of_file(self.area) if self.bbox is None and self.area is not None else of_box(self.bbox or (0, 0, 0, 0))

    @cached_property
    def days(self) -> tuple[date, date]:
        """The first and the last."""
        request = FetchRequest((0, 0, 0, 0), self.dates, Path())
        if request.start is None or request.end is None:
            raise ArgumentError(f"dates {self.dates}: give both ends, as 2024-05-01/2024-07-31")
        if request.start.time() != time.min or request.end.time() != time.max:
            raise ArgumentError(f"dates {self.dates}: a job's units are of whole days, as 2024-05-01/2024-07-31")
        return request.start.date(), request.end.date()

    @cached_property
    def places(self) -> list[Cell]:
        """Every cell."""
        return cells_of(self.ground, self.cells)

    @property
    def by_acquisition(self) -> bool:
        """Whether only a catalogue knows the intervals."""
        return self.interval == ACQUISITION

    def units(self) -> list[Unit]:
        """Every unit, interval by interval; not for acquisitions, which a catalogue has to list."""
        return units_of(intervals_of(*self.days, self.interval), self.places)

    def whole_time(self) -> Interval:
        """All of its days as one interval."""
        return Interval(*self.days, self.dates)

    def fetch_request(self, box: Box, crs: str | None, interval: Interval, output: Path = Path()) -> FetchRequest:
        """What fetch is asked for ground of the job. Raises ArgumentError for options that make no sense."""
        east = box.east - 360 if box.east > 180 else box.east
        bbox = (box.west, max(-80.0, box.south), east, min(84.0, box.north))
        return FetchRequest(bbox=bbox, date=interval.dates, output=output, crs=crs, **self.fetch.model_dump())

    @cached_property
    def upscale_plan(self) -> UpscalePlan:
        """Of a cell whose scene is still to be made: what is so for every cell, on whatever machine.

        Raises ArgumentError and ModelError.
        """
        return self._plan(here=False)

    @cached_property
    def plan_here(self) -> UpscalePlan:
        """The same with workers of this machine, or what a cluster is shown. Raises as that, also for want of them."""
        return self._plan(here=True)

    def _plan(self, *, here: bool) -> UpscalePlan:
        cell, scene = self.places[0], Path("scene.zarr")
        bands = self.fetch_request(cell.box, cell.crs, self.whole_time()).bands
        made = {"items": [{"collection": self.fetch.collection}]}
        to_be = Scene(scene, cell.crs, cell.window, cell.window, bands, made, bands, None, None, None)
        return UpscalePlan.make(self.upscale_request(scene), to_be, here=here)

    @property
    def endings(self) -> list[str]:
        """Of a mosaic's outputs, after the unit's name; the store comes last."""
        plan = self.upscale_plan
        stem = plan.request.scene.stem
        return [name.removeprefix(stem) for name in plan.artefacts().values()]

    def work(self, unit: Unit) -> Path:
        """Folder of a unit's unfinished outputs: hidden beside the finished ones, or, of a prefix, on this machine."""
        if isinstance(self.output, ObjectPath):
            return self._scratch / unit.name
        return Path(self.output, unit.path, WORK)

    @cached_property
    def _scratch(self) -> Path:
        return scratch("batch", str(self.output), self.identity())

    def upscale_request(self, scene: Path) -> UpscaleRequest:
        """What upscale is asked for a scene."""
        return UpscaleRequest(scene=scene, output=scene.parent, **self.upscale.model_dump())

    def identity(self) -> dict[str, Any]:
        """What two jobs share that may write into one output, as plain JSON: all but where they run and when they end.

        The last day may move on, so that an archive goes on growing.
        """
        first, _ = self.days
        request = self.fetch_request(self.places[0].box, None, self.whole_time())
        upscale = self.upscale.model_dump(mode="json", exclude=WHERE_IT_RUNS | {"outputs"})
        if set(self.upscale.outputs) != set(OUTPUTS):
            upscale["outputs"] = sorted(set(self.upscale.outputs))
        plan = self.upscale_plan
        said = {
            "area": hashlib.sha256(self.ground.normalize().wkb).hexdigest() if self.bbox is None else self.bbox,
            "first_day": str(first),
            "interval": self.interval,
            "cells": self.cells,
            "keep_scenes": self.keep_scenes,
            "fetch": self.fetch.model_dump(mode="json", exclude={"strict"}) | {"catalog": request.public_catalog},
            "upscale": upscale | {"model": plan.model.sha256, "bands": list(plan.request.bands)},
        }
        return json.loads(json.dumps(said))  # type: ignore[no-any-return]


def load_job(path: Path, *, here: bool = True) -> Job:
    """The job in a TOML file, checked as far as it goes without a catalogue. Raises ArgumentError and ModelError.

    Unless it is to be done `here`, it may be more than this machine can do: one that looks at what others do.
    """
    try:
        content = read_at_most(path, LARGEST)
    except OSError as error:
        raise ArgumentError(f"{path} cannot be read ({error.strerror}): give a job, in TOML") from None
    if content is None:
        raise ArgumentError(f"{path} is larger than any job ({LARGEST >> 10} KiB): give a job, in TOML")
    try:
        job = Job.model_validate(tomllib.loads(content.decode("utf-8-sig")))  # some editors put a mark before it
    except ValidationError as error:
        raise ArgumentError(f"{path}: {first_problem(error)}") from None
    except (ValueError, RecursionError) as error:  # of a number that is too long, tomllib lets int's own error through
        raise ArgumentError(f"{path} is not TOML: {error}") from None
    try:
        days_of(job.interval)
        job.identity()
        if here:
            _ = job.plan_here
    except ArgumentError as error:
        raise ArgumentError(f"{path}: {error}") from None
    return job
