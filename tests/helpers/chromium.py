"""A page in headless Chromium, driven by DevTools' protocol: what it runs, asks for, complains of and looks like."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest
from browsers import CHROMIUM
from tornado.websocket import WebSocketClientConnection, websocket_connect

KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9, "+": 187}


class Page:
    """A tab of a browser of its own; a context manager. Tests are skipped without Chromium."""

    def __init__(self, profile: Path, size: tuple[int, int] = (1280, 800)) -> None:
        if CHROMIUM is None:
            pytest.skip("Chromium is not installed")
        self.asked: list[str] = []
        """Addresses of every request."""
        self.answered: set[tuple[str, int]] = set()
        """Addresses with the statuses of their answers."""
        self.complaints: list[str] = []
        """Errors, refusals of the policy, exceptions nobody caught."""
        command = [
            CHROMIUM, "--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
            f"--window-size={size[0]},{size[1]}", f"--user-data-dir={profile}", "--remote-debugging-port=0",
            "--hide-scrollbars", "about:blank",
        ]  # fmt: skip
        quiet = subprocess.DEVNULL
        self._browser = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)
        self._loop = asyncio.new_event_loop()
        self._count = 0
        try:
            self._socket = self._loop.run_until_complete(self._connected(profile))
            self("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False)
            for domain in ("Page", "Runtime", "Network", "Log"):
                self(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._browser.pid, signal.SIGKILL)
        self._browser.wait()
        self._loop.close()

    async def _connected(self, profile: Path) -> WebSocketClientConnection:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with suppress(OSError, StopIteration, IndexError):
                port = (profile / "DevToolsActivePort").read_text().split()[0]
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=5) as answer:
                    tab = next(tab for tab in json.load(answer) if tab["type"] == "page")
                return await websocket_connect(tab["webSocketDebuggerUrl"], max_message_size=2**28)
            await asyncio.sleep(0.1)
        raise TimeoutError("Chromium did not start")

    def __call__(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; events that come meanwhile are kept."""
        return self._loop.run_until_complete(asyncio.wait_for(self._call(method, parameters), 120))

    async def _call(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        number = self._count
        await self._socket.write_message(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            text = await self._socket.read_message()
            assert text is not None, "Chromium ended"
            said = json.loads(text)
            if said.get("id") == number:
                assert "error" not in said, said
                return dict(said["result"])
            self._heard(said.get("method"), said.get("params", {}))

    def _heard(self, event: str | None, about: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.asked.append(about["request"]["url"])
        elif event == "Network.responseReceived":
            self.answered.add((about["response"]["url"], about["response"]["status"]))
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(about["exceptionDetails"])[:500])
        elif event == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.complaints.append(about["entry"]["text"])
        elif event == "Runtime.consoleAPICalled" and about["type"] in ("error", "assert"):
            self.complaints.append(json.dumps(about["args"])[:500])

    def open(self, address: str) -> None:
        self("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """The value of an expression, awaited; fails where it throws."""
        said = self("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    def wait(self, script: str, seconds: float = 60) -> Any:
        """The value of an expression as soon as it is true."""
        until = time.monotonic() + seconds
        while not (found := self.run(script)):
            assert time.monotonic() < until, (script, self.complaints)
            time.sleep(0.1)
        return found

    def mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        """mousePressed, mouseMoved or mouseReleased at a place of the page."""
        self("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def press(self, key: str) -> None:
        about = {"key": key, "windowsVirtualKeyCode": KEYS[key], "code": "Equal" if key == "+" else key}
        self("Input.dispatchKeyEvent", type="keyDown", **about)
        self("Input.dispatchKeyEvent", type="keyUp", **about)

    def picture(self) -> bytes:
        """What it looks like, as PNG."""
        return base64.b64decode(self("Page.captureScreenshot", format="png")["data"])
