"""What the made landscape is made of: surface reflectance of each material in the archive's bands.

Values are typical mid-June surface reflectances of central Europe as Sentinel-2 L2A shows them.
"""

from __future__ import annotations

import numpy as np

BANDS = ("red", "green", "blue", "nir", "swir16")
"""Order of every [band, ...] array of the demonstration."""

_TABLE = {
    #                    red    green  blue   nir    swir16
    "river":           (0.030, 0.046, 0.036, 0.022, 0.008),
    "lake":            (0.014, 0.028, 0.024, 0.012, 0.005),
    "shallows":        (0.045, 0.065, 0.045, 0.040, 0.015),
    "sand":            (0.300, 0.270, 0.210, 0.360, 0.400),
    "broadleaf":       (0.023, 0.043, 0.023, 0.380, 0.150),
    "conifer":         (0.018, 0.029, 0.018, 0.230, 0.090),
    "grass":           (0.045, 0.075, 0.036, 0.370, 0.200),
    "asphalt":         (0.105, 0.103, 0.097, 0.125, 0.140),
    "gravel":          (0.230, 0.200, 0.155, 0.290, 0.340),
    "concrete":        (0.290, 0.275, 0.250, 0.310, 0.320),
    "red tiles":       (0.215, 0.120, 0.085, 0.270, 0.300),
    "slate":           (0.075, 0.080, 0.085, 0.100, 0.120),
    "bright metal":    (0.460, 0.465, 0.460, 0.475, 0.400),
    "green wheat":     (0.034, 0.062, 0.030, 0.430, 0.150),
    "ripening barley": (0.115, 0.105, 0.058, 0.330, 0.210),
    "rapeseed":        (0.052, 0.078, 0.038, 0.390, 0.170),
    "sugar beet":      (0.030, 0.065, 0.028, 0.480, 0.180),
    "maize":           (0.040, 0.070, 0.034, 0.400, 0.170),
    "meadow":          (0.048, 0.078, 0.037, 0.360, 0.210),
    "mown meadow":     (0.090, 0.098, 0.058, 0.300, 0.260),
    "loam":            (0.155, 0.122, 0.088, 0.215, 0.280),
    "loess":           (0.215, 0.175, 0.125, 0.280, 0.350),
}  # fmt: skip

SPECTRUM = {name: np.array(values, np.float32) for name, values in _TABLE.items()}
"""Reflectance [band] of each material."""

# Crop, share of the ground it covers in June, contrast of its tramlines, brightness of the canopy.
_CROPS = (
    ("green wheat", 0.92, 0.30, 1.00),
    ("ripening barley", 0.90, 0.25, 1.00),
    ("rapeseed", 0.95, 0.22, 1.00),
    ("sugar beet", 0.70, 0.25, 1.00),
    ("maize", 0.35, 0.15, 1.00),
    ("green wheat", 0.80, 0.30, 1.12),
    ("meadow", 0.97, 0.05, 1.00),
    ("mown meadow", 0.85, 0.05, 1.05),
    ("maize", 0.04, 0.10, 1.00),  # just sown: bare soil to a satellite
    ("ripening barley", 0.94, 0.25, 1.18),
)

CROP = np.stack([SPECTRUM[name] * gain for name, _, _, gain in _CROPS], axis=1)
"""Canopy reflectance [band, crop]."""
CROP_COVER = np.array([cover for _, cover, _, _ in _CROPS], np.float32)
CROP_TRAMLINES = np.array([contrast for _, _, contrast, _ in _CROPS], np.float32)
SOIL = np.stack([SPECTRUM["loam"], SPECTRUM["loess"]], axis=1)
"""Soil reflectance [band, soil]."""
