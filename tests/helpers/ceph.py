"""A Ceph with its S3 gateway on loopback, of Debian's own daemons: a second server than moto's, by other people.

One monitor, one store in memory, one gateway. Nothing outlives the block; what it writes lies in a folder of its own.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from buckets import KEY, SECRET

from rsup.pipeline.demo import servers

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph")
"""What Debian's packages radosgw, ceph-mon, ceph-osd and ceph-common bring."""
PATIENCE = 120.0
"""Seconds in which a daemon must answer."""

CONFIGURATION = """\
[global]
fsid = {identity}
mon host = {monitor}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
run dir = {folder}
admin socket = {folder}/$name.asok
log file = {folder}/$name.log
pid file = {folder}/$name.pid
crash dir = {folder}
keyring = {folder}/keyring
mon data = {folder}/mon
osd data = {folder}/osd
osd journal = {folder}/journal
osd objectstore = memstore
memstore device bytes = 2147483648
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon data avail crit = 1
rgw frontends = beast endpoint=127.0.0.1:{gateway}
rgw data = {folder}/rgw
"""


def lacking() -> list[str]:
    """The programs that this machine lacks."""
    return [program for program in PROGRAMS if shutil.which(program) is None]


@contextmanager
def gateway() -> Iterator[str]:
    """Start it; the address of a server that knows the tests' credentials."""
    with ExitStack() as running:
        # Not a test's own folder: paths of sockets are short.
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="ceph-", ignore_cleanup_errors=True)))
        environment = os.environ | {"CEPH_CONF": str(folder / "ceph.conf")}

        def run(*command: object) -> None:
            line = list(map(str, command))
            done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=PATIENCE)
            assert done.returncode == 0, f"{line}: {done.stderr}"

        def start(*command: str) -> None:
            log = running.enter_context(open(folder / f"{command[0]}.out", "wb"))
            process = servers.start([*command], cwd=folder, env=environment, stdout=log, stderr=log)
            running.callback(servers.stop, process)

        first, second, port = _free_ports(3)
        monitor, identity = f"[v2:127.0.0.1:{first},v1:127.0.0.1:{second}]", uuid.uuid4()
        said = CONFIGURATION.format(folder=folder, monitor=monitor, identity=identity, gateway=port)
        (folder / "ceph.conf").write_text(said)
        for name in ("mon", "osd", "rgw"):
            (folder / name).mkdir()
        everything = ("--cap", "mon", "allow *", "--cap", "osd", "allow *")
        run("ceph-authtool", "--create-keyring", "keyring", "--gen-key", "--name=mon.", "--cap", "mon", "allow *")
        for name in ("client.admin", "osd.0"):
            run("ceph-authtool", "keyring", "--gen-key", f"--name={name}", *everything)
        run("monmaptool", "--create", "--fsid", identity, "--addv", "a", monitor, "monmap")
        run("ceph-mon", "--mkfs", "--id=a", "--monmap=monmap", "--keyring=keyring")
        start("ceph-mon", "-f", "--id=a")
        run("ceph", "osd", "create")
        run("ceph", "auth", "import", "-i", "keyring")
        shutil.copy(folder / "keyring", folder / "osd" / "keyring")
        run("ceph-osd", "--mkfs", "--id=0")
        start("ceph-osd", "-f", "--id=0")
        start("radosgw", "-f", "--name=client.admin")
        run("radosgw-admin", "user", "create", "--uid=tests", "--display-name=tests", f"--access-key={KEY}",
            f"--secret={SECRET}")  # fmt: skip
        address = f"http://127.0.0.1:{port}"
        _wait(address)
        yield address


def _wait(address: str) -> None:
    direct, until = urllib.request.build_opener(urllib.request.ProxyHandler({})), time.monotonic() + PATIENCE
    while True:
        try:
            direct.open(address, timeout=5).close()
            return
        except urllib.error.HTTPError:  # an answer, whatever it says
            return
        except OSError:
            assert time.monotonic() < until, f"{address} does not answer"
            time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]
