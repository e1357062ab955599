"""EOPF products made from arrays: Zarr 2 as ESA writes it, and Zarr 3 as others write it, in each of its packings."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from safes import COARSE, GROUND, NUMBERS
from zarr.errors import ZarrUserWarning

from rsup.pipeline.lattice import Window

NAME = "S2B_MSIL2A_20240610T100559_N0510_R022_T33TWL_20240610T100559"
PACKING = {"scale_factor": 1e-4, "add_offset": -0.1}
CLASSES = "conditions/mask/l2a_classification/r20m/scl"


def discovery(**properties: Any) -> dict[str, Any]:
    """`stac_discovery` of a product."""
    said = {
        "datetime": "2024-06-10T10:05:59.024000+00:00",
        "eo:cloud_cover": 5.25,
        "platform": "sentinel-2b",
        "eopf:baseline": "05.10",
        "proj:epsg": 32633,
        "eopf:datastrip_id": "S2B_OPER_MSI_L2A_DS_2BPS_20240610T100559_S20240610T100559_N05.10",
    }
    return {"type": "Feature", "stac_version": "1.0.0", "id": NAME, "properties": said | properties}


def path_of(band: str) -> str:
    """Of a band's array."""
    if band == "scl":
        return CLASSES
    return f"measurements/reflectance/r{20 if band in COARSE else 10}m/{NUMBERS[band].lower()}"


def write_eopf(
    root: Path, bands: dict[str, NDArray[Any]], window: Window = GROUND, kind: str = "v2", chunk: int = 48
) -> Path:
    """`kind`: v2 (ESA's), v3 (the same attributes), fixedscaleoffset, scale_offset (codecs), v2-filter, or float."""
    version = 2 if kind.startswith("v2") else 3
    about = {"stac_discovery": discovery(), "other_metadata": {}}
    group = zarr.create_group(root, zarr_format=version, attributes=about)
    west, _, _, north = window.bounds
    for band, data in bands.items():
        gsd = 20 if band in COARSE else 10
        affine = [float(gsd), 0.0, west, 0.0, float(-gsd), north, 0.0, 0.0, 1.0]
        attributes: dict[str, Any] = {"proj:epsg": 32633, "proj:transform": affine, "_ARRAY_DIMENSIONS": ["y", "x"]}
        options: dict[str, Any] = {"chunks": (chunk, chunk), "fill_value": 0}
        packed = band != "scl" and kind in ("v2", "v3")
        attributes |= PACKING if packed else {}
        values: NDArray[Any] = data
        if band != "scl" and not packed:
            # Only GeoZarr's words for where it lies; what the numbers were before is told, and is no packing.
            attributes = {"_eopf_attrs": PACKING | {"fill_value": 0, "dtype": "<u2"}, "units": "digital_counts"}
            place = group.require_group(path_of(band).rpartition("/")[0])
            place.attrs.update({"proj:code": "EPSG:32633", "spatial:transform": affine[:6]})
        if band != "scl" and kind == "fixedscaleoffset":
            from zarr.codecs.numcodecs import FixedScaleOffset

            values = data * 1e-4 - 0.1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ZarrUserWarning)  # of zarr 3's own specification
                codec = FixedScaleOffset(offset=-0.1, scale=10_000, dtype="<f8", astype="<u2")
            options["filters"] = [codec]
        elif band != "scl" and kind == "v2-filter":
            import numcodecs

            values = data * 1e-4 - 0.1
            options["filters"] = [numcodecs.FixedScaleOffset(offset=-0.1, scale=10_000, dtype="<f8", astype="<u2")]
        elif band != "scl" and kind == "float":
            values = np.where(data == 0, np.nan, data * 1e-4 - 0.1).astype(np.float32)
            options["fill_value"] = np.nan
        options |= {"shape": data.shape, "dtype": values.dtype, "attributes": attributes}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZarrUserWarning)
            group.create_array(path_of(band), **options)[:] = values
        if band != "scl" and kind == "scale_offset":
            _into_codecs(root / path_of(band) / "zarr.json")
    return root


def _into_codecs(document: Path) -> None:
    """As the EOPF Explorer writes it, whose codecs zarr 3.1 does not know: the stored numbers are the same."""
    described = json.loads(document.read_text())
    described["data_type"], described["fill_value"] = "float32", "NaN"
    scale = {"name": "scale_offset", "configuration": {"offset": -0.1, "scale": 10_000.0}}
    pairs = {"encode": [["NaN", 0]], "decode": [[0, "NaN"]]}
    cast = {"name": "cast_value", "configuration": {"data_type": "uint16", "scalar_map": pairs}}
    described["codecs"] = [scale, cast, *described["codecs"]]
    document.write_text(json.dumps(described))


def edit(document: Path, **changes: Any) -> None:
    """Change a JSON document; None takes a key away."""
    described = json.loads(document.read_text()) | changes
    document.write_text(json.dumps({key: value for key, value in described.items() if value is not None}))
