"""What opens a mosaic, as a table: `python tests/benchmarks/readers.py FOLDER`, FOLDER as `rsup upscale -o` made it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    (store,), (item,) = folder.glob("*.zarr"), list(folder.glob("*_x?.json"))
    sys.stdout.write("| reader | opens | what |\n|---|---|---|\n")
    for name, read in readers(str(store), str(item), str(store.with_suffix(".tif"))).items():
        try:
            sys.stdout.write(f"| {name} | yes | {read()} |\n")
        except Exception as error:  # whatever a reader raises is its answer
            sys.stdout.write(f"| {name} | no | {type(error).__name__}: {str(error).splitlines()[0][:100]} |\n")


def readers(store: str, item: str, cog: str) -> dict[str, Callable[[], object]]:
    import odc.stac
    import pystac
    import pystac.extensions.eo
    import rasterio
    import rio_cogeo.cogeo
    import rio_tiler.io
    import titiler.xarray.io
    import xarray as xr
    import zarr
    import zarr_cm

    def conventions() -> list[str]:
        root = zarr.open_group(store, mode="r")
        groups = [root, *(group for _, group in root.groups())]
        return [" ".join(zarr_cm.detect_revisions(zarr_cm.validate_all(dict(group.attrs)))) for group in groups]

    def tiler(group: str | None) -> object:
        with titiler.xarray.io.Reader(store, variable="red", group=group) as reader:
            return reader.preview(max_size=64).array.shape

    def of_gdal(path: str) -> object:
        with rasterio.open(path) as dataset:
            return dataset.read(1).shape, dataset.descriptions

    def of_item() -> object:
        with rio_tiler.io.STACReader(item) as reader:
            return reader.preview(assets=[{"name": "cog", "bands": ["red"]}]).array.shape

    def of_cogeo() -> object:
        valid, errors, warned = rio_cogeo.cogeo.cog_validate(cog)
        if not valid:
            raise ValueError(", ".join(errors))
        return "valid", warned

    def of_gdalinfo() -> object:
        done = subprocess.run(["gdalinfo", "-json", cog], check=True, capture_output=True, timeout=60)
        return [(band["description"], band["colorInterpretation"]) for band in json.loads(done.stdout)["bands"]]

    def of_pystac() -> object:
        asset = pystac.Item.from_file(item).assets["cog"]
        return [band.name for band in pystac.extensions.eo.EOExtension.ext(asset).bands or ()]

    def drawn() -> object:
        script = Path(__file__).parents[1] / "readers" / "qgis_render.py"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        asked = ["/usr/bin/python3", script, cog, os.devnull]
        environment["QT_QPA_PLATFORM"] = "offscreen"
        done = subprocess.run(asked, env=environment, check=True, capture_output=True, text=True, timeout=120)
        said = json.loads(done.stdout.splitlines()[-1])
        return said["names"], "drawn as", said["bands"]

    def loaded() -> object:
        return dict(odc.stac.load([pystac.Item.from_file(item)], bands=["red"]).sizes)

    return {
        "xarray.open_dataset": lambda: dict(xr.open_dataset(store, engine="zarr").sizes),
        "xarray.open_datatree": lambda: xr.open_datatree(store, engine="zarr").groups,
        "rioxarray, root": lambda: xr.open_dataset(store, engine="zarr", decode_coords="all").rio.resolution(),
        "rioxarray, group 2": lambda: xr.open_dataset(
            store, engine="zarr", group="2", decode_coords="all"
        ).rio.resolution(),
        "zarr-cm": conventions,
        "titiler-xarray, root": lambda: tiler(None),
        "titiler-xarray, group 2": lambda: tiler("2"),
        f"GDAL {rasterio.__gdal_version__}, Zarr": lambda: of_gdal(f'ZARR:"{store}":/red'),
        f"GDAL {rasterio.__gdal_version__}, COG": lambda: of_gdal(cog),
        "gdalinfo, COG": of_gdalinfo,
        "rio-cogeo, COG": of_cogeo,
        "QGIS, COG": drawn,
        "pystac": of_pystac,
        "odc-stac": loaded,
        "rio-tiler, item": of_item,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]))
