"""In which numbers a network computes on a device: the name of a device in, an arithmetic that is recorded out.

Importing this module does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base.errors import ModelError
from .graphs.engines import ENGINES, check_packages

if TYPE_CHECKING:
    import torch

FLOAT32 = "float32"
"""The arithmetic that every device can do, and in which all of them agree within a rounding: see `arithmetic_on`."""


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
    another, by up to 4, because autocast keeps other operations in float32 on each. An engine's, as "float32 on onnx",
    is within a rounding of PyTorch's float32, and is still not mixed with it. Raises ModelError where the device, or a
    package, is not there.
    """
    if device in ENGINES:
        check_packages(device, f"--device {device}")
        return f"{FLOAT32} on {device}"
    where = device_of(device)
    reduced = reduced_precision(where)
    return FLOAT32 if reduced is None else f"{str(reduced).removeprefix('torch.')} on {where.type}"


def precision_of(arithmetic: str | None, device: torch.device) -> torch.dtype | None:
    """The type autocast is given for an arithmetic, None for the device's own; raises ModelError where `device` cannot
    do it.
    """
    import torch

    if arithmetic is None:
        return reduced_precision(device)
    if arithmetic == FLOAT32:
        return None
    types = {"bfloat16": torch.bfloat16, "float16": torch.float16}
    name, _, kind = arithmetic.partition(" on ")
    # A CPU can do either, if slower than float32; a card has bfloat16 or has it not.
    emulated = device.type == "cuda" and name == "bfloat16" and reduced_precision(device) != torch.bfloat16
    if name not in types or kind != device.type or emulated:
        raise unable(arithmetic, device)
    return types[name]


def unable(arithmetic: str | None, device: object) -> ModelError:
    return ModelError(
        f"this run's chunks are computed in {arithmetic}, which {device} here cannot do: go on where it was begun, "
        "or start afresh with --overwrite"
    )


def chosen(device: str) -> str:
    """The device of that name; for `auto` a CUDA card where PyTorch sees one, else the CPU."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def device_of(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise ModelError(f"device must be cpu, cuda, cuda:N, {' or '.join(ENGINES)}, not {name}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"device {name}: PyTorch sees no CUDA device here; run with --device cpu, or mend the driver")
    if device.type == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise ModelError(f"device {name}: there are only {torch.cuda.device_count()} CUDA devices, counted from 0")
    return device
