"""`rsup` and its workers in processes of their own, without the seconds of imports: they fork from what has them.

One server a test session. What depends on how a process begins (its environment, its limits, signals in its first
moments, who its parent is) is tested with `python -m rsup.pipeline.cli` instead.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path
from signal import SIG_BLOCK, SIG_UNBLOCK, SIGINT, SIGKILL, default_int_handler, pthread_sigmask, signal
from typing import Any

HEAVY = ["rsup.pipeline.workers.model", "rsup.pipeline.mosaics.chunk", "rsup.models.networks.compact"]
"""What workers have when they are forked: what rsup sees to itself, and the usual student."""

COMMAND = "import rsup.pipeline.cli as cli, sys; sys.modules['__main__'] = cli; sys.argv[0] = cli.__file__; cli.main()"
"""What a process does that is told nothing else."""

Rsup = Callable[..., "subprocess.CompletedProcess[str]"]
"""The fixture `rsup`."""

_NUMBER = 4
"""Bytes of a length, a process ID or an exit code."""


class Forks:
    """The server, as those see it who ask it."""

    server: subprocess.Popen[bytes] | None = None

    def __init__(self, address: str) -> None:
        self.address = address

    @classmethod
    def start(cls) -> Forks:
        """Start a server, which ends with this process, or with `close`. Who asks waits until it has imported all."""
        forks = cls(str(Path(tempfile.mkdtemp(prefix="forks-")) / "socket"))
        command = [sys.executable, "-P", __file__, forks.address]
        forks.server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert forks.server.stdout is not None
        assert forks.server.stdout.readline() == b"listening\n"
        return forks

    def close(self) -> None:
        """End the server, if it was started here."""
        if self.server is not None:
            self.server.communicate()
            with suppress(FileNotFoundError):
                os.unlink(self.address)
            os.rmdir(os.path.dirname(self.address))

    def begin(self, arguments: Sequence[object], code: str = COMMAND) -> Forked:
        """Run `code` with these arguments after the program's name, in this folder and environment."""
        return Forked(self._connect(), list(map(str, arguments)), code)

    def lend_workers(self) -> None:
        """Let clusters of this process fork their workers from the server's as well, from the first one on."""
        ours = forkserver._forkserver  # type: ignore[attr-defined]

        def adopt() -> None:
            if ours._forkserver_address is None:
                with self._connect() as asked:
                    _say(asked, None)
                    place, (alive,), _, _ = socket.recv_fds(asked, 1024, 1)
                    ours._forkserver_address, ours._forkserver_alive_fd = place.decode(), alive

        ours.ensure_running = adopt

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.address)
        return connection


class Forked:
    """A process that was forked: what subprocess.Popen is, with captured text."""

    returncode: int | None

    def __init__(self, connection: socket.socket, arguments: list[str], code: str) -> None:
        self.args, self.returncode = arguments, None
        self._connection = connection
        self._streams = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
        _say(connection, {"argv": arguments, "code": code, "cwd": os.getcwd(), "environ": dict(os.environ)})
        socket.send_fds(connection, [b"."], [stream.fileno() for stream in self._streams])
        self.pid = _number(connection)

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.returncode = _number(self._connection)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Only to a process that runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """kill -9."""
        self.send_signal(SIGKILL)

    def end(self, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        """Wait for its end; it is killed where that does not come."""
        self._connection.settimeout(timeout)
        try:
            code = _number(self._connection) if self.returncode is None else self.returncode
        except TimeoutError:
            self.kill()
            raise subprocess.TimeoutExpired(self.args, timeout) from None
        finally:
            self._connection.close()
        self.returncode = code
        said = []
        for stream in self._streams:
            stream.seek(0)
            said.append(stream.read())
            stream.close()
        return subprocess.CompletedProcess(self.args, code, *said)


def _say(connection: socket.socket, what: Any) -> None:
    data = json.dumps(what).encode()
    connection.sendall(len(data).to_bytes(_NUMBER, "big") + data)


def _number(connection: socket.socket) -> int:
    return int.from_bytes(_exactly(connection, _NUMBER), "big", signed=True)


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError("the other side has gone")
        data += part
    return data


def _serve(listener: socket.socket) -> dict[str, Any]:
    """Answer until standard input ends. Returns in each command's own process, with what was asked."""
    while True:
        ready, _, _ = select.select([0, listener], [], [])
        if 0 in ready:
            os._exit(0)
        connection, _ = listener.accept()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if os.fork() == 0:
            listener.close()
            return _begin(connection)
        connection.close()


def _begin(connection: socket.socket) -> dict[str, Any]:
    """In a process that waits for the command's end and tells it; returns in the command's."""
    asked: dict[str, Any] | None = json.loads(_exactly(connection, _number(connection)))
    if asked is None:
        workers = forkserver._forkserver  # type: ignore[attr-defined]
        socket.send_fds(connection, [workers._forkserver_address.encode()], [workers._forkserver_alive_fd])
        os._exit(0)
    _, streams, _, _ = socket.recv_fds(connection, 1, 2)
    pid = os.fork()
    if pid:
        connection.sendall(pid.to_bytes(_NUMBER, "big", signed=True))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with suppress(OSError):  # nobody waits any more
            connection.sendall(code.to_bytes(_NUMBER, "big", signed=True))
        os._exit(0)
    connection.close()
    signal(SIGINT, default_int_handler)  # rsup's own module has changed it for this process as well
    null = os.open(os.devnull, os.O_RDONLY)
    for number, descriptor in enumerate([null, *streams]):
        os.dup2(descriptor, number)
        os.close(descriptor)
    return asked


def _start_workers_server() -> None:
    """The one that all workers fork from, and not one for each command."""
    forkserver.set_forkserver_preload(HEAVY)
    pthread_sigmask(SIG_BLOCK, {SIGINT})  # as rsup starts its own
    forkserver.ensure_running()
    pthread_sigmask(SIG_UNBLOCK, {SIGINT})
    server = forkserver._forkserver  # type: ignore[attr-defined]
    server.ensure_running, server._forkserver_pid = lambda: None, None  # it is no child of a command


def main() -> None:
    """The server; and in the processes that it forks, the command."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen(100)
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    os.environ |= {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}  # as rsup starts workers
    _start_workers_server()
    import rsup.models.evaluate
    import rsup.models.train
    import rsup.pipeline.cli.app
    import rsup.pipeline.jobs.fetch
    import rsup.pipeline.jobs.upscale  # noqa: F401

    gc.collect()
    gc.freeze()  # else each command would copy what its collector looks at
    asked = _serve(listener)
    sys.argv = ["rsup", *asked["argv"]]
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ |= asked["environ"]
    code: object = 0
    try:
        exec(asked["code"], {"__name__": "__main__"})
    except SystemExit as error:
        code = error.code
    # What the interpreter does in the end, but for taking thousands of modules apart.
    sys.stdout.flush()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    os._exit(code if isinstance(code, int) else code is not None)


if __name__ == "__main__":
    main()
