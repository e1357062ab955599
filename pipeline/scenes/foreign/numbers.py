"""What the numbers of a band mean: what its file declares and what its user says in, stored numbers out.

Nothing is guessed. A file's own scale, offset and nodata count, and over them the user's (`--input-scale`,
`--input-offset`, `--input-nodata`). Floats without a scale are reflectance, if they look like it. Whole numbers of
1/10000 are raw ones of processing baseline 04.00, which carry 1000 more, or others: somebody has to say which.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsup.models.base.errors import ArgumentError, SceneError
from rsup.models.base.radiometry import ADD_OFFSET, DN_MAX, DN_MIN, DN_ZERO, LEAST, NODATA, SCALE_FACTOR
from rsup.models.sensors import SENSORS

HOW = (
    "say --input-scale 0.0001 where they are reflectance * 10000 (0.01 where they are percent), with --input-offset "
    "-0.1 where 1000 is added (raw ones of processing baseline 04.00 or later), else --input-offset 0 (older ones, "
    "Earth Engine's HARMONIZED, archives that took the 1000 off), and by --input-nodata which number stands for nothing"
)
LOOKS = "its numbers"
"""Who says what floats without a scale are."""
USER = "the user"
PICTURES = ("uint8", "int8", "bool")
"""Types too small for reflectance: pictures and masks."""
BRIGHT = 1.9
"""Reflectance that clouds and snow stay below: where half of an image is brighter, it is none."""


@dataclass(frozen=True)
class Said:
    """What the user says of a scene's numbers; None where nothing."""

    scale: float | None = None
    """Reflectance a number."""
    offset: float | None = None
    """Reflectance of the number 0."""
    nodata: float | None = None
    """The number that stands for nothing; NaN always does."""

    def __post_init__(self) -> None:
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale > 0):
            raise ArgumentError(f"--input-scale {self.scale:g} makes no reflectance: give one above 0, such as 0.0001")
        if self.offset is not None and not math.isfinite(self.offset):
            raise ArgumentError(f"--input-offset {self.offset:g} makes no reflectance: give a number, such as -0.1")


@dataclass(frozen=True)
class Numbers:
    """What a band's numbers mean: reflectance = number * scale + offset."""

    scale: float
    offset: float
    nodata: tuple[float, ...]
    """What stands for nothing; NaN and infinity always do."""
    by: str
    """Who says so, in words: the file, the user, or the numbers themselves, which look like reflectance."""

    @property
    def zero(self) -> int | None:
        """The stored number of a 0 that is no nodata, where a plain 0 may be either; None where it is told apart."""
        return self.of_nothing if 0 in self.nodata else None

    @property
    def of_nothing(self) -> int:
        """The stored number of a 0 that is no nodata."""
        return min(max(DN_MIN, round(self.offset / SCALE_FACTOR + DN_ZERO)), DN_MAX)

    def __str__(self) -> str:
        if self.by == LOOKS:
            return "taken for reflectance, for they have no scale"
        return f"read with scale {self.scale:g} and offset {self.offset:g}, by {self.by}"

    def stored(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """Stored numbers (reflectance * 10000 + 1000) of a file's [...]: 0 where there is none, else 1 to 65535.

        Below LEAST there is none: a number such as -9999 that nobody declared.
        """
        absent = ~np.isfinite(values)
        with np.errstate(over="ignore"):
            absent |= values < (LEAST - self.offset) / self.scale
        for number in self.nodata:
            with np.errstate(over="ignore"):  # a header says -3.4e38 in more digits than a float32 has
                absent |= values == (np.float32(number) if values.dtype == np.float32 else number)
        plain = np.where(absent, 0, values).astype(np.float64)
        stored = np.rint(plain * (self.scale / SCALE_FACTOR) + (self.offset / SCALE_FACTOR + DN_ZERO))
        return np.where(absent, NODATA, stored.clip(DN_MIN, DN_MAX)).astype(np.uint16)

    @property
    def of_user(self) -> tuple[float, float, tuple[float, ...]] | None:
        """Scale, offset and nodata, where the user says them; None where the file itself can be asked."""
        return (self.scale, self.offset, self.nodata) if self.by == USER else None

    def to_dict(self) -> dict[str, Any]:
        """As the mosaic's item records it."""
        nodata = [number for number in self.nodata if math.isfinite(number)]
        return {"scale": self.scale, "offset": self.offset, "nodata": nodata, "by": self.by}


Declared = tuple[str, tuple[Any, Any, Any]]
"""A layer's type; its scale, offset and nodata by the file, None for what it does not say."""


def meanings(path: object, layers: Mapping[str, Declared], said: Said) -> dict[str, Numbers | None]:
    """What the numbers of each band mean, as `numbers_of`.

    Masks and the like, which no sensor knows by name and nobody can read as reflectance, are left aside where a band of
    a sensor is there. Raises SceneError as `numbers_of`.
    """
    known = {name for name in layers if any(sensor.common_name(name) for sensor in SENSORS.values())}
    found = {}
    for name, (dtype, declared) in layers.items():
        try:
            found[name] = numbers_of(path, name, dtype, declared, said)
        except SceneError:
            if name in known or not known:
                raise
    return found


def numbers_of(path: object, band: str, dtype: str, declared: tuple[Any, Any, Any], said: Said) -> Numbers | None:
    """What a band's numbers mean; None where they are stored numbers already.

    `declared`: scale, offset and nodata by the file. Raises SceneError where they cannot
    be reflectance, or where something is left to be said, with the option that says it.
    """
    named = f"{path}: {band}"
    if dtype in PICTURES:
        raise SceneError(
            f"{named} is {dtype}: a picture, not reflectance, whose numbers cannot be had back; "
            "give the bands themselves, as the archive has them or `rsup fetch` writes them"
        )
    floating = dtype in ("float32", "float64", "float16")
    if not floating and dtype not in ("uint16", "int16", "uint32", "int32", "uint64", "int64"):
        raise SceneError(f"{named} is {dtype}, which holds no reflectance; give uint16, int16 or float32")
    scale, offset, nodata = (_number(named, what, value) for what, value in zip(_WHAT, declared, strict=True))
    if said == Said() and dtype == "uint16" and nodata == NODATA and _is_stored(scale, offset):
        return None
    if scale == 1 and not offset and not floating:
        scale = offset = None  # GDAL's words for "not said"
    by = "the file"
    if said != Said():
        by = USER
        scale = scale if said.scale is None else said.scale
        offset = offset if said.offset is None else said.offset
        nodata = nodata if said.nodata is None else said.nodata
    if scale is None and not floating:
        raise SceneError(f"{named} is {dtype}, and nothing says what its numbers mean: {HOW}")
    if scale is None:
        by = by if said.offset is not None else LOOKS
    elif not scale > 0:
        raise SceneError(f"{named} has scale {scale:g}, which makes no reflectance; say --input-scale")
    elif offset is None and math.isclose(scale, SCALE_FACTOR, rel_tol=1e-6):
        raise SceneError(
            f"{named} has scale {scale:g} and no offset, and raw numbers of processing baseline 04.00 or later need "
            "one: say --input-offset -0.1 for these, and --input-offset 0 for all others"
        )
    if nodata is None and not floating:
        raise SceneError(
            f"{named} is {dtype}, and nothing says which number stands for nothing: say --input-nodata 0, or another"
        )
    return Numbers(1.0 if scale is None else scale, offset or 0.0, () if nodata is None else (nodata,), by)


_WHAT = ("scale", "offset", "nodata")


def _number(named: str, what: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or (what != "nodata" and not math.isfinite(number)):
        raise SceneError(f"{named} has a {what} that is no number; say --input-{what}")
    return number


def _is_stored(scale: float | None, offset: float | None) -> bool:
    pairs = zip((scale, offset), (SCALE_FACTOR, ADD_OFFSET), strict=True)
    # 1e-6 of slack: some writers keep the two numbers in float32.
    return all(is_ is not None and math.isclose(is_, should_be, rel_tol=1e-6) for is_, should_be in pairs)
