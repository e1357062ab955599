"""What runs a shipped student fastest on one core, side by side: PyTorch in its own arithmetic and in float32, engines.

`python tests/benchmarks/engines.py [MODEL...]`: CPU seconds a tile of the model's size, median and least of turns, the
ratio to PyTorch's own arithmetic, and how far the image is from PyTorch's in float32, in stored numbers. OpenVINO in
bfloat16, which `rsup` does not run, is there to be compared.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rsup.models.base.radiometry import from_network
from rsup.models.graphs.checked import made_tiles
from rsup.models.graphs.program import as_onnx, program
from rsup.models.upscaler import ENGINES, FLOAT32, Upscaler, arithmetic_on, descriptor_of, load

TURNS = 9


def reduced(model: Upscaler) -> Callable[[Tensor], Tensor]:
    """OpenVINO in bfloat16 on one thread."""
    import openvino

    core: Any = openvino.Core()
    graph = as_onnx(program(model.traced(False), model.descriptor), {})
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    request = core.compile_model(core.read_model(graph), "CPU", settings).create_infer_request()
    return lambda tile: torch.from_numpy(next(iter(request.infer([tile.numpy()]).values())))


def compare(name: str) -> None:
    """Print a model's table."""
    scale = next(scale for scale in (4, 8) if name.endswith(f"x{scale}"))
    tile = made_tiles(descriptor_of(name, scale), 1)
    plain = load(name, scale, arithmetic=FLOAT32)
    expected = from_network(plain(tile))
    own = f"PyTorch, {arithmetic_on('cpu')}"
    runs: dict[str, Callable[[Tensor], Tensor]] = {own: load(name, scale), f"PyTorch, {FLOAT32}": plain}
    runs |= {arithmetic_on(device): load(name, scale, device) for device in ENGINES}
    runs["bfloat16 in OpenVINO"] = reduced(load(name, scale, arithmetic=FLOAT32))
    apart = {each: (from_network(run(tile)) - expected).abs() for each, run in runs.items()}
    seconds: dict[str, list[float]] = {each: [] for each in runs}
    for _ in range(TURNS):
        for each, run in runs.items():
            start = time.process_time()
            run(tile)
            seconds[each].append(time.process_time() - start)
    sys.stdout.write(f"| {name} | median | least | times {own} | DN, most | DN, RMS |\n|---|---|---|---|---|---|\n")
    for each, taken in seconds.items():
        faster = statistics.median(seconds[own]) / statistics.median(taken)
        rms = float(apart[each].square().mean().sqrt())
        cells = f"{statistics.median(taken):.3f} | {min(taken):.3f} | {faster:.2f}"
        sys.stdout.write(f"| {each} | {cells} | {float(apart[each].max()):.3f} | {rms:.4f} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    for model in sys.argv[1:] or ["compact-x4", "compact-x8"]:
        compare(model)
