"""LPIPS on images in [-1, 1]: torchmetrics' network and heads on a torchvision backbone that the user has fetched.

Nothing is downloaded: a backbone that is not there is a ModelError that names the file and its folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

# The public class offers no way past torchvision's own loader, which downloads, and unpickles what it finds unchecked.
from torchmetrics.functional.image.lpips import _NoTrainLpips
from torchvision.models import AlexNet_Weights, VGG16_Weights

from rsup.models.base.errors import ModelError
from rsup.models.networks.precision import full_precision
from rsup.models.networks.sight import Sight

from .features import FeatureDistance
from .terms import PerceptualKind, frequency

LpipsKind = Literal["lpips-vgg", "lpips-alex"]
Term = Callable[[Tensor, Tensor], Tensor]

_URLS = {"lpips-vgg": VGG16_Weights.IMAGENET1K_V1.url, "lpips-alex": AlexNet_Weights.IMAGENET1K_V1.url}


def backbone_file(kind: LpipsKind) -> Path:
    """Where torchvision keeps the backbone's weights: `checkpoints` in torch.hub's folder (TORCH_HOME moves it)."""
    return Path(str(torch.hub.get_dir()), "checkpoints", str(_URLS[kind]).rsplit("/", 1)[-1])


class Perceptual(nn.Module):
    """LPIPS v0.1 (Zhang et al. 2018): two image batches [n, 3, h, w] in [-1, 1] -> mean distance, a scalar.

    Frozen and always in evaluation mode; gradients flow to the images, also beyond [-1, 1]. Float32 under autocast.
    Sides of at least 64 pixels suit both backbones. The metric is customarily reported with AlexNet, the loss used with
    VGG. Raises ModelError where the backbone's file is missing or damaged.
    """

    def __init__(self, kind: LpipsKind) -> None:
        super().__init__()
        path = backbone_file(kind)
        state = _read(path, kind)
        self.network = _NoTrainLpips(net="vgg" if kind == "lpips-vgg" else "alex", pnet_rand=True)
        backbone = self.network.net
        for name, tensor in backbone.state_dict().items():
            # "slice2.4.weight" here is "features.4.weight" there.
            found = state.get("features." + name.split(".", 1)[1])
            if found is None or found.shape != tensor.shape:
                raise ModelError(f"{path} is not torchvision's {path.stem}: download {_URLS[kind]} again")
            tensor.copy_(found)

    def forward(self, prediction: Tensor, truth: Tensor) -> Tensor:
        with full_precision(prediction.device):
            distance: Tensor = self.network(prediction.float(), truth.float())
            return distance.mean()


def perceptual_term(kind: PerceptualKind) -> Term | None:
    """The perceptual term of a recipe, (prediction, truth) -> scalar; None for `none`.

    LPIPS and the feature distance come as modules on the CPU, to be moved to the images' device. Raises ModelError as
    `Perceptual` and `Sight` do.
    """
    if kind == "none":
        return None
    if kind == "features":
        return FeatureDistance(Sight("lite0"))
    return frequency if kind == "frequency" else Perceptual(kind)


def _read(path: Path, kind: LpipsKind) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(
            f"LPIPS needs {path.name}: download {_URLS[kind]} into {path.parent}, "
            'or choose the perceptual term "frequency", which needs no weights'
        )
    try:
        state: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle makes the reader fail in any way at all
        raise ModelError(f"{path} cannot be read: download {_URLS[kind]} again") from error
    return state
