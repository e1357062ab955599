"""Mosaic against truth: a mosaic's COG and the landscape's in, PSNR of each band out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window as RasterWindow
from rasterio.windows import from_bounds

from rsup.models.base.errors import SceneError
from rsup.models.base.radiometry import NODATA, SCALE_FACTOR
from rsup.pipeline.mosaics import quality

DATA_RANGE = 1.0
"""Peak of the PSNR, in reflectance: that of a perfect white surface."""

_ROWS = 512  # rows of the mosaic in memory at once


def psnr(mosaic: Path, truth: Path) -> dict[str, float]:
    """PSNR (dB, peak DATA_RANGE of reflectance) of each band that both COGs name, over the mosaic's valid pixels.

    Where the mosaic is coarser the truth is averaged over its pixels. Raises SceneError where they do not lie on one
    grid, share no ground or no band.
    """
    with rasterio.open(mosaic, driver="GTiff") as image, rasterio.open(truth, driver="GTiff") as reference:
        ratio = round(image.res[0] / reference.res[0])
        west, south = max(image.bounds.left, reference.bounds.left), max(image.bounds.bottom, reference.bounds.bottom)
        east, north = min(image.bounds.right, reference.bounds.right), min(image.bounds.top, reference.bounds.top)
        bands = [band for band in image.descriptions if band in reference.descriptions]
        if image.crs != reference.crs or west >= east or south >= north or not bands:
            raise SceneError(
                f"{mosaic} and {truth} cannot be compared: another CRS, no common ground or no common band"
            )
        ours = from_bounds(west, south, east, north, image.transform).round_offsets().round_lengths()
        theirs = from_bounds(west, south, east, north, reference.transform).round_offsets().round_lengths()
        result = {}
        for band in bands:
            squares, count = 0.0, 0
            for row in range(0, int(ours.height), _ROWS):
                rows = min(_ROWS, int(ours.height) - row)
                part = RasterWindow(ours.col_off, ours.row_off + row, ours.width, rows)
                whole = RasterWindow(theirs.col_off, theirs.row_off + row * ratio, theirs.width, rows * ratio)
                seen = image.read(image.descriptions.index(band) + 1, window=part)
                known = reference.read(reference.descriptions.index(band) + 1, window=whole)
                means = quality.block_means(known[None], ratio)[0]
                difference = (seen - means)[seen != NODATA] * SCALE_FACTOR
                squares += float(np.square(difference).sum())
                count += difference.size
            result[band] = quality.psnr(squares, count, DATA_RANGE)
    return result
