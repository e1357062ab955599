"""What runs a graph in PyTorch's place: an ONNX model as bytes in, a callable on one tile out.

Each computes in float32, one tile on one thread, so that a tile is the same whatever runs beside it and on however many
cores. Importing this module imports none of the packages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from rsup.models.base.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Run = Callable[[NDArray[np.float32]], list[NDArray[np.float32]]]
    """One tile [1, band, h, w] -> the graph's outputs. Several threads may call it at once."""


@dataclass(frozen=True)
class Engine:
    """One of ENGINES."""

    packages: tuple[str, ...]
    """That it needs: what it is, and what writes ONNX."""
    start: Callable[[bytes, int], Run]
    """The graph, and how many threads will call at once."""


def _onnxruntime(graph: bytes, callers: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # standard error is kept for sentences
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(tile: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        found: list[NDArray[np.float32]] = session.run(None, {name: tile})
        return found

    return run


def _openvino(graph: bytes, callers: int) -> Run:
    import openvino

    core = openvino.Core()
    # Where a CPU multiplies bfloat16 OpenVINO takes that unasked, image and residual with it: 6 DN RMS from float32,
    # where PyTorch's autocast is 2 (compact-x8).
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": callers,
        "NUM_STREAMS": callers,
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(core.read_model(graph), "CPU", settings)
    idle: SimpleQueue[Any] = SimpleQueue()
    for _ in range(callers):
        idle.put(compiled.create_infer_request())

    def run(tile: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        request = idle.get()
        try:
            return list(request.infer([tile]).values())  # copies: the request is somebody else's next
        finally:
            idle.put(request)

    return run


ENGINES = {
    "onnx": Engine(("onnx", "onnxscript", "onnxruntime"), _onnxruntime),
    "openvino": Engine(("onnx", "onnxscript", "openvino"), _openvino),
}
"""By the name of the device, which is that of rsup's extra."""


def check_packages(name: str, asked: str) -> None:
    """Raise ModelError, beginning with what was `asked`, where a package of the engine is not installed."""
    if absent := [package for package in ENGINES[name].packages if find_spec(package) is None]:
        raise ModelError(f'{asked} needs {", ".join(absent)}: pip install "rsup[{name}]"')
