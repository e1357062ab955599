"""Real Sentinel-2 images: a folder of files in, scenes in the scene's own stored numbers out.

Stored numbers are reflectance * 10000 + 1000. Products before baseline 04.00 (January 2022) carry the reflectance
without the 1000, newer ones with it; an archive that harmonises takes it off again. The files rarely say, hence
`Source.add` and `Source.why`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from scipy.ndimage import binary_erosion

from rsup.models.base.radiometry import ADD_OFFSET, SCALE_FACTOR

BANDS = ("red", "green", "blue", "nir")
OLD = "older than baseline 04.00: no offset"
ALREADY, TO_ADD = 0, 1000
"""What to add to numbers that carry the offset, and to those that do not."""
WATER, CLOUDS = (6,), (8, 9)
"""Classes of the scene classification."""
LEAST = 256
"""Pixels of a surface under which it is not measured."""


@dataclass(frozen=True)
class Source:
    """Where a scene lies, and what its numbers are."""

    name: str
    files: tuple[str, ...]
    """One file of several bands, or one a band."""
    indexes: tuple[int, ...] = (1,)
    """Bands of the file, from 1, in the order of `bands`."""
    add: int = TO_ADD
    why: str = OLD
    bands: tuple[str, ...] = BANDS
    centre: tuple[int, int] | None = None
    """Row and column that crops are taken around; None: the middle."""
    classes: str | None = None
    """File of the scene classification."""
    bright: str | None = None
    """What reflects more than 0.3 in all bands: "snow" or "cloud"."""
    full: bool = True
    """Whether it is enlarged at its full resolution as well."""
    note: str = ""


@dataclass(frozen=True)
class Scene:
    """A scene in memory."""

    source: Source
    dn: NDArray[np.uint16]
    """Stored numbers [band, y, x]; a pixel without data in one band has none in any."""
    classes: NDArray[np.uint8] | None

    def cut(self, side: int) -> Scene:
        """At most `side` pixels each way around the source's centre, a multiple of 8 of them."""
        height, width = self.dn.shape[1:]
        centre = self.source.centre or (height // 2, width // 2)
        parts = []
        for middle, length in zip(centre, (height, width), strict=True):
            size = min(side, length) // 8 * 8
            start = min(max(0, middle - size // 2), length - size)
            parts.append(slice(start, start + size))
        rows, cols = parts
        return Scene(self.source, self.dn[:, rows, cols], None if self.classes is None else self.classes[rows, cols])

    def surfaces(self) -> dict[str, NDArray[np.bool_]]:
        """Water, cloud and snow, as far as the scene has them: masks [y, x], a pixel away from what they are not.

        By the scene classification where there is one. Without: water where (green - nir) / (green + nir) > 0.2.
        """
        reflectance = self.dn * SCALE_FACTOR + ADD_OFFSET
        found: dict[str, NDArray[np.bool_]] = {}
        if self.classes is not None:
            found["water"], found["cloud"] = (np.isin(self.classes, kinds) for kinds in (WATER, CLOUDS))
        elif "nir" in self.source.bands:
            green, nir = (reflectance[self.source.bands.index(band)] for band in ("green", "nir"))
            found["water"] = green - nir > 0.2 * np.abs(green + nir)
            if self.source.bright:
                found[self.source.bright] = (reflectance > 0.3).all(0)
        inner = {name: binary_erosion(mask & (self.dn > 0).all(0), np.ones((3, 3))) for name, mask in found.items()}
        return {name: mask for name, mask in inner.items() if mask.sum() >= LEAST}


def sources(folder: Path) -> list[Source]:
    """What is known of the files in `folder`, as far as they are there."""
    fortmckay, mol = "fortmckay_L2A_20190522", "mol_L1C_10m/ref_input_S2"
    degrees = Source(
        "fortmckay L2A, lake",
        tuple(f"{fortmckay}/B{band}.tif" for band in ("04", "03", "02", "08")),
        centre=(614, 943),
        classes=f"{fortmckay}/SCL.tif",
        note="EPSG:4326, about 12 m: taken for a grid of 10 m",
    )
    known = [
        Source(
            "mol L1C",
            tuple(f"{mol}_B{band}.tif" for band in ("04", "03", "02", "08")),
            centre=(741, 128),
            bright="cloud",
            why="April 2019, " + OLD,
        ),
        degrees,
        replace(degrees, name="fortmckay L2A, clouds", centre=(975, 856)),
        *_terramind(),
        Source("dsen2 L1C", ("dsen2/S2B_MSIL1C_20171022_T49JGM_10m.tif",), (1, 2, 3, 4), why="October 2017, " + OLD),
    ]
    for path in sorted((folder / "havel_T33UUU_10m").glob("*.jp2")):
        note = "one band, not said which, in the place of red; lossy JPEG 2000"
        known.append(
            Source(
                f"havel {path.name[8:16]}",
                (f"{path.parent.name}/{path.name}",),
                bands=("red",),
                why="2016, " + OLD,
                note=note,
            )
        )
    for path in sorted((folder / "czech_forest").glob("*.tif")):
        year, site = path.stem.split("_geojson_")
        known.append(
            Source(
                f"czech {site} {year}",
                (f"{path.parent.name}/{path.name}",),
                (4, 3, 2, 8),
                why=f"September {year}, " + OLD,
                full=site == "208748",
                note="EPSG:3857: 10 m there are 6.5 m on the ground, so its pixels are interpolated ones",
            )
        )
    return [source for source in known if all((folder / file).exists() for file in source.files)]


def _terramind() -> Iterator[Source]:
    without = "its cirrus band (median 59) lies far below 1000: no offset, whatever its list says"
    offset = "its cirrus band lies just above 1000: offset"
    swir = "short-wave infrared agrees with that of L1C "
    for place, level, add, why in (
        ("38D_378R_2_3", "L1C", TO_ADD, without),
        ("38D_378R_2_3", "L2A", TO_ADD, swir + "without offset"),
        ("433D_629L_3_1", "L1C", ALREADY, offset),
        ("433D_629L_3_1", "L2A", ALREADY, swir + "with offset"),
        ("609U_541L_3_0", "L1C", ALREADY, offset),
        ("609U_541L_3_0", "L2A", TO_ADD, swir + "without offset"),
    ):
        file = f"terramind/S2{level}_{place}.tif"
        bright = "snow" if place.startswith("609U") else None
        yield Source(f"{place.split('_')[0]} {level}", (file,), (4, 3, 2, 8), add, why, bright=bright)


def read_scene(folder: Path, source: Source) -> Scene:
    """The whole scene in stored numbers; 0 and 65535 in the file are no data."""
    planes = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        for file in source.files:
            with rasterio.open(folder / file) as raster:
                planes.append(raster.read(source.indexes))
        classes = None
        if source.classes is not None:
            with rasterio.open(folder / source.classes) as raster:
                classes = raster.read(1)
    raw = np.concatenate(planes).astype(np.int64)
    valid = ((raw > 0) & (raw < 65535)).all(0)
    return Scene(source, np.where(valid, np.clip(raw + source.add, 1, 65535), 0).astype(np.uint16), classes)
