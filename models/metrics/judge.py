"""Every figure of one super-resolved image: the network's values of it and of its truth in, numbers by name out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from rsup.models.base.errors import ModelError
from rsup.models.base.radiometry import ADD_OFFSET, SCALE_FACTOR, WHITE, from_network

from . import image as metrics
from .features import FRECHET, JUDGES, FeatureJudge
from .learned import learned_measures
from .niqe import load_pristine, niqe

Figures = dict[str, float | None]
Radiometry = Literal["photograph", "reflectance"]

FIGURES = (
    "psnr_y",
    "ssim_y",
    "vif_y",
    "psnr_1",
    "psnr_2",
    "psnr_3",
    "psnr_4",
    "ndvi_rmse",
    "lpips",
    "dists",
    "niqe",
    "musiq",
    "maniqa",
    "clip_iqa",
    *JUDGES,
    FRECHET,
    "spectrum_rmse",
    "spectrum_db",
    "acutance",
    "lattice_db",
    "sam_deg",
    "reflectance_error",
    "block_mean_dn",
    "shift_px",
)
"""Every figure of an image, in the order in which they are shown; psnr_1 to psnr_4 are those of the channels; what is
of colours is of the first three. The Frechet distance alone is one of all images, see `Judge.whole`."""


class Judge:
    """Measures super-resolved images against their truth; says in `notes` what it cannot measure."""

    notes: dict[str, str]
    """One sentence by figure."""

    def __init__(
        self,
        scale: int,
        radiometry: Radiometry,
        bands: Sequence[str],
        device: torch.device,
        niqe_parameters: Path | None = None,
    ) -> None:
        """`bands`: what the channels are. Raises ModelError where `niqe_parameters` is no such file."""
        self.scale, self.radiometry, self.bands = scale, radiometry, tuple(bands)
        self._measures, self.notes = learned_measures(device)
        self._features: FeatureJudge | None = None
        try:
            self._features = FeatureJudge(device)
        except ModelError as error:
            self.notes |= dict.fromkeys((*JUDGES, FRECHET), str(error))
        if len(bands) < 4:
            self.notes["psnr_4"] = "there are three channels"
        if not {"nir", "red"} <= set(bands):
            self.notes["ndvi_rmse"] = "it takes nir and red"
        self._pristine = load_pristine(niqe_parameters) if niqe_parameters else None
        if self._pristine is None:
            self.notes["niqe"] = (
                "name the file niqe_pris_params.npz (of the BasicSR repository, Apache-2.0) with --niqe-parameters "
                "or in RSUP_NIQE_PARAMETERS"
            )

    def numbers(self, image: Tensor) -> Tensor:
        """Network's values -> stored numbers, float64. White of a photograph counts as reflectance WHITE."""
        if self.radiometry == "photograph":
            return ((image.double().clamp(-1, 1) + 1) / 2 * WHITE - ADD_OFFSET) / SCALE_FACTOR
        return from_network(image).double()

    def shown(self, image: Tensor) -> Tensor:
        """Network's values -> brightness, reflectance WHITE being 1: what all figures but those in DN are taken of."""
        return metrics.reflectance(self.numbers(image)) / WHITE

    def niqe(self, image: Tensor) -> float | None:
        """NIQE of one image [band, y, x] in the network's range; None without parameters or on less than two blocks."""
        if self._pristine is None:
            return None
        plane = metrics.luma(metrics.eight_bits(self.shown(image[:3]))).round()
        return niqe(plane.cpu().numpy(), self._pristine)

    def whole(self, name: str) -> Figures:
        """What is a figure of all images together that were judged under `name`."""
        return {FRECHET: self._features.frechet(name) if self._features else None}

    def __call__(self, image: Tensor, high: Tensor, low: Tensor, name: str) -> Figures:
        """Every name of FIGURES for one `image`, its truth `high` [band, y, x] and the pixels `low` it was made of.

        `name`: of what made the image.
        """
        seen, true = self.shown(image), self.shown(high)
        all_saved, all_wanted = metrics.eight_bits(seen), metrics.eight_bits(true)
        saved, wanted = all_saved[:3], all_wanted[:3]
        found: Figures = dict.fromkeys(FIGURES)
        found["psnr_y"] = metrics.psnr_y(saved, wanted, self.scale)
        found["ssim_y"] = metrics.ssim_y(saved, wanted, self.scale)
        found["vif_y"] = metrics.vif_y(saved, wanted, self.scale)
        for channel, (ours, theirs) in enumerate(zip(all_saved, all_wanted, strict=True), 1):
            found[f"psnr_{channel}"] = metrics.psnr(ours, theirs, self.scale)
        found["niqe"] = self.niqe(image)
        for figure, measure in self._measures.items():
            found[figure] = measure(saved, wanted)
        if self._features is not None:
            found |= self._features(saved, wanted, name)
        found["spectrum_rmse"] = metrics.spectrum_rmse(seen[:3], true[:3])
        found["spectrum_db"] = metrics.spectrum_db(seen[:3], true[:3], self.scale)
        found["acutance"] = metrics.acutance(seen[:3], true[:3])
        found["lattice_db"] = metrics.lattice_db(seen[:3], true[:3], self.scale)
        found["sam_deg"] = metrics.spectral_angle(seen, true)
        dn = self.numbers(image)
        if "ndvi_rmse" not in self.notes:
            nir, red = self.bands.index("nir"), self.bands.index("red")
            ours, theirs = (metrics.ndvi(each[nir], each[red]) for each in (dn, self.numbers(high)))
            found["ndvi_rmse"] = float((ours - theirs).square().mean().sqrt())
        found["reflectance_error"] = metrics.reflectance_error(dn, self.numbers(high))
        found["block_mean_dn"] = metrics.block_mean_error(dn, self.numbers(low), self.scale)
        found["shift_px"] = math.hypot(*metrics.displacement(seen[:3], true[:3], self.scale))
        return found


def mean_of(figures: Iterable[Figures], notes: dict[str, str]) -> Figures:
    """Over the images that have the figure; a note where they are not all."""
    found = list(figures)
    means: Figures = {}
    for name in found[0]:
        values = [value for each in found if (value := each[name]) is not None and math.isfinite(value)]
        means[name] = statistics.fmean(values) if values else None
        # What is of all images together is of no single one.
        if len(values) < len(found) and name not in notes and name != FRECHET:
            side = {"niqe": 192, "vif_y": 41}.get(name)
            reason = f" (it takes {side} x {side} pixels that are not flat)" if side else ""
            notes[name] = f"{len(found) - len(values)} of {len(found)} images have none{reason}"
    return means
