"""Reads that may fail and come again: an action in, its result out, or a SceneError that says what to do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TypeVar

from rasterio.errors import RasterioError

from rsup.models.base.errors import SceneError

from .remote import scheme_of
from .stac.items import ItemReference

WAITS = (1.0, 2.0, 4.0)
"""Seconds before the second and later attempts to read an asset."""
PATIENCE = 120.0
"""Seconds after which a failing read is not begun again."""
T = TypeVar("T")


class GoneError(SceneError):
    """An asset that is not where its item says: another attempt will not find it either."""


def item_band(item: ItemReference, band: str) -> str:
    """What messages call a band of an item."""
    return f"item {item.id}, band {band}"


def persevere(item: ItemReference, band: str, action: Callable[[bool], T]) -> T:
    """Try a read some times, with `True` (past every cache) after the first; SceneError where none succeeds."""
    start = time.monotonic()
    for attempt, wait in enumerate((*WAITS, None)):
        try:
            return action(attempt > 0)
        except (RasterioError, OSError) as error:  # of requests too, when signing
            reason = _words(error)
            if _is_gone(reason):
                raise GoneError(
                    f"{item_band(item, band)}: its asset cannot be read ({reason}); it is not where its item says"
                ) from error
            remedy = _hopeless(reason)
            if remedy or wait is None or time.monotonic() - start > PATIENCE:
                local = not scheme_of(item.hrefs[band])
                again = (
                    "it is damaged, cut off or another file: get it anew"
                    if local
                    else ("run the same command again to go on from here")
                )
                raise SceneError(
                    f"{item_band(item, band)}: its asset cannot be read ({reason}); {remedy or again}"
                ) from error
            time.sleep(wait)
    raise AssertionError("unreachable")


def _hopeless(reason: str) -> str | None:
    """What to do where another attempt would end the same; None where one may help."""
    if _status(reason) in ("401", "403"):
        return (
            "its address needs credentials, or those in it have expired: give them in RSUP_HEADERS or ~/.netrc, "
            "or search its catalogue anew"
        )
    if re.search(r"Access ?Denied|Access ?Key|Signature|AWS_SECRET", reason):  # S3 answers in words
        return (
            "its bucket needs credentials: give them in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, its server in "
            "AWS_ENDPOINT_URL, or set AWS_NO_SIGN_REQUEST=YES where everybody may read it"
        )
    if "in redirect" in reason:
        return "its server leads away from http(s)"
    return None


def _is_gone(reason: str) -> bool:
    return "No such file" in reason or _status(reason) in ("404", "410")


def _status(reason: str) -> str | None:
    found = re.search(r"HTTP response code: (\d{3})", reason)
    return found[1] if found else None


def _words(error: BaseException) -> str:
    """The innermost reason, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    if "not recognized as being in a supported file format" in str(error):
        return "it is neither GeoTIFF nor JPEG 2000, or its server gives no ranges of it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
