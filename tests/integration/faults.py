"""A faulty catalogue: stands in front of a real STAC API and its files, and misbehaves as its address says.

Run as `python faults.py API FOLDER PORT`. http://127.0.0.1:PORT/FAULT/TOKEN is the root of a catalogue with that
fault; a fault that counts requests counts them for each token by itself. `item-404/ID` lacks the files of one item,
`private/TOKEN` wants the bearer of s3cr3t-TOKEN. What is not faulty is passed on.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

REFUSALS = 2
"""Requests that `throttled`, `flaky` and `asset-flaky` refuse before they answer."""

_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class FaultyCatalogue:
    """Answers for the API at `upstream` and the archive's files in `folder`."""

    def __init__(self, upstream: str, folder: Path) -> None:
        self._upstream, self._folder = upstream, folder
        self._seen: Counter[str] = Counter()
        self._lock = Lock()

    async def catalogue(self, request: Request) -> Response:
        """GET or POST /FAULT/TOKEN/...: the API, with its fault."""
        fault, token = request.path_params["fault"], request.path_params["token"]
        base = str(request.base_url).rstrip("/")
        if fault == "500":
            return PlainTextResponse("the server broke", 500)
        if fault in ("throttled", "flaky") and self._refuses(f"{fault}/{token}"):
            status = 429 if fault == "throttled" else 503
            return PlainTextResponse("not now", status, {"Retry-After": "0"})
        if fault == "private" and request.headers.get("Authorization") != f"Bearer s3cr3t-{token}":
            return PlainTextResponse("who are you?", 401)
        if fault == "html":
            return HTMLResponse("<html><body>Please log in</body></html>")
        body = await request.body()
        if fault == "slow":
            await run_in_threadpool(time.sleep, float(token))
        status, answer = await run_in_threadpool(self._ask, request, body)
        if fault == "malformed":
            answer = answer[: len(answer) // 2]
        elif status == 200 and fault in _SPOILERS:
            found = json.loads(answer)
            for item in found.get("features", ()):
                _SPOILERS[fault](item, f"{base}/files/{fault}/{token}")
            answer = json.dumps(found).encode()
        # The API's links must lead back here.
        answer = answer.replace(self._upstream.encode(), f"{base}/{fault}/{token}".encode())
        return Response(answer, status, media_type="application/json")

    async def file(self, request: Request) -> Response:
        """GET or HEAD /files/FAULT/TOKEN/PATH: an asset, with its fault."""
        fault, token, path = (request.path_params[name] for name in ("fault", "token", "path"))
        if fault == "asset-404" or (fault == "item-404" and path.startswith(f"{token}/")):
            return PlainTextResponse("no such object", 404)
        if fault == "asset-500" or (fault == "asset-flaky" and self._refuses(f"{fault}/{token}/{path}")):
            return PlainTextResponse("the store broke", 500 if fault == "asset-500" else 503)
        if fault == "head-refused" and request.method == "HEAD":
            return PlainTextResponse("forbidden", 403)
        if fault == "private" and request.headers.get("Authorization") != f"Bearer s3cr3t-{token}":
            return PlainTextResponse("who are you?", 401)
        source = self._folder / path
        if fault == "asset-truncated":
            # Promises the whole file and hangs up half way: the server sees that bytes are missing and closes.
            size = source.stat().st_size
            headers = {"Content-Length": str(size), "Content-Type": "image/tiff"}
            return Response(b"" if request.method == "HEAD" else source.read_bytes()[: size // 2], headers=headers)
        if fault == "asset-not-tiff":
            return PlainTextResponse("this is no raster " * 1000)
        return FileResponse(source)

    def _refuses(self, key: str) -> bool:
        with self._lock:
            self._seen[key] += 1
            return self._seen[key] <= REFUSALS

    def _ask(self, request: Request, body: bytes) -> tuple[int, bytes]:
        """The real API's status and body for the same request."""
        query = f"?{request.url.query}" if request.url.query else ""
        asked = urllib.request.Request(
            f"{self._upstream}/{request.path_params.get('path', '')}{query}",
            data=body or None,
            headers={"Content-Type": "application/json"},
            method=request.method,
        )
        try:
            with _direct.open(asked) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as answer:
            return answer.code, answer.read()


def _move_assets(item: dict[str, Any], files: str) -> None:
    """Lead every asset to `files`, the address of the faulty store."""
    for asset in item["assets"].values():
        asset["href"] = f"{files}/{'/'.join(asset['href'].split('/')[-2:])}"


def _escape(item: dict[str, Any], _: str) -> None:
    """An id that climbs out of any folder it is made part of."""
    item["id"] = f"../../{item['id']}"


def _local_files(item: dict[str, Any], _: str) -> None:
    """Assets on the reader's own disk."""
    for asset in item["assets"].values():
        asset["href"] = "file:///etc/hostname"


_SPOILERS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "asset-404": _move_assets,
    "item-404": _move_assets,
    "head-refused": _move_assets,
    "private": _move_assets,
    "asset-500": _move_assets,
    "asset-flaky": _move_assets,
    "asset-truncated": _move_assets,
    "asset-not-tiff": _move_assets,
    "escaping-ids": _escape,
    "local-files": _local_files,
}


def main(upstream: str, folder: str, port: str) -> None:
    """Serve on loopback until killed."""
    faulty = FaultyCatalogue(upstream, Path(folder))
    routes = [
        Route("/files/{fault}/{token}/{path:path}", faulty.file, methods=["GET", "HEAD"]),
        Route("/{fault}/{token}", faulty.catalogue, methods=["GET", "POST"]),
        Route("/{fault}/{token}/{path:path}", faulty.catalogue, methods=["GET", "POST"]),
    ]
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=int(port), log_level="critical")


if __name__ == "__main__":
    main(*sys.argv[1:])
