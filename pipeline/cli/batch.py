"""The commands about archives: a job in, one function called, its result printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rsup.models.base.errors import ChunkError

from .options import Json, print_result

JobFile = Annotated[
    # Whether it can be read is for the job to say, in its own words.
    Path,
    typer.Argument(
        metavar="JOB.toml", help="Area, dates, cells, options of fetch and upscale, output.", readable=False
    ),
]


def plan_batch(job: JobFile, as_json: Json = False) -> None:
    """The units of a job, what each takes, and which are done; touches nothing."""
    from rsup.pipeline.batch.job import load_job
    from rsup.pipeline.batch.plan import plan as run

    print_result(run(load_job(job)), as_json)


def run_batch(
    job: JobFile,
    part: Annotated[str, typer.Option(metavar="I/N", help="Of N parts of the units, the I-th alone.")] = "1/1",
    renew: Annotated[bool, typer.Option("--renew", help="Make mosaics of another model again with the job's.")] = False,
    as_json: Json = False,
) -> None:
    """Fetch and upscale what is new of a job; several may run at once, and the same command goes on."""
    from rsup.pipeline.batch.job import load_job
    from rsup.pipeline.batch.run import run
    from rsup.pipeline.batch.units import part_of

    share = part_of(part)
    result = run(load_job(job), share, renew=renew)
    print_result(result, as_json)
    _complain(result)


def batch_status(
    job: JobFile,
    page: Annotated[
        str | None, typer.Option(metavar="FILE.html", help="Write a map of the units as well; here, or on s3://.")
    ] = None,
    as_json: Json = False,
) -> None:
    """How far a job has come, by what lies in its output."""
    from rsup.pipeline.batch.job import load_job
    from rsup.pipeline.batch.status import status as run
    from rsup.pipeline.places.place import place_of

    print_result(run(load_job(job, here=False), None if page is None else place_of(page)), as_json)


def retry_batch(job: JobFile, as_json: Json = False) -> None:
    """Forget which units failed, so that `run` tries them again."""
    from rsup.pipeline.batch.job import load_job
    from rsup.pipeline.batch.status import retry as run

    print_result(run(load_job(job, here=False)), as_json)


def _complain(result: dict[str, Any]) -> None:
    """Raise ChunkError where some units failed."""
    if failures := result["failures"]:
        first = failures[0]
        raise ChunkError(
            f"{len(failures)} of {result['units']} units failed ({first['unit']}: {first['reason']}); the others are "
            "done: `rsup batch retry` forgets the failures, and `rsup batch run` then tries again"
        )
