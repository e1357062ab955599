"""The commands: each resolves its options, calls one function and prints what that returns.

Nothing heavy is imported here: `rsup --help` answers before torch or xarray could load.
"""

from __future__ import annotations

import json
import os
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from .errors import ArgumentError
from .public import printable

app = typer.Typer(
    name="rsup",
    help="Super-resolved, georeferenced mosaics from Sentinel-2 archives.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="List, show and import networks.", no_args_is_help=True)
app.add_typer(models_app, name="models")

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and touch nothing.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output of an earlier run, starting afresh.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe; repeatable.")
]


class Role(StrEnum):
    """What `rsup train` trains."""

    teacher = "teacher"
    student = "student"


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


@app.command()
def fetch(
    bbox: Annotated[str, typer.Option(metavar="W,S,E,N", help="Degrees; west > east crosses the antimeridian.")],
    date: Annotated[str, typer.Option(metavar="DATE[/DATE]", help="2024-06-01, 2024-06, or a range with a slash.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The scene store to write.")] = Path("scene.zarr"),
    catalog: Annotated[
        str,
        typer.Option(envvar="RSUP_CATALOG", help="earth-search, planetary-computer, or a STAC URL or file."),
    ] = "earth-search",
    collection: Annotated[str, typer.Option(help="STAC collection.")] = "sentinel-2-l2a",
    max_cloud: Annotated[float, typer.Option(min=0, max=100, help="Most cloud an item may have, in percent.")] = 20,
    bands: Annotated[str, typer.Option(help="Bands by common name, separated by commas.")] = "red,green,blue",
    composite: Annotated[str, typer.Option(help="first (least cloud wins) or median.")] = "first",
    mask_clouds: Annotated[bool, typer.Option("--mask-clouds", help="Drop cloud and shadow pixels by SCL.")] = False,
    crs: Annotated[str | None, typer.Option(help="Output UTM zone, as EPSG:32633; default: the bbox centre's.")] = None,
    offset: Annotated[str, typer.Option(help="auto, or 0 or -1000 to overrule each item's evidence.")] = "auto",
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Search a STAC catalogue and write one analysis-ready scene store."""
    from .jobs.fetch import FetchRequest
    from .jobs.upscale import fetch as run

    request = FetchRequest(
        bbox=_numbers("--bbox", bbox),
        date=date,
        output=output,
        catalog=catalog,
        collection=collection,
        max_cloud=max_cloud,
        bands=_names(bands),
        composite=composite,
        mask_clouds=mask_clouds,
        crs=crs,
        offset=offset,
        overwrite=overwrite,
    )
    _report(run(request, dry_run=dry_run), as_json)


@app.command()
def upscale(
    scene: Annotated[
        Path,
        # Whether it can be read is for open_scene to say, in the words and with the code of scenes.
        typer.Argument(help="A scene store (Zarr) or a GeoTIFF that keeps its contract.", readable=False),
    ],
    scale: Annotated[int, typer.Option(help="4 (2.5 m) or 8 (1.25 m).")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the mosaic.")] = Path(),
    model: Annotated[str, typer.Option(help="A name from `rsup models list`, or a weights file.")] = "default",
    bands: Annotated[str, typer.Option(help="Bands to upscale, separated by commas.")] = "red,green,blue",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda (every card) or cuda:N.")] = "auto",
    workers: Annotated[
        int | None, typer.Option(help="Worker processes; default: one a card, or one CPU worker.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="URL", help="Use the Dask cluster behind this scheduler.")
    ] = None,
    tls_ca: Annotated[
        Path | None, typer.Option(help="For tls:// schedulers, in PEM: whom both sides trust.", readable=False)
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="This side's certificate, perhaps with its key.", readable=False)
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="This side's key.", readable=False)] = None,
    chunk: Annotated[int, typer.Option(help="Side of a mosaic chunk, in scene pixels.")] = 512,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Super-resolve a scene into a mosaic: Zarr, COG, STAC item and a before/after page."""
    from .jobs.upscale import upscale as run
    from .jobs.upscale_plan import UpscaleRequest

    request = UpscaleRequest(
        scene=scene,
        scale=scale,
        output=output,
        model=model,
        bands=_names(bands),
        device=device,
        workers=workers,
        scheduler=scheduler,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        chunk=chunk,
        overwrite=overwrite,
    )
    _report(run(request, dry_run=dry_run), as_json)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for everything the demo makes.")] = Path(
        "demo"
    ),
    scale: Annotated[int, typer.Option(help="4 or 8.")] = 8,
    size: Annotated[int, typer.Option(help="Side of the ground, in 10 m pixels.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed of the made landscape.")] = 0,
    as_json: Json = False,
) -> None:
    """Make a landscape with a known truth, serve it as a STAC catalogue, fetch and upscale it, and compare."""
    from .demo.run import run_demo

    _report(run_demo(output, scale=scale, size=size, seed=seed), as_json)


@app.command()
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
    from rsup.models.base.progress import progress, say
    from rsup.models.train import TrainRequest
    from rsup.models.train import train as run

    request = TrainRequest(role.value, recipe, data, output, tuple(settings or ()), resume)
    with progress(f"train {role.value}", "steps") as report:
        result = run(request, report)
    if os.environ.get("RANK", "0") != "0":
        return  # torchrun starts this command once a process; they would all say the same
    _report(result, as_json)
    if result["stopped"]:
        say(f"stopped at step {result['steps']} of {result['of']}: go on with --resume")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="A name from `rsup models list`, or a weights file.")],
    data: Annotated[
        # Whether it can be read is for the data to say, in its own words.
        Path,
        typer.Option(help="Folder of sharp images, or a Zarr store.", readable=False),
    ],
    scale: Annotated[int, typer.Option(help="4 or 8.")],
    degradation: Annotated[str, typer.Option(help="How the images are degraded: published or sentinel2.")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for a page of crops.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Measure every image, not the validation split alone.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Most images.")] = None,
    gsd: Annotated[
        float | None, typer.Option(help="Average finer images to this many metres; default: pixels as they are.")
    ] = None,
    white: Annotated[
        float | None, typer.Option(help="The number that counts as white; needed for images of more than 8 bits.")
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(help="Three bands to give the network, separated by commas; default: what it was made for."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    niqe_parameters: Annotated[
        Path | None,
        typer.Option(envvar="RSUP_NIQE_PARAMETERS", help="NIQE's pristine model (npz).", readable=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure a network on images whose truth is known, beside bicubic interpolation."""
    if degradation not in ("published", "sentinel2"):
        raise ArgumentError(f"--degradation {degradation}: give published or sentinel2")
    for option, number in (("--gsd", gsd), ("--white", white)):
        if number is not None and not number > 0:
            raise ArgumentError(f"{option} {number:g}: give a number above 0")
    channels = _names(bands) if bands is not None else None
    if channels is not None and len(channels) != 3:
        raise ArgumentError(f"--bands {bands}: give three, such as nir,red,green")
    from rsup.models.base.progress import progress
    from rsup.models.evaluate import EvaluateRequest, table
    from rsup.models.evaluate import evaluate as run

    request = EvaluateRequest(
        model=model,
        data=data,
        scale=scale,
        degradation="published" if degradation == "published" else "sentinel2",
        gsd=gsd,
        white=white,
        bands=(channels[0], channels[1], channels[2]) if channels else None,
        every=every,
        limit=limit,
        device=device,
        page=output,
        niqe_parameters=niqe_parameters,
    )
    with progress("evaluate", "images") as report:
        result = run(request, report)
    typer.echo(json.dumps(result, indent=2) if as_json else table(result))


@models_app.command("list")
def list_models(as_json: Json = False) -> None:
    """The networks at hand."""
    from rsup.models.upscaler import list_models as run

    rows = run()
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        scales = "x" + "/x".join(str(scale) for scale in row["scales"])
        default = "  default" if row["default_for"] else ""
        typer.echo(f"{row['name']:24} {scales:8} {row['kind']:14} {row['licence']}{default}")


@models_app.command("show")
def show_model(
    model: Annotated[str, typer.Argument(help="A name from `rsup models list`, a weights file, or a recipe (.toml).")],
    overrides: Settings = None,
    as_json: Json = False,
) -> None:
    """One network: parameters, cost, and what its file says of itself; of a recipe, the student it would train."""
    from rsup.models.upscaler import show_model as run

    _report(run(model, overrides or ()), as_json)


@models_app.command("import")
def import_model(
    file: Annotated[Path, typer.Argument(help="A published student: a pickled state dict.")],
    scale: Annotated[int, typer.Option(help="The scale it was trained for: 4 or 8.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The safetensors file to write.")],
    as_json: Json = False,
) -> None:
    """Turn a published SlimDiffSR student into safetensors, exactly."""
    from rsup.models.upscaler import import_published

    _report(import_published(file, scale, output), as_json)


def _numbers(option: str, text: str) -> tuple[float, float, float, float]:
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise ArgumentError(f"{option} {text!r}: give four numbers, west,south,east,north") from None
    return west, south, east, north


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _report(result: dict[str, Any], as_json: bool) -> None:
    """Print a result: JSON for machines, `key: value` lines for people."""
    if as_json:
        typer.echo(json.dumps(result, indent=2, default=str))
        return
    for key, value in result.items():
        if isinstance(value, dict):
            text = printable(", ".join(f"{name} {part}" for name, part in value.items()))
        elif isinstance(value, (list, tuple)):
            lines = ["  ".join(map(str, part.values())) if isinstance(part, dict) else str(part) for part in value]
            lines = [printable(line) for line in lines]  # ids and names of files are others' words
            text = ", ".join(lines) if sum(map(len, lines)) < 80 else "".join(f"\n  {line}" for line in lines)
        else:
            text = printable(str(value))
        typer.echo(f"{key.replace('_', ' ')}: {text}")
