"""The bands of a mosaic's files, as STAC describes them: which is which, and what its numbers mean.

In: names of bands, the sensor, the statistics of their pixels. Out: entries of `bands` (STAC 1.1, with fields of the
extensions raster 2.0 and eo), and of `eo:bands` (eo 1.1), in which readers of today look for names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rsup.models.base.intervals import MEANING
from rsup.models.base.radiometry import ADD_OFFSET, NODATA, SCALE_FACTOR
from rsup.models.sensors.profile import Band, Sensor
from rsup.pipeline.mosaics.statistics import Statistics
from rsup.pipeline.mosaics.store import uncertainty_of

Figures = Mapping[str, Statistics]
"""By the names of a file's bands."""

OLD_NAMES = {"rededge071": "rededge", "rededge075": "rededge", "rededge078": "rededge"}
"""Common names of eo 2.0 in those of eo 1.1."""


def measured(bands: Sequence[str], sensor: Sensor, gsd: float, statistics: Figures) -> list[dict[str, Any]]:
    """Bands of reflectance, with pixels of `gsd` metres; statistics are of stored numbers, as GDAL has them."""
    return [_of(band, gsd, ADD_OFFSET, statistics) | spectral(sensor, band) for band in bands]


def uncertainties(bands: Sequence[str], gsd: float, statistics: Figures) -> list[dict[str, Any]]:
    """How far these bands may be off. Without common names: red is the band, not its uncertainty."""
    return [
        _of(uncertainty_of(band), gsd, 0, statistics) | {"description": f"Uncertainty of {band}: {MEANING}"}
        for band in bands
    ]


def spectral(sensor: Sensor, name: str) -> dict[str, Any]:
    """The light that a band sees, as far as the sensor says it."""
    band = _band(sensor, name)
    if band is None:
        return {}
    said = {
        "eo:common_name": band.stac_name or band.name,
        "eo:center_wavelength": band.wavelength,
        "eo:full_width_half_max": band.width,
    }
    return {key: value for key, value in said.items() if value is not None} if band.wavelength else {}


def eo_bands(described: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same bands for eo 1.1; one without a common name by its name alone."""
    found = []
    for band in described:
        light = {key.removeprefix("eo:"): value for key, value in band.items() if key.startswith("eo:")}
        if common := light.get("common_name"):
            light["common_name"] = OLD_NAMES.get(common, common)
        found.append({"name": band["name"], **light})
    return found


def _of(name: str, gsd: float, offset: float, statistics: Figures) -> dict[str, Any]:
    figures = statistics[name].figures() if name in statistics else {}
    return {
        "name": name,
        "data_type": "uint16",
        "nodata": NODATA,
        "unit": "1",
        "raster:sampling": "area",
        "raster:spatial_resolution": gsd,
        "raster:scale": SCALE_FACTOR,
        "raster:offset": offset,
        **({"statistics": figures} if figures else {}),
    }


def _band(sensor: Sensor, name: str) -> Band | None:
    return next((band for band in sensor.bands if band.name == name), None)
