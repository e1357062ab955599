"""A plan of an upscale in, where it would run and how long its network would take, as timed or as recorded, out."""

from __future__ import annotations

import time
from typing import Any

from rsup.models.upscaler import core_seconds, load

from .upscale_plan import UpscalePlan

TILE = 512
"""Side of the tile that seconds are recorded of, in pixels of output."""


def forecast(plan: UpscalePlan) -> dict[str, Any]:
    """Where the work would run, and the seconds the network would take by the time one tile takes here."""
    request, pool = plan.request, plan.pool
    if pool is None:
        return {"workers": request.scheduler or [f"{request.cluster} job"] * (request.workers or 1)}
    import torch

    model = load(request.model, request.scale, pool.device, pool.cores)
    tile = torch.zeros(model.batch, len(plan.model.bands), plan.model.tile, plan.model.tile)
    for _ in range(2):  # the first call also chooses kernels and fills caches
        start = time.monotonic()
        model.outputs(tile, uncertainty=request.uncertainty)[0].cpu()
    each = (time.monotonic() - start) / model.batch
    workers = [pool.device if pin is None else f"{pool.device}:{pin}" for pin in pool.pins]
    return {"workers": workers, "network_seconds": round(plan.summary()["tiles"] * each / len(workers), 1)}


def recorded(plan: UpscalePlan) -> float | None:
    """The seconds on this machine's cores by those of a core of the README's table: PyTorch would take half a gigabyte.

    None where none are recorded: for other devices, and for networks that do not come with rsup.
    """
    pool, each = plan.pool, core_seconds(plan.model)
    if pool is None or pool.device != "cpu" or each is None:
        return None
    pixels = plan.summary()["tiles"] * (plan.model.tile * plan.request.scale) ** 2
    return float(round(pixels / TILE**2 * each / (len(pool.pins) * pool.cores), 1))
