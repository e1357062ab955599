"""A Slurm on loopback, of the system's own daemons: nodes in, a cluster that takes jobs out, and nothing left behind.

Its nodes are this machine under several names, told to have more than it has: recipes ask for what real nodes have.
Whoever runs the tests is its administrator and its user.
"""

from __future__ import annotations

import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rsup.pipeline.demo import servers

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
"""What Debian's packages slurmctld, slurmd, slurm-client and munge bring."""

PATIENCE = 60.0
"""Seconds in which a daemon must answer, and a node be ready."""

OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}
"""States of jobs that have ended."""

CONFIGURATION = """\
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
# What is requeued waits until its first credential has expired: for two minutes, were nothing said.
AuthInfo=socket={folder}/munge.socket,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MinJobAge=3600
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
SchedulerParameters=sched_interval=2,bf_interval=2
NodeName={nodes} NodeAddr=127.0.0.1 NodeHostname=localhost Port={ports} CPUs=64 RealMemory=524288 Gres=gpu:4
PartitionName=usual Nodes=ALL Default=YES PriorityTier=1 GraceTime=120 MaxTime=INFINITE
PartitionName=urgent Nodes=ALL PriorityTier=2 PreemptMode=OFF MaxTime=INFINITE
"""


def lacking() -> list[str]:
    """The programs that this machine lacks."""
    return [program for program in PROGRAMS if shutil.which(program, path=_path()) is None]


def _path() -> str:
    """Where daemons lie as well, which is not on everybody's PATH."""
    return os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


class Slurm:
    """A running cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def run(self, *command: object) -> str:
        """What a client says, such as `run("scontrol", "show", "job", 1)`; raises where it fails."""
        line = list(map(str, command))
        done = subprocess.run(
            line, env=os.environ | self.environment, capture_output=True, text=True, check=False, timeout=PATIENCE
        )
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def submit(self, *arguments: object) -> str:
        """ID of a job that sbatch was given; its script is one of the arguments."""
        return self.run("sbatch", "--parsable", *arguments)

    def states(self, job: str) -> dict[str, str]:
        """State of a job, or of each task of an array, by its ID."""
        shown = self.run("squeue", "--jobs", job, "--states=all", "--array", "--noheader", "--format=%i %T")
        return dict(line.split() for line in shown.splitlines())  # type: ignore[misc]

    def wait(self, job: str, state: str, seconds: float = 300) -> None:
        """Until the job is in that state; any end but that one is an error."""
        self.wait_each(job, {job: state}, seconds)

    def wait_each(self, array: str, wanted: dict[str, str], seconds: float = 300) -> None:
        """Until the tasks of an array, by their IDs, are in those states; any end but that one is an error."""
        until = time.monotonic() + seconds
        while (found := self.states(array)) != wanted:
            failed = [task for task, state in found.items() if state in OVER and state != wanted.get(task)]
            assert time.monotonic() < until and not failed, (found, self.said(array))
            time.sleep(0.2)

    def said(self, job: str = "") -> str:
        """The end of what its daemons have logged, and of what a job has."""
        logs = sorted(self.folder.glob("*.log"))
        if job:
            shown = self.run("scontrol", "show", "job", job).split()
            logs += [Path(word.removeprefix("StdOut=")) for word in shown if word.startswith("StdOut=/")]
        return "\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in logs if log.is_file())


@contextmanager
def cluster(nodes: Sequence[str] = ("node1",)) -> Iterator[Slurm]:
    """Start a cluster of these nodes; on leaving, its jobs are cancelled and its daemons ended."""
    with ExitStack() as running:
        # Not a test's own folder: paths of sockets are short.
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True)))
        slurm = Slurm(folder)
        _configure(folder, nodes)

        def start(name: str, *command: object) -> None:
            log = running.enter_context(open(folder / f"{name}.log", "wb"))
            environment = os.environ | slurm.environment | {"PATH": _path()}
            running.callback(servers.stop, servers.start([*map(str, command)], env=environment, stdout=log, stderr=log))

        munge = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid", "seed-file": "munge.seed"}
        # Forced: what lies below a folder that all may write in is not secure enough for it.
        options = [f"--{option}={folder / file}" for option, file in munge.items()]
        start("munged", "munged", "--foreground", "--force", *options)
        _wait(slurm, (folder / "munge.socket").exists)
        start("slurmctld", "slurmctld", "-D")
        _wait(slurm, lambda: subprocess.run(["scontrol", "ping"], env=os.environ | slurm.environment,
                                            capture_output=True, check=False).returncode == 0)  # fmt: skip
        for node in nodes:
            start(f"slurmd-{node}", "slurmd", "-D", "-N", node)
        running.callback(_cancel_all, slurm)
        _wait(slurm, lambda: slurm.run("sinfo", "--noheader", "--format=%t", "--partition=usual") == "idle")
        yield slurm


def _configure(folder: Path, nodes: Sequence[str]) -> None:
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(secrets.token_bytes(128))
    for name in ("state", *(f"spool-{node}" for node in nodes)):
        (folder / name).mkdir(0o700)
    control, *ports = _free_ports(1 + len(nodes))
    said = CONFIGURATION.format(
        folder=folder,
        port=control,
        user=getpass.getuser(),
        nodes=",".join(nodes),
        ports=",".join(map(str, ports)),
    )
    (folder / "slurm.conf").write_text(said)
    # Any device will do where nothing opens it: jobs are told which of four they have.
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null,/dev/zero,/dev/full,/dev/random\n")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def _wait(slurm: Slurm, ready: object) -> None:
    assert callable(ready)
    until = time.monotonic() + PATIENCE
    while not ready():
        assert time.monotonic() < until, slurm.said()
        time.sleep(0.1)


def _cancel_all(slurm: Slurm) -> None:
    """Cancel every job, and wait until nothing of any runs: daemons that end leave jobs running."""
    slurm.run("scancel", "--user", getpass.getuser())
    until = time.monotonic() + PATIENCE
    while slurm.run("squeue", "--noheader") and time.monotonic() < until:
        time.sleep(0.2)
