"""Headless Chromium on pages of loopback, and the JavaScript readers of tests/readers; tests skip without either."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import pytest
from places import ROOT

READERS = ROOT / "tests" / "readers"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def readers() -> Path:
    """The folder with npm's packages in it, installed once."""
    npm = shutil.which("npm")
    if not (READERS / "node_modules" / "ol").exists():
        if npm is None:
            pytest.skip("npm is not installed")
        asked = [npm, "install", "--no-audit", "--no-fund"]
        if subprocess.run(asked, cwd=READERS, capture_output=True, timeout=280).returncode:
            pytest.skip("npm cannot install the readers here")
    return READERS


def bundle(script: str, out: Path) -> None:
    """One script of tests/readers with all that it imports, as one file."""
    esbuild = readers() / "node_modules" / ".bin" / "esbuild"
    asked = [esbuild, script, "--bundle", "--minify", "--format=esm", f"--outfile={out}"]
    subprocess.run(asked, cwd=READERS, check=True, capture_output=True, timeout=60)


def told(folder: Path, page: str, profile: Path) -> Any:
    """What a page of the folder, opened in Chromium, posts to its own server as JSON; fails after 150 s without it."""
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    said: Queue[bytes] = Queue()

    class Handler(SimpleHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802 # the base class asks for it by that name
            said.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: tests have their own."""

    asked = [
        CHROMIUM, "--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
        "--window-size=800,900", f"--user-data-dir={profile}", "--remote-debugging-port=0",
    ]  # fmt: skip
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        quiet = subprocess.DEVNULL
        address = f"http://127.0.0.1:{server.server_port}/{page}"
        browser = subprocess.Popen([*asked, address], stdout=quiet, stderr=quiet, start_new_session=True)
        try:
            return json.loads(said.get(timeout=150))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()
            server.shutdown()
