"""How well a finished mosaic keeps to its scene, and what of the scene was no plain number.

In: a scene and the mosaic made of it. Out: the figures of the page: of radiometry over corners of up to 8 chunks,
spread evenly over the mosaic, so that neither time nor memory grows with it; counts over the whole scene, in parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import zarr
from numpy.typing import NDArray
from scipy.ndimage import minimum_filter
from scipy.sparse import csr_array

from rsup.models.base.radiometry import ADD_OFFSET, NODATA, SCALE_FACTOR
from rsup.models.sensors.response import Response
from rsup.pipeline.lattice import Window, chunks
from rsup.pipeline.scenes.scene import Scene

from .quality import block_errors, spectral_angles

CHUNKS = 8
"""Most chunks that are looked at."""
SIDE = 256
"""Side of what is looked at in each, in scene pixels: eight of them have half a million."""
PART = 1024
"""Side of what is counted at once, in pixels."""
FIELD = 32
"""Side of the fields whose means are compared, in scene pixels."""

DN = NDArray[np.uint16]


class Seen(NamedTuple):
    """A band of the mosaic, seen as its sensor sees it; all [y, x] in pixels of the band."""

    left: NDArray[np.float64]
    """What the scene has more than it, DN; NaN where the band sees nodata or what lies beyond."""
    noise: NDArray[np.float64]
    """Standard deviation of the sensor's noise in the scene, DN."""


def measure(scene: Scene, store: Path, responses: Mapping[str, Response], scale: int) -> dict[str, float]:
    """Figures of the mosaic's chunks, see `figures_of`; `responses`: of the mosaic's bands, in their order."""
    root = zarr.open_group(store, mode="r")
    arrays: list[Any] = [root[band] for band in responses]

    def parts() -> Iterator[tuple[DN, DN, Window]]:
        for each in _corners(arrays[0], scale):
            corner = Window(scene.aoi.row + each.row, scene.aoi.col + each.col, each.height, each.width)
            window = corner.intersect(scene.aoi)
            assert window is not None  # the chunk grid is the area's own
            rows, cols = (slice(s.start * scale, s.stop * scale) for s in window.within(scene.aoi))
            yield np.stack([array[rows, cols] for array in arrays]), scene.read(tuple(responses), window), window

    return figures_of(parts(), list(responses.values()), scale)


def _corners(array: zarr.Array[Any], scale: int) -> list[Window]:
    """What is looked at of the chunks that are, in scene pixels from the mosaic's own corner."""
    down, along = array.cdata_shape
    picks = np.unique(np.linspace(0, down * along - 1, min(down * along, CHUNKS)).round().astype(int))
    height, width = (length // scale for length in array.chunks)
    places = (divmod(int(pick), along) for pick in picks)
    return [Window(row * height, col * width, min(height, SIDE), min(width, SIDE)) for row, col in places]


def figures_of(parts: Iterable[tuple[DN, DN, Window]], responses: Sequence[Response], scale: int) -> dict[str, float]:
    """Parts of a mosaic [band, y * scale, x * scale] and of its scene [band, y, x], with their windows -> figures.

    `sensor_rms`: root mean square of scene - A mosaic in standard deviations of the sensor's noise, where A is the
    band's response. `sensor_bias_p99`: 99th percentile of its means over 32 x 32 scene pixels, absolute, DN. `sam_deg`:
    mean angle between the spectra of both, of bands that share a grid. For whoever wants them, the means of blocks
    against the scene's pixels, which no sensor measures: `block_mean_error_mean` and `block_mean_error_p99`, DN. A
    figure that has no valid pixel is left out, and so is the angle of a single band, which is 0 by definition.
    """
    blocks, angles, shares, biases = [], [], [], []
    for sr, lr, window in parts:
        blocks.append(block_errors(sr, lr, scale))
        looks = [seen(*each, scale, window) for each in zip(sr, lr, responses, strict=True)]
        for look, response in zip(looks, responses, strict=True):
            valid = np.isfinite(look.left)
            shares.append((look.left[valid] / look.noise[valid]) ** 2)
            biases.append(_field_means(look.left, response))
        if len(responses) > 1 and all(response.ratio == 1 for response in responses):
            left = np.stack([look.left for look in looks])
            whole = np.isfinite(left).all(0)
            angles.append(spectral_angles(np.where(whole, lr - left, NODATA), np.where(whole, lr, NODATA), 1))
    figures: dict[str, float] = {}
    if (share := np.concatenate(shares)).size:
        figures["sensor_rms"] = float(np.sqrt(share.mean()))
    if (bias := np.concatenate(biases)).size:
        figures["sensor_bias_p99"] = float(np.percentile(np.abs(bias), 99))
    if angles and (angle := np.concatenate(angles)).size:
        figures["sam_deg"] = float(angle.mean())
    if (error := np.concatenate(blocks)).size:
        figures["block_mean_error_mean"] = float(error.mean())
        figures["block_mean_error_p99"] = float(np.percentile(error, 99))
    return figures


def seen(sr: DN, lr: DN, response: Response, scale: int, window: Window) -> Seen:
    """A band of the mosaic `sr` [y * scale, x * scale] against the scene `lr` [y, x], both of `window`."""
    ratio = response.ratio
    # A band's own pixels begin where the lattice's number is a multiple of their size.
    rows, cols = (
        slice(first := -start % ratio, first + (length - first) // ratio * ratio)
        for start, length in ((window.row, window.height), (window.col, window.width))
    )
    lr = lr[rows, cols]
    sr = sr[rows.start * scale : rows.stop * scale, cols.start * scale : cols.stop * scale]
    down, across = (_matrix(response, side, scale) for side in lr.shape)
    made = (across @ (down @ sr.astype(np.float32)).T).T
    scene = lr.astype(np.float64)
    if ratio > 1:
        scene = response.reads(lr.shape[0]) @ scene @ response.reads(lr.shape[1]).T
    whole = minimum_filter(lr, 2 * response.reach + 1, mode="constant", cval=NODATA)[::ratio, ::ratio] != NODATA
    dark, slope = response.noise()
    noise = np.sqrt(dark + slope * np.maximum(scene * SCALE_FACTOR + ADD_OFFSET, 0)) / SCALE_FACTOR
    return Seen(np.where(whole, scene - made, np.nan), noise)


@lru_cache(maxsize=32)
def _matrix(response: Response, pixels: int, scale: int) -> csr_array:
    """The response's matrix; the chunks of a mosaic are of few sizes."""
    return csr_array(response.matrix(pixels, scale))


def _field_means(left: NDArray[np.float64], response: Response) -> NDArray[np.float64]:
    """Means of the fields that are whole, flat; the border, where no pixel is, lies in none."""
    side, border = FIELD // response.ratio, -(-response.reach // response.ratio)
    inner = left[border:, border:]
    height, width = (length // side * side for length in inner.shape)
    fields = inner[:height, :width].reshape(height // side, side, width // side, side).mean((1, 3))
    return np.asarray(fields[np.isfinite(fields)])


def count_pixels(scene: Scene, bands: Sequence[str]) -> dict[str, int]:
    """Pixels of the area asked for that are more than a number, over all of it.

    `dark_pixels`: 0 in one of `bands`, though the scene has the pixel, and taken for the darkest value there is.
    `lost_pixels`: from an item, by the scene's `source`, and without a number in any band of the scene.
    """
    dark = lost = 0
    for _, window in chunks(scene.aoi, PART):
        pixels = scene.examine(bands, window)
        dark += int(pixels.dark.any(axis=0).sum())
        if not pixels.there.all() and (sources := scene.sources(window)) is not None:
            lost += int(((sources > 0) & ~pixels.there).sum())
    return {"dark_pixels": dark, "lost_pixels": lost}
