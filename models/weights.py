"""Weights on disk: a safetensors file whose metadata hold one JSON header; nothing in it can run code.

Out come the header (without reading a tensor), the tensors, or a ModelError that says what is wrong with the file.
Importing this module does not import torch.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from .errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from .compact import CompactConfig, CompactStudent
    from .rsd_student import RsdStudent, RsdStudentConfig
    from .student import Student, StudentConfig

KEY = "rsup"
"""The metadata entry that holds the header."""

SCALES = (4, 8)
"""The scales models exist for."""

Shapes = Mapping[str, tuple[int, ...]]


class WeightsHeader(BaseModel):
    """What a weights file says of itself; lengths in low-resolution pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Literal["slimdiffsr-student", "compact-student", "rsd-student"] = "slimdiffsr-student"
    config: dict[str, Any] = Field(default_factory=dict)
    """Fields of StudentConfig, CompactConfig or RsdStudentConfig."""
    scale: Literal[4, 8]
    bands: tuple[str, str, str] = ("red", "green", "blue")
    value_range: tuple[float, float] = (-1.0, 1.0)
    tile: int = Field(gt=0)
    halo: int = Field(ge=0)
    overlap: int = Field(ge=0)
    multiple: int = Field(gt=0)
    """Output sides must be multiples of this many pixels."""
    licence: str
    source: str
    """Where the weights come from: a training run, or the file they were imported from."""
    recipe: dict[str, Any] | None = None
    data: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _tiles_advance(self) -> WeightsHeader:
        if self.tile - 2 * self.halo - self.overlap < max(1, self.overlap):
            raise ValueError(f"a tile of {self.tile} is too small for halo {self.halo} and overlap {self.overlap}")
        return self


def student_header(
    config: StudentConfig | CompactConfig | RsdStudentConfig, scale: int, *, licence: str, source: str, **more: Any
) -> WeightsHeader:
    """The header of a student: tiles of 512 output pixels, its training crop; halo 16 and overlap 48 output pixels.

    `more`: other fields of WeightsHeader (recipe, data, metrics). Raises ModelError for a scale other than 4 or 8.
    """
    check_scale(scale)
    fields = {
        "architecture": config.architecture,
        "config": config.model_dump(mode="json"),
        "scale": scale,
        "tile": 512 // scale,
        "halo": 16 // scale,
        "overlap": 48 // scale,
        "multiple": config.multiple,
        "licence": licence,
        "source": source,
    }
    return WeightsHeader.model_validate(fields | more)


def classes_of(architecture: str) -> tuple[type[Any], type[Any]]:
    """Of an architecture that a header names, the class of its settings and that of the network they build."""
    if architecture == "compact-student":
        from .compact import CompactConfig, CompactStudent

        return CompactConfig, CompactStudent
    if architecture == "rsd-student":
        from .rsd_student import RsdStudent, RsdStudentConfig

        return RsdStudentConfig, RsdStudent
    from .student import Student, StudentConfig

    return StudentConfig, Student


def check_scale(scale: int) -> None:
    """Raise ModelError for a scale no model exists for."""
    if scale not in SCALES:
        raise ModelError(f"scale must be 4 or 8 (2.5 m or 1.25 m pixels), not {scale}")


def read_header(path: Path) -> tuple[WeightsHeader, Shapes]:
    """The header and the shape of each tensor; raises ModelError for a file that is not rsup's or is damaged."""
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist: give a name from `rsup models list` or a weights file") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a whole safetensors file ({error}): copy it again, or turn a published pickle into one "
            "with `rsup models import`"
        ) from error
    if KEY not in metadata:
        raise ModelError(f"{path} has no rsup header: only files written by rsup say how they are to be used")
    try:
        return WeightsHeader.model_validate_json(metadata[KEY]), shapes
    except ValidationError as error:
        raise ModelError(f"{path}: its header is not understood ({first_problem(error)}): update rsup") from error


def first_problem(error: ValidationError) -> str:
    """The first thing pydantic found wrong, in one line."""
    problem = error.errors(include_url=False, include_context=False)[0]
    return ".".join(str(part) for part in problem["loc"]) + ": " + problem["msg"]


def settings_of(path: Path, header: WeightsHeader) -> StudentConfig | CompactConfig | RsdStudentConfig:
    """What the network of a weights file is built from; raises ModelError where its header does not say it rightly."""
    kind, _ = classes_of(header.architecture)
    try:
        config: StudentConfig | CompactConfig | RsdStudentConfig = kind.model_validate(header.config)
    except ValidationError as error:
        raise ModelError(f"{path}: its header describes no student ({first_problem(error)})") from error
    if header.multiple != config.multiple:
        raise ModelError(f"{path}: its header says multiples of {header.multiple}, its network needs {config.multiple}")
    return config


def load_student(path: Path) -> Student | CompactStudent | RsdStudent:
    """The network of a weights file, on the CPU, in float32; raises ModelError where file and header disagree."""
    import torch
    from safetensors.torch import load_file

    header, shapes = read_header(path)
    config = settings_of(path, header)
    # Shapes are compared before anything is allocated, so a wrong file costs nothing.
    with torch.device("meta"):
        student: Student | CompactStudent | RsdStudent = classes_of(header.architecture)[1](config)
    check_layout(shapes, {name: tuple(t.shape) for name, t in student.state_dict().items()}, path)
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    student.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return student


def check_layout(found: Shapes, wanted: Shapes, path: Path) -> None:
    """Raise ModelError, naming a tensor, unless `found` has exactly the names and shapes of `wanted`."""
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        raise ModelError(f"{path} lacks {_some(missing)}: it is not a SlimDiffSR student of this layout")
    unexpected = sorted(found.keys() - wanted.keys())
    if unexpected:
        raise ModelError(f"{path} holds {_some(unexpected)}, unknown to this layout: it is another network")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise ModelError(f"{path}: {name} has the shape {found[name]}, not {shape}: it is another network")


def _some(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more tensors" if len(names) > 1 else "")


def save_weights(path: Path, state: Mapping[str, Tensor], header: WeightsHeader) -> None:
    """Write a weights file; what stood at `path` before is replaced only by a whole new file, on the disk.

    Raises ModelError where it cannot be written (no such folder, no permission, no space).
    """
    from safetensors.torch import save_file

    fresh = path.with_name(f".{path.name}.new")
    try:
        tensors = {name: tensor.detach().contiguous() for name, tensor in state.items()}
        # One entry of metadata: safetensors writes several in random order, and equal weights are to be equal bytes.
        fresh.touch()
        mode = fresh.stat().st_mode
        save_file(tensors, fresh, metadata={KEY: header.model_dump_json()})
        # safetensors makes files that only their owner may read; workers may run as somebody else.
        fresh.chmod(mode)
        with open(fresh, "rb") as file:
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be written: {error}") from error
    finally:
        # Gone already after a rename; a failed write leaves nothing behind.
        fresh.unlink(missing_ok=True)


def sha256(path: Path) -> str:
    """Hex digest of a file; raises ModelError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
