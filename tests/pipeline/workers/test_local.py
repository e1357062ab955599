"""Workers of this machine: pinned, closed to strangers, their files where nobody waits for them."""

import os
import socket
import ssl
import tempfile
from pathlib import Path

import psutil
import pytest
from clusters import collect, pin
from distributed import Client, Security

from rsup.pipeline.workers.local import local_client
from rsup.pipeline.workers.pool import Pool


def test_a_cuda_worker_sees_its_own_card_only(client: Client) -> None:
    done, _ = collect(client, pin, list(range(8)))
    assert set(done.values()) == {os.environ.get("CUDA_VISIBLE_DEVICES", "none"), "7"}


def test_a_stranger_on_this_machine_gets_nothing(client: Client) -> None:
    """Neither pages nor a connection: whoever is let in runs code in the workers and in the command."""
    ours = [psutil.Process(), *map(psutil.Process, client.run(os.getpid).values())]
    ports = {each.laddr.port for process in ours for each in process.net_connections("tcp") if each.status == "LISTEN"}
    assert len(ports) >= 5  # a scheduler, two workers and their nannies
    anybody = Security.temporary().get_connection_args("client")["ssl_context"]
    anybody.verify_mode = ssl.CERT_NONE
    question = b"GET /info/main/workers.html HTTP/1.0\r\n\r\n"
    for port in ports:
        assert heard(port, question) == heard(port, question, anybody) == b""
        assert heard(port, b"", client.security.get_connection_args("client")["ssl_context"])


def heard(port: int, question: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """What a server of this machine answers; nothing where it hangs up."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            with context.wrap_socket(plain) if context else plain as talk:
                talk.sendall(question)
                return talk.recv(100)
    except (ConnectionError, ssl.SSLError):
        return b""


def test_temporary_files_lie_where_nobody_waits_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "dask-scratch-space").symlink_to(victim)
    with local_client(Pool("cpu", (None,), 1), threads=1):
        (ours,) = tmp_path.glob("rsup-*")
        assert ours.stat().st_mode & 0o777 == 0o700
    assert not ours.exists() and not list(victim.iterdir())
