"""The archive's servers on loopback: HTTP with Range for the COGs, `rustac serve` for the STAC API.

Each is a context manager that yields the server's address once it answers, and stops it when the block is left
or this process dies.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pystac

from rsup.models.base.errors import CatalogError

HOST = "127.0.0.1"
PYTHON = (sys.executable, "-P", "-m")
"""Runs a module of this installation, whatever the working directory holds."""

_PATIENCE = 30.0  # seconds a server may take to answer for the first time
_ATTEMPTS = 3  # ports to try: another process may take a free one before the server does


@contextmanager
def serve_assets(folder: Path) -> Iterator[str]:
    """Serve the files in `folder` with Range requests; yields "http://127.0.0.1:PORT"."""

    def command(port: int) -> list[str]:
        return [*PYTHON, "rsup.pipeline.demo.asset_app", str(folder.resolve()), str(port)]

    with serve(command, "the asset server") as address:
        yield address


@contextmanager
def serve_stac(collections: Sequence[dict[str, Any]], items: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Serve STAC collections and items through a STAC API (search, paging); yields its root address."""
    rustac = Path(sysconfig.get_path("scripts")) / "rustac"
    with tempfile.TemporaryDirectory(prefix="rsup-stac-") as folder:
        sources = []
        for number, collection in enumerate(collections):
            path = Path(folder) / f"collection-{number}.json"
            path.write_text(json.dumps(collection), encoding="utf-8")
            sources.append(str(path))
        features = Path(folder) / "items.json"
        features.write_text(json.dumps({"type": "FeatureCollection", "features": list(items)}), encoding="utf-8")

        def command(port: int) -> list[str]:
            return [str(rustac), "serve", "--addr", f"{HOST}:{port}", *sources, str(features)]

        with serve(command, "rustac serve") as address:
            yield address


@contextmanager
def serve_archive(root: Path) -> Iterator[tuple[str, str]]:
    """Serve a made archive: yields the address of its STAC API and that of its files."""
    with serve_assets(root) as assets, serve_stac(*published(root, assets)) as api:
        yield api, assets


def published(root: Path, assets: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Collections and items of the static catalogue in `root`, with asset hrefs below the address `assets`."""
    root = root.resolve()
    catalog = pystac.Catalog.from_file(str(root / "catalog.json"))
    items = []
    for item in catalog.get_items(recursive=True):
        folder = Path(item.self_href).parent.relative_to(root)
        for asset in item.assets.values():
            asset.href = f"{assets}/{(folder / asset.href).as_posix()}"
        items.append(_without_links(item.to_dict(include_self_link=False, transform_hrefs=False)))
    collections = [each.to_dict(include_self_link=False) for each in catalog.get_collections()]
    return [_without_links(each) for each in collections], items


def _without_links(thing: dict[str, Any]) -> dict[str, Any]:
    # They lead into the static catalogue; the API makes its own.
    return thing | {"links": []}


@contextmanager
def serve(command: Callable[[int], list[str]], name: str) -> Iterator[str]:
    """Run `command(port)` on a free port of loopback; yields its address once it answers, if only with 404.

    Raises CatalogError, with what the server said last, where it does not within 30 s.
    """
    with tempfile.TemporaryFile() as said:
        for attempt in range(_ATTEMPTS):
            port = _free_port()
            process = start(command(port), stdout=said, stderr=said)
            try:
                if _answers(process, f"http://{HOST}:{port}/"):
                    yield f"http://{HOST}:{port}"
                    return
            finally:
                stop(process)
            if attempt == _ATTEMPTS - 1:
                said.seek(0)
                words = said.read()[-500:].decode(errors="replace").strip()
                raise CatalogError(f"{name} did not start on {HOST}; it said: {words or 'nothing'}")


def start(command: Sequence[str], **streams: Any) -> subprocess.Popen[bytes]:
    """Run a command that ends with this process, however that ends; `streams` as for Popen. End it with `stop`."""
    return subprocess.Popen([*PYTHON, "rsup.pipeline.demo.guard", *command], stdin=subprocess.PIPE, **streams)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End what `start` began, if it has not ended itself, and wait for that."""
    assert process.stdin is not None
    process.stdin.close()
    process.wait()


def _answers(process: subprocess.Popen[bytes], address: str) -> bool:
    """Wait until `address` answers at all; False where the process ends or 30 s pass before."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback, whatever http_proxy says
    until = time.monotonic() + _PATIENCE
    while time.monotonic() < until and process.poll() is None:
        try:
            with direct.open(address, timeout=5):
                return process.poll() is None
        except urllib.error.HTTPError as answer:
            answer.close()
            return process.poll() is None
        except OSError:
            time.sleep(0.05)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
