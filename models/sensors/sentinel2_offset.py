"""Which offset the numbers of a Sentinel-2 item carry, and what to do about it.

Since processing baseline 04.00 a product stores reflectance * 10000 + 1000 (BOA_ADD_OFFSET -1000); some archives take
the 1000 off again in their copies. Dates say nothing: Collection-1 reprocessed the archive. What is said must agree;
where it does not (Earth Search repeats the product's offset for pixels it has shifted), dark pixels decide.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .profile import Evidence, NumberRule, UndecidedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RAW_OFFSET = -1000
"""BOA_ADD_OFFSET of products since baseline 04.00: what their numbers need before / 10000."""
DARK = 900
"""Below this a raw number of baseline >= 04.00 is a reflectance under -0.01: a pixel may be, not 1 % of them."""
UNDERFLOW = 64000
"""From here to 65534 a shifted uint16 is a small number minus 1000 that wrapped around."""


def processing_baseline(item_id: str, properties: Mapping[str, Any]) -> str | None:
    """Processing baseline as "05.09": a property of the item, or part of its product's name (N0509)."""
    for key in ("s2:processing_baseline", "processing:version", "processing:baseline"):
        match = re.fullmatch(r"(\d\d)\.(\d\d)", str(properties.get(key, "")))
        if match:
            return match.group(0)
    names = (properties.get("s2:product_uri"), properties.get("s2:datatake_id"), item_id)
    for name in names:
        match = re.search(r"_N(\d\d)\.?(\d\d)(?:_|\.|$)", str(name))
        if match:
            return f"{match.group(1)}.{match.group(2)}"
    return None


def product_offset(metadata: str) -> int | None:
    """BOA_ADD_OFFSET of product metadata (MTD_MSIL2A.xml); None where every band has none."""
    offsets = {int(number) for number in re.findall(r"<BOA_ADD_OFFSET[^>]*>\s*(-?\d+)\s*<", metadata)}
    return offsets.pop() if len(offsets) == 1 else None


def dark_level(pixels: NDArray[np.uint16]) -> float | None:
    """The first percentile of valid numbers of a coarse look at an item; None where too few are valid."""
    import numpy as np

    valid = pixels[(pixels > 0) & (pixels < UNDERFLOW)]
    return float(np.percentile(valid, 1)) if valid.size >= 100 else None


def number_rule(known: Evidence, wanted: int | None = None) -> NumberRule:
    """Decide which offset an item's pixels carry, from all it says of itself and from its dark pixels.

    `wanted` is the user's word. What is said must agree; where it does not, dark pixels decide. Pixels too dark for the
    claim refute it. Raises SceneError where the evidence disagrees or there is none.
    """
    baseline = processing_baseline(known.item_id, known.properties)
    product = known.product
    source = "product metadata"
    if product is None and baseline is not None:
        product, source = (RAW_OFFSET if baseline >= "04.00" else 0), f"processing baseline {baseline}"
    applied = known.properties.get("earthsearch:boa_offset_applied") is True
    claims = _claims(known, product, source, applied)
    dark = dark_level(known.pixels)
    evidence = [text for text, _ in claims]
    if dark is not None:
        evidence.append(f"dark pixels (1st percentile) {dark:.0f}")
    says = {claimed for _, claimed in claims}
    overrules = wanted is not None and _contradicts(wanted, says, dark)
    if wanted is not None:
        offset = wanted
        evidence.append(f"decided by --offset {wanted}{', against the evidence' if overrules else ''}")
    else:
        offset = _verdict(known.item_id, says, dark, evidence)
    shifted = offset == 0 and (applied or product != 0)
    return NumberRule(offset, shifted, baseline, tuple(evidence), wanted is not None, overrules)


def _claims(known: Evidence, product: int | None, source: str, applied: bool) -> list[tuple[str, int]]:
    """What is said of the offset, in words and in numbers."""
    claims: list[tuple[str, int]] = []
    if known.described is not None:
        claims.append((f"the asset's offset is {known.described}", known.described))
    if known.header is not None and known.header != known.described:
        claims.append((f"its file's offset is {known.header}", known.header))
    if applied:
        claims.append(("earthsearch:boa_offset_applied is true", 0))
    elif product is not None:
        claims.append((f"{source}: {product}", product))
    return claims


def _contradicts(wanted: int, says: set[int], dark: float | None) -> bool:
    """Whether all that is said, unless dark pixels refute it, is another offset than `wanted`, or they refute that."""
    is_dark = dark is not None and dark < DARK
    if wanted == RAW_OFFSET and is_dark:
        return True
    return len(says) == 1 and wanted not in says and not (is_dark and RAW_OFFSET in says)


def _verdict(item_id: str, says: set[int], dark: float | None, evidence: list[str]) -> int:
    is_dark = dark is not None and dark < DARK
    if not says <= {0, RAW_OFFSET}:
        raise UndecidedError(
            f"{item_id}: an offset of {', '.join(map(str, sorted(says - {0, RAW_OFFSET})))} is neither 0 nor "
            f"{RAW_OFFSET} ({'; '.join(evidence)}); {_decide(item_id)}"
        )
    if is_dark and (0 in says or not says):
        return 0
    if len(says) == 1 and not is_dark:
        return next(iter(says))
    problem = "the evidence for its offset disagrees" if says else "nothing says which offset its pixels carry"
    raise UndecidedError(f"{item_id}: {problem} ({'; '.join(evidence) or 'no evidence'}); {_decide(item_id)}")


def _decide(item_id: str) -> str:
    return (
        f"decide for it with --offset {item_id}=0 (the 1000 is taken off already) or --offset {item_id}={RAW_OFFSET}, "
        f"or for all items with --offset 0 or --offset {RAW_OFFSET}"
    )


def to_stored(numbers: NDArray[np.uint16], rule: NumberRule) -> NDArray[np.uint16]:
    """An item's pixels -> stored numbers (those of baseline >= 04.00); 0 stays nodata, valid never becomes 0.

    Saturated (65535) stays so; in shifted copies 64000..65534 are small numbers that wrapped below zero.
    """
    import numpy as np

    from rsup.models.base.radiometry import DN_MAX, DN_ZERO

    if rule.offset == RAW_OFFSET:
        return numbers
    wide = numbers.astype(np.int32)
    if rule.shifted:
        wide = np.where((wide >= UNDERFLOW) & (wide < DN_MAX), wide - 65536, wide)
    stored = np.clip(wide + DN_ZERO, 1, DN_MAX)
    stored[numbers == 0] = 0
    return stored.astype(np.uint16)
