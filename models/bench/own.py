"""The paper's student as it is written and as rsup runs it, and the students that come with rsup."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from rsup.models.networks.slimdiffsr.config import StudentConfig
from rsup.models.networks.slimdiffsr.student import Student
from rsup.models.show import show_model, student_counts
from rsup.models.upscaler import ModelDescriptor, Upscaler, load
from rsup.models.weights_file import SCALES

from .contender import SIDE, Contender, Pass, Row, Where, drawn

PLAIN, REFERENCE = "SlimDiffSR, as its authors run it (float32)", "SlimDiffSR, as written"
"""Rows of the paper's student: in float32 with maps in PyTorch's own order; in the device's own arithmetic. The second
is what all are compared with."""


def _student(where: Where) -> nn.Module:
    with torch.device("meta"):
        student = Student()
    return drawn(student, where.device)


def _written(where: Where, precision: torch.dtype | None) -> Mapping[str, Pass]:
    student = _student(where)
    tiles = torch.rand(where.tiles, 3, SIDE, SIDE, device=where.device) * 2 - 1

    def run() -> object:
        autocast = torch.autocast(where.device.type, precision, enabled=precision is not None)
        with torch.inference_mode(), autocast:
            return student(tiles)

    counts = student_counts(StudentConfig())
    return {"tile": Pass(run, counts["parameters"], counts["gmac_512"], where.tiles)}


def _run_by_rsup(where: Where) -> Mapping[str, Pass]:
    config = StudentConfig()
    descriptor = ModelDescriptor(
        name="slimdiffsr",
        scale=4,
        bands=("red", "green", "blue"),
        tile=SIDE // 4,
        halo=4,
        overlap=12,
        multiple=config.multiple,
        sha256="",
        kind="student",
        licence="",
        architecture=config.architecture,
    )
    return _upscaled(Upscaler(descriptor, _student(where), where.device), student_counts(config))


def _shipped(where: Where, scale: int) -> Mapping[str, Pass]:
    upscaler = load("default", scale, str(where.device))
    return _upscaled(upscaler, show_model(upscaler.descriptor.name))


def _upscaled(upscaler: Upscaler, counts: Mapping[str, Any]) -> Mapping[str, Pass]:
    side, bands = SIDE // upscaler.descriptor.scale, len(upscaler.descriptor.bands)
    # As many as it takes at once, for it fills up what is fewer.
    tiles = torch.rand(upscaler.batch, bands, side, side) * 2 - 1
    return {"tile": Pass(lambda: upscaler(tiles), counts["parameters"], counts["gmac_512"], upscaler.batch)}


OWN = {
    "float32": Contender(partial(_written, precision=None), (Row(PLAIN, 4, {"tile": 1}),)),
    "written": Contender(lambda where: _written(where, where.precision), (Row(REFERENCE, 4, {"tile": 1}),)),
    "run": Contender(_run_by_rsup, (Row("SlimDiffSR, as rsup runs it", 4, {"tile": 1}),)),
    **{
        f"x{scale}": Contender(
            partial(_shipped, scale=scale), (Row(f"the student of x{scale} that comes with rsup", scale, {"tile": 1}),)
        )
        for scale in SCALES
    },
}
"""Contenders by their names."""
