"""Serves the map on loopback for as long as nobody says stop."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn

from rsup.models.base.errors import ArgumentError, remedy
from rsup.pipeline.scenes.opening import open_scene

from .app import view_app
from .find import Found, find
from .mosaic import Mosaic

HOST = "127.0.0.1"
GRACE = 2
"""Seconds that answers under way may take when the server is told to stop."""


def view(path: Path, scene: Path | None, port: int, announce: Callable[[dict[str, Any]], None]) -> None:
    """Serve the mosaics that `path` means until Ctrl-C or SIGTERM; `announce` is told the address once it answers.

    `port` 0 takes any that is free. Raises ArgumentError and SceneError for what cannot be shown or served.
    """
    found = find(path)
    if scene is not None and len(found) > 1:
        raise ArgumentError(f"--scene is the scene of one mosaic, and {path} has {len(found)}: name one of them")
    known = None if scene is None else open_scene(scene)
    first = Mosaic.open(found[0], known)  # what is wrong with it is said here, not in the browser
    with _listen(port) as listener:
        config = uvicorn.Config(
            view_app(found, known), log_level="error", access_log=False, server_header=False, lifespan="off",
            timeout_graceful_shutdown=GRACE,
        )  # fmt: skip
        server = uvicorn.Server(config)
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):  # for this command, to stop is to have ended well
            signal.signal(number, lambda *_: stop.set())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            announce(_about(found, first) | {"address": f"http://{HOST}:{listener.getsockname()[1]}/"})
            while thread.is_alive() and not stop.wait(0.5):
                pass
        finally:
            server.should_exit = True
            thread.join()


def _about(found: list[Found], first: Mosaic) -> dict[str, Any]:
    """What is shown: a mosaic and its scene, or how many mosaics."""
    if len(found) > 1:
        return {"mosaics": len(found)}
    return {"mosaic": found[0].item.id, "scene": "not at hand" if first.scene is None else str(first.scene.path)}


def _listen(port: int) -> socket.socket:
    """A socket of loopback that takes connections. Raises ArgumentError where the port is not to be had."""
    if not 0 <= port <= 65535:
        raise ArgumentError(f"--port {port}: choose 1 to 65535, or leave it out")
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen()
    except OSError as error:
        listener.close()
        helps = remedy(error) or "choose another, or leave it out"
        raise ArgumentError(f"--port {port} cannot be had ({error.strerror or error}): {helps}") from error
    return listener
