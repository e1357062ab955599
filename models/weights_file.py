"""Weights on disk: a safetensors file whose metadata hold one JSON header; nothing in it can run code.

Out come the header (without reading a tensor), the tensors, or a ModelError that says what is wrong with the file.
Importing this module does not import torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from safetensors import SafetensorError, safe_open

from .base.errors import ModelError
from .base.files import replacing, writing
from .base.regular import check_file
from .base.settings import first_problem
from .networks.architectures import ARCHITECTURES, TILE, tiles_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .networks.architectures import Settings


KEY = "rsup"
"""The metadata entry that holds the header."""

SCALES = (4, 8)
"""The scales models exist for."""


LARGEST_TILE = 2048
"""Output pixels a side: sixteen tiles as students have them, which a machine that runs those still holds."""

_LARGEST_HEADER = 1 << 20
"""Characters of a header; those that rsup writes have some thousands."""

_TYPES = {"F64", "F32", "F16", "BF16"}
"""What safetensors calls the types that weights come in."""

Shapes = Mapping[str, tuple[int, ...]]

_Band = Annotated[str, Field(pattern=r"^[\w.-]{1,64}$")]


class WeightsHeader(BaseModel):
    """What a weights file says of itself; lengths in low-resolution pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    architecture: str = "slimdiffsr-student"
    """One of ARCHITECTURES."""
    config: dict[str, Any] = Field(default_factory=dict)
    """Fields of its settings."""
    scale: Literal[4, 8]
    bands: Annotated[tuple[_Band, ...], Field(min_length=3, max_length=4)] = ("red", "green", "blue")
    value_range: tuple[float, float] = (-1.0, 1.0)
    """Of what goes in and comes out; there is one map from scenes to a network's values, and this is its range."""
    tile: int = Field(ge=16, le=LARGEST_TILE)
    halo: int = Field(ge=0, le=LARGEST_TILE)
    overlap: int = Field(ge=0, le=LARGEST_TILE)
    multiple: int = Field(gt=0, le=TILE)
    """Output sides must be multiples of this many pixels."""
    licence: str
    source: str
    """Where the weights come from: a training run, or the file they were imported from."""
    recipe: dict[str, Any] | None = None
    data: str | None = None
    metrics: dict[str, float] = Field(default_factory=dict)

    @field_validator("architecture")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in ARCHITECTURES:
            raise ValueError(f"rsup knows no {value}, but {', '.join(ARCHITECTURES)}")
        return value

    @field_validator("value_range")
    @classmethod
    def _is_the_one_there_is(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value != (-1.0, 1.0):
            raise ValueError(f"rsup runs networks in [-1, 1], not in [{value[0]:g}, {value[1]:g}]")
        return value

    @model_validator(mode="after")
    def _tiles_advance(self) -> WeightsHeader:
        if self.tile * self.scale > LARGEST_TILE:
            raise ValueError(f"a tile of {self.tile * self.scale} output pixels is beyond the {LARGEST_TILE} that fit")
        # Below a quarter every pixel would be computed more than sixteen times.
        if self.stride < max(self.tile / 4, self.overlap):
            raise ValueError(f"a tile of {self.tile} is too small for halo {self.halo} and overlap {self.overlap}")
        return self

    @model_validator(mode="after")
    def _bands_are_the_network_s(self) -> WeightsHeader:
        if len(self.bands) != self.config.get("bands", 3):
            raise ValueError(f"{len(self.bands)} bands are named, and its network takes another number")
        return self

    @model_validator(mode="after")
    def _can_be_written_again(self) -> WeightsHeader:
        # NaN, and numbers of more digits than Python writes, come in as JSON and do not go out.
        json.dumps([self.config, self.recipe], allow_nan=False)
        return self

    @property
    def stride(self) -> int:
        """Low-resolution pixels between the starts of neighbouring tiles."""
        return self.tile - 2 * self.halo - self.overlap


def student_header(config: Settings, scale: int, *, licence: str, source: str, **more: Any) -> WeightsHeader:
    """The header of a student, with its tiles as `tiles_of` has them.

    `more`: other fields of WeightsHeader (recipe, data, metrics; of these the finite ones are kept). Raises ModelError
    for a scale other than 4 or 8.
    """
    check_scale(scale)
    tile, halo, overlap = tiles_of(config, scale)
    fields = {
        "architecture": config.architecture,
        "config": config.model_dump(mode="json"),
        "scale": scale,
        "tile": tile,
        "halo": halo,
        "overlap": overlap,
        "multiple": config.multiple,
        "licence": licence,
        "source": source,
    }
    # JSON has no infinity, which the PSNR of an image that was met exactly is.
    more["metrics"] = {name: value for name, value in more.get("metrics", {}).items() if math.isfinite(value)}
    return WeightsHeader.model_validate(fields | more)


def check_scale(scale: int) -> None:
    """Raise ModelError for a scale no model exists for."""
    if scale not in SCALES:
        raise ModelError(f"scale must be 4 or 8 (2.5 m or 1.25 m pixels), not {scale}")


def read_header(path: Path) -> tuple[WeightsHeader, Shapes]:
    """The header and the shape of each tensor; raises ModelError for a file that is not rsup's or is damaged."""
    try:
        check_file(path)
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(tensor.get_shape()) for name, tensor in tensors.items()}
            types = {tensor.get_dtype(): name for name, tensor in tensors.items()}
    except FileNotFoundError:
        raise ModelError(f"{path} does not exist: give a name from `rsup models list` or a weights file") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is not a whole safetensors file ({getattr(error, 'strerror', None) or error}): copy it again, or "
            "turn a published pickle into one with `rsup models import`"
        ) from error
    header = _header(path, metadata)
    if odd := sorted(types.keys() - _TYPES):
        raise ModelError(f"{path}: {types[odd[0]]} holds {odd[0]}, and weights are floats of 16 to 64 bits")
    return header, shapes


def _header(path: Path, metadata: Mapping[str, str]) -> WeightsHeader:
    if KEY not in metadata:
        raise ModelError(f"{path} has no rsup header: only files written by rsup say how they are to be used")
    if len(metadata[KEY]) > _LARGEST_HEADER:
        raise ModelError(f"{path} has a header of {len(metadata[KEY]):,} characters: rsup writes no such files")
    try:
        return WeightsHeader.model_validate_json(metadata[KEY])
    except ValidationError as error:
        raise ModelError(f"{path}: its header is not understood ({first_problem(error)}): update rsup") from error


def settings_of(path: Path, header: WeightsHeader) -> Settings:
    """What the network of a weights file is built from; raises ModelError where its header does not say it rightly."""
    try:
        config: Settings = ARCHITECTURES[header.architecture].settings.model_validate(header.config)
    except ValidationError as error:
        raise ModelError(f"{path}: its header describes no student ({first_problem(error)})") from error
    if header.multiple != config.multiple:
        raise ModelError(f"{path}: its header says multiples of {header.multiple}, its network needs {config.multiple}")
    apart = header.stride * header.scale
    if apart % config.repeats:
        raise ModelError(
            f"{path}: its tiles start {apart} output pixels apart and its noise repeats after {config.repeats}, so "
            "that neighbours would not match: make the one a multiple of the other"
        )
    return config


def load_student(path: Path, digest: str | None = None) -> nn.Module:
    """The network of a weights file, on the CPU, in float32.

    Raises ModelError where file and header disagree, and where the SHA-256 of the bytes that are loaded is not
    `digest`: a file may be replaced between two looks at it.
    """
    import torch
    from safetensors.torch import load

    header, shapes = read_header(path)
    config = settings_of(path, header)
    # Shapes are compared before anything is allocated, so a wrong file costs nothing.
    with torch.device("meta"):
        student: nn.Module = ARCHITECTURES[header.architecture].network(config)
    check_layout(shapes, {name: tuple(t.shape) for name, t in student.state_dict().items()}, path)
    try:
        data = path.read_bytes()
        state = load(data)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    told = _header(path, json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {}))
    changed = told.model_dump_json() != header.model_dump_json()  # as text: a figure that is NaN is not equal to itself
    if changed or (digest is not None and hashlib.sha256(data).hexdigest() != digest):
        raise ModelError(f"{path} is being replaced: wait until it is whole and run the same command again")
    student.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return student


def check_layout(found: Shapes, wanted: Shapes, path: Path) -> None:
    """Raise ModelError, naming a tensor, unless `found` has exactly the names and shapes of `wanted`."""
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        raise ModelError(f"{path} lacks {_some(missing)}: it is another network, or not all of it")
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
    with writing(path, ModelError, SafetensorError):
        # One entry of metadata: safetensors writes several in random order, and equal weights are to be equal bytes.
        write_tensors(path, state, {KEY: header.model_dump_json()})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all. Raises OSError or SafetensorError."""
    from safetensors.torch import save_file

    with replacing(path) as fresh:
        # safetensors makes files that only their owner may read; workers may run as somebody else.
        fresh.touch()
        mode = fresh.stat().st_mode
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, fresh, metadata)
        fresh.chmod(mode)


def sha256(path: Path) -> str:
    """Hex digest of a file; raises ModelError where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
