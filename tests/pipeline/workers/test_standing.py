"""Clusters that stand already: addresses, credentials and versions, and what is none of it."""

import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import dask
import pytest
from distributed import Client

from rsup.models.base.errors import ArgumentError
from rsup.pipeline.workers import standing


def test_workers_of_another_version_are_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    address = client.scheduler.address
    with standing.remote_client(address) as connected:
        assert len(connected.nthreads()) == 2
    monkeypatch.setattr(standing, "VERSION", "99.0")
    with (
        pytest.raises(ArgumentError, match=r"workers have rsup 0\..*install 99\.0"),
        standing.remote_client(address),
    ):
        pass


def test_no_scheduler_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "CONNECTING", 1.0)
    with (
        pytest.raises(ArgumentError, match="no Dask scheduler answers"),
        standing.remote_client("tcp://127.0.0.1:1"),
    ):
        pass


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 400 Bad Request\r\n\r\n"], ids=["silent", "http"])
def test_a_server_that_is_no_scheduler_is_a_sentence(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "CONNECTING", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"

        def serve() -> None:
            with suppress(OSError), server.accept()[0] as caller:
                caller.sendall(answer)
                caller.recv(1000)
                time.sleep(2)

        thread = threading.Thread(target=serve)
        thread.start()
        with (
            pytest.raises(ArgumentError, match="no Dask scheduler answers there"),
            standing.remote_client(address),
        ):
            pass
        thread.join()


NO_ADDRESSES = ["", "x", "tcp://", "tcp://127.0.0.1", "tcp://[::1", "tcp://h:99999", "inproc://x:1", "http://127.0.0.1:1",
                "tcp://u:p@127.0.0.1:1", "tcp://127.0.0.1:1/x", "\n"]  # fmt: skip


@pytest.mark.parametrize("address", NO_ADDRESSES)
def test_what_is_no_address_is_a_sentence(address: str) -> None:
    with pytest.raises(ArgumentError, match="give tcp://HOST:PORT or tls://HOST:PORT"):
        standing.credentials(address, None, None, None)


def test_credentials_may_lie_in_files(client: Client, tmp_path: Path) -> None:
    shown = client.security.get_tls_config_for_role("client")
    files = {name: tmp_path / f"{name}.pem" for name in ("ca_file", "cert", "key", "both")}
    for name in ("ca_file", "cert", "key"):
        files[name].write_text(shown[name])
    files["both"].write_text(shown["cert"] + shown["key"])
    address = client.scheduler.address
    for cert, key in ((files["cert"], files["key"]), (files["both"], None)):
        security = standing.credentials(address, files["ca_file"], cert, key)
        with standing.remote_client(address, security) as connected:
            assert len(connected.nthreads()) == 2
    with pytest.raises(ArgumentError, match="are for tls://"):
        standing.credentials("tcp://127.0.0.1:1", files["ca_file"], None, None)
    for wrong in (tmp_path / "nothing", tmp_path, files["ca_file"].with_suffix(".txt")):
        (tmp_path / "ca_file.txt").write_text("no PEM")
        with pytest.raises(ArgumentError, match="in PEM"):
            standing.credentials(address, wrong, files["cert"], files["key"])


def test_tls_without_credentials_is_a_sentence() -> None:
    nothing = dask.config.set({"distributed.comm.tls.ca-file": None, "distributed.comm.tls.client.cert": None})
    with nothing, pytest.raises(ArgumentError, match="--tls-ca, --tls-cert and --tls-key, or Dask's configuration"):
        standing.credentials("tls://127.0.0.1:1", None, None, None)
