"""What networks of features tell of images: distances to their truth, and whether all of them are alike as a whole.

Images are [3, y, x] in [0, 1]. The networks are EfficientNet-Lite1 and Lite2: Lite0 is what students may learn from.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rsup.models.losses.features import feature_distance
from rsup.models.networks.efficientnet_lite import DEPTHS, EfficientNetLite, Lite

JUDGES: dict[str, Lite] = {"feature_lite1": "lite1", "feature_lite2": "lite2"}
"""Figures of `feature_distance`, and the network of each."""
FRECHET = "frechet_lite1"
"""The figure of the distribution, of the first of those networks."""


class Moments:
    """Mean and covariance of vectors, of as many as were added."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: Tensor | None = None
        self._products: Tensor | None = None

    def add(self, maps: Tensor) -> None:
        """A map [n, c, h, w]: every position is a sample."""
        samples = maps.double().movedim(1, -1).flatten(0, -2)
        total, products = samples.sum(0), samples.T @ samples
        self.count += len(samples)
        self._sum = total if self._sum is None else self._sum + total
        self._products = products if self._products is None else self._products + products

    @property
    def mean(self) -> Tensor:
        """[c], float64. ValueError before the first sample."""
        if self._sum is None:
            raise ValueError("no sample was added")
        return self._sum / self.count

    @property
    def covariance(self) -> Tensor:
        """[c, c], float64, divided by the count. ValueError before the first sample."""
        mean = self.mean
        assert self._products is not None
        return self._products / self.count - mean[:, None] * mean


def frechet(ours: Moments, theirs: Moments) -> float:
    """Frechet distance of the two Gaussians: |m - n|^2 + tr(C + D - 2 (C D)^(1/2)) (Dowson and Landau 1982)."""
    c, d = ours.covariance, theirs.covariance
    values, vectors = torch.linalg.eigh(c)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    # (C D)^(1/2) has the trace of (C^(1/2) D C^(1/2))^(1/2), whose eigenvalues are real.
    shared = torch.linalg.eigvalsh(root @ d @ root).clamp(min=0).sqrt().sum()
    return float((ours.mean - theirs.mean).square().sum() + c.trace() + d.trace() - 2 * shared)


class FeatureJudge:
    """Feature distances of single images, and the Frechet distance of all that were shown under one name."""

    def __init__(self, device: torch.device) -> None:
        """Raises ModelError where a network is not installed."""
        self._networks = {name: EfficientNetLite(kind).to(device) for name, kind in JUDGES.items()}
        self._seen: dict[str, list[tuple[Moments, Moments]]] = {}

    @torch.inference_mode()
    def __call__(self, image: Tensor, truth: Tensor, name: str) -> dict[str, float]:
        """The figures of JUDGES for one image; its features and its truth's count under `name`."""
        figures = {}
        for figure, network in self._networks.items():
            ours, theirs = (network(each[None].float()) for each in (image, truth))
            figures[figure] = float(feature_distance(ours, theirs))
            if network.kind == JUDGES["feature_lite1"]:
                pairs = self._seen.setdefault(name, [(Moments(), Moments()) for _ in range(DEPTHS)])
                for pair, *maps in zip(pairs, ours, theirs, strict=True):
                    for moments, each in zip(pair, maps, strict=True):
                        moments.add(each)
        return figures

    def frechet(self, name: str) -> float:
        """Mean over the depths of the distance between what was shown under `name` and its truth."""
        pairs = self._seen[name]
        return sum(frechet(*pair) for pair in pairs) / len(pairs)
