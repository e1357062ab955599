"""Metrics that are networks: an image and its truth in, one number out, where the user has fetched the weights.

Images are [3, y, x] in [0, 1]. Nothing is downloaded: a metric whose weights are not here is a sentence that says which
file is wanted and where.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torchmetrics.functional.image import dists as torchmetrics_dists
from torchvision.models import VGG16_Weights, vgg16
from transformers import CLIPModel, CLIPTokenizer

from rsup.models.base.errors import ModelError
from rsup.models.losses.perceptual import Perceptual, backbone_file

Measure = Callable[[Tensor, Tensor], float]

CLIP = "openai/clip-vit-base-patch16"

NO_LIBRARY = (
    "no library under a licence that rsup may depend on computes it: "
    "save the images and measure them with a tool of your own"
)


class Dists(nn.Module):
    """DISTS (Ding et al. 2020): two images [n, 3, y, x] in [0, 1] -> distances [n], 0 for equal ones.

    VGG-16 by torchvision, with its maximum pooling replaced, and the published weights of its channels, which come with
    torchmetrics; torchmetrics' own network downloads, and unpickles what it finds unchecked. Raises ModelError where
    the backbone's file is missing or damaged.
    """

    ENDS = (3, 8, 15, 22, 29)
    """The layers of VGG-16 after which features are taken: the last ReLU before each pooling."""
    STABILISER = 1e-6

    alpha: Tensor
    beta: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        with torch.device("meta"):
            layers: Any = vgg16().features
        layers.load_state_dict(_vgg(), assign=True)
        stages, start = [], 0
        for end in self.ENDS:
            parts = [layers[k] for k in range(start, end + 1)]
            if start:
                parts[0] = torchmetrics_dists.L2pooling(channels=parts[1].in_channels)
            stages.append(nn.Sequential(*parts))
            start = end + 1
        self.stages = nn.ModuleList(stages)
        heads = torch.load(torchmetrics_dists._PATH_WEIGHT_DISTS, map_location="cpu", weights_only=True)
        total = heads["alpha"].sum() + heads["beta"].sum()
        for name in ("alpha", "beta"):
            self.register_buffer(name, (heads[name] / total).detach().flatten())
        # torchvision's normalisation of the images its networks were trained on.
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225])[:, None, None])
        self.requires_grad_(False).eval()

    def forward(self, image: Tensor, truth: Tensor) -> Tensor:
        texture, structure = [], []
        for x, y in zip(self._features(image), self._features(truth), strict=True):
            mx, my = x.mean((2, 3)), y.mean((2, 3))
            vx, vy = x.var((2, 3), correction=0), y.var((2, 3), correction=0)
            covariance = (x * y).mean((2, 3)) - mx * my
            texture.append((2 * mx * my + self.STABILISER) / (mx**2 + my**2 + self.STABILISER))
            structure.append((2 * covariance + self.STABILISER) / (vx + vy + self.STABILISER))
        alike: Tensor = torch.cat(texture, 1) @ self.alpha + torch.cat(structure, 1) @ self.beta
        return 1 - alike

    def _features(self, image: Tensor) -> list[Tensor]:
        found, x = [image], (image - self.mean) / self.deviation
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class ClipIqa(nn.Module):
    """CLIP-IQA (Wang et al. 2023): images [n, 3, y, x] in [0, 1] -> [n] in 0..1, how much rather good than bad.

    With the vision transformer of `source`, a hub id or a folder, on images brought to its size. The article's own
    figures are of a ResNet-50 without positions: this one ranks alike, its numbers are others. Raises ModelError.
    """

    PROMPTS = ("Good photo.", "Bad photo.")
    SHARPNESS = 100
    """CLIP's own factor before the softmax."""

    clip: Any
    anchors: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, source: str) -> None:
        super().__init__()
        try:
            self.clip = CLIPModel.from_pretrained(source, local_files_only=True, dtype=torch.float32)
            tokens = CLIPTokenizer.from_pretrained(source, local_files_only=True)
        except Exception as error:  # absent, half there or damaged: the libraries have an exception for each
            raise ModelError(f"run `hf download {source}` where there is a network, into the hub cache") from error
        self.requires_grad_(False).eval()
        ids = tokens(list(self.PROMPTS), padding=True, return_tensors="pt")
        with torch.no_grad():
            words = self.clip.get_text_features(**ids).pooler_output
        self.register_buffer("anchors", F.normalize(words, dim=-1))
        # CLIP's normalisation (Radford et al. 2021).
        self.register_buffer("mean", torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None])
        self.register_buffer("deviation", torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None])

    def forward(self, image: Tensor) -> Tensor:
        side = self.clip.config.vision_config.image_size
        resized = F.interpolate(image, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
        seen = self.clip.get_image_features(pixel_values=(resized - self.mean) / self.deviation).pooler_output
        logits: Tensor = self.SHARPNESS * F.normalize(seen, dim=-1) @ self.anchors.T
        return logits.softmax(-1)[:, 0]


def learned_measures(device: torch.device) -> tuple[dict[str, Measure], dict[str, str]]:
    """The metrics at hand by name, on `device`, and a sentence for each that is not.

    Names: lpips (AlexNet, as it is customarily reported), dists, musiq, maniqa, clip_iqa.
    """
    measures: dict[str, Measure] = {}
    notes = {"musiq": NO_LIBRARY, "maniqa": NO_LIBRARY}
    for name, make in (("lpips", _lpips), ("dists", _dists), ("clip_iqa", _clip_iqa)):
        try:
            measures[name] = make(device)
        except ModelError as error:
            notes[name] = str(error)
    if "clip_iqa" in measures:
        notes["clip_iqa"] = f"with {CLIP}, not the ResNet-50 of the article: compare among these figures alone"
    return measures, notes


def _lpips(device: torch.device) -> Measure:
    path = backbone_file("lpips-alex")
    if not path.is_file():
        raise ModelError(f"download torchvision's {path.name} into {path.parent}")
    network = Perceptual("lpips-alex").to(device)

    def measure(image: Tensor, truth: Tensor) -> float:
        with torch.inference_mode():
            return float(network(2 * image[None] - 1, 2 * truth[None] - 1))

    return measure


def _dists(device: torch.device) -> Measure:
    network = Dists().to(device)

    def measure(image: Tensor, truth: Tensor) -> float:
        with torch.inference_mode():
            return float(network(image[None].float(), truth[None].float()))

    return measure


def _clip_iqa(device: torch.device) -> Measure:
    network = ClipIqa(CLIP).to(device)

    def measure(image: Tensor, truth: Tensor) -> float:
        with torch.inference_mode():
            return float(network(image[None].float()))

    return measure


def _vgg() -> dict[str, Tensor]:
    path: Path = backbone_file("lpips-vgg")
    if not path.is_file():
        raise ModelError(f"download {VGG16_Weights.IMAGENET1K_V1.url} into {path.parent}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read: download {VGG16_Weights.IMAGENET1K_V1.url} again") from error
