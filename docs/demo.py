"""Make docs/demo.jpg again: the demonstration's ground at 10 m, by bicubic, by the shipped students, and in truth.

`python docs/demo.py [FOLDER]` first runs `rsup demo` at both scales in FOLDER (demo-picture).
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import rioxarray
import xarray as xr
from PIL import Image, ImageDraw

GROUND = 240
"""Metres across a panel."""
SIDE = 384
"""Pixels across a panel, two for each of the finest."""
WHITE = 0.3
"""Reflectance shown as white."""
BANDS = ("red", "green", "blue")


def main(folder: Path) -> None:
    """Run both demonstrations and write the row of panels."""
    for scale in (4, 8):
        command = ["demo", "--scale", str(scale), "--output", str(folder / f"x{scale}")]
        subprocess.run([sys.executable, "-m", "rsup.pipeline.cli", *command], check=True)
    four, eight = folder / "x4", folder / "x8"
    scene = xr.open_dataset(eight / "scene.zarr", engine="zarr", decode_coords="all")
    stored = scene[list(BANDS)].to_dataarray("band")
    images = {
        "scene, 10 m": stored,
        "bicubic, 1.25 m": cog(eight / "bicubic"),
        "x4, 2.5 m": cog(four / "mosaic"),
        "x8, 1.25 m": cog(eight / "mosaic"),
        "truth, 1.25 m": cog(eight / "archive", "truth.tif"),
    }
    x, y = (float(np.median(images["x8, 1.25 m"][axis])) // 10 * 10 for axis in ("x", "y"))
    row = Image.new("RGB", (len(images) * (SIDE + 6) - 6, SIDE + 18), "white")
    for place, (title, image) in enumerate(images.items()):
        across = image.sel(x=slice(x - GROUND / 2, x + GROUND / 2), y=slice(y + GROUND / 2, y - GROUND / 2))
        shown = (across.transpose("y", "x", "band").values / WHITE).clip(0, 1) ** 0.5
        panel = Image.fromarray((shown * 255).round().astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.NEAREST)
        row.paste(panel, (place * (SIDE + 6), 18))
        ImageDraw.Draw(row).text((place * (SIDE + 6), 2), title, "black")
    row.save(Path(__file__).with_suffix(".jpg"), quality=88)


def cog(folder: Path, name: str = "*.tif") -> xr.DataArray:
    """Reflectance [band, y, x] of the one file of that name."""
    (path,) = folder.glob(name)
    image = rioxarray.open_rasterio(path, mask_and_scale=True)
    assert isinstance(image, xr.DataArray)
    return image.isel(band=[image.attrs["long_name"].index(band) for band in BANDS])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-picture"))
