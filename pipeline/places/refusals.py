"""What a store refuses, as one sentence that says what to do; of the server's own words only its code is told.

Answers to wrong credentials hold the key and what was signed with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from rsup.models.base.errors import RsupError

from .address import Keyed, ObjectPath


def code_of(error: Exception) -> str:
    """What the server calls its refusal ("NoSuchBucket"), or "" where it says nothing; no other word of it."""
    found = re.search(r"<Code>([A-Za-z0-9.]{1,60})</Code>", str(error))
    status = re.search(r"status code: (\d{3})\b", str(error))
    return found[1] if found else f"status {status[1]}" if status else ""


@contextmanager
def answering(place: Keyed, kind: type[RsupError]) -> Iterator[None]:
    """What the store refuses in the block becomes a `kind`, in one sentence of our own."""
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

    try:
        yield
    except (BaseError, OSError) as error:
        code, said = code_of(error), str(error)
        if isinstance(error, OSError) and error.strerror:  # a file that is uploaded
            raise kind(f"{place} cannot be written ({error.strerror}): mend that, and run the same command") from None
        refused = isinstance(error, PermissionDeniedError | UnauthenticatedError) or code in (
            "status 401",
            "status 403",
        )
        if refused and not isinstance(place, ObjectPath):
            words = (
                f"the server does not let this asker in ({code or 'denied'}): say who asks by "
                'RSUP_HEADERS="Authorization: ...", or renew what has expired there'
            )
        elif code in ("NoSuchBucket", "status 404"):
            words = f"there is no bucket {place.root}: create it, or correct the address"
        elif code in _BAD_LOGIN or (isinstance(error, UnauthenticatedError) and not code):
            words = (
                f"the credentials are refused ({code or 'unauthenticated'}): check AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN"
            )
        elif isinstance(error, PermissionDeniedError | UnauthenticatedError) or code in ("AccessDenied", "status 403"):
            words = f"access is denied ({code or 'denied'}): let these credentials read, write, list and delete there"
        elif "169.254.169.254" in said or "credential" in said.lower():
            words = "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a role"
        elif not code:
            words = "the object store does not answer: check AWS_ENDPOINT_URL and the network, and run it again"
        else:
            words = f"the object store refuses ({code}): try again later; the same command then goes on"
        raise kind(f"{place}: {words}") from None


_BAD_LOGIN = (
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "InvalidClientTokenId",
    "AuthorizationHeaderMalformed", "RequestTimeTooSkewed",
)  # fmt: skip
