"""What the pipeline may know of models: a name or file in, a callable on tiles out.

Importing this module does not import torch, so that the command line starts at once.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from .arithmetic import FLOAT32, arithmetic_on, chosen, device_of, precision_of, reduced_precision, unable
from .base.errors import ModelError
from .graphs.engines import ENGINES, check_packages
from .registry import ModelDescriptor, core_seconds, descriptor_of, list_models, shipped_file

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from .graphs.engines import Run
    from .graphs.program import Traced

__all__ = [
    "ENGINES",
    "FLOAT32",
    "ModelDescriptor",
    "Upscaler",
    "arithmetic_on",
    "check_packages",
    "chosen",
    "core_seconds",
    "descriptor_of",
    "list_models",
    "load",
    "reduced_precision",
    "shipped_file",
]

MOST_TILES = 64
"""Tiles a pass on a GPU at most; the compact student of x4 passes 2.2 times as many a second in 64 as in 4 (H200)."""
SHARE = 4
"""Part of a GPU's memory, 1 in so many, that a pass of the network may take: the rest is for what comes before and
after it, and for other programs."""


class Upscaler:
    """A model ready to run: for any number of threads on a CPU, for one on a GPU (it sets cuDNN's flags)."""

    descriptor: ModelDescriptor
    network: nn.Module
    """The module itself, image in [-1, 1] to image: students are given it at output size, compact ones and
    interpolators at low resolution. On a CPU what runs is the same function, folded (networks/folded)."""
    device: torch.device
    batch: int
    """Tiles worth handing over at once: they run side by side."""
    whole: bool
    """Whether it is to be given whole tiles: a network that sees all of a tile, an engine, which is made for one shape,
    and a GPU, where tiles pass in batches of one shape. A part of one does for others (`ModelDescriptor.local`)."""

    def __init__(
        self,
        descriptor: ModelDescriptor,
        network: nn.Module,
        device: torch.device,
        cores: int = 1,
        arithmetic: str | None = None,
        engine: str | None = None,
    ) -> None:
        """`network` is moved to `device`; see `load` for models by name, and for `arithmetic`. `engine`: one of
        ENGINES (models/graphs/engines.py), which runs the network in the place of PyTorch, on the CPU in float32.

        On the CPU `cores` tiles run at once, each on one thread, and torch is set to one thread an operation for the
        whole process: how torch cuts an operation over threads changes its rounding (a bfloat16 network: by up to 4
        DN), and whole tiles side by side need no waiting for each other (1.8 times as fast on two busy cores).
        """
        import torch

        from .networks.interpolation import interpolator

        self.descriptor, self.device = descriptor, device
        self.network = network.eval().to(device).to(memory_format=torch.channels_last)
        self._first = interpolator("bicubic", descriptor.scale).to(device) if descriptor.enlarged else None
        # Interpolators stay in float32: they cost nothing, and they are what networks are compared with.
        chosen = precision_of(arithmetic, device)
        self.precision = chosen if descriptor.kind == "student" and engine is None else None
        self.whole = device.type != "cpu" or engine is not None or not descriptor.local
        self._engine = engine
        self._starting = Lock()
        self._started: dict[bool, Run] = {}
        self._running = self.network
        if device.type == "cpu" and descriptor.kind == "student" and engine is None:
            from .networks.folded.students import fold

            self._running = fold(self.network, self.precision or torch.float32)
        self._pool: ThreadPoolExecutor | None = None
        self.batch = cores
        if device.type == "cuda":
            self.batch = self._measured_batch()
        elif device.type == "cpu":
            torch.set_num_threads(1)
            self._pool = ThreadPoolExecutor(cores, "tile", torch.set_num_threads, (1,))

    def __call__(self, tiles: Tensor) -> Tensor:
        """Tiles [n, band, h, w] in the value range -> [n, band, h * scale, w * scale], float32, on the device, not
        clamped.

        The result of a tile does not depend on the tiles beside it. On the CPU they pass one by one. On a GPU the order
        in which a kernel adds up depends on the shape it is given (the published student alone is not itself among
        four), so that all pass in batches of one size, the last one filled up with copies, by cuDNN's deterministic
        algorithms, which are chosen by shape and not by trying. Raises ModelError where the GPU has no memory left.
        """
        (image,) = self.outputs(tiles, uncertainty=False)
        return image

    def outputs(self, tiles: Tensor, *, uncertainty: bool) -> tuple[Tensor, ...]:
        """What a call gives and, with `uncertainty`, for which the descriptor must have one, how far the product may be
        off (models/base/intervals.py): in stored numbers [n, band, h * DETAIL, w * DETAIL].
        """
        import torch

        if self._engine is not None:
            with self._starting:
                if uncertainty not in self._started:
                    from .graphs.checked import engine

                    traced = self.traced(uncertainty)
                    self._started[uncertainty] = engine(self._engine, traced, self.descriptor, self.batch)
        if self._pool is not None:
            made = list(self._pool.map(partial(self._predict, uncertainty), torch.split(tiles, 1)))
            return made[0] if len(made) == 1 else tuple(map(torch.cat, zip(*made, strict=True)))
        try:
            made = [self._predict(uncertainty, self._full(part)) for part in torch.split(tiles, self.batch)]
            return tuple(torch.cat(each)[: len(tiles)] for each in zip(*made, strict=True))
        except torch.OutOfMemoryError as error:
            raise ModelError(
                f"{self.device} has no memory left for {self.batch} tiles of {self.descriptor.name}: "
                "end other programs that use it, or run with --device cpu"
            ) from error

    def _full(self, part: Tensor) -> Tensor:
        """The part on the device, filled up to the batch size."""
        import torch

        fill = part[-1:].expand(self.batch - len(part), -1, -1, -1)
        return torch.cat([part, fill]).to(self.device)

    def _measured_batch(self) -> int:
        """Tiles that the GPU takes at once, by what a single one takes. Raises ModelError where not even that fits."""
        import torch

        size = self.descriptor.tile
        self.batch = 1
        torch.cuda.reset_peak_memory_stats(self.device)
        before = torch.cuda.memory_allocated(self.device)
        tile = torch.zeros(1, len(self.descriptor.bands), size, size)
        self.outputs(tile, uncertainty=self.descriptor.uncertainty)
        one = torch.cuda.max_memory_allocated(self.device) - before
        return batch_of(one, torch.cuda.get_device_properties(self.device).total_memory)

    def traced(self, uncertainty: bool) -> Traced:
        """The way of a tile through `_run`, to be written down (models/graphs/program.py)."""
        from .graphs.program import Traced

        return Traced(self.network, self._run, uncertainty)

    def _predict(self, uncertainty: bool, low: Tensor) -> tuple[Tensor, ...]:
        """`_run` without gradients and in this device's precision; torch keeps both settings per thread.

        Or what an engine makes of one tile of the size that the model is made for.
        """
        import torch

        if self._engine is not None:
            return tuple(torch.from_numpy(output) for output in self._started[uncertainty](low.numpy()))
        # TF32 would cost digital numbers in float32 paths, and a benchmarked algorithm may differ from run to run.
        cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        autocast = torch.autocast(self.device.type, self.precision, enabled=self.precision is not None)
        with torch.inference_mode(), cudnn if self.device.type == "cuda" else nullcontext(), autocast:
            return self._run(low, uncertainty, self._running)

    def _run(self, low: Tensor, uncertainty: bool, running: nn.Module | None = None) -> tuple[Tensor, ...]:
        """[n, band, h, w] -> the image [n, band, h * scale, w * scale] and, with `uncertainty`, how far it may be off,
        [n, band, h * DETAIL, w * DETAIL]; all float32 on the device.

        `running`: what stands in the network's place.
        """
        import torch
        from torch.nn import functional as F  # noqa: N812

        network = running or self.network
        multiple, image = self.descriptor.multiple, low
        if self._first is None:
            multiple = max(1, multiple // self.descriptor.scale)
        else:
            image = self._first(low)
        height, width = image.shape[-2:]
        image = F.pad(image, (0, -image.shape[-1] % multiple, 0, -image.shape[-2] % multiple), mode="replicate")
        image = image.contiguous(memory_format=torch.channels_last)
        # A CompactStudent, where it is asked for that.
        made = network.with_uncertainty(image) if uncertainty else (network(image),)  # type: ignore[operator]
        times = [each.shape[-1] // image.shape[-1] for each in made]
        return tuple(each[..., : height * k, : width * k] for each, k in zip(made, times, strict=True))


def batch_of(tile_bytes: int, total_bytes: int) -> int:
    """Tiles a pass, of the memory that one takes and that the card has.

    A power of two, and of the whole memory, not of what is free: cards of one kind pass the same batches, whatever else
    runs on them, and so give the same numbers.
    """
    fitting = min(MOST_TILES, total_bytes // SHARE // max(tile_bytes, 1))
    return 1 << (max(fitting, 1).bit_length() - 1)


def load(
    name_or_path: str,
    scale: int,
    device: str = "cpu",
    cores: int = 1,
    *,
    arithmetic: str | None = None,
    planned: ModelDescriptor | None = None,
) -> Upscaler:
    """`default`, a name of `list_models` or a weights file, at `scale` (4 or 8), on `cpu`, `cuda` or `cuda:N`, or on
    the CPU in one of ENGINES: there a student takes tiles of its own size alone; interpolators stay in PyTorch.

    `cores`: how many tiles run at once on the CPU; see Upscaler for what that does to torch's threads. `arithmetic`:
    what `arithmetic_on` said of some device, to compute as that one does; None is this device's own. `planned`: what
    the model must be; the bytes that are loaded are the bytes that are compared.

    Raises ModelError for what `descriptor_of` raises it for, for damaged weights, for a device that is not there or
    cannot do the arithmetic, and for a model that is not the planned one.
    """
    where = device_of("cpu" if device in ENGINES else device)
    descriptor = descriptor_of(name_or_path, scale)
    if planned is not None and _identity(descriptor) != _identity(planned):
        raise ModelError(
            f"{name_or_path} is not the model this run was planned with (SHA-256 {descriptor.sha256[:12]}..., not "
            f"{planned.sha256[:12]}...): put that file back on every machine and run the same command again"
        )
    network: nn.Module
    if descriptor.path is not None:
        from .weights_file import load_student

        network = load_student(Path(descriptor.path), descriptor.sha256)
    else:
        from .networks.interpolation import interpolator

        network = interpolator(descriptor.name, scale)
    if device not in ENGINES or descriptor.kind != "student":
        return Upscaler(descriptor, network, where, cores, arithmetic)
    if arithmetic not in (None, arithmetic_on(device)):
        raise unable(arithmetic, device)
    return Upscaler(descriptor, network, where, cores, engine=device)


def _identity(descriptor: ModelDescriptor) -> ModelDescriptor:
    """What of a descriptor decides the numbers: what the file is called does not, its header is under its digest."""
    return replace(descriptor, name="", path=None, header=None, licence="")
