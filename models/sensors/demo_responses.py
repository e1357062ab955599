"""How the demonstration's made instrument sees: Sentinel-2, by other sources and rounder than its profile.

Apart from `sentinel2`, whose figures train networks: what the demonstration makes stays when those are bettered.
"""

from __future__ import annotations

from .response import Response

REFERENCE = 0.2
"""Reflectance that the reference radiances stand for, about."""

DEMO_RESPONSES = {
    "red": Response(mtf=0.24, snr=142, reference=REFERENCE),
    "green": Response(mtf=0.28, snr=168, reference=REFERENCE),
    "blue": Response(mtf=0.26, snr=154, reference=REFERENCE),
    "nir": Response(mtf=0.26, snr=174, reference=REFERENCE),
    "swir16": Response(mtf=0.22, snr=100, reference=REFERENCE),
}
"""By band. MTF of the whole instrument: ESA, Sentinel-2 L1C Data Quality Report (S2-PDGS-MPC-DQR). SNR: mission
requirements (ESA SP-1322/2, table 1)."""
