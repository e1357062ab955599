"""A job over one cell whose catalogue, scenes and mosaics are made in no time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from archives import Made, WriteJob

from rsup.pipeline.batch import run as running


@pytest.fixture
def write_job(tmp_path: Path) -> WriteJob:
    """`write_job(output="archive", dates=..., fetch={...})` -> a job in TOML; None leaves a key out."""

    def write(**changes: Any) -> Path:
        said: dict[str, Any] = {
            "output": "archive",
            "bbox": [13.0, 52.0, 13.0001, 52.0001],
            "dates": "2024-05-01/2024-06-30",
            "cells": 64,
            "fetch": {},
            "upscale": {"scale": 4, "model": "nearest", "device": "cpu"},
        } | changes
        said["output"] = str(tmp_path / said["output"])
        tables = {key: value for key, value in said.items() if isinstance(value, dict)}
        lines = [
            f"{key} = {json.dumps(value)}" for key, value in said.items() if value is not None and key not in tables
        ]
        for key, table in tables.items():
            lines += [f"[{key}]", *(f"{name} = {json.dumps(value)}" for name, value in table.items())]
        path = tmp_path / "job.toml"
        path.write_text("\n".join(lines))
        return path

    return write


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Two items in May, one in June."""
    made = Made({"2024-05": ["b", "a"], "2024-06": ["c"]})
    monkeypatch.setattr(running, "Catalogue", made.catalogue)
    monkeypatch.setattr(running.fetch, "run", made.fetch)
    monkeypatch.setattr(running, "upscale", made.upscale)
    return made
