"""What the pipeline may know of models: a name or file in, a callable on tiles out.

Importing this module does not import torch, so that the command line starts at once.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from .base.errors import ModelError
from .registry import ModelDescriptor, descriptor_of, list_models, shipped_file

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = [
    "FLOAT32",
    "ModelDescriptor",
    "Upscaler",
    "arithmetic_on",
    "chosen",
    "descriptor_of",
    "list_models",
    "load",
    "shipped_file",
]

CUDA_BATCH = 4
"""Tiles a pass on a GPU: enough to fill one, and under 2 GB with the published student."""

FLOAT32 = "float32"
"""The arithmetic that every device can do, and in which all of them agree within a rounding: see `arithmetic_on`."""


class Upscaler:
    """A model ready to run. Not thread-safe: one call at a time (it sets cuDNN's flags for its duration)."""

    descriptor: ModelDescriptor
    network: nn.Module
    """The module itself, image in [-1, 1] to image: students are given it at output size, compact ones and
    interpolators at low resolution. On a CPU what runs is the same function, folded (networks/folded)."""
    device: torch.device
    batch: int
    """Tiles worth handing over at once: they run side by side."""

    def __init__(
        self,
        descriptor: ModelDescriptor,
        network: nn.Module,
        device: torch.device,
        cores: int = 1,
        arithmetic: str | None = None,
    ) -> None:
        """`network` is moved to `device`; see `load` for models by name, and for `arithmetic`.

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
        chosen = reduced_precision(device) if arithmetic is None else _precision(arithmetic, device)
        self.precision = chosen if descriptor.kind == "student" else None
        self._running = self.network
        if device.type == "cpu" and descriptor.kind == "student":
            from .networks.folded.students import fold

            self._running = fold(self.network, self.precision or torch.float32)
        self.batch = CUDA_BATCH if device.type == "cuda" else cores
        self._pool: ThreadPoolExecutor | None = None
        if device.type == "cpu":
            torch.set_num_threads(1)
            self._pool = ThreadPoolExecutor(cores, "tile", torch.set_num_threads, (1,))

    def __call__(self, tiles: Tensor, *, uncertainty: bool = False) -> Tensor:
        """Tiles [n, band, h, w] in the value range -> [n, band, h * scale, w * scale], float32, on the device, not
        clamped.

        With `uncertainty`, for which the descriptor must have one: twice as many channels, in whose second half stand
        how far the product may be off (models/base/intervals.py), in stored numbers.

        The result of a tile does not depend on the tiles beside it. On the CPU they pass one by one. On a GPU the order
        in which a kernel adds up depends on the shape it is given (the published student alone is not itself among
        four), so that all pass in batches of one size, the last one filled up with copies, by cuDNN's deterministic
        algorithms, which are chosen by shape and not by trying. Raises ModelError where the GPU has no memory left.
        """
        import torch

        if self._pool is not None:
            return torch.cat(list(self._pool.map(partial(self._predict, uncertainty), torch.split(tiles, 1))))
        try:
            parts = torch.split(tiles, self.batch)
            return torch.cat([self._predict(uncertainty, self._full(part))[: len(part)] for part in parts])
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

    def _predict(self, uncertainty: bool, low: Tensor) -> Tensor:
        """`_run` without gradients and in this device's precision; torch keeps both settings per thread."""
        import torch

        # TF32 would cost digital numbers in float32 paths, and a benchmarked algorithm may differ from run to run.
        cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        autocast = torch.autocast(self.device.type, self.precision, enabled=self.precision is not None)
        with torch.inference_mode(), cudnn if self.device.type == "cuda" else nullcontext(), autocast:
            return self._run(low, uncertainty, self._running)

    def _run(self, low: Tensor, uncertainty: bool, running: nn.Module | None = None) -> Tensor:
        """[n, band, h, w] -> [n, channel, h * scale, w * scale], both float32 on the device.

        `running`: what stands in the network's place.
        """
        import torch
        from torch.nn import functional as F  # noqa: N812

        network = running or self.network
        scale, multiple = self.descriptor.scale, self.descriptor.multiple
        height, width = (side * scale for side in low.shape[-2:])
        image = low
        if self._first is None:
            multiple = max(1, multiple // scale)
        else:
            image = self._first(low)
        image = F.pad(image, (0, -image.shape[-1] % multiple, 0, -image.shape[-2] % multiple), mode="replicate")
        image = image.contiguous(memory_format=torch.channels_last)
        if uncertainty:
            both: tuple[Tensor, Tensor] = network.with_uncertainty(image)  # type: ignore[operator] # a CompactStudent
            result = torch.cat(both, 1)
        else:
            result = network(image)
        return result[..., :height, :width]


def load(
    name_or_path: str,
    scale: int,
    device: str = "cpu",
    cores: int = 1,
    *,
    arithmetic: str | None = None,
    planned: ModelDescriptor | None = None,
) -> Upscaler:
    """`default`, a name of `list_models` or a weights file, at `scale` (4 or 8), on `cpu`, `cuda` or `cuda:N`.

    `cores`: how many tiles run at once on the CPU; see Upscaler for what that does to torch's threads. `arithmetic`:
    what `arithmetic_on` said of some device, to compute as that one does; None is this device's own. `planned`: what
    the model must be; the bytes that are loaded are the bytes that are compared.

    Raises ModelError for what `descriptor_of` raises it for, for damaged weights, for a device that is not there or
    cannot do the arithmetic, and for a model that is not the planned one.
    """
    where = _device(device)
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
    return Upscaler(descriptor, network, where, cores, arithmetic)


def _identity(descriptor: ModelDescriptor) -> ModelDescriptor:
    """What of a descriptor decides the numbers: what the file is called does not, its header is under its digest."""
    return replace(descriptor, name="", path=None, header=None, licence="")


def reduced_precision(device: torch.device) -> torch.dtype | None:
    """The 16-bit type networks run in on `device`, or None where float32 is as fast.

    GPUs: bfloat16 where the card has it, float16 elsewhere. CPUs: bfloat16 where they multiply it in hardware
    (AVX512_BF16 or AMX), which made the student 2.3 times as fast (1.4 s against 3.2 s for 512 x 512 pixels on two
    Zen 4 cores); elsewhere it is emulated and slower than float32. It is slower as well on an Intel CPU whose AMX a
    virtual machine hides (one core: 6.1 s against 4.0 s, and 0.50 s against 0.42 s for the compact student of x4);
    AVX512_FP16 tells that one from Zen 4.
    """
    import torch

    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    features = torch.cpu.get_capabilities()
    vectors = features.get("avx512_bf16") and not features.get("avx512_fp16")
    return torch.bfloat16 if features.get("amx_bf16") or vectors else None


def arithmetic_on(device: str) -> str:
    """The arithmetic of a network on `device` that is free to choose: "float32", or as "bfloat16 on cuda".

    Two runs of one arithmetic agree within about 1 DN; 16-bit types differ from float32, and one kind of device from
    another, by up to 4, because autocast keeps other operations in float32 on each. Raises ModelError where the device
    is not there.
    """
    where = _device(device)
    reduced = reduced_precision(where)
    return FLOAT32 if reduced is None else f"{str(reduced).removeprefix('torch.')} on {where.type}"


def _precision(arithmetic: str, device: torch.device) -> torch.dtype | None:
    """The type autocast is given for an arithmetic; raises ModelError where `device` cannot do it."""
    import torch

    if arithmetic == FLOAT32:
        return None
    types = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    name, _, kind = arithmetic.partition(" on ")
    # A CPU can do either, if slower than float32; a card has bfloat16 or has it not.
    emulated = device.type == "cuda" and name == "bfloat16" and reduced_precision(device) != torch.bfloat16
    if name not in types or kind != device.type or emulated:
        raise ModelError(
            f"this run's chunks are computed in {arithmetic}, which {device} here cannot do: go on where it was begun, "
            "or start afresh with --overwrite"
        )
    return types[name]


def chosen(device: str) -> str:
    """The device of that name; for `auto` a CUDA card where PyTorch sees one, else the CPU."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ModelError(f"device must be cpu, cuda or cuda:N, not {name}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device {name}: PyTorch sees no CUDA device here; run with --device cpu, or mend the driver")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise ModelError(f"device {name}: there are only {torch.cuda.device_count()} CUDA devices, counted from 0")
    return device
