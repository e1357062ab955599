"""The commands that make scenes and mosaics: options in, one function called, its result printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rsup.models.base.errors import ArgumentError
from rsup.models.sensors import DEFAULT

from .options import DryRun, Json, Overwrite, asked, names, numbers, print_result


def fetch(
    context: typer.Context,
    products: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PRODUCT]...", help="SAFE products (folder or zip) and EOPF stores, in the place of a catalogue."
        ),
    ] = None,
    bbox: Annotated[
        str | None, typer.Option(metavar="W,S,E,N", help="Degrees; west > east crosses the antimeridian.")
    ] = None,
    date: Annotated[
        str | None,
        typer.Option(metavar="DATE[/DATE]", help="2024-06-01, 2024-06, 2024-06-01T10:00Z, or a range with a slash."),
    ] = None,
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="PATH", help="The scene store to write, here or on s3://.")
    ] = "scene.zarr",
    catalog: Annotated[
        str,
        typer.Option(envvar="RSUP_CATALOG", help="earth-search, planetary-computer, or a STAC URL or file."),
    ] = "earth-search",
    collection: Annotated[str, typer.Option(help="STAC collection.")] = DEFAULT.collections[0],
    max_cloud: Annotated[
        float | None,
        typer.Option(
            min=0, max=100, help="Most cloud an item may have, in percent.", show_default="20; of products, 100"
        ),
    ] = None,
    bands: Annotated[str, typer.Option(help="Bands by common name, separated by commas.")] = "red,green,blue",
    composite: Annotated[str, typer.Option(help="first (least cloud wins) or median.")] = "first",
    mask_clouds: Annotated[bool, typer.Option("--mask-clouds", help="Drop cloud and shadow pixels by SCL.")] = False,
    crs: Annotated[str | None, typer.Option(help="Output UTM zone, as EPSG:32633; default: the bbox centre's.")] = None,
    offset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[ID=]VALUE", help="0 or -1000 to overrule the evidence of one item, or of all; repeatable."
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop where an item lacks something.")] = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Search a STAC catalogue, or take products as they were downloaded, and write one analysis-ready scene store."""
    from rsup.pipeline.memory import importing

    with importing():
        from rsup.pipeline.jobs.product import request_of
        from rsup.pipeline.jobs.storing import fetch as run
        from rsup.pipeline.places.credentials import introduce
        from rsup.pipeline.places.place import place_of
        from rsup.pipeline.sources.request import FetchRequest

    options: dict[str, Any] = {
        "date": date,
        "bands": names(bands),
        "composite": composite,
        "mask_clouds": mask_clouds,
        "crs": crs,
        "offset": ",".join(offset or ["auto"]),
        "strict": strict,
        "overwrite": overwrite,
    }
    box = None if bbox is None else numbers("--bbox", bbox)
    if products:
        for option in ("catalog", "collection"):
            # The environment may name a catalogue for other calls: only what was asked for now is refused.
            source = context.get_parameter_source(option)
            if source is not None and source.name == "COMMANDLINE":
                raise ArgumentError(
                    f"--{option} says where to search, and products are what is found: give one of them"
                )
        for product in products:
            introduce(product)
        request = request_of(products, box, max_cloud=100 if max_cloud is None else max_cloud, **options)
    elif box is None or date is None:
        raise ArgumentError("fetch needs --bbox and --date for what to search a catalogue for, or names of products")
    else:
        cloud = 20 if max_cloud is None else max_cloud
        request = FetchRequest(
            bbox=box, output=Path(), catalog=catalog, collection=collection, max_cloud=cloud, **options
        )
    print_result(run(request, place_of(output), dry_run=dry_run), as_json)


def upscale(
    context: typer.Context,
    scene: Annotated[
        str,
        # Whether it can be read is for open_scene to say, in the words and with the code of scenes.
        typer.Argument(
            metavar="SCENE",
            help="A scene store (Zarr), a GeoTIFF, or a product (SAFE, EOPF); here, on s3:// or https://.",
        ),
    ],
    scale: Annotated[int, typer.Option(help="4 (2.5 m) or 8 (1.25 m).")],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="PATH", help="Folder for the mosaic, or a prefix on s3://.")
    ] = ".",
    model: Annotated[str, typer.Option(help="A name from `rsup models list`, or a weights file.")] = "default",
    bands: Annotated[
        str | None, typer.Option(help="Bands to upscale, separated by commas; default: all that were seen at 10 m.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda (every card), cuda:N, onnx or openvino.")] = "auto",
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
        bool, typer.Option("--uncertainty", help="Write beside the mosaic how far it may be off.")
    ] = False,
    input_scale: Annotated[
        float | None, typer.Option(help="Reflectance a number of the scene, where it does not say: 0.0001.")
    ] = None,
    input_offset: Annotated[
        float | None,
        typer.Option(help="Reflectance of its number 0: -0.1 for raw numbers since baseline 04.00, else 0."),
    ] = None,
    input_nodata: Annotated[
        float | None, typer.Option(help="Its number that stands for nothing: 0, -9999; NaN always does.")
    ] = None,
    outputs: Annotated[
        str, typer.Option(help="What to write, separated by commas; the STAC item has one of the model beside it.")
    ] = "zarr,cog,item,page",
    chunk: Annotated[int, typer.Option(help="Side of a mosaic chunk, in scene pixels.")] = 512,
    keep_scene: Annotated[
        bool, typer.Option("--keep-scene", help="Keep the scene that is made of a product, beside the mosaic.")
    ] = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Super-resolve a scene, or a product, into a mosaic: Zarr, COG, STAC item and a before/after page."""
    if scheduler is None and cluster is None and not dry_run:
        from rsup.pipeline.workers.forks.forking import forking

        context.with_resource(forking())  # before the rest is imported here, which takes as long
    from rsup.pipeline.memory import importing

    with importing():
        from rsup.pipeline.jobs.storing import upscale as run
        from rsup.pipeline.jobs.upscale_plan import UpscaleRequest
        from rsup.pipeline.places.credentials import introduce
        from rsup.pipeline.places.place import place_of
        from rsup.pipeline.places.web import scene_place
        from rsup.pipeline.scenes.foreign.numbers import Said
        from rsup.pipeline.sources.products.recognise import is_product

    place = scene_place(scene)
    introduce(scene)
    request = UpscaleRequest(
        scene=place,
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
        outputs=tuple(dict.fromkeys(asked("--outputs", outputs))),
        chunk=chunk,
        overwrite=overwrite,
        said=Said(input_scale, input_offset, input_nodata),
    )
    if is_product(place):
        from rsup.pipeline.jobs.product_upscale import upscale as run_product

        made = run_product(scene, request, place_of(output), keep_scene=keep_scene, dry_run=dry_run)
    elif keep_scene:
        raise ArgumentError(f"--keep-scene: {scene} is a scene already, and stays")
    else:
        made = run(request, place_of(output), dry_run=dry_run)
    print_result(made, as_json)


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
