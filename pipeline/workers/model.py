"""What lives in a worker process for one run: the network, at work on the tiles of all its chunks."""

from __future__ import annotations

import asyncio
from threading import Lock
from typing import TYPE_CHECKING, Any

from distributed import WorkerPlugin, get_worker

from rsup.models.upscaler import FLOAT32, arithmetic_on, chosen, load
from rsup.pipeline.environment import settle

from .pool import CACHE_BYTES, Pool
from .weights import local_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rsup.models.sensors.response import Response
    from rsup.models.upscaler import ModelDescriptor
    from rsup.pipeline.mosaics.tiles import Tiles


class ModelPlugin(WorkerPlugin):
    """Holds one network a worker process, into which the tiles of all chunks go.

    The network is loaded by the first task, not by `setup`: an exception there is a task's exception and reaches the
    user, while a worker whose `setup` fails is restarted for ever.
    """

    def __init__(self, run: str, model: ModelDescriptor, pool: Pool | None) -> None:
        """`run`: a name no other run on the same workers has. `model`: what every worker must load, to the byte.
        `pool` None: a cluster, where each worker takes a card if it sees one, and weights as `local_weights` has them.
        """
        self.name, self.model = f"rsup-{run}", model
        self.device = pool.device if pool else "auto"
        self.elsewhere = pool is None
        self.cores = pool.cores if pool else None

    def setup(self, worker: Any) -> None:
        """Called by Dask in each worker process, also when it is started anew."""
        settle()
        self._load_lock = Lock()
        # On a cluster that stands already, a worker is given as many cores as Dask was told it has.
        self.entitled: int = worker.state.nthreads
        self._tiles: Tiles | None = None

    @property
    def weights(self) -> str:
        """Under which name the client offers the weights to workers elsewhere."""
        return f"{self.name}-weights"

    def arithmetic(self) -> str:
        """What the network would compute in here; see `rsup.models.upscaler.arithmetic_on`."""
        return arithmetic_on(chosen(self.device)) if self.model.trained else FLOAT32

    def tiles(self, arithmetic: str, responses: Mapping[str, Response] | None) -> Tiles:
        """The network, loaded on the first call; raises ModelError where it is not the planned one.

        `responses`: what holds the mosaic to its scene; None for block means. They are the same for all of a run.
        """
        with self._load_lock:
            if self._tiles is None:
                from rsup.models.consistency import MeanConsistency, SensorConsistency
                from rsup.pipeline.mosaics.tiles import Tiles

                model, cores = self.model, self.cores or self.entitled
                # Another machine has no file of this one's; this one's must be the one that was planned with.
                name = local_weights(self.weights, model) if self.elsewhere else model.path or model.name
                device = chosen(self.device)
                upscaler = load(name, model.scale, device, cores, arithmetic=arithmetic, planned=model)
                consistency = MeanConsistency() if responses is None else SensorConsistency(responses)
                # An interpolator runs a tile again faster than the memory for it is worth.
                self._tiles = Tiles(upscaler, consistency, CACHE_BYTES if model.trained else 0)
            return self._tiles

    def __getstate__(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("name", "model", "device", "cores", "elsewhere")}


def worker_model(name: str) -> ModelPlugin:
    """The plugin `name` of the worker this task runs on."""
    plugin = get_worker().plugins[name]
    assert isinstance(plugin, ModelPlugin)
    return plugin


async def worker_arithmetic(name: str, dask_worker: Any) -> str:
    """`ModelPlugin.arithmetic` of the worker this is run on, which is heard of while it imports torch."""
    plugin = dask_worker.plugins[name]
    assert isinstance(plugin, ModelPlugin)
    return await asyncio.to_thread(plugin.arithmetic)
