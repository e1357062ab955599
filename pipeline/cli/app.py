"""The program's commands by their names.

Nothing heavy is imported here or beside: `rsup --help` answers before torch or xarray could load.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from rsup.models.sensors import DEFAULT

from .batch import batch_status, plan_batch, retry_batch, run_batch
from .learning import bench, evaluate, train
from .models import export_model, import_model, list_models, show_model
from .scenes import demo, fetch, upscale
from .view import view

app = typer.Typer(
    name="rsup",
    help=f"Super-resolved, georeferenced mosaics from {DEFAULT.title} archives.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="List, show, import and export networks.", no_args_is_help=True)
app.add_typer(models_app, name="models")
batch_app = typer.Typer(help="Archives instead of scenes: an area and dates, cut into units.", no_args_is_help=True)
app.add_typer(batch_app, name="batch")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rsup {version('rsup')}")
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave."),
    ] = False,
) -> None:
    pass


for command in (fetch, upscale, view, demo, train, evaluate, bench):
    app.command()(command)
models_app.command("list")(list_models)
models_app.command("show")(show_model)
models_app.command("import")(import_model)
models_app.command("export")(export_model)
batch_app.command("plan")(plan_batch)
batch_app.command("run")(run_batch)
batch_app.command("status")(batch_status)
batch_app.command("retry")(retry_batch)
