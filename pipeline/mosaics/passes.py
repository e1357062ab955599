"""Which bands go through the network together, and on which tiles: what a plan must know of a model, without torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rsup.pipeline.tiling import Tiling

if TYPE_CHECKING:
    from rsup.models.upscaler import ModelDescriptor


@dataclass(frozen=True)
class Pass:
    """One run of the network over a chunk: which bands go in, and which output channel is which band."""

    inputs: tuple[str, ...]
    outputs: tuple[tuple[int, str], ...]
    """(channel, band) pairs that are kept."""
    uncertainty: bool = False
    """Whether it is kept as well how far these channels may be off."""


def tiling_of(descriptor: ModelDescriptor) -> Tiling:
    """The lattice of a model's tiles."""
    return Tiling(descriptor.tile, descriptor.halo, descriptor.overlap)


def false_colour(bands: Sequence[str], available: Sequence[str], model: ModelDescriptor) -> list[str]:
    """Those of `bands` that a network sees in the place of another; none of an interpolator, to which all are alike."""
    if model.kind == "interpolation":
        return []
    steps = passes(bands, available, model.bands)
    return [band for step in steps if step.inputs[:3] != tuple(model.bands[:3]) for _, band in step.outputs]


def passes(
    bands: Sequence[str], available: Sequence[str], model_bands: Sequence[str], uncertainty: bool = False
) -> list[Pass]:
    """How to get `bands` out of a network made for `model_bands`, given what the scene has.

    The model's own bands go through together where the scene has all of them, or all but the fourth, for which the
    first stands in. Any other band goes through a model of three bands in a false-colour triple: the band first, where
    the network saw red, then the model's first bands as guides (nir, red, green: the colour-infrared composite), or the
    band itself where the scene lacks them. A model of four bands has learned to see one alone.
    """
    result = []
    colours = tuple(model_bands[:3])
    together = (*colours, *(band if band in available else model_bands[0] for band in model_bands[3:]))
    natural = tuple(dict.fromkeys(band for band in together if band in bands))
    if natural and set(together) <= set(available):
        result.append(Pass(together, tuple((together.index(band), band) for band in natural), uncertainty))
    else:
        natural = ()
    for band in bands:
        if band not in natural:
            guides = [guide for guide in model_bands if guide in available and guide != band]
            if len(model_bands) > 3:
                guides = []
            inputs = (band, *guides, *[band] * len(model_bands))[: len(model_bands)]
            result.append(Pass(inputs, ((0, band),), uncertainty))
    return result
