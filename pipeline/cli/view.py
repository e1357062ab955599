"""The command that shows mosaics: options in, one function called, which serves until it is told to stop."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rsup.models.base.errors import ArgumentError

from .options import Json, print_result


def view(
    mosaic: Annotated[
        # Whether it can be read is for the search to say, in its own words.
        str,
        typer.Argument(metavar="MOSAIC", help="A folder of upscale's outputs, a file in it, or an archive's folder."),
    ],
    scene: Annotated[
        str | None, typer.Option(metavar="PATH", help="The scene it was made of; default: found by its name beside it.")
    ] = None,
    port: Annotated[int, typer.Option(help="Of 127.0.0.1; 0 takes any that is free.")] = 0,
    as_json: Json = False,
) -> None:
    """Show mosaics in a browser on this machine alone: before and after behind a slider, bands, stretch, numbers."""
    from rsup.pipeline.view.serve import view as run

    for name in (mosaic, scene):
        if name is not None and "://" in name:
            raise ArgumentError("view shows what lies on this machine: copy the mosaic here, and give its folder")

    def announce(told: dict[str, Any]) -> None:
        print_result(told, as_json)
        sys.stdout.flush()

    run(Path(mosaic), None if scene is None else Path(scene), port, announce)
