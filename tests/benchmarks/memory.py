"""Peak memory of fetch and upscale on 1,024 px and 4,096 px squares; run by hand: `python tests/benchmarks/memory.py`.

Prints the peak resident memory of each command's whole process tree and the ratio of the two sizes.
"""

import dataclasses
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
import rasterio.shutil
from processes import cost
from rasterio.windows import Window as RasterWindow

from rsup.pipeline.lattice import Window
from rsup.pipeline.sources.footprint import box_of

CRS = "EPSG:32633"
CORNER = Window(-500_200, 40_000, 1, 1)
BANDS = ("red", "green", "blue")


def main() -> None:
    """Measure both commands at both sizes."""
    with tempfile.TemporaryDirectory() as folder:
        requests = {size: make_catalog(Path(folder) / f"catalog{size}", size) for size in (1024, 4096)}
        scenes = {size: Path(folder) / f"scene{size}.zarr" for size in requests}
        compare("fetch", {size: ("fetch", *requests[size], "-o", scenes[size]) for size in requests})
        for scale in (4, 8):
            options = ("--scale", scale, "--model", "nearest", "--device", "cpu", "-o", folder)
            compare(f"upscale x{scale}", {size: ("upscale", scenes[size], *options) for size in requests})


def compare(name: str, commands: dict[int, tuple[object, ...]]) -> None:
    """Print the peak of a command at both sizes, and the ratio."""
    cli = (sys.executable, "-m", "rsup.pipeline.cli")
    small, large = (cost([*cli, *arguments]).memory for arguments in commands.values())
    sys.stdout.write(f"{name:12} {small:7.0f} MB  {large:7.0f} MB  ratio {large / small:.3f}\n")
    sys.stdout.flush()


def make_catalog(root: Path, size: int) -> tuple[object, ...]:
    """A static catalogue of one item, COGs of fields and noise; the options that fetch `size` pixels square of it."""
    wanted = Window(CORNER.row, CORNER.col, size, size)
    window = wanted.grow(300)
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    block = (1500 + 400 * rng.random((512, 512)) + 300 * (np.arange(512) // 37 % 2)).astype(np.uint16)
    profile = {
        "driver": "GTiff", "dtype": "uint16", "count": 1, "height": window.height, "width": window.width,
        "crs": CRS, "transform": window.transform(), "nodata": 0, "tiled": True, "blockxsize": 512, "blockysize": 512,
    }  # fmt: skip
    for band in BANDS:
        plain = root / "plain.tif"
        with rasterio.open(plain, "w", **profile) as target:
            for row in range(0, window.height, 512):
                for col in range(0, window.width, 512):
                    height, width = min(512, window.height - row), min(512, window.width - col)
                    target.write(block[:height, :width], 1, window=RasterWindow(col, row, width, height))
        rasterio.shutil.copy(plain, root / f"{band}.tif", driver="COG", compress="DEFLATE", blocksize=512)
        plain.unlink()
    west, south, east, north = dataclasses.astuple(box_of(window, CRS))
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "made", "collection": "sentinel-2-l2a", "links": [],
        "bbox": [west, south, east, north], "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "datetime": "2024-06-15T10:00:00Z", "eo:cloud_cover": 1.0, "s2:processing_baseline": "05.10",
            "grid:code": "MGRS-33UUU", "s2:datatake_id": "GS2A_20240615T100000_000001_N05.10",
        },
        "assets": {band: {"href": f"./{band}.tif", "type": "image/tiff; application=geotiff"} for band in BANDS},
    }  # fmt: skip
    (root / "made.json").write_text(json.dumps(item))
    catalog = {
        "type": "Catalog", "stac_version": "1.0.0", "id": "made", "description": "made",
        "links": [{"rel": "item", "href": "./made.json"}],
    }  # fmt: skip
    path = root / "catalog.json"
    path.write_text(json.dumps(catalog))
    bbox = ",".join(map(str, dataclasses.astuple(box_of(wanted.grow(-2), CRS))))
    return "--bbox", bbox, "--date", "2024-06", "--catalog", path, "--crs", CRS


if __name__ == "__main__":
    main()
