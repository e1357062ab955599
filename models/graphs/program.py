"""A model's way of a tile in, the same as one program out, and that as bytes: ONNX or torch.export's archive.

A program takes one tile of the size the model is made for, in float32, and has the enlargement, the padding and the
network in it. It holds no paths and no times: equal weights and equal libraries give equal bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from rsup.models.registry import ModelDescriptor

KEY = "rsup"
"""Of what a file says of itself: an entry of ONNX's metadata_props, and with .json the name of an archive's file."""
TILE, OUTPUTS = "tile", ("image", "uncertainty")
"""What ONNX files call what goes in and what comes out."""


class Traced(nn.Module):
    """What is written down: a tile [1, band, h, w] -> the image [1, band, h * scale, w * scale], and with
    `uncertainty` how far it may be off, [1, band, h * DETAIL, w * DETAIL].
    """

    def __init__(
        self, network: nn.Module, run: Callable[[Tensor, bool], tuple[Tensor, ...]], uncertainty: bool
    ) -> None:
        """`run`: what takes a tile through `network`, and says whether there is more to come than the image."""
        super().__init__()
        self.network, self.run, self.uncertainty = network, run, uncertainty

    def forward(self, tile: Tensor) -> tuple[Tensor, ...]:
        return self.run(tile, self.uncertainty)


def program(traced: Traced, descriptor: ModelDescriptor) -> ExportedProgram:
    """The program of a model on the CPU in float32; the network's tensors are contiguous afterwards, and fixed."""
    # As they are stored in a file: tensors in channels_last would be written as views of something larger.
    traced.network.requires_grad_(False).to(memory_format=torch.contiguous_format)
    tile = torch.zeros(1, len(descriptor.bands), descriptor.tile, descriptor.tile)
    with torch.no_grad():
        made = torch.export.export(traced.eval(), (tile,), strict=False)
    for module in made.graph_module.modules():
        graph = getattr(module, "graph", None)
        for node in graph.nodes if graph is not None else ():
            node.meta.pop("stack_trace", None)  # paths of this machine
    return made


def as_archive(made: ExportedProgram, about: dict[str, Any]) -> bytes:
    """What `torch.export.load` reads; `about` is its extra file `rsup.json`."""
    file = io.BytesIO()
    torch.export.save(made, file, extra_files={f"{KEY}.json": json.dumps(about, indent=2)})
    return file.getvalue()


def as_onnx(made: ExportedProgram, about: dict[str, Any]) -> bytes:
    """An ONNX model, whose entry `rsup` of metadata_props is `about`. Needs the packages onnx and onnxscript."""
    outputs = OUTPUTS[: len(made.graph_signature.user_outputs)]
    if any(node.target is _ATTENTION for node in made.graph.nodes):
        made = made.run_decompositions({_ATTENTION: _attention})  # PyTorch translates that of several heads alone
    # Who runs it optimises it for the machine at hand.
    found = torch.onnx.export(made, (), input_names=[TILE], output_names=outputs, optimize=False, verbose=False)
    model = cast(Any, found).model_proto
    for field in ("metadata_props", "doc_string", "value_info"):  # where PyTorch had each from
        model.graph.ClearField(field)
    for part in (*model.graph.node, *model.graph.initializer, *model.graph.input, *model.graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    entry = model.metadata_props.add()
    entry.key, entry.value = KEY, json.dumps(about)
    return bytes(model.SerializeToString(deterministic=True))


_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default


def _attention(query: Tensor, key: Tensor, value: Tensor, *, scale: float | None = None) -> Tensor:
    """Scaled dot-product attention without mask and dropout, over the last two axes."""
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.mT
    return scores.softmax(-1) @ value
