"""Products of others made from arrays: Theia's level 2A and HLS S30, real GeoTIFFs under the makers' names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from safes import COARSE, GROUND, NUMBERS

THEIA = "SENTINEL2A_20170706-090107-511_L2A_T33TWL_C_V1-0"
HLS = "HLS.S30.T33TWL.2017187T090107.v2.0"


def write_tiff(path: Path, data: NDArray[Any], gsd: int, nodata: int | None = None, **profile: Any) -> Path:
    """[y, x] on the ground of GROUND, in pixels of `gsd` metres."""
    path.parent.mkdir(parents=True, exist_ok=True)
    west, _, _, north = GROUND.bounds
    settings: dict[str, Any] = {"driver": "GTiff", "count": 1, "dtype": data.dtype, "crs": "EPSG:32633"}
    settings |= {"height": data.shape[0], "width": data.shape[1], "nodata": nodata}
    settings |= {"transform": rasterio.Affine(gsd, 0, west, 0, -gsd, north)}
    with rasterio.open(path, "w", **settings | profile) as sink:
        sink.write(data, 1)
    return path


def reflectances(gsd: int, nodata: int, seed: int) -> NDArray[np.int16]:
    """Numbers of 1/10000 on GROUND, dark and negative ones among them; nodata in a corner."""
    shape = (GROUND.height * 10 // gsd, GROUND.width * 10 // gsd)
    made = np.random.default_rng(seed).integers(-300, 6000, shape, dtype=np.int16)
    made[: 160 // gsd, : 160 // gsd] = nodata
    return made


def write_theia(
    folder: Path, bands: tuple[str, ...], flags: NDArray[np.uint8], quantification: str = "10000"
) -> tuple[Path, dict[str, NDArray[np.int16]]]:
    """A product in `folder`, with MG2 of `flags`; its folder, and its numbers by band."""
    root, made = folder / THEIA, {}
    for seed, band in enumerate(bands):
        gsd, number = 20 if band in COARSE else 10, NUMBERS[band].replace("B0", "B")
        made[band] = reflectances(gsd, -10_000, seed)
        write_tiff(root / f"{THEIA}_FRE_{number}.tif", made[band], gsd)
    write_tiff(root / "MASKS" / f"{THEIA}_MG2_R1.tif", flags, 10)
    (root / f"{THEIA}_MTD_ALL.xml").write_text(
        "<Muscate_Metadata_Document><Radiometric_Informations><REFLECTANCE_QUANTIFICATION_VALUE>"
        f"{quantification}</REFLECTANCE_QUANTIFICATION_VALUE></Radiometric_Informations></Muscate_Metadata_Document>"
    )
    return root, made


def write_hls(
    folder: Path, bands: tuple[str, ...], fmask: NDArray[np.uint8]
) -> tuple[Path, dict[str, NDArray[np.int16]]]:
    """A product in `folder`, as it is downloaded: without a folder of its own; its numbers by band."""
    made = {}
    for seed, band in enumerate(bands):
        made[band] = reflectances(30, -9999, seed)
        write_tiff(folder / f"{HLS}.{NUMBERS[band]}.tif", made[band], 30, -9999)
    write_tiff(folder / f"{HLS}.Fmask.tif", fmask, 30, 255)
    return folder, made
