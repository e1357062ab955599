"""The STAC item of the model that made a mosaic: extensions mlm 1.5 and file 2.1.

In: the model's name, digest and header. Out: an item without a place, for the model is not bound to one, valid as long
as its sensor flies. It holds neither a time nor a path: the weights are named by their digest.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac

from rsup.models.sensors import first_light
from rsup.pipeline.public import printable
from rsup.pipeline.release import library_version

EXTENSIONS = [
    "https://stac-extensions.github.io/mlm/v1.5.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
]

OPEN = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""The end of a range that nothing ends: STAC wants a date, or a range with both ends."""


def model_item(name: str, asked: Sequence[str], gsd: float, scale: int, model: dict[str, Any]) -> dict[str, Any]:
    """The item `name` of a model that takes pixels of `gsd` metres and gives `scale` times as many a side.

    `model`: name, sha256 (hex), header (of its weights; None for an interpolator, which takes the bands it is `asked`).
    """
    header = model["header"] or {}
    bands = list(header.get("bands", asked))
    licence = str(header.get("licence", "Apache-2.0"))
    item = pystac.Item(
        id=printable(name),
        geometry=None,
        bbox=None,
        datetime=None,
        start_datetime=first_light(),
        end_datetime=OPEN,
        properties={
            "title": f"{printable(str(model['name']))}: super-resolution \u00d7{scale}",
            "description": f"Turns reflectance at {gsd:g} m into reflectance at {gsd / scale:g} m, tile by tile.",
            # An SPDX expression, or "other" for what is none.
            "license": licence if re.fullmatch(r"[A-Za-z0-9.+-]+", licence) else "other",
            **_mlm(bands, gsd, scale, model["name"], header),
        },
        stac_extensions=EXTENSIONS,
    )
    item.add_asset("model", _weights(bands, model))
    return item.to_dict(include_self_link=False, transform_hrefs=False)


def mlm_name(name: str) -> str:
    """What the extension allows: letters, digits and _.- between a letter and a letter or digit."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(name).name).strip("_.-")
    allowed = re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]+[A-Za-z0-9]", plain)
    return plain if allowed else f"model-{plain or 'unnamed'}"


def _mlm(bands: list[str], gsd: float, scale: int, name: str, header: dict[str, Any]) -> dict[str, Any]:
    tasks, order = ["super-resolution"], ["batch", "bands", "height", "width"]
    tensor = {"shape": [-1, len(bands), -1, -1], "dim_order": order, "data_type": "float32"}
    tiles = {key: header[key] for key in ("tile", "halo", "overlap") if key in header}
    return {
        "mlm:name": mlm_name(str(name)),
        "mlm:architecture": str(header.get("architecture", name)),
        "mlm:framework": "PyTorch",
        "mlm:framework_version": library_version("torch"),
        "mlm:tasks": tasks,
        "mlm:pretrained": bool(header),
        **({} if header else {"mlm:pretrained_source": None}),
        "mlm:hyperparameters": {"scale": scale, **tiles},
        "mlm:input": [{"name": f"tile at {gsd:g} m", "bands": bands, "input": tensor}],
        "mlm:output": [
            {"name": f"tile at {gsd / scale:g} m", "bands": bands, "tasks": tasks, "result": tensor},
        ],
    }


def _weights(bands: list[str], model: dict[str, Any]) -> pystac.Asset:
    """The weights by their digest (RFC 6920): the item must not tell where they lay on somebody's disk."""
    digest = bytes.fromhex(model["sha256"])
    name = base64.urlsafe_b64encode(digest).decode().rstrip("=")
    return pystac.Asset(
        f"ni:///sha-256;{name}",
        title=f"Model {printable(str(model['name']))}",
        media_type="application/octet-stream",
        roles=["mlm:model"],
        extra_fields={
            "file:checksum": f"1220{digest.hex()}",  # multihash: SHA-256, 32 bytes
            "mlm:artifact_type": "safetensors" if model["header"] else "rsup",
            "bands": [{"name": band} for band in bands],
        },
    )
