"""A plan of an upscale in, where it would run and how long its network would take out."""

from __future__ import annotations

import time
from typing import Any

from rsup.models.upscaler import load

from .upscale_plan import UpscalePlan


def forecast(plan: UpscalePlan) -> dict[str, Any]:
    """Where the work would run, and the seconds the network would take by the time one tile takes here."""
    request, pool = plan.request, plan.pool
    if pool is None:
        return {"workers": request.scheduler or [f"{request.cluster} job"] * (request.workers or 1)}
    import torch

    model = load(request.model, request.scale, pool.device, pool.cores)
    tile = torch.zeros(model.batch, len(plan.model.bands), plan.model.tile, plan.model.tile)
    model(tile, uncertainty=request.uncertainty).cpu()  # the first call also chooses kernels and fills caches
    start = time.monotonic()
    model(tile, uncertainty=request.uncertainty).cpu()
    each = (time.monotonic() - start) / model.batch
    workers = [pool.device if pin is None else f"{pool.device}:{pin}" for pin in pool.pins]
    return {"workers": workers, "network_seconds": round(plan.summary()["tiles"] * each / len(workers), 1)}
