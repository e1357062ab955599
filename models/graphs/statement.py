"""What a file that leaves rsup says of itself: a model's descriptor in, plain values out.

Enough to run it elsewhere: which model under which licence, what its numbers mean, how tiles lie, and what holds its
image to the scene.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rsup.models.base.intervals import DETAIL, MEANING
from rsup.models.base.radiometry import ADD_OFFSET, DN_MAX, DN_MIN, MAP, NODATA, SCALE_FACTOR
from rsup.models.consistency import RATIOS, ROUNDS
from rsup.models.sensors import DEFAULT

from .program import OUTPUTS, TILE

if TYPE_CHECKING:
    from rsup.models.registry import ModelDescriptor


def statement(model: ModelDescriptor) -> dict[str, Any]:
    """Of a student."""
    assert model.header is not None
    image = [1, len(model.bands), model.tile * model.scale, model.tile * model.scale]
    image_name, uncertainty_name = OUTPUTS
    outputs = {image_name: {"shape": image, "means": "network values; clip to [-1, 1]"}}
    if model.uncertainty:
        outputs[uncertainty_name] = {
            "shape": [1, len(model.bands), model.tile * DETAIL, model.tile * DETAIL],
            "means": f"how far the image may be off once it is held to its scene, in stored numbers, each for "
            f"{model.scale // DETAIL} x {model.scale // DETAIL} pixels: {MEANING}",
        }
    return {
        "name": model.name,
        "sha256": model.sha256,
        "licence": model.licence,
        "source": model.header["source"],
        "architecture": model.architecture,
        "scale": model.scale,
        "bands": list(model.bands),
        "input": {TILE: {"shape": [1, len(model.bands), model.tile, model.tile], "means": "network values in [-1, 1]"}},
        "outputs": outputs,
        "tiles": {
            "side": model.tile,
            "halo": model.halo,
            "overlap": model.overlap,
            "means": "scene pixels: the outer halo of a tile is context only, inside it neighbours share the overlap",
        },
        "radiometry": _radiometry(),
        "consistency": _consistency(model),
    }


def _radiometry() -> dict[str, Any]:
    """As models/base/radiometry.py computes it."""
    return {
        "stored": f"uint16, {DN_MIN} to {DN_MAX}, {NODATA} is nodata: fill it with the nearest valid pixel",
        "scale": SCALE_FACTOR,
        "offset": ADD_OFFSET,
        **MAP,
        "reflectance": "r = number * scale + offset",
        "to_network": "v = (min(r, knee) - low) * slope - 1 + slope * width * log1p(max(r - knee, 0) / width)",
        "from_network": "r = (min(v, knee_value) + 1) / slope + low"
        " + width * expm1(max(v - knee_value, 0) / (slope * width))",
    }


def _consistency(model: ModelDescriptor) -> dict[str, Any]:
    """As models/consistency.py computes it, for the sensor that is meant where nothing is named."""
    responses = {}
    for band in model.bands:
        response = DEFAULT.response(band)
        dark, slope = response.noise()
        noise = {"noise_dark": dark, "noise_slope": slope}
        responses[band] = {"mtf": response.mtf, "sigma": response.sigma, "pixels": response.ratio, **noise}
    return {
        "held": "x + A^T Q diag(g) Q^T (y - A x), along both axes; x the image, y the tile, in stored numbers, float32",
        "A": "a Gaussian of sigma pixels, sampled at the pixels' centres, rows of sum 1; edges go on as they end",
        "Q, k": "A A^T = Q diag(l) Q^T along an axis; k is the product of both axes' l over L = 1 / scale^2",
        "g": "1 / (L (k + (s / d) (1 - k)))",
        "s, d": "E p = d k + s for p = (Q^T (y - A x))^2, a band: from d = mean p and s = min(d, limit), in turn least "
        "squares weighted by 1 / (d k + s)^2 for d and s, with s within 0 and limit; then s / d within ratios",
        "rounds": ROUNDS,
        "limit": "(noise_dark + noise_slope * mean reflectance) / scale_factor^2, the variance in stored numbers",
        "ratios": list(RATIOS),
        "sensor": DEFAULT.name,
        "responses": responses,
    }
