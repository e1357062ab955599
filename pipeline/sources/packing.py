"""What a band's numbers mean: type, scale, offset and nodata as its file and its item declare them; stored numbers out.

Two kinds of file: numbers of the product (reflectance * 10000, with or without 1000 on top: the sensor decides), whole
whatever type holds them; and numbers with a scale of their own, float reflectance for one, which mean what is declared.
What is declared by nobody, contradicts itself or does not fit a stored number raises ValueError with the reason, for
whoever knows item and band to make a sentence of. No I/O.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rsup.models.base.radiometry import DN_MAX, DN_MIN, DN_ZERO, LOWEST
from rsup.models.sensors.profile import NumberRule

TYPES = ("uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64")
"""What can hold reflectance to 1e-4; 8-bit rasters are pictures."""
PRODUCT_SCALE = 1e-4
"""Of the product's numbers, which need no scale of their own to be known."""


@dataclass(frozen=True)
class Packing:
    """How one file's numbers become stored numbers."""

    dtype: str
    scale: float | None
    """Reflectance a number; None for numbers of the product."""
    offset: float | None
    """Reflectance of the number 0 as declared; None where nobody says."""
    claim: int | None
    """The offset that the file's header claims, in numbers of the product; None where it says nothing."""
    nodata: tuple[float, ...]
    """Numbers that stand for nothing; NaN always does."""

    @classmethod
    def of(
        cls, dtype: str, header: tuple[float, float], header_nodata: float | None, asset: Mapping[str, Any]
    ) -> Packing:
        """From a file's type, (scale, offset) and nodata, and from the STAC asset's fields."""
        if dtype not in TYPES:
            kind = "a picture, not reflectance" if dtype in ("uint8", "int8") else "no type of reflectance"
            raise ValueError(f"it is {dtype}, {kind}; its item must lead to the band itself")
        scale, offset = _number(asset, "scale"), _number(asset, "offset")
        if scale == 1 and not offset and "int" in dtype:
            scale = offset = None  # GDAL's word for "not said", which some catalogues copy
        said = header != (1, 0)
        if said:
            if not all(map(math.isfinite, header)):
                raise ValueError(f"its file's scale and offset, {header[0]} and {header[1]}, are no numbers")
            if scale is not None and not math.isclose(scale, header[0], rel_tol=1e-6):
                raise ValueError(f"its file says scale {header[0]:g}, its item {scale:g}")
            product = math.isclose(header[0], PRODUCT_SCALE, rel_tol=1e-6)
            if not product and offset is not None and not math.isclose(offset, header[1], rel_tol=1e-6, abs_tol=1e-9):
                raise ValueError(f"its file says offset {header[1]:g}, its item {offset:g}")
            scale, offset = header
        if scale is None and dtype != "uint16":
            raise ValueError(f"it is {dtype}, and neither it nor its item (raster:bands) says the scale of its numbers")
        if scale is not None and scale <= 0:
            raise ValueError(f"a scale of {scale:g} makes no reflectance")
        if scale is not None and math.isclose(scale, PRODUCT_SCALE, rel_tol=1e-6):
            scale = None
        claim = round(header[1] / PRODUCT_SCALE) if said else None
        return cls(dtype, scale, offset, claim, nodata_of(header_nodata, asset))

    def zero(self, decision: NumberRule) -> int:
        """The stored number of a 0 that is no nodata: the darkest there can be in the file."""
        return max(1, round(self._shift(decision)))

    def _shift(self, decision: NumberRule) -> float:
        """What is added to a number in units of the product to make it a stored one."""
        declared = self.scale is not None and not decision.by_user
        return DN_ZERO + ((self.offset or 0) / PRODUCT_SCALE if declared else decision.offset)

    def stored(
        self,
        values: NDArray[Any],
        decision: NumberRule,
        to_stored: Callable[[NDArray[np.uint16], NumberRule], NDArray[np.uint16]],
        least: float = LOWEST,
    ) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
        """Stored numbers of a file's `values` [y, x], 0 where there is none; and where the file has a plain 0.

        A plain 0 may be nodata or the darkest number there is, which this pixel alone does not tell. `to_stored`: the
        sensor's, for numbers of its products. Reflectance down to `least` becomes the darkest that a scene holds.
        """
        absent = _absent(values, self.nodata)
        zero = (values == 0) & ~absent
        signed = any(number < 0 for number in self.nodata)
        if (self.scale is not None or signed) and self.nodata and 0 not in self.nodata:
            zero[:] = False  # its nodata is another number: 0 is a reflectance
        present = ~absent & ~zero
        if self.scale is None and self.dtype == "uint16":
            return to_stored(np.where(present, values, 0).astype(np.uint16), decision), zero
        numbers = np.where(present, values, 0).astype(np.float64)
        if self.scale is None:
            if (broken := numbers != np.rint(numbers)).any():
                raise ValueError(
                    f"it holds {numbers[broken][0]:g}, where whole numbers of 1/10000 are declared; correct its scale"
                )
        else:
            numbers *= self.scale / PRODUCT_SCALE
        shifted = np.rint(numbers + self._shift(decision))
        wrong = present & ~((shifted >= round(DN_ZERO + least / PRODUCT_SCALE)) & (shifted <= DN_MAX))
        if wrong.any():
            raise ValueError(
                f"it holds {values[wrong][0]:g}, a reflectance of {(shifted[wrong][0] - DN_ZERO) / 10000:g}: "
                f"beyond what a scene can hold ({least:g} to 6.4535); correct its scale and offset"
            )
        return np.where(present, shifted.clip(DN_MIN), 0).astype(np.uint16), zero

    def coarse(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """Numbers of the product in an overview of `values`, whose means need not be whole; for `dark_level`."""
        numbers = np.where(_absent(values, self.nodata), 0, values).astype(np.float64)
        return np.clip(np.rint(np.nan_to_num(numbers)), 0, DN_MAX).astype(np.uint16)


def classes(values: NDArray[Any], nodata: tuple[float, ...], count: int) -> NDArray[np.uint8]:
    """Scene classes of a file's `values`, 0 where there is none; ValueError for what is none of `count` classes."""
    found = np.where(_absent(values, nodata), 0, values)
    known = np.isin(found, range(count))
    if not known.all():
        raise ValueError(f"it holds {found[~known][0]:g}, which is no scene class (0 to {count - 1}); get it anew")
    return found.astype(np.uint8)


def nodata_of(header: float | None, asset: Mapping[str, Any]) -> tuple[float, ...]:
    """Numbers that a file or its item declares to stand for nothing."""
    said = asset_field(asset, "nodata")
    try:
        item = () if said is None else (float(said),)  # the raster extension writes "nan" as text
    except (TypeError, ValueError):
        raise ValueError(f"its item says nodata {str(said)[:40]!r}, which is no number") from None
    return tuple({float(number) for number in (*(() if header is None else (header,)), *item)})


def _absent(values: NDArray[Any], nodata: tuple[float, ...]) -> NDArray[np.bool_]:
    """Where there is nothing for certain: NaN, and nodata other than 0."""
    absent = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    for number in nodata:
        if number != 0:
            # In the type of the values: a header says -3.4e38 in more digits than a float32 has.
            with np.errstate(over="ignore"):
                absent |= values == (np.float32(number) if values.dtype == np.float32 else number)
    return absent


def _number(asset: Mapping[str, Any], name: str) -> float | None:
    said = asset_field(asset, name)
    if said is None:
        return None
    if isinstance(said, bool) or not isinstance(said, int | float) or not abs(said) < 1e30:
        raise ValueError(f"its item says {name} {str(said)[:40]!r}, which is no number")
    return float(said)


def asset_field(asset: Mapping[str, Any], name: str) -> Any:
    """`scale`, `offset` or `nodata` of a band's asset; None where it says nothing.

    Places: `raster:bands` (raster extension 1), `bands` or the asset itself (extension 2, STAC 1.1).
    """
    lists = [asset.get(key) for key in ("raster:bands", "bands")]
    for fields in (*(entry for entries in lists if isinstance(entries, list) for entry in entries), asset):
        for key in (f"raster:{name}", name):
            if isinstance(fields, Mapping) and fields.get(key) is not None:
                return fields[key]
    return None


def asset_offset(asset: Mapping[str, Any]) -> int | None:
    """The offset a band's asset claims, in numbers: -1000 for -0.1; None where it claims nothing."""
    offset = asset_field(asset, "offset")
    if not isinstance(offset, int | float) or not abs(offset) < 1e30:
        return None
    if offset == 0 and asset_field(asset, "scale") == 1:
        return None  # GDAL's word for "not said", which some catalogues copy
    return round(float(offset) * 10000)
