"""What takes part in a comparison: how its network is built, what is timed of it, and which rows that makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rsup.models.networks.architectures import parameters
from rsup.models.show import gmac

SIDE = 512
"""Of a tile, in output pixels."""

Call = Callable[..., object]


@dataclass(frozen=True)
class Where:
    """What a network runs on, and in what."""

    device: torch.device
    precision: torch.dtype | None
    """The 16-bit type of autocast; None for float32."""
    tiles: int
    """That pass at once, where the network does not say how many."""


@dataclass(frozen=True)
class Pass:
    """One pass of a network, or of a part that runs several times a tile."""

    run: Callable[[], object]
    parameters: int
    gmac: float
    """Of one tile, in convolutions and matrix products."""
    tiles: int
    """That one run takes."""


@dataclass(frozen=True)
class Row:
    """A line of the table: a sum of passes."""

    name: str
    scale: int
    passes: Mapping[str, int]
    """How often each pass runs for a tile."""
    note: str = ""


@dataclass(frozen=True)
class Contender:
    """One process: networks that are built and timed together."""

    build: Callable[[Where], Mapping[str, Pass]]
    """The passes by their names."""
    rows: tuple[Row, ...]
    package: str | None = None
    """What must be installed, beyond what rsup needs itself."""


def pass_of(
    network: nn.Module,
    where: Where,
    *shapes: tuple[int, ...],
    call: Call | None = None,
    float32: tuple[type[nn.Module], ...] = (),
) -> Pass:
    """A pass of a library's module with random inputs of these shapes, in which a tile's first axis is left out.

    A module on `meta` is given random weights. Weights are in the 16-bit type and channels_last, as whoever wants speed
    runs them, but for modules that are to stay in `float32`; a constant of float32 inside meets autocast.
    """
    called = call or (lambda network, *inputs: network(*inputs))
    count, twin = parameters(network), _Called(deepcopy(network).to("meta"), called)
    cost = gmac(twin, *(torch.empty(1, *shape, device="meta") for shape in shapes))
    precision = where.precision or torch.float32
    network.to(precision)
    for module in network.modules():
        if isinstance(module, float32):
            module.float()
    network = drawn(network, where.device).to(memory_format=torch.channels_last)
    inputs = [torch.rand(where.tiles, *shape, device=where.device, dtype=precision) for shape in shapes]
    inputs = [each.contiguous(memory_format=torch.channels_last) if each.ndim == 4 else each for each in inputs]

    def run() -> object:
        autocast = torch.autocast(where.device.type, where.precision, enabled=where.precision is not None)
        with torch.inference_mode(), autocast:
            return called(network, *inputs)

    return Pass(run, count, cost, where.tiles)


def drawn(network: nn.Module, device: torch.device) -> nn.Module:
    """The module on the device, for inference; from `meta` with random weights, the same numbers again and again.

    Networks draw theirs with care, which for a thousand million of them takes longer than what is to be timed.
    """
    network.eval().requires_grad_(False)
    if not any(parameter.is_meta for parameter in network.parameters()):
        return network.to(device)
    network.to_empty(device=device)
    pool = (torch.rand(2**20, generator=torch.Generator().manual_seed(0)) - 0.5).to(device) / 20
    for parameter in network.parameters():
        for part in parameter.view(-1).split(len(pool)):
            part.copy_(pool[: len(part)])
    return network


class _Called(nn.Module):
    """A network as it is called."""

    def __init__(self, network: nn.Module, call: Call) -> None:
        super().__init__()
        self.network, self.call = network, call

    def forward(self, *inputs: Tensor) -> object:
        return self.call(self.network, *inputs)
