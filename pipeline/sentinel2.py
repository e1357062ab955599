"""Sentinel-2 domain facts."""

CLASS_NAMES = (
    "no_data",
    "saturated",
    "dark_area",
    "cloud_shadow",
    "vegetation",
    "bare_soil",
    "water",
    "unclassified",
    "cloud_medium_probability",
    "cloud_high_probability",
    "thin_cirrus",
    "snow",
)
"""Scene classification (SCL) classes 0..11, in order."""
