"""A Dask cluster that stands already: an address and credentials in, a connected client out, or the reason why not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from distributed import Client, Security
from distributed.comm.core import connect
from distributed.exceptions import WorkerStartTimeoutError

from rsup.models.base.errors import ArgumentError
from rsup.pipeline.release import VERSION

from . import vigil
from .vigil import CLOSING, LOST, answer, hushed

"""What workers must have as well."""

CONNECTING = 10.0
"""Seconds in which a scheduler that stands must answer."""

JOINING = 55.0
"""Seconds in which a first worker must have joined a scheduler that stands."""


def credentials(address: str, ca: Path | None, cert: Path | None, key: Path | None) -> Security:
    """What a client shows the scheduler at `address`: files in PEM, or, where none is named, Dask's own configuration.

    A `key` may stand in the file of its certificate. Raises ArgumentError for an address that is none, for tls://
    without credentials, and for files that are none.
    """
    secure = address.startswith("tls://")
    if not _is_address(address):
        raise ArgumentError(
            f"--scheduler {address}: no Dask scheduler answers to that; give tcp://HOST:PORT or tls://HOST:PORT"
        )
    if not secure and (ca or cert or key):
        raise ArgumentError(f"--scheduler {address}: --tls-ca, --tls-cert and --tls-key are for tls://HOST:PORT")
    files = {"tls_ca_file": ca, "tls_client_cert": cert, "tls_client_key": key}
    security = Security(require_encryption=secure or None, **{name: str(file) for name, file in files.items() if file})
    if not secure:
        return security
    shown = security.get_tls_config_for_role("client")
    try:
        if not (shown["ca_file"] and shown["cert"]):
            raise ValueError("name an authority and a certificate")
        private = str(shown["key"] or shown["cert"])
        if "ENCRYPTED" in (private if "\n" in private else Path(private).read_text(errors="replace")):
            raise ValueError("the key is locked with a password")
        security.get_connection_args("client")  # reads them
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ArgumentError(
            f"--scheduler {address}: --tls-ca, --tls-cert and --tls-key, or Dask's configuration, must name what it "
            f"asks for, in PEM ({error})"
        ) from error
    return security


def _is_address(text: str) -> bool:
    scheme, _, rest = text.rpartition("://")
    try:
        parts = urlsplit(f"//{rest}")
        whole = parts.netloc == rest and "@" not in rest
        return scheme in ("", "tcp", "tls") and whole and bool(parts.hostname) and bool(parts.port)
    except ValueError:  # a port beyond 65535, a bracket that is never closed
        return False


@contextmanager
def remote_client(address: str, security: Security | None = None) -> Iterator[Client]:
    """Connect to a scheduler that stands already, with what `credentials` gave for it.

    Raises ArgumentError where none answers, where it has no worker within a minute, and where a worker lacks this
    version of rsup: Dask would lose such a worker with its first task, and wait for ever for another.
    """
    with hushed():
        security = security or credentials(address, None, None, None)
        try:
            asyncio.run(_greet(address, security))
            client = Client(address, timeout=CONNECTING, security=security)
        except Exception as error:  # whatever listens there may answer whatever it likes
            raise ArgumentError(f"--scheduler {address}: no Dask scheduler answers there ({error})") from error
        try:
            _await_workers(client, address)
            check_versions(client, f"--scheduler {address}")
            yield client
        finally:
            with suppress(Exception):  # the scheduler may be gone; what matters is already being raised
                client.close(timeout=CLOSING)


async def _greet(address: str, security: Security) -> None:
    """Shake hands with a scheduler within CONNECTING seconds: a client waits for ever for a server that is silent."""

    async def greeted() -> None:
        comm = await connect(address, timeout=CONNECTING, **security.get_connection_args("client"))
        await comm.close()

    try:
        await asyncio.wait_for(greeted(), CONNECTING)
    except TimeoutError as error:
        raise TimeoutError(f"nothing is said for {CONNECTING:.0f} s") from error


def _await_workers(client: Client, address: str) -> None:
    try:
        answer(client, lambda: client.wait_for_workers(1, timeout=JOINING), JOINING + vigil.LOOK)
    except WorkerStartTimeoutError as error:
        raise ArgumentError(f"--scheduler {address}: no worker has joined it within a minute") from error
    except LOST as error:
        raise ArgumentError(f"--scheduler {address}: it does not answer; start it anew") from error


def check_versions(client: Client, option: str) -> None:
    """Raise ArgumentError, which begins with `option`, where a worker lacks this version of rsup or does not answer."""
    try:
        found = answer(client, lambda: client.run(version, "rsup", on_error="return"))
    except LOST as error:
        raise ArgumentError(f"{option}: one of its workers does not answer; start it anew") from error
    others = sorted({each if isinstance(each, str) else "(none)" for each in found.values()} - {VERSION})
    if others:
        raise ArgumentError(f"{option}: workers have rsup {', '.join(others)}; install {VERSION} there")
