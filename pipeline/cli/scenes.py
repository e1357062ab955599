"""The commands that make scenes and mosaics: options in, one function called, its result printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rsup.models.sensors import DEFAULT

from .options import DryRun, Json, Overwrite, asked, names, numbers, print_result


def fetch(
    bbox: Annotated[str, typer.Option(metavar="W,S,E,N", help="Degrees; west > east crosses the antimeridian.")],
    date: Annotated[str, typer.Option(metavar="DATE[/DATE]", help="2024-06-01, 2024-06, or a range with a slash.")],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="PATH", help="The scene store to write, here or on s3://.")
    ] = "scene.zarr",
    catalog: Annotated[
        str,
        typer.Option(envvar="RSUP_CATALOG", help="earth-search, planetary-computer, or a STAC URL or file."),
    ] = "earth-search",
    collection: Annotated[str, typer.Option(help="STAC collection.")] = DEFAULT.collections[0],
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
    from rsup.pipeline.jobs.storing import fetch as run
    from rsup.pipeline.places.place import place_of
    from rsup.pipeline.sources.request import FetchRequest

    request = FetchRequest(
        bbox=numbers("--bbox", bbox),
        date=date,
        output=Path(),
        catalog=catalog,
        collection=collection,
        max_cloud=max_cloud,
        bands=names(bands),
        composite=composite,
        mask_clouds=mask_clouds,
        crs=crs,
        offset=offset,
        overwrite=overwrite,
    )
    print_result(run(request, place_of(output), dry_run=dry_run), as_json)


def upscale(
    scene: Annotated[
        str,
        # Whether it can be read is for open_scene to say, in the words and with the code of scenes.
        typer.Argument(metavar="SCENE", help="A scene store (Zarr) or a GeoTIFF; here, on s3:// or https://."),
    ],
    scale: Annotated[int, typer.Option(help="4 (2.5 m) or 8 (1.25 m).")],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="PATH", help="Folder for the mosaic, or a prefix on s3://.")
    ] = ".",
    model: Annotated[str, typer.Option(help="A name from `rsup models list`, or a weights file.")] = "default",
    bands: Annotated[
        str | None, typer.Option(help="Bands to upscale, separated by commas; default: all that were seen at 10 m.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda (every card) or cuda:N.")] = "auto",
    workers: Annotated[
        int | None, typer.Option(help="Worker processes; default: one a card, or one CPU worker.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="URL", help="Use the Dask cluster behind this scheduler.")
    ] = None,
    cluster: Annotated[
        str | None, typer.Option(metavar="slurm", help="Start the workers as jobs of Slurm, --workers of them.")
    ] = None,
    tls_ca: Annotated[
        Path | None, typer.Option(help="For tls:// schedulers, in PEM: whom both sides trust.", readable=False)
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="This side's certificate, perhaps with its key.", readable=False)
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="This side's key.", readable=False)] = None,
    consistency: Annotated[
        str, typer.Option(help="What holds the mosaic to its scene: the sensor's response, or block means (mean).")
    ] = "sensor",
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Write the standard deviation of the mosaic's error beside it.")
    ] = False,
    chunk: Annotated[int, typer.Option(help="Side of a mosaic chunk, in scene pixels.")] = 512,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Super-resolve a scene into a mosaic: Zarr, COG, STAC item and a before/after page."""
    from rsup.pipeline.jobs.storing import upscale as run
    from rsup.pipeline.jobs.upscale_plan import UpscaleRequest
    from rsup.pipeline.places.place import place_of
    from rsup.pipeline.places.web import scene_place

    request = UpscaleRequest(
        scene=scene_place(scene),
        scale=scale,
        model=model,
        bands=() if bands is None else asked("--bands", bands),
        device=device,
        workers=workers,
        scheduler=scheduler,
        cluster=cluster,
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        consistency=consistency,
        uncertainty=uncertainty,
        chunk=chunk,
        overwrite=overwrite,
    )
    print_result(run(request, place_of(output), dry_run=dry_run), as_json)


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
    from rsup.pipeline.demo.run import run_demo

    print_result(run_demo(output, scale=scale, size=size, seed=seed), as_json)
