"""The commands about networks at hand."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import Json, Settings, print_result


class Format(StrEnum):
    """What `rsup models export` writes."""

    onnx = "onnx"
    torch_export = "torch-export"


def list_models(as_json: Json = False) -> None:
    """The networks at hand."""
    from rsup.models.upscaler import list_models as run

    rows = run()
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    uses = {}
    for row in rows:
        scales = "x" + "/x".join(str(scale) for scale in row["scales"])
        family = row.get("family", "")
        if family:
            uses[family] = row["use"]
        default = ", default" if row["default_for"] else ""
        typer.echo(f"{row['name']:24} {scales:8} {row['kind']:14} {row['licence']:11} {family}{default}".rstrip())
    typer.echo()
    for family, use in uses.items():
        typer.echo(f"--model {family:10} {use}")


def show_model(
    model: Annotated[str, typer.Argument(help="A name from `rsup models list`, a weights file, or a recipe (.toml).")],
    overrides: Settings = None,
    as_json: Json = False,
) -> None:
    """One network: parameters, cost, and what its file says of itself; of a recipe, the student it would train."""
    from rsup.models.show import show_model as run

    print_result(run(model, overrides or ()), as_json)


def import_model(
    file: Annotated[Path, typer.Argument(help="A published student: a pickled state dict.")],
    scale: Annotated[int, typer.Option(help="The scale it was trained for: 4 or 8.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The safetensors file to write.")],
    as_json: Json = False,
) -> None:
    """Turn a published SlimDiffSR student into safetensors, exactly."""
    from rsup.models.published import import_published

    print_result(import_published(file, scale, output), as_json)


def export_model(
    model: Annotated[str, typer.Argument(help="A student of `rsup models list`, or a weights file.")],
    to: Annotated[Format, typer.Option(help="What reads it: ONNX's runtimes, or torch.export.load.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The file to write.")],
    as_json: Json = False,
) -> None:
    """Write a student as a graph that runs without rsup, checked against PyTorch."""
    from rsup.models.export import export_model as run

    print_result(run(model, to.value, output), as_json)
