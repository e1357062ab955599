"""Which models there are: a name or a file in, what callers may know of the model out, without building a network.

Importing this module does not import torch; only `show_model` does.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .base.errors import ModelError
from .weights_file import SCALES, check_scale, classes_of, read_header, settings_of, sha256

if TYPE_CHECKING:
    from torch import nn

    from .networks.compact import CompactConfig
    from .networks.resshift.one_step import RsdStudentConfig
    from .networks.slimdiffsr.student import StudentConfig

SHIPPED = Path(__file__).parent / "weights"
"""Where students that come with rsup lie: one safetensors file each, its model card beside it."""

DIGESTS = "SHA256SUMS"
"""File, beside the shipped students, of their digests, as sha256sum writes it."""

INTERPOLATORS = {"nearest": 0, "bicubic": 2, "lanczos": 3}
"""Halo, in low-resolution pixels, of each model that needs no weights: the support of its kernel."""

RECIPE = ".toml"
"""How the name of a training recipe ends."""

DEFAULT = "default"
"""The shipped student of the scale asked for."""


@dataclass(frozen=True)
class ModelDescriptor:
    """What the pipeline may know of a model."""

    name: str
    """Resolved: never `default`."""
    scale: int
    bands: tuple[str, ...]
    """The bands the model was made for, in the order of its channels."""
    value_range: tuple[float, float]
    """Range of the values that go in and come out."""
    tile: int
    """Side of a tile in low-resolution pixels."""
    halo: int
    """Outer low-resolution pixels of a tile that are context only."""
    overlap: int
    """Low-resolution pixels inside the halo that a tile shares with its neighbour."""
    multiple: int
    """The output sides of a tile are padded to multiples of this many pixels."""
    sha256: str
    """Digest of the weights file; of its definition for a model without weights."""
    metadata: dict[str, Any]
    """`kind`, `licence`, `path`, and the header of the weights file."""


def descriptor_of(name_or_path: str, scale: int) -> ModelDescriptor:
    """Describe `default`, a name of `list_models`, or a weights file, at `scale` (4 or 8).

    Raises ModelError for an unknown name, a file that is no weights file, weights made for another scale, and a shipped
    student whose file is not the one that was shipped.
    """
    check_scale(scale)
    found = _resolve(name_or_path, scale)
    if isinstance(found, str):
        return ModelDescriptor(
            name=found,
            scale=scale,
            bands=("red", "green", "blue"),
            value_range=(-1.0, 1.0),
            tile=128,
            halo=INTERPOLATORS[found],
            overlap=0,
            multiple=1,
            sha256=_definition(found),
            metadata={"kind": "interpolation", "licence": "Apache-2.0", "path": None},
        )
    header, _ = read_header(found)
    if header.scale != scale:
        raise ModelError(
            f"{name_or_path} was trained for scale {header.scale}, not {scale}: ask for --scale {header.scale}"
        )
    return ModelDescriptor(
        name=found.stem,
        scale=scale,
        bands=header.bands,
        value_range=header.value_range,
        tile=header.tile,
        halo=header.halo,
        overlap=header.overlap,
        multiple=header.multiple,
        sha256=_digest(found),
        metadata={
            "kind": "student",
            "licence": header.licence,
            # Absolute: a worker on another machine has a working folder of its own.
            "path": str(found.resolve()),
            "header": header.model_dump(),
        },
    )


def list_models() -> list[dict[str, Any]]:
    """Every model at hand: name, scales, kind, parameters, sha256, licence, path, and the scales it is default for."""
    rows = [
        {
            "name": name,
            "scales": list(SCALES),
            "kind": "interpolation",
            "parameters": 0,
            "sha256": _definition(name),
            "licence": "Apache-2.0",
            "path": None,
        }
        for name in INTERPOLATORS
    ]
    for name, path in _shipped().items():
        header, shapes = read_header(path)
        rows.append(
            {
                "name": name,
                "scales": [header.scale],
                "kind": "student",
                "parameters": sum(math.prod(shape) for shape in shapes.values()),
                "sha256": _digest(path),
                "licence": header.licence,
                "path": str(path),
            }
        )
    defaults = {scale: _default(scale).stem for scale in SCALES}
    for row in rows:
        row["default_for"] = [scale for scale, name in defaults.items() if name == row["name"]]
    return rows


def show_model(name_or_path: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """One model: parameters, the paper's count of them, cost of 512 x 512 output pixels in GMAC, its file's header.

    A training recipe (a .toml file; `overrides`: `key=value`, as `--set` takes them) shows the student that it would
    train. A model of both scales (an interpolator; `default`) is shown at scale 4. Raises ModelError for a model that
    does not exist, a recipe without a student, and overrides of anything but a recipe.
    """
    found = _resolve(name_or_path, SCALES[0])
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
        return {"name": found, **counts, "sha256": _definition(found), **about}

    header, _ = read_header(found)
    return {
        "name": found.stem,
        **student_counts(settings_of(found, header)),
        "sha256": _digest(found),
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


def student_counts(config: StudentConfig | CompactConfig | RsdStudentConfig) -> dict[str, Any]:
    """`parameters`, `parameters_as_published` and `gmac_512` of a student, without making its weights."""
    import torch

    from .networks.compact import CompactConfig
    from .networks.slimdiffsr.student import parameters

    with torch.device("meta"):
        student = classes_of(config.architecture)[1](config)
        side = 512 // config.scale if isinstance(config, CompactConfig) else 512
        cost = gmac(student, torch.empty(1, 3, side, side))
    live = parameters(student)
    counted = live
    if config.architecture == "slimdiffsr-student":
        from .published import parameters_as_published

        counted = parameters_as_published(config)
    return {"parameters": live, "parameters_as_published": counted, "gmac_512": cost}


def gmac(network: nn.Module, image: Any) -> float:
    """Billions of multiply-adds, in convolutions and matrix products, of one forward pass; free on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        network.requires_grad_(False)(image)
    return round(int(counter.get_total_flops()) / 2e9, 3)


def _resolve(name_or_path: str, scale: int) -> str | Path:
    """The name of an interpolator, or the path of a weights file or a recipe."""
    if name_or_path == DEFAULT:
        return _default(scale)
    if name_or_path in INTERPOLATORS:
        return name_or_path
    shipped = _shipped()
    if name_or_path in shipped:
        return shipped[name_or_path]
    with suppress(OSError, RuntimeError):  # too long, in a folder that may not be entered, `~` of nobody
        path = Path(name_or_path).expanduser()
        if path.is_file():
            return path
    names = ", ".join([DEFAULT, *INTERPOLATORS, *shipped])
    raise ModelError(f"there is no model or file named {name_or_path}: give one of {names}, or a weights file")


def _default(scale: int) -> Path:
    for path in _shipped().values():
        if read_header(path)[0].scale == scale:
            return path
    raise ModelError(f"{SHIPPED} has no student for x{scale}, which comes with rsup: install it again")


def _digest(path: Path) -> str:
    """SHA-256 of a weights file; of a shipped one, what it was when it was shipped, or ModelError."""
    found = sha256(path)
    if path.resolve().parent == SHIPPED.resolve():
        sums = SHIPPED / DIGESTS
        lines = sums.read_text().splitlines() if sums.is_file() else []
        if f"{found}  {path.name}" not in lines:
            raise ModelError(f"{path} is not the file that comes with rsup: install rsup again")
    return found


def _shipped() -> dict[str, Path]:
    return {path.stem: path for path in sorted(SHIPPED.glob("*.safetensors"))}


def _definition(name: str) -> str:
    """Stands for the digest of weights; the wording changes with the kernel, so that an old ledger no longer fits."""
    wording = {
        "nearest": "nearest: repeated pixels",
        "bicubic": "bicubic: Keys a=-1/2, support 2, half-pixel centres, repeated edges",
        "lanczos": "lanczos: a=3, normalised, half-pixel centres, repeated edges",
    }
    return hashlib.sha256(wording[name].encode()).hexdigest()
