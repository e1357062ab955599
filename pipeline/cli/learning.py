"""The commands that train networks, measure them and time them."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from rsup.models.base.errors import ArgumentError
from rsup.models.sensors import DEFAULT

from .options import Json, Settings, names, print_result

DEGRADATIONS = ("published", DEFAULT.name)
"""What `rsup evaluate` can do to images: as published, or as the sensor would."""


class Role(StrEnum):
    """What `rsup train` trains."""

    teacher = "teacher"
    student = "student"


def train(
    role: Annotated[
        Role,
        typer.Argument(help="What to train: a network for `rsup upscale`, or the one it learns from."),
    ],
    recipe: Annotated[Path, typer.Option(help="What to train, and how: recipes/*.toml.")],
    data: Annotated[
        # Whether it can be read is for the data to say, in its own words.
        Path,
        typer.Option(help="Folder of sharp images, or a Zarr store.", readable=False),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run.")],
    settings: Settings = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the newest checkpoint in the folder, if any.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a teacher or a student from a recipe and a folder of images."""
    from rsup.models.base.progress import say, show_progress
    from rsup.pipeline.memory import importing, in_large_pages

    in_large_pages()
    with importing():
        from rsup.models.train import TrainRequest
        from rsup.models.train import train as run

    request = TrainRequest(role.value, recipe, data, output, tuple(settings or ()), resume)
    with show_progress(f"train {role.value}", "steps") as progress:
        result = run(request, progress)
    if os.environ.get("RANK", "0") != "0":
        return  # torchrun starts this command once a process; they would all say the same
    print_result(result, as_json)
    if result["stopped"]:
        say(f"stopped at step {result['steps']} of {result['of']}: go on with --resume")


def evaluate(
    model: Annotated[str, typer.Argument(help="A name from `rsup models list`, or a weights file.")],
    data: Annotated[
        # Whether it can be read is for the data to say, in its own words.
        Path,
        typer.Option(help="Folder of sharp images, or a Zarr store.", readable=False),
    ],
    scale: Annotated[int, typer.Option(help="4 or 8.")],
    degradation: Annotated[str, typer.Option(help=f"How the images are degraded: {' or '.join(DEGRADATIONS)}.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for a page of crops.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Measure every image, not the validation split alone.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Most images.")] = None,
    gsd: Annotated[
        float | None, typer.Option(help="Average finer images to this many metres; default: pixels as they are.")
    ] = None,
    white: Annotated[
        float | None,
        typer.Option(
            help="The number that counts as white, a reflectance of 0.425; needed for images of more than 8 bits."
        ),
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(help="Bands to give the network, separated by commas; default: what it was made for."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    niqe_parameters: Annotated[
        Path | None,
        typer.Option(envvar="RSUP_NIQE_PARAMETERS", help="NIQE's pristine model (npz).", readable=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a network on images whose truth is known, beside bicubic interpolation."""
    if degradation not in DEGRADATIONS:
        raise ArgumentError(f"--degradation {degradation}: give {' or '.join(DEGRADATIONS)}")
    for option, number in (("--gsd", gsd), ("--white", white)):
        if number is not None and not number > 0:
            raise ArgumentError(f"{option} {number:g}: give a number above 0")
    channels = names(bands) if bands is not None else None
    if channels is not None and len(channels) not in (3, 4):
        raise ArgumentError(f"--bands {bands}: give three or four, such as nir,red,green")
    from rsup.models.base.progress import show_progress
    from rsup.pipeline.memory import importing, in_large_pages

    in_large_pages()
    with importing():
        from rsup.models.evaluate import EvaluateRequest, table
        from rsup.models.evaluate import evaluate as run

    request = EvaluateRequest(
        model=model,
        data=data,
        scale=scale,
        degradation=degradation,
        gsd=gsd,
        white=white,
        bands=channels,  # type: ignore[arg-type]  # of three or four
        every=every,
        limit=limit,
        device=device,
        page=output,
        niqe_parameters=niqe_parameters,
    )
    with show_progress("evaluate", "images") as progress:
        result = run(request, progress)
    typer.echo(json.dumps(result, indent=2) if as_json else table(result))


def bench(
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    as_json: Json = False,
) -> None:
    """Time networks side by side on this machine: rsup's, the paper's, and the sizes that peers have."""
    from rsup.models.base.progress import show_progress
    from rsup.models.bench.run import bench as run
    from rsup.models.bench.run import table

    with show_progress("bench", "turns") as progress:
        result = run(device, progress)
    typer.echo(json.dumps(result, indent=2) if as_json else table(result))
