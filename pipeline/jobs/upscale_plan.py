"""What `rsup upscale` was asked for, and what that comes to: checked against the scene, the model and this machine.

In: a request. Out: a plan, its summary for people and machines, and a forecast of its time; nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rsup.models.base.errors import ArgumentError
from rsup.models.sensors import common_name, sensor_of_items
from rsup.models.upscaler import descriptor_of
from rsup.pipeline.environment import check_libraries
from rsup.pipeline.lattice import Chunk, Window, chunks, count_chunks
from rsup.pipeline.mosaics import store as mosaic
from rsup.pipeline.mosaics.passes import false_colour, passes, tiling_of
from rsup.pipeline.release import VERSION
from rsup.pipeline.scenes.foreign.numbers import Said
from rsup.pipeline.scenes.opening import open_scene
from rsup.pipeline.scenes.remote import ScenePath
from rsup.pipeline.scenes.scene import Scene
from rsup.pipeline.workers.pool import Pool

from .artefacts import OUTPUTS, artefacts_of

if TYPE_CHECKING:
    from distributed import Security

    from rsup.models.sensors.response import Response
    from rsup.models.upscaler import ModelDescriptor

SCALES = (4, 8)
CONSISTENCIES = ("sensor", "mean")
CLUSTERS = ("slurm",)
LARGEST_CHUNK = 4000
"""Scene pixels a side: a band of 4,096 at x8 has 2 GiB, and Blosc packs 17 bytes less at most."""


@dataclass(frozen=True)
class UpscaleRequest:
    """What `rsup upscale` was asked for."""

    scene: ScenePath
    scale: int
    output: Path = Path()
    model: str = "default"
    bands: tuple[str, ...] = ()
    """Empty: those that the scene has of what its sensor sees at 10 m."""
    device: str = "auto"
    workers: int | None = None
    scheduler: str | None = None
    cluster: str | None = None
    """One of CLUSTERS: what workers are started on, in the place of this machine."""
    tls_ca: Path | None = None
    """In PEM, for a scheduler behind tls://: the authority both sides trust, and this side's certificate and key."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    consistency: str = "sensor"
    """One of CONSISTENCIES: what holds the mosaic to its scene."""
    uncertainty: bool = False
    """Whether it is written beside the mosaic how far it may be off."""
    outputs: tuple[str, ...] = OUTPUTS
    """Those of OUTPUTS that are wanted."""
    chunk: int = 512
    """Side of a mosaic chunk, in scene pixels: what one task computes and one file a band holds."""
    overwrite: bool = False
    said: Said = Said()
    """What the user says of the scene's numbers."""


@dataclass(frozen=True)
class UpscalePlan:
    """A request that was checked against the scene and the model; nothing is written yet."""

    request: UpscaleRequest
    scene: Scene
    model: ModelDescriptor
    pool: Pool | None
    """The workers of this machine; None where a cluster has them, or nothing is to be done here."""
    security: Security | None
    """What is shown to that scheduler."""

    @classmethod
    def make(cls, request: UpscaleRequest, scene: Scene | None = None, *, here: bool = True) -> UpscalePlan:
        """`scene`: one that is still to be made at `request.scene`; None for what is there.

        Unless it is to be done `here`, nothing is asked of this machine, or of a cluster, and there are no workers.
        Raises ArgumentError, SceneError or ModelError where the request cannot be carried out.
        """
        if request.scale not in SCALES:
            raise ArgumentError(f"--scale {request.scale}: choose 4 (2.5 m) or 8 (1.25 m)")
        if request.consistency not in CONSISTENCIES:
            raise ArgumentError(f"--consistency {request.consistency}: choose {' or '.join(CONSISTENCIES)}")
        if not request.outputs or set(request.outputs) - set(OUTPUTS):
            named = ",".join(request.outputs)
            raise ArgumentError(f"--outputs {named}: name one or more of {', '.join(OUTPUTS)}")
        if not 64 <= request.chunk <= LARGEST_CHUNK:
            raise ArgumentError(f"--chunk {request.chunk}: choose 64 to {LARGEST_CHUNK} scene pixels")
        # Absolute: workers of a standing cluster have a working folder of their own.
        scene = open_scene(_resolved(request.scene), request.said) if scene is None else scene
        request = replace(request, bands=tuple(map(common_name, request.bands)) or _fine(scene))
        absent = [band for band in request.bands if band not in scene.bands]
        if not request.bands:
            raise ArgumentError(
                f"{request.scene} has no band that its sensor sees at {scene.window.gsd} m: name some of "
                f"{', '.join(scene.bands)} with --bands"
            )
        if absent:
            raise ArgumentError(
                f"--bands {','.join(request.bands)}: {request.scene} has {', '.join(scene.bands)}; choose from these"
            )
        if len(set(request.bands)) < len(request.bands):
            raise ArgumentError(f"--bands {','.join(request.bands)}: a band is named twice")
        if unfit := [band for band in request.bands if not mosaic.is_name(band)]:
            raise ArgumentError(f"--bands {unfit[0]}: no array of a mosaic can be called that; rename it in the scene")
        pool, security, tls = None, None, (request.tls_ca, request.tls_cert, request.tls_key)
        if request.scheduler is None and any(tls):
            raise ArgumentError("--tls-ca, --tls-cert and --tls-key are for a cluster that --scheduler names")
        if request.cluster is not None:
            _check_cluster(request)
        elif request.scheduler is None:
            pool = Pool.plan(request.device, request.workers) if here else None
        elif request.workers is not None or request.device != "auto":
            raise ArgumentError("--scheduler names a cluster that stands already; leave out --workers and --device")
        elif here:
            from rsup.pipeline.workers import standing  # Dask, which a plan for this machine does not need

            security = standing.credentials(request.scheduler, *tls)
        plan = cls(request, scene, descriptor_of(request.model, request.scale), pool, security)
        if request.uncertainty:
            _check_uncertainty(request, plan.model)
        if pool is not None:
            plan.threads()
        if here:
            check_libraries(scene.crs)
        return plan

    @property
    def name(self) -> str:
        """Name of every output, without its ending."""
        return f"{_resolved(self.request.scene).stem}_x{self.request.scale}"

    @property
    def window(self) -> Window:
        """The ground the mosaic covers."""
        return self.scene.aoi

    @property
    def work(self) -> Path:
        """Folder of the unfinished outputs and the ledger, hidden beside the finished ones."""
        return self.request.output.resolve() / ".rsup" / self.name

    @property
    def sources(self) -> list[dict[str, Any]]:
        """The items the scene was made of; none where it does not say, as a user's own GeoTIFF."""
        items = self.scene.attributes.get("items")
        return items if isinstance(items, list) else []

    @property
    def false_colour(self) -> list[str]:
        """The bands that the network sees in the place of others."""
        return false_colour(self.request.bands, self.scene.bands, self.model)

    @property
    def responses(self) -> dict[str, Response]:
        """How the scene's sensor sees each band that is asked for."""
        sensor = sensor_of_items(self.sources)
        return {band: sensor.response(band) for band in self.request.bands}

    @property
    def planes(self) -> int:
        """How many arrays of pixels the mosaic has."""
        return len(self.request.bands) * (1 + self.request.uncertainty)

    def chunks(self) -> Iterator[Chunk]:
        """Every chunk of the mosaic, one by one: there may be millions."""
        return chunks(self.window, self.request.chunk)

    def fingerprint(self) -> dict[str, Any]:
        """What two runs must share for their chunks to belong to one mosaic."""
        tiling, request = tiling_of(self.model), self.request
        return {
            "scene": self.scene.fingerprint(),
            "model": self.model.sha256,
            "scale": self.request.scale,
            "bands": list(self.request.bands),
            "chunk": self.request.chunk,
            "consistency": self.request.consistency,
            **({"uncertainty": True} if self.request.uncertainty else {}),
            **({"outputs": sorted(request.outputs)} if set(request.outputs) != set(OUTPUTS) else {}),
            "lattice": [tiling.size, tiling.halo, tiling.overlap, "linear"],  # how tiles blend
            "version": VERSION,
        }

    def task_bytes(self) -> int:
        """Memory one chunk in flight needs at most: its result and a plane of it packed, the strip that is blended with
        the temporaries of one of its planes, the tiles that it waits for, its input.
        """
        assert self.pool is not None
        height, width = (min(self.request.chunk, side) for side in (self.window.height, self.window.width))
        tiling, area, planes = tiling_of(self.model), self.request.scale**2, self.planes
        cover = tiling.cover(replace(self.window, row=0, col=0, height=height, width=width))
        return (
            height * width * area * (planes * 2 + 4)
            + min(height, tiling.stride + tiling.overlap) * width * area * (planes * 4 + 4 * 4)
            + (self.pool.cores + 1) * tiling.size**2 * area * planes * 4
            + cover.height * cover.width * 2 * 4
        )

    def threads(self) -> int:
        """Chunks a worker of this machine may have in flight; raises ArgumentError where not one fits its memory."""
        assert self.pool is not None
        return self.pool.threads(self.task_bytes(), self.model.trained)

    def summary(self) -> dict[str, Any]:
        """The plan for people and machines: what would be computed and written."""
        tiling, scale, window = tiling_of(self.model), self.request.scale, self.window
        steps = passes(self.request.bands, self.scene.bands, self.model.bands)
        return {
            "scene": str(self.request.scene),
            "model": self.model.name,
            "sha256": self.model.sha256,
            "scale": scale,
            "bands": list(self.request.bands),
            "false_colour": self.false_colour,
            "held_by": self.request.consistency,
            "uncertainty": self.request.uncertainty,
            "crs": self.scene.crs,
            "bounds": list(window.bounds),
            "shape": [window.height * scale, window.width * scale],
            "chunks": count_chunks(window, self.request.chunk),
            "tiles": tiling.count(window) * len(steps),
            "bytes": window.height * window.width * scale**2 * 2 * self.planes,
            "outputs": [str(self.request.output / name) for name in self.artefacts().values()],
        }

    @property
    def store(self) -> Path:
        """Where chunks are written, whether or not it becomes an output."""
        return self.work / f"{self.name}.zarr"

    def artefacts(self) -> dict[str, str]:
        """Names of the outputs, as `artefacts_of` has them."""
        return artefacts_of(self.name, self.request.outputs, self.request.uncertainty)


def _fine(scene: Scene) -> tuple[str, ...]:
    """Its bands of the lattice's own resolution, natural colours first."""
    items = scene.attributes.get("items")
    native = sensor_of_items(items if isinstance(items, list) else []).native(scene.window.gsd)
    return tuple(band for band in native if band in scene.bands)


def _resolved(scene: ScenePath) -> ScenePath:
    try:
        return scene.resolve() if isinstance(scene, Path) else scene
    except (OSError, RuntimeError, ValueError):  # too long, links in a circle, a NUL: for open_scene to say
        return scene


def _check_cluster(request: UpscaleRequest) -> None:
    """Raise ArgumentError where workers cannot be started as --cluster says."""
    if request.cluster not in CLUSTERS:
        raise ArgumentError(f"--cluster {request.cluster}: choose {' or '.join(CLUSTERS)}")
    if request.scheduler is not None or request.device != "auto":
        raise ArgumentError(
            "--cluster starts workers, each on the device that its job has; leave out --scheduler and --device"
        )
    from rsup.pipeline.workers import slurm  # Dask, as above

    slurm.check_slurm(request.workers, request.output.resolve())


def _check_uncertainty(request: UpscaleRequest, model: ModelDescriptor) -> None:
    """Raise ArgumentError where nothing says how far the mosaic that is asked for may be off."""
    if not model.uncertainty:
        shipped = descriptor_of("default", request.scale).uncertainty
        one = "leave out --model" if shipped else "give as --model a student that has learned to"
        raise ArgumentError(f"--uncertainty: {model.name} does not say how far it may be off; {one}")
    if request.consistency != "sensor":
        raise ArgumentError(
            f"--consistency {request.consistency}: --uncertainty is that of mosaics held by the sensor's response; "
            "leave one of them out"
        )
    if unknown := [band for band in request.bands if band not in model.bands]:
        raise ArgumentError(
            f"--uncertainty: {model.name} knows how far it may be off in {', '.join(model.bands)}; leave "
            f"{', '.join(unknown)} out of --bands"
        )
