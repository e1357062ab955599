"""What `rsup models export` does: a model and a format in, one file out that runs without rsup."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .base.errors import ModelError
from .base.files import write_whole, writing
from .graphs.checked import check, made_tiles
from .graphs.engines import ENGINES, check_packages
from .graphs.program import as_archive, as_onnx, program
from .graphs.statement import statement
from .registry import resolve
from .upscaler import FLOAT32, load
from .weights_file import SCALES, read_header

if TYPE_CHECKING:
    from torch import Tensor

TILES = 3
"""On which a file is checked."""


def export_model(name_or_path: str, to: str, out: Path) -> dict[str, Any]:
    """Write a student `to` "onnx" or "torch-export"; a dict of what was written.

    Its input is one tile, as the student has them, its outputs the image and, of a student that knows it, how far that
    may be off; `rsup` in the file's metadata says what they mean. The file appears when it was read again and its
    numbers are PyTorch's. Raises ModelError for what has no weights, an `out` that
    exists already, packages that are not installed, and numbers that are too far from PyTorch's.
    """
    if to == "onnx":
        check_packages("onnx", "--to onnx")
    if os.path.lexists(out):
        raise ModelError(f"{out} exists already: remove it or give another name with -o")
    path = resolve(name_or_path, SCALES[0])
    if name_or_path == "default" or isinstance(path, str):
        raise ModelError(f"{name_or_path} is of two scales or has no weights: name a student of `rsup models list`")
    model = load(str(path), read_header(path)[0].scale, arithmetic=FLOAT32)
    about, uncertain = statement(model.descriptor), model.descriptor.uncertainty
    tiles = made_tiles(model.descriptor, TILES)
    expected = zip(*model.outputs(tiles, uncertainty=uncertain), strict=True)
    made = program(model.traced(uncertain), model.descriptor)
    data = as_onnx(made, about) if to == "onnx" else as_archive(made, about)
    apart = [
        check(found, theirs, f"{name_or_path} as {to}")
        for found, theirs in zip(_outputs(data, to, tiles), expected, strict=True)
    ]
    with writing(out, ModelError):
        write_whole(out, data)
    return {
        "path": str(out),
        "model": model.descriptor.name,
        "sha256": model.descriptor.sha256,
        "licence": model.descriptor.licence,
        "to": to,
        "bytes": len(data),
        "deviation": max(apart),
    }


def _outputs(data: bytes, to: str, tiles: Tensor) -> Iterator[list[Tensor]]:
    """What the file gives for each tile, each output [band, h, w]."""
    if to == "onnx":
        run = ENGINES["onnx"].start(data, 1)
        for tile in tiles.split(1):
            yield [torch.from_numpy(output)[0] for output in run(tile.numpy())]
    else:
        module = torch.export.load(io.BytesIO(data)).module()
        for tile in tiles.split(1):
            with torch.inference_mode():
                yield [output[0] for output in module(tile)]
