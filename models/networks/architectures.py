"""The one table of students: the name in a weights file's header leads to the settings and the network.

Importing this module does not import torch; `settings` and `network` of an architecture do.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn

TILE, HALO, OVERLAP = 512, 16, 48
"""Of a student that sees its whole tile, in output pixels: side of its tiles, its training crop; context on each side;
shared with the next."""
STRIDE = TILE - 2 * HALO - OVERLAP
"""Output pixels between the starts of neighbouring tiles."""
LOCAL_TILES = 160, 4, 4
"""The same of a local student that is given low resolution, in its pixels, at any scale: what lies beyond the tile
moves the product by some stored numbers there (1 to 5), and every pixel is computed 1.17 times instead of 1.4."""
BALANCED_HALO = 6
"""Of one whose detail is balanced (phases.py): by means over what lies around, which ends with the tile. With 4, steps
across its tiles' borders on dark ground were 1.06 times what they are elsewhere, with 6 they are 1.04 times."""


class Settings(Protocol):
    """What a network is built from; each class of them is a `Config` of its own."""

    architecture: Any
    """Its name in the table."""

    @property
    def multiple(self) -> int:
        """Image sides must be multiples of this many output pixels."""

    @property
    def repeats(self) -> int:
        """Of the distance between tiles in output pixels, what it must be a multiple of."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """As plain values."""


@dataclass(frozen=True)
class Architecture:
    """One kind of student."""

    name: str
    given: Literal["low", "enlarged"]
    """The low-resolution image, or its bicubic enlargement to output size."""
    module: str
    """Below this package."""
    classes: tuple[str, str]
    """In `module`, of the settings and of the network."""

    @property
    def settings(self) -> type[Any]:
        """The class of the settings, a pydantic model that keeps the protocol `Settings`."""
        return self._of(0)

    @property
    def network(self) -> type[Any]:
        """The class of the network, an `nn.Module` that is built from settings alone.

        Images [n, 3, h, w] in [-1, 1], as `given`, -> images at output size, not clamped.
        """
        return self._of(1)

    def _of(self, index: int) -> type[Any]:
        found: type[Any] = getattr(import_module(f".{self.module}", __package__), self.classes[index])
        return found


ARCHITECTURES = {
    each.name: each
    for each in (
        Architecture("slimdiffsr-student", "enlarged", "slimdiffsr.student", ("StudentConfig", "Student")),
        Architecture("compact-student", "low", "compact", ("CompactConfig", "CompactStudent")),
        Architecture("rsd-student", "enlarged", "resshift.one_step", ("RsdStudentConfig", "RsdStudent")),
    )
}


def tiles_of(settings: Settings, scale: int) -> tuple[int, int, int]:
    """Side, halo and overlap of a student's tiles in low-resolution pixels."""
    if ARCHITECTURES[settings.architecture].given == "low" and getattr(settings, "local", False):
        side, halo, overlap = LOCAL_TILES
        return side, BALANCED_HALO if getattr(settings, "balance", 0) else halo, overlap
    return TILE // scale, HALO // scale, OVERLAP // scale


def check_sides(image: Tensor, multiple: int) -> None:
    """Raise ValueError unless both sides of images [n, c, h, w] are multiples of so many pixels."""
    height, width = image.shape[-2:]
    if height % multiple or width % multiple:
        raise ValueError(f"a {width} x {height} image: both sides must be multiples of {multiple} pixels")


def parameters(network: nn.Module) -> int:
    """How many numbers the network holds; all of them are used."""
    return sum(tensor.numel() for tensor in network.parameters())
