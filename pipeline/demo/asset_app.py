"""Serves a folder read-only over HTTP with Range: `python -m rsup.pipeline.demo.asset_app FOLDER PORT`."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles


def asset_app(folder: Path) -> Starlette:
    """The folder's files by their relative path; GET and HEAD only, links are not followed out of it."""
    return Starlette(routes=[Mount("/", StaticFiles(directory=folder))])


if __name__ == "__main__":
    uvicorn.run(asset_app(Path(sys.argv[1])), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
