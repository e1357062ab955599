"""Which models there are: a name or a file in, what callers may know of the model out, without building a network.

Importing this module does not import torch.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .base.errors import ModelError
from .networks.architectures import ARCHITECTURES
from .weights_file import SCALES, check_scale, read_header, sha256

SHIPPED = Path(__file__).parent / "weights"
"""Where students that come with rsup lie: one safetensors file each, its model card beside it."""

DIGESTS = "SHA256SUMS"
"""File, beside the shipped students, of their digests, as sha256sum writes it."""

INDEX = "index.toml"
"""File, beside them, that lists them and says of each family what it is for."""

INTERPOLATORS = {"nearest": 0, "bicubic": 2, "lanczos": 3}
"""Halo, in low-resolution pixels, of each model that needs no weights: the support of its kernel."""

RECIPE = ".toml"
"""How the name of a training recipe ends."""

DEFAULT, FAITHFUL = "default", "faithful"
"""The shipped student of the scale asked for is that of this family."""


@dataclass(frozen=True)
class ModelDescriptor:
    """What the pipeline may know of a model."""

    name: str
    """Resolved: never `default`."""
    scale: int
    bands: tuple[str, ...]
    """The bands the model was made for, in the order of its channels."""
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
    kind: Literal["student", "interpolation"]
    licence: str
    architecture: str | None = None
    """Of a student, one of ARCHITECTURES."""
    path: str | None = None
    """Of its weights file, absolute: a worker on another machine has a working folder of its own."""
    header: dict[str, Any] | None = None
    """Of its weights file."""

    @property
    def uncertainty(self) -> bool:
        """Whether the network says how far its image may be off."""
        return bool(self.header and self.header["config"].get("uncertainty"))

    @property
    def local(self) -> bool:
        """Whether a network makes of a place what its surroundings say, however large the tile is around it: of those
        that are given low resolution, as in `tiles_of`.
        """
        return bool(self.header and not self.enlarged and self.header["config"].get("local"))

    @property
    def trained(self) -> bool:
        """Whether it is a network; the others interpolate, in float32 wherever they run."""
        return self.kind == "student"

    @property
    def enlarged(self) -> bool:
        """Whether the network is given the bicubic enlargement instead of the low-resolution image."""
        return self.architecture is not None and ARCHITECTURES[self.architecture].given == "enlarged"


def descriptor_of(name_or_path: str, scale: int) -> ModelDescriptor:
    """Describe `default`, a family or a name of `list_models`, or a weights file, at `scale` (4 or 8).

    Raises ModelError for an unknown name, a file that is no weights file, weights made for another scale, and a shipped
    student whose file is not the one that was shipped.
    """
    check_scale(scale)
    found = resolve(name_or_path, scale)
    if isinstance(found, str):
        return ModelDescriptor(
            name=found,
            scale=scale,
            bands=("red", "green", "blue"),
            tile=128,
            halo=INTERPOLATORS[found],
            overlap=0,
            multiple=1,
            sha256=definition_digest(found),
            kind="interpolation",
            licence="Apache-2.0",
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
        tile=header.tile,
        halo=header.halo,
        overlap=header.overlap,
        multiple=header.multiple,
        sha256=file_digest(found),
        kind="student",
        licence=header.licence,
        architecture=header.architecture,
        path=str(found.resolve()),
        header=header.model_dump(),
    )


def list_models() -> list[dict[str, Any]]:
    """Every model at hand: name, scales, kind, parameters, sha256, licence, path, the scales it is default for; and of
    those that come with rsup their family and what it is for.
    """
    rows = [
        {
            "name": name,
            "scales": list(SCALES),
            "kind": "interpolation",
            "parameters": 0,
            "sha256": definition_digest(name),
            "licence": "Apache-2.0",
            "path": None,
        }
        for name in INTERPOLATORS
    ]
    uses = _uses()
    for student, path in _shipped():
        header, shapes = read_header(path)
        rows.append(
            {
                "name": student["name"],
                "scales": [header.scale],
                "kind": "student",
                "parameters": sum(math.prod(shape) for shape in shapes.values()),
                "sha256": file_digest(path),
                "licence": header.licence,
                "path": str(path),
                "family": student["family"],
                "use": uses[student["family"]],
            }
        )
    defaults = {scale: _of_family(FAITHFUL, scale).stem for scale in SCALES}
    for row in rows:
        row["default_for"] = [scale for scale, name in defaults.items() if name == row["name"]]
    return rows


def resolve(name_or_path: str, scale: int) -> str | Path:
    """The name of an interpolator, or the path of a weights file or a recipe."""
    families = _uses()
    if name_or_path in (DEFAULT, *families):
        return _of_family(FAITHFUL if name_or_path == DEFAULT else name_or_path, scale)
    if name_or_path in INTERPOLATORS:
        return name_or_path
    shipped = {student["name"]: path for student, path in _shipped()}
    if name_or_path in shipped:
        return shipped[name_or_path]
    with suppress(OSError, RuntimeError):  # too long, in a folder that may not be entered, `~` of nobody
        path = Path(name_or_path).expanduser()
        if path.is_file():
            return path
    names = ", ".join([DEFAULT, *families, *INTERPOLATORS, *shipped])
    raise ModelError(f"there is no model or file named {name_or_path}: give one of {names}, or a weights file")


def _of_family(family: str, scale: int) -> Path:
    for student, path in _shipped():
        if student["scale"] == scale and student["family"] == family:
            return path
    raise ModelError(f"{SHIPPED} has no {family} student for x{scale}, which comes with rsup: install it again")


def file_digest(path: Path) -> str:
    """SHA-256 of a weights file; of a shipped one, what it was when it was shipped, or ModelError."""
    found = sha256(path)
    if path.resolve().parent == SHIPPED.resolve():
        if _sums().get(path.name) != found:
            raise ModelError(f"{path} is not the file that comes with rsup: install rsup again")
    return found


def shipped_file(digest: str) -> Path | None:
    """The file of the student of that SHA-256 among those that come with rsup, if it is there."""
    found = (SHIPPED / name for name, shipped in _sums().items() if shipped == digest)
    return next(filter(Path.is_file, found), None)


def core_seconds(model: ModelDescriptor) -> float | None:
    """Seconds that a core takes for the network of a tile of 512 x 512 pixels of output, as they are recorded.

    Of no network they are 0; None of a network that does not come with rsup.
    """
    if not model.trained:
        return 0.0
    sums = _sums()
    return next((known["seconds"] for known, path in _shipped() if sums.get(path.name) == model.sha256), None)


def _sums() -> dict[str, str]:
    """SHA-256 of the files that come with rsup, by name, as they were when they were shipped."""
    sums = SHIPPED / DIGESTS
    lines = sums.read_text().splitlines() if sums.is_file() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _shipped() -> list[tuple[dict[str, Any], Path]]:
    """Name, scale, family and seconds of each student that comes with rsup and is there, and its file."""
    of = ((student, SHIPPED / f"{student['name']}.safetensors") for student in _index()["student"])
    return [(student, path) for student, path in of if path.is_file()]


def _uses() -> dict[str, str]:
    """What each family is for, by its name."""
    return {name: family["use"] for name, family in _index()["family"].items()}


def _index() -> dict[str, Any]:
    try:
        return tomllib.loads((SHIPPED / INDEX).read_text())
    except OSError as error:
        raise ModelError(f"{SHIPPED / INDEX} cannot be read ({error.strerror}): install rsup again") from error


def definition_digest(name: str) -> str:
    """Stands for the digest of weights; the wording changes with the kernel, so that an old ledger no longer fits."""
    wording = {
        "nearest": "nearest: repeated pixels",
        "bicubic": "bicubic: Keys a=-1/2, support 2, half-pixel centres, repeated edges",
        "lanczos": "lanczos: a=3, normalised, half-pixel centres, repeated edges",
    }
    return hashlib.sha256(wording[name].encode()).hexdigest()
