"""An archive of two cells in two months behind a real STAC API, and what a run of it makes that nothing disturbs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from archives import write_tables
from forks import Rsup

from rsup.pipeline.batch.status import STATES
from rsup.pipeline.demo import servers
from rsup.pipeline.demo.archive import Archive
from rsup.pipeline.demo.session import moved

OLD = "S2A_33UUQ_20210618_0_L2A"
CELLS = ["33N-E309120-N5424000", "33N-E309760-N5424000"]
MONTHS = ["2024-05", "2024-06"]
UNITS = [f"{cell}_{month}" for month in MONTHS for cell in CELLS]
PROGRAM = [sys.executable, "-m", "rsup.pipeline.cli"]

Item = dict[str, Any]
Serve = Callable[[list[Item]], Any]


@pytest.fixture(scope="session")
def items(archive: Archive, asset_server: str) -> list[Item]:
    """The archive's items of June, and those of one overpass again in May: two months that have items."""
    _, items = servers.published(archive.root, asset_server)
    june = [item for item in items if item["id"] != OLD]
    return june + [moved(item, date(2024, 6, 12), date(2024, 5, 12)) for item in june if "_20240612_" in item["id"]]


@pytest.fixture(scope="session")
def serve(archive: Archive, asset_server: str) -> Serve:
    """`with serve(items) as address`: a STAC API, always at one and the same address."""
    collections, _ = servers.published(archive.root, asset_server)
    port = servers._free_port()

    @contextmanager
    def start(items: list[Item]) -> Iterator[str]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(servers, "_free_port", lambda: port)
            with servers.serve_stac(collections, items) as address:
                yield address

    return start


def write_job(archive: Archive, catalog: str, folder: Path, output: str, **changes: object) -> Path:
    """A job over two cells of 64 pixels in two months."""
    west, south, east, north = archive.bbox
    middle = south + 0.55 * (north - south)
    said = {
        "output": output if "://" in output else str(folder / output),
        "bbox": [west, middle, east, middle + 1e-4],
        "dates": "2024-05-01/2024-06-30",
        "interval": "month",
        "cells": 64,
    } | changes
    return write_tables(folder / f"{output.rpartition('/')[2]}.toml", said, catalog)


def told(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def counts(said: dict[str, Any]) -> dict[str, int]:
    return {key: said[key] for key in (*STATES, "already_done") if said.get(key)}


@pytest.fixture(scope="session")
def undisturbed(
    serve: Serve, items: list[Item], archive: Archive, rsup: Rsup, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The output of a run of one runner that nothing has disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with serve(items) as catalog:
        job = write_job(archive, catalog, folder, "archive")
        planned = told(rsup("batch", "plan", job, "--json"))
        assert not (folder / "archive").exists()
        assert planned["list"] == [{"unit": unit, "state": "waiting"} for unit in UNITS]
        assert planned["each"]["mosaic_bytes"] == 256 * 256 * 2 * 3
        assert planned["to_do"]["scene_bytes"] == 4 * (64 + 256) ** 2 * 9
        assert planned["to_do"]["network_seconds"] >= 0
        assert counts(told(rsup("batch", "run", job, "--json"))) == {"done": 4}
    return folder / "archive"
