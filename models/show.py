"""What `rsup models show` says of a model: a name, a weights file or a recipe in, its size and provenance out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .base.errors import ModelError
from .networks.architectures import ARCHITECTURES, Settings, parameters
from .registry import RECIPE, definition_digest, file_digest, resolve
from .weights_file import SCALES, read_header, settings_of

if TYPE_CHECKING:
    from torch import nn


def show_model(name_or_path: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """One model: parameters, the paper's count of them, cost of 512 x 512 output pixels in GMAC, its file's header.

    A training recipe (a .toml file; `overrides`: `key=value`, as `--set` takes them) shows the student that it would
    train. A model of both scales (an interpolator; `default`) is shown at scale 4. Raises ModelError for a model that
    does not exist, a recipe without a student, and overrides of anything but a recipe.
    """
    found = resolve(name_or_path, SCALES[0])
    if isinstance(found, Path) and found.suffix == RECIPE:
        return _show_recipe(found, overrides)
    if overrides:
        raise ModelError(f"--set changes settings of a recipe, and {name_or_path} is none: give a {RECIPE} file")
    if isinstance(found, str):
        import torch

        from .networks.interpolation import interpolator

        with torch.device("meta"):
            cost = gmac(interpolator(found, SCALES[0]), torch.empty(1, 3, 128, 128))
        # No dead tensors to count: both numbers are the same for a model without weights.
        counts = {"parameters": 0, "parameters_as_published": 0, "gmac_512": cost}
        about = {"kind": "interpolation", "scales": list(SCALES), "licence": "Apache-2.0", "path": None, "header": None}
        return {"name": found, **counts, "sha256": definition_digest(found), **about}

    header, _ = read_header(found)
    return {
        "name": found.stem,
        **student_counts(settings_of(found, header)),
        "sha256": file_digest(found),
        "kind": "student",
        "scales": [header.scale],
        "licence": header.licence,
        "path": str(found),
        "header": header.model_dump(),
    }


def _show_recipe(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    from .training.recipe import StudentRecipe, load_recipe

    recipe = load_recipe(path, overrides)
    if not isinstance(recipe, StudentRecipe):
        raise ModelError(f"{path} is a recipe for {recipe.method}: give one for slimdiffsr-student, or a weights file")
    return {
        "name": path.stem,
        **student_counts(recipe.student),
        "sha256": None,
        "kind": "recipe",
        "scales": [recipe.scale],
        "licence": None,
        "path": str(path),
        "header": None,
    }


def student_counts(config: Settings) -> dict[str, Any]:
    """`parameters`, `parameters_as_published` and `gmac_512` of a student, without making its weights."""
    import torch

    from .networks.compact import CompactConfig
    from .networks.slimdiffsr.config import StudentConfig

    with torch.device("meta"):
        student = ARCHITECTURES[config.architecture].network(config)
        bands, side = (config.bands, 512 // config.scale) if isinstance(config, CompactConfig) else (3, 512)
        cost = gmac(student, torch.empty(1, bands, side, side))
    live = parameters(student)
    counted = live
    if isinstance(config, StudentConfig):
        from .published import parameters_as_published

        counted = parameters_as_published(config)
    return {"parameters": live, "parameters_as_published": counted, "gmac_512": cost}


def gmac(network: nn.Module, *inputs: Any) -> float:
    """Billions of multiply-adds, in convolutions and matrix products, of one forward pass; free on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        network.requires_grad_(False)(*inputs)
    return round(int(counter.get_total_flops()) / 2e9, 3)
