"""What the page is told of a mosaic, and the 10 m side of its map.

In: a mosaic's files, and its scene where that is at hand. Out: a description for the page, and raw tiles of 10 m
pixels: the scene's own numbers, else the mosaic's block means; coarser ones are means of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from rsup.models.base.errors import SceneError
from rsup.models.base.intervals import MEANING
from rsup.models.base.radiometry import ADD_OFFSET, SCALE_FACTOR
from rsup.models.sensors import sensor_of_items
from rsup.pipeline.lattice import Window, window_of
from rsup.pipeline.mosaics.pictures import Stretch, averaged, ground
from rsup.pipeline.scenes.opening import open_scene
from rsup.pipeline.scenes.scene import Scene

from .find import Found

SIDE = 256
"""Pixels along a tile of the 10 m side."""
GLANCE = 1024
"""Longest side, in pixels, of what a stretch is taken from."""
AT_ONCE = BoundedSemaphore(2)
"""Tiles of the 10 m side that are made at once: a coarse one is made of much."""


@dataclass(frozen=True)
class Mosaic:
    """A mosaic, opened once, and its scene."""

    found: Found
    crs: str
    window: Window
    """In pixels of the scene."""
    bands: tuple[str, ...]
    scene: Scene | None
    """None where it is not at hand."""

    @classmethod
    def open(cls, found: Found, asked: Scene | None = None) -> Mosaic:
        """Open it; `asked` is the scene that the user names, which must be its own.

        Raises SceneError for a COG that is none of upscale's, and for a scene that does not cover it.
        """
        scale = found.item.properties.scale
        try:
            with rasterio.open(found.cog, driver="GTiff") as cog:
                crs = f"EPSG:{code}" if (code := cog.crs.to_epsg()) else cog.crs.to_wkt()
                shape = (cog.height // scale, cog.width // scale)
                fine = cog.transform
                coarse = Affine(fine.a * scale, fine.b * scale, fine.c, fine.d * scale, fine.e * scale, fine.f)
                window = window_of(coarse, shape)
                whole = (window.height * scale, window.width * scale) == cog.shape
                if not whole or set(cog.dtypes) != {"uint16"} or None in cog.descriptions:
                    raise ValueError("not the numbers that upscale writes")
                bands = tuple(map(str, cog.descriptions))
        except (RasterioError, ValueError, AttributeError) as error:
            raise SceneError(f"{found.cog} cannot be read as a mosaic ({error}): make it again") from error
        mosaic = cls(found, crs, window, bands, asked)
        if asked is not None and (wrong := mosaic._differs(asked)):
            raise SceneError(f"{asked.path} is not the scene of {found.item.id}: {wrong}")
        return mosaic if asked is not None else replace(mosaic, scene=mosaic._at_hand())

    def _differs(self, scene: Scene) -> str | None:
        """Why a scene cannot be the one that the mosaic was made of; None where it can."""
        if scene.crs != self.crs or scene.window.gsd != self.window.gsd:
            return "its grid is another one"
        if scene.window.intersect(self.window) != self.window:
            return "it does not cover the mosaic"
        missing = [band for band in self.bands if band not in scene.bands]
        return f"it has no band {', '.join(missing)}" if missing else None

    def _at_hand(self) -> Scene | None:
        """The scene by its name, in the mosaic's folder or beside it, where it was made of the very items."""
        name = f"{self.found.item.id.removesuffix(f'_x{self.found.item.properties.scale}')}.zarr"
        for folder in (self.found.folder, self.found.folder.resolve().parent):
            path = folder / name
            if not path.is_dir() or path.is_symlink():
                continue
            try:
                scene = open_scene(path)
            except SceneError:
                continue
            ids = {item.get("id") for item in scene.attributes["items"]} - {None}
            if ids == set(self.found.item.properties.sources) and self._differs(scene) is None:
                return scene
        return None

    @property
    def factors(self) -> list[int]:
        """How many scene pixels a pixel of the 10 m side's levels is wide, the coarsest first, 1 last."""
        factors = [1]
        while max(self.window.height, self.window.width) > SIDE * factors[-1]:
            factors.append(2 * factors[-1])
        return factors[::-1]

    def describe(self, base: str) -> dict[str, Any]:
        """For the page, whose requests for this mosaic begin with `base`."""
        said, gsd = self.found.item.properties, self.window.gsd / self.found.item.properties.scale
        west, south, east, north = self.window.bounds
        when = _days(said.start or said.moment, said.end or said.moment)
        uncertainty = self.found.uncertainty
        finer = f"{self.window.gsd} m to {gsd:g} m with {said.model}"
        return {
            "name": self.found.item.id,
            "summary": f"{ground(self.window)}, {finer}{when}, {self.crs[:40]}",
            "attribution": said.attribution or sensor_of_items([]).attribution,
            "crs": self.crs if len(self.crs) < 40 else "the mosaic's",
            "bounds": [west, south, east, north],
            "gsd": gsd,
            "bands": list(self.bands),
            "stretch": _ranges(self.found.cog, SCALE_FACTOR, ADD_OFFSET),
            "cog": f"{base}/mosaic.tif",
            "coarse": {
                "url": f"{base}/coarse",
                "gsd": self.window.gsd,
                "side": SIDE,
                "factors": self.factors,
                "label": "scene" if self.scene is not None else "mosaic's means",
                "meaning": self._meaning(),
            },
            "uncertainty": uncertainty
            and {
                "cog": f"{base}/uncertainty.tif",
                "stretch": _ranges(uncertainty, SCALE_FACTOR, 0.0),
                "meaning": f"how far the mosaic may be off, \u00b1, in reflectance: {MEANING}",
            },
        }

    def _meaning(self) -> str:
        if self.scene is not None:
            return f"the pixels of the scene, {self.scene.path.name}."
        return (
            f"the mosaic's own means over the scene's pixels of {self.window.gsd} m, for the scene is not at hand "
            "(rsup view --scene). They are what it was held to, but for the sensor's blur and noise."
        )

    def tile(self, factor: int, row: int, col: int) -> NDArray[np.uint16]:
        """Stored numbers [band, SIDE, SIDE] of the 10 m side; 0 where there is nothing.

        Pixels are `factor` scene pixels wide; `row` and `col` count tiles from the mosaic's corner. Raises LookupError
        for a tile that does not exist, SceneError for one that cannot be read.
        """
        span = SIDE * factor
        if factor not in self.factors or row < 0 or col < 0:
            raise LookupError(f"no tile {factor}/{row}/{col}")
        asked = Window(self.window.row + row * span, self.window.col + col * span, span, span, self.window.gsd)
        part = asked.intersect(self.window)
        if part is None:
            raise LookupError(f"no tile {factor}/{row}/{col}")
        with AT_ONCE:
            if self.scene is not None:
                found = averaged(self.scene, self.bands, part, factor)
            else:
                found = self._block_means(part, factor)
        tile = np.zeros((len(self.bands), SIDE, SIDE), np.uint16)
        tile[:, : found.shape[1], : found.shape[2]] = found
        return tile

    def _block_means(self, part: Window, factor: int) -> NDArray[np.uint16]:
        """Means of the mosaic's valid pixels; those at its edge are of what there is of them."""
        scale, (rows, cols) = self.found.item.properties.scale, part.within(self.window)
        found = np.zeros((len(self.bands), -(-part.height // factor), -(-part.width // factor)), np.uint16)
        try:
            with rasterio.open(self.found.cog, driver="GTiff") as cog:
                for top, bottom in _cuts(part.height, factor):
                    for left, right in _cuts(part.width, factor):
                        corner = (cols.start + left) * scale, (rows.start + top) * scale
                        window = RasterWindow(*corner, (right - left) * scale, (bottom - top) * scale)
                        place = slice(top // factor, -(-bottom // factor)), slice(left // factor, -(-right // factor))
                        shape = found[(slice(None), *place)].shape
                        found[(slice(None), *place)] = cog.read(
                            window=window, out_shape=shape, resampling=Resampling.average
                        )
        except RasterioError as error:
            raise SceneError(f"{self.found.cog} cannot be read ({error}): make it again") from error
        return found


def _cuts(length: int, factor: int) -> list[tuple[int, int]]:
    """Where whole multiples of `factor` end, and what is left behind them."""
    whole = length - length % factor
    return [(start, stop) for start, stop in ((0, whole), (whole, length)) if stop > start]


def _ranges(cog: Path, factor: float, offset: float) -> list[Sequence[float]]:
    """Where the shades of each band begin and end, as reflectance: those of the static page, of an overview."""
    with rasterio.open(cog, driver="GTiff") as image:
        coarser = max(1.0, max(image.shape) / GLANCE)
        shape = tuple(max(1, round(side / coarser)) for side in image.shape)
        stretch = Stretch.of(image.read(out_shape=(image.count, *shape), resampling=Resampling.average))
    ends = zip(stretch.low, stretch.high, strict=True)
    return [[round(end * factor + offset, 5) for end in pair] for pair in ends]


def _days(first: str | None, last: str | None) -> str:
    days = sorted({moment[:10] for moment in (first, last) if moment})
    return f", {' to '.join(days)}" if days else ""
